"""Substantiating containers all at once: against `docker run` of the same from the shell, and against Buildbot's Docker worker.

    python -m benchmarks.docker_start --containers 20 --rounds 3 --peer buildbot

Needs root and Docker's packages (scripts/install_real_parts.sh); the daemon is this benchmark's own, and one for all. Prints one
JSON object:

    containers                      how many at once
    latent, docker_run              `latent-agent` in the containers: started by latent, and from the shell
    latent_pb, buildbot             `buildbot-worker` in them, over PB: started by latent, and by Buildbot's Docker worker
    of each, the medians over the rounds, in seconds:
      started             until the last container was started (`docker run --detach` has returned, start_instance answered)
      attached            until the last agent was attached to its controller
    ratio_started, ratio_attached                       latent / docker_run; at most 2 is wanted
    ratio_buildbot_started, ratio_buildbot_attached     latent_pb / buildbot

In each pair the containers are the same: the same image, the same mounts, the same agent. Only who starts them differs. latent
and Buildbot also run a build in each; latent journals each step, on disk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.buildbot_peer import drive
from tests.docker.engine import AGENT, BASE, PYTHON, VOLUMES, Engine, running
from tests.e2e.site import Site

CONFIG = """
c["limits"] = {{"session_timeout": 20}}
c["protocols"] = {{"pb": {{"port": 0}}}}
HOST = {host!r}
c["workers"] = [
    worker.DockerLatentWorker(
        "docker-{{n}}", None, HOST, {image!r}, count={count}, command={command!r}, volumes={volumes!r},
        hostconfig={{"network_mode": "host"}}, build_wait_timeout=15,
    ),
    worker.DockerLatentWorker(
        "pb-{{n}}", None, HOST, {image!r}, count={count}, command={stock!r}, volumes={volumes!r},
        hostconfig={{"network_mode": "host"}}, build_wait_timeout=15,
    ),
    *[worker.Worker(f"shell-{{n}}", f"secret-{{n}}") for n in range(1, {count} + 1)],
]
"""


STOCK = """
import os, tempfile
from twisted.application import service
from buildbot_worker.bot import Worker

application = service.Application("buildbot-worker")
told = os.environ
where = told["BUILDMASTER"], int(told["BUILDMASTER_PORT"]), told["WORKERNAME"], told["WORKERPASS"]
Worker(*where, tempfile.mkdtemp(), keepalive=600).setServiceParent(application)
"""


def latent(site: Site, count: int, kind: str = "docker") -> tuple[float, float]:
    """(started, attached) in seconds, by the journal's times: from the first event of the first worker."""
    numbers = submit(site, count, kind)
    site.wait_for_all()
    runs = [run for number in numbers for run in site.build(number)["runs"]]
    if len(runs) != count:
        raise RuntimeError(f"{count} builds needed {len(runs)} runs")
    first: dict[str, list[float]] = {"Substantiate": [], "Started": [], "Attached": []}
    for run in runs:
        entries = site.call("GET", f"workers/{run['worker']}/history?limit=100")["entries"]
        for event, times in first.items():
            times.append(min(e["at"] for e in entries if (e["event"], e["attempt"]) == (event, run["attempt"])))
    began = min(first["Substantiate"])
    return max(first["Started"]) - began, max(first["Attached"]) - began


def submit(site: Site, count: int, kind: str) -> list[int]:
    """A build for each worker, asked for over one connection: it is not the asking that is measured."""
    state = site.directory / "state"
    headers = {"Authorization": f"Bearer {(state / 'token').read_text().strip()}"}
    transport = httpx.HTTPTransport(uds=json.loads((state / "api.json").read_text())["socket"])
    with httpx.Client(transport=transport, base_url="http://latent/api/v1", headers=headers, timeout=60) as client:
        bodies = [{"command": "true", "labels": {"worker": f"{kind}-{n}"}} for n in range(1, count + 1)]
        return [int(client.post("/builds", json=body).raise_for_status().json()["id"]) for body in bodies]


def docker_run(engine: Engine, site: Site, count: int, shared: list[str]) -> tuple[float, float]:
    """The same from the shell."""
    server = f"127.0.0.1:{port_of(site)}"
    volumes = [word for volume in shared for word in ("--volume", volume)]
    began = time.time()
    running = [
        subprocess.Popen(
            [
                *("docker", "--host", engine.url, "run", "--detach", "--network", "host", *volumes),
                *("--env", f"LATENT_SERVER={server}", "--env", f"LATENT_TOKEN=secret-{n}", "--env", f"LATENT_WORKER=shell-{n}"),
                *("--env", "GRPC_ENABLE_FORK_SUPPORT=0", BASE, *AGENT),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(1, count + 1)
    ]
    ids = [process.communicate()[0].strip() for process in running]
    started = time.time() - began
    if any(process.returncode for process in running):
        raise RuntimeError("docker run failed")

    def attached() -> bool:
        workers = site.workers()
        return sum(1 for w in workers if w["name"].startswith("shell-") and w["session"]) == count

    site.wait("the agents to attach", attached)
    done = time.time() - began
    client = engine.client()
    for container in ids:
        client.kill(container, "TERM")
    for container in ids:
        client.wait(container)
        client.remove_container(container, v=True)
    site.wait("the agents to leave", lambda: not any(w["session"] for w in site.workers()))
    return started, done


def rest(site: Site) -> None:
    site.wait("the containers to go", lambda: all(w["state"] == "NOT_SUBSTANTIATED" for w in site.workers() if w["latent"]))


def port_of(site: Site) -> int:
    return int((site.directory / "state" / "peer.port").read_text())


def buildbot(engine: Engine, stock: list[str], shared: list[str], count: int, directory: Path) -> tuple[float, float]:
    """The same with Buildbot's Docker worker, on the same daemon."""
    settings = directory / "buildbot.json"
    wanted = {"host": engine.url, "image": BASE, "command": stock, "volumes": shared, "containers": count}
    settings.write_text(json.dumps(wanted))
    times = drive("buildbot_docker_driver.py", str(settings), timeout=300 + 10 * count)
    return times["started"], times["attached"]


def medians(times: list[tuple[float, float]]) -> dict[str, float]:
    return {name: round(statistics.median(one[i] for one in times), 2) for i, name in enumerate(("started", "attached"))}


def measure(count: int, rounds: int, peer: bool) -> dict[str, Any]:
    times: dict[str, list[tuple[float, float]]] = {"latent": [], "docker_run": []}
    with running() as engine, tempfile.TemporaryDirectory(prefix="latent-docker-start-") as directory:
        engine.load_base()
        tac = Path(directory, "buildbot.tac")
        tac.write_text(STOCK)
        shared = [*VOLUMES, f"{directory}:{directory}:ro"]
        twistd = "from twisted.scripts.twistd import run; run()"
        stock = [PYTHON, "-c", twistd, "--nodaemon", "--pidfile=", f"--python={tac}"]
        config = CONFIG.format(host=engine.url, image=BASE, count=count, command=AGENT, volumes=shared, stock=stock)
        site = Site(Path(directory), config)
        kinds = {"latent": "docker", **({"latent_pb": "pb"} if peer else {})}
        try:
            site.latent("start")
            for kind in kinds.values():  # what is slow only once (the page cache, the first connection) is nobody's
                latent(site, count, kind)
            for _ in range(rounds):
                for name, kind in kinds.items():
                    rest(site)
                    times.setdefault(name, []).append(latent(site, count, kind))
                rest(site)
                times["docker_run"].append(docker_run(engine, site, count, shared))
                if peer:  # in turn: a machine that is busy for a while is then busy for all
                    rest(site)
                    times.setdefault("buildbot", []).append(buildbot(engine, stock, shared, count, Path(directory)))
        finally:
            site.end()
    found = {name: medians(of_one) for name, of_one in times.items()}
    ratios = {"": ("latent", "docker_run"), **({"buildbot_": ("latent_pb", "buildbot")} if peer else {})}
    return {
        "containers": count,
        "rounds": rounds,
        **found,
        **{
            f"ratio_{of}{what}": round(found[ours][what] / found[theirs][what], 2)
            for of, (ours, theirs) in ratios.items()
            for what in ("started", "attached")
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Containers started all at once, against docker run and Buildbot's worker.")
    parser.add_argument("--containers", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", choices=["buildbot"], help="Buildbot's Docker worker, too (installed at first use)")
    options = parser.parse_args()
    print(json.dumps(measure(options.containers, options.rounds, options.peer is not None), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
