"""Calls of EC2's API for workers that are started all at once, serve one build each, and are terminated; against Buildbot's.

    python -m benchmarks.ec2_calls --workers 100 --peer buildbot --peer-workers 10

EC2 is the test cloud (`latent.testing.ec2`) on loopback: it counts what clients send, retries included. The controller is a real
one, and so are the agents: each instance's user data are run as processes. Prints one JSON object:

    latent, buildbot    of each:
      workers             how many were started at once
      calls               all API calls from the first submission until the last instance was terminated
      calls_per_worker    calls / workers
      by_kind             calls by action
      seconds             how long that took
    most_together       (latent) instances that were up at the same time
    starts_per_attempt  (latent) the most instances that one attempt has had; 1, or the run fails
    throttled           (latent) calls that were refused for being too many (with --throttle)
    ratio               Buildbot's calls per worker / latent's

With ``--throttle RATE`` the cloud refuses what exceeds that many calls a second (after a burst of one), and every worker is asked
for something of its own (a tag), so that each needs a RunInstances of its own; builds must not notice.

An instance is pending for 10 seconds and takes 10 to end, unless told otherwise. What is asked when the controllers start (each
looks at what there is, Buildbot at the key and group of every worker) is not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from benchmarks.buildbot_peer import drive
from latent.testing.ec2 import Call, Cloud, Hypervisor
from tests.ec2.site import Ec2Site, Expression

STOCK = """
import os, tempfile
from twisted.application import service
from buildbot_worker.bot import Worker

application = service.Application("buildbot-worker")
told = os.environ
where = told["BUILDMASTER"], int(told["BUILDMASTER_PORT"]), told["WORKERNAME"], told["WORKERPASS"]
Worker(*where, tempfile.mkdtemp(), keepalive=600).setServiceParent(application)
"""


def submit(site: Ec2Site, count: int, command: str) -> list[int]:
    """A build for each worker, asked for over one connection."""
    state = site.directory / "state"
    headers = {"Authorization": f"Bearer {(state / 'token').read_text().strip()}"}
    transport = httpx.HTTPTransport(uds=json.loads((state / "api.json").read_text())["socket"])
    with httpx.Client(transport=transport, base_url="http://latent/api/v1", headers=headers, timeout=60) as client:
        bodies = [
            {"command": command, "labels": {"worker": f"ec2-{n}"}, "properties": {"number": str(n)}} for n in range(1, count + 1)
        ]
        return [int(client.post("/builds", json=body).raise_for_status().json()["id"]) for body in bodies]


def counted(calls: list[Call], workers: int, began: float, ended: float) -> dict[str, Any]:
    meant = [call for call in calls if began <= call.at <= ended]
    return {
        "workers": workers,
        "calls": len(meant),
        "calls_per_worker": round(len(meant) / workers, 3),
        "by_kind": dict(Counter(call.action for call in meant).most_common()),
        "seconds": round(ended - began, 1),
    }


def latent(cloud: Cloud, workers: int, throttle: float | None, directory: Path) -> dict[str, Any]:
    """All at once: the builds wait for workers that are declared then, and none ends before all agents are attached."""
    directory.mkdir()
    own = {"tags": Expression('{"wanted-by": util.Interpolate("%(prop:number)s")}')} if throttle else {}
    go, site = directory / "go", Ec2Site(directory, cloud, count=workers, quick=False, **own)
    declared = site.config
    site.configure("c['workers'] = [worker.Worker('none', 'secret')]")
    try:
        site.latent("start")
        asked = submit(site, workers, f"while [ ! -e {go} ]; do sleep 1; done")
        if throttle:
            cloud.throttle(throttle)
        site.configure(declared)
        began = time.time()
        site.latent("reconfig")
        patient(site, "all builds to run", lambda: sum(b["state"] == "running" for b in site.builds().values()) == workers)
        most = sum(one.state == "running" for one in cloud.instances())
        go.touch()
        patient(site, "the builds", lambda: all(b["state"] == "finished" for b in site.builds().values()))
        at_rest = "NOT_SUBSTANTIATED"
        patient(site, "the workers to rest", lambda: all(worker["state"] == at_rest for worker in site.workers()))
        patient(site, "the instances to end", lambda: not site.up())
        ended = time.time()
        builds = site.builds()
        if {builds[n]["result"] for n in asked} != {"success"}:
            raise RuntimeError(f"not all builds succeeded: {Counter(builds[n]['result'] for n in asked)}")
        runs = [run for n in asked for run in site.build(n)["runs"]]
        if len(runs) != workers or any(run["error_msg"] for run in runs):
            raise RuntimeError(f"{workers} builds needed {len(runs)} runs: {[r['error_msg'] for r in runs if r['error_msg']]}")
        starts = site.starts()
        if len(starts) != workers or set(starts.values()) != {1}:
            raise RuntimeError(f"{workers} attempts have had these instances: {dict(starts)}")
        log = cloud.log
        throttled = sum(call.error == "RequestLimitExceeded" for call in log)
        return {
            **counted(log, workers, began, ended),
            "most_together": most,
            "starts_per_attempt": max(starts.values()),
            "throttled": throttled,
        }
    finally:
        site.end()
        cloud.heal()


def patient(site: Ec2Site, what: str, ready: Any) -> None:
    """A hundred agents take their time on a small machine."""
    for tries in range(10):
        try:
            site.wait(what, ready)
            return
        except AssertionError:
            if tries == 9:
                raise


def buildbot(cloud: Cloud, workers: int, directory: Path) -> dict[str, Any]:
    from benchmarks.buildbot_peer import environment

    tac, settings = directory / "buildbot.tac", directory / "buildbot.json"
    tac.write_text(STOCK)
    twistd = environment().with_name("twistd")
    subnet = cloud.subnets[min(cloud.subnets)]
    wanted = {
        "environment": cloud.environment,
        "region": cloud.region,
        "image": cloud.image,
        "key_name": cloud.key_name,
        "subnet": subnet,
        "workers": workers,
        "agent": f"{twistd} --nodaemon --pidfile= --python={tac}",
    }
    settings.write_text(json.dumps(wanted))
    times = drive("buildbot_ec2_driver.py", str(settings), timeout=300 + 10 * workers)
    return counted(cloud.log, workers, times["began"], times["ended"])


def measure(workers: int, peer_workers: int | None, throttle: float | None, pending: float, ending: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="latent-ec2-calls-") as name:
        directory = Path(name)
        with Cloud(hypervisor=Hypervisor(), pending=pending, ending=ending) as cloud:
            ours = latent(cloud, workers, throttle, directory / "latent")
        if peer_workers is None:
            return {"latent": ours}
        with Cloud(hypervisor=Hypervisor(), pending=pending, ending=ending) as cloud:
            theirs = buildbot(cloud, peer_workers, directory)
    return {"latent": ours, "buildbot": theirs, "ratio": round(theirs["calls_per_worker"] / ours["calls_per_worker"], 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description="EC2 API calls of workers started all at once, against Buildbot's worker.")
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--peer", choices=["buildbot"], help="Buildbot's EC2 worker, too (installed at first use)")
    parser.add_argument("--peer-workers", type=int, default=10)
    parser.add_argument("--throttle", type=float, metavar="RATE", help="calls a second above which the cloud refuses")
    parser.add_argument("--pending", type=float, default=10, metavar="SECONDS")
    parser.add_argument("--ending", type=float, default=10, metavar="SECONDS")
    options = parser.parse_args()
    peers = options.peer_workers if options.peer else None
    print(json.dumps(measure(options.workers, peers, options.throttle, options.pending, options.ending), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
