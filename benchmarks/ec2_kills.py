"""`kill -9` of a controller with EC2 workers at random moments, many times, and what is left of it all: a ledger.

    python -m benchmarks.ec2_kills --kills 200 --seed 4

The controller is a real one at the test cloud (`latent.testing.ec2`), whose calls of RunInstances and TerminateInstances take
0.6 seconds. Every other kill is at some moment of the 0.8 seconds after the next such call has come, the others at any moment.
Instances serve one build each, so that some are always being started and ended. After each kill the controller is started again.
At the end all builds are waited for, and the controller is stopped. Prints one JSON object, and exits with 0 if it is as it has
to be:

    kills                 how many; in_start, in_stop: of these, how many while RunInstances or TerminateInstances was unanswered
    builds                how many were asked for
    results               their results; all have to be "success"
    runs                  how often their command was begun: more than builds where an instance was lost with its controller
    instances             how many the attempts had in all; terminated, leaked: what became of them (leaked has to be 0)
    attempts              how many had one
    starts_per_attempt    the most instances that one attempt had; has to be 1
    still_condemned       lines of `latent health` about instances that could not be ended
    seconds               how long it took
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from latent.testing.ec2 import Cloud, Hypervisor
from tests.ec2.site import Ec2Site

WORKERS = 4
SLOW = ("RunInstances", "TerminateInstances")
"""Calls that take a while, before they have their effect and after it."""


def kill_often(cloud: Cloud, directory: Path, kills: int, seed: int) -> dict[str, Any]:
    chance, began = random.Random(seed), time.time()
    command = f'util.Interpolate("echo $$ >> {directory}/ran; sleep %(prop:nap)s")'
    more = f'c["builders"] = [util.Builder("nap", [{command}], max_attempts=50)]\nc["limits"] = {{"session_timeout": 20}}\n'
    site = Ec2Site(directory, cloud, count=WORKERS, more=more)
    for action in SLOW:
        cloud.delay(action, 0.3, when="before")
        cloud.delay(action, 0.3, when="after")
    asked = 0
    hit: Counter[str] = Counter()
    try:
        site.latent("start")
        for _ in range(kills):
            waiting = sum(build["state"] != "finished" for build in site.builds().values())
            for _ in range(max(0, 2 * WORKERS - waiting)):
                properties = {"nap": chance.choice((0, 0, 0.2))}
                asked = int(site.call("POST", "builds", builder="nap", properties=properties)["id"])
            wait_for_moment(cloud, chance)
            pid = site.controller_pid()
            os.kill(pid, signal.SIGKILL)
            hit.update({call.action for call in cloud.log if not call.status and call.action in SLOW})
            site.wait_gone(pid)
            cloud.forget_calls()
            site.latent("start")
        patiently(site, "all builds to end", lambda: all(b["state"] == "finished" for b in site.builds().values()))
        patiently(site, "all instances to go", lambda: not site.up())
        results = Counter(build["result"] for build in site.builds().values())
        health = site.run("health").stdout
        site.latent("stop")
    finally:
        site.end()
    seen = cloud.instances()
    starts = site.starts()
    return {
        "kills": kills,
        "seed": seed,
        "in_start": hit["RunInstances"],
        "in_stop": hit["TerminateInstances"],
        "builds": asked,
        "results": dict(results),
        "runs": len((directory / "ran").read_text().splitlines()),
        "instances": len(seen),
        "terminated": sum(one.state == "terminated" for one in seen),
        "leaked": sum(one.is_up or one.running or one.state == "stopped" for one in seen),
        "attempts": len(starts),
        "starts_per_attempt": max(starts.values(), default=0),
        "still_condemned": health.count("condemned"),
        "seconds": round(time.time() - began, 1),
    }


def wait_for_moment(cloud: Cloud, chance: random.Random) -> None:
    """Any moment; every other time, one while EC2 is being asked to start or end an instance, or soon after."""
    at_a_call, pause = chance.random() < 0.5, chance.random()
    until = time.monotonic() + 5
    known = sum(cloud.calls[action] for action in SLOW)
    while at_a_call and sum(cloud.calls[action] for action in SLOW) == known and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(pause * (0.8 if at_a_call else 2.5))


def patiently(site: Ec2Site, what: str, ready: Any) -> None:
    """Workers that were blamed come back later than a test waits."""
    for tries in range(5):
        try:
            site.wait(what, ready)
            return
        except AssertionError:
            if tries == 4:
                raise


def faultless(ledger: dict[str, Any]) -> bool:
    return bool(
        ledger["results"] == {"success": ledger["builds"]}
        and ledger["leaked"] == 0
        and ledger["instances"] == ledger["terminated"]
        and ledger["starts_per_attempt"] == 1
    )


def measure(kills: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="latent-ec2-kills-") as directory, Cloud(hypervisor=Hypervisor()) as cloud:
        return kill_often(cloud, Path(directory), kills, seed)


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill a controller with EC2 workers at random, and count what is left.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=4)
    options = parser.parse_args()
    ledger = measure(options.kills, options.seed)
    print(json.dumps(ledger, indent=2))
    return 0 if faultless(ledger) else 1


if __name__ == "__main__":
    sys.exit(main())
