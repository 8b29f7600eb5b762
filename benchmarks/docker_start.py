"""Substantiating containers all at once, against `docker run` of the same containers side by side from the shell.

    python -m benchmarks.docker_start --containers 20 --rounds 3

Needs root and Docker's packages (scripts/install_real_parts.sh); the daemon is this benchmark's own. Prints one JSON object:

    containers          how many at once
    latent, docker_run  of each, the medians over the rounds, in seconds:
      started             until the last container was started (`docker run --detach` has returned, start_instance answered)
      attached            until the last agent was attached to the controller
    ratio_started, ratio_attached    latent / docker run; the issue allows 2

Both ways the containers are the same: the same image, the same mounts, `latent-agent` in them, attaching to the same controller
over the same gateway. Only who starts them differs: latent's side also journals each step, on disk, and runs a build in each.
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

from tests.docker.engine import AGENT, BASE, VOLUMES, Engine, running
from tests.e2e.site import Site

CONFIG = """
c["limits"] = {{"session_timeout": 20}}
HOST = {host!r}
c["workers"] = [
    worker.DockerLatentWorker(
        "docker-{{n}}", None, HOST, {image!r}, count={count}, command={command!r}, volumes={volumes!r},
        hostconfig={{"network_mode": "host"}}, build_wait_timeout=15,
    ),
    *[worker.Worker(f"shell-{{n}}", f"secret-{{n}}") for n in range(1, {count} + 1)],
]
"""


def latent(site: Site, count: int) -> tuple[float, float]:
    """(started, attached) in seconds, by the journal's times: from the first event of the first worker."""
    numbers = submit(site, count)
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


def submit(site: Site, count: int) -> list[int]:
    """A build for each worker, asked for over one connection: it is not the asking that is measured."""
    state = site.directory / "state"
    headers = {"Authorization": f"Bearer {(state / 'token').read_text().strip()}"}
    transport = httpx.HTTPTransport(uds=json.loads((state / "api.json").read_text())["socket"])
    with httpx.Client(transport=transport, base_url="http://latent/api/v1", headers=headers, timeout=60) as client:
        bodies = [{"command": "true", "labels": {"worker": f"docker-{n}"}} for n in range(1, count + 1)]
        return [int(client.post("/builds", json=body).raise_for_status().json()["id"]) for body in bodies]


def docker_run(engine: Engine, site: Site, count: int) -> tuple[float, float]:
    """The same from the shell."""
    server = f"127.0.0.1:{port_of(site)}"
    volumes = [word for volume in VOLUMES for word in ("--volume", volume)]
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


def measure(count: int, rounds: int) -> dict[str, Any]:
    with running() as engine, tempfile.TemporaryDirectory(prefix="latent-docker-start-") as directory:
        engine.load_base()
        config = CONFIG.format(host=engine.url, image=BASE, count=count, command=AGENT, volumes=VOLUMES)
        site = Site(Path(directory), config)
        try:
            site.latent("start")
            latent(site, count)  # what is slow only once (the page cache, the first connection) is nobody's
            ours, theirs = [], []
            for _ in range(rounds):
                rest(site)
                ours.append(latent(site, count))
                rest(site)
                theirs.append(docker_run(engine, site, count))
        finally:
            site.end()
    mine, other = (
        {name: round(statistics.median(one[i] for one in times), 2) for i, name in enumerate(("started", "attached"))}
        for times in (ours, theirs)
    )
    return {
        "containers": count,
        "rounds": rounds,
        "latent": mine,
        "docker_run": other,
        "ratio_started": round(mine["started"] / other["started"], 2),
        "ratio_attached": round(mine["attached"] / other["attached"], 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Containers started all at once, against docker run.")
    parser.add_argument("--containers", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(json.dumps(measure(options.containers, options.rounds), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
