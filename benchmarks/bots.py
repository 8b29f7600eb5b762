"""UpdateBotSession a second on one core with durable leases, beside BuildGrid; and what thousands of bots that wait cost.

    python -m benchmarks.bots --bots 4 16 --seconds 8 --peer buildgrid
    python -m benchmarks.bots --parked 2000

Prints one JSON object. Each server has core 0 to itself, the client (`benchmarks.bots_client`) core 1; both servers keep their
leases in SQLite, in files of the same directory.

    beats     for each number of bots: updates of bots that work on a lease and say so, the commonest call there is
    cycles    for each number of bots: bots that take leases and end them, which takes two updates for each lease
    empty     the beats of a server that does nothing: what gRPC itself allows in this environment
    ratio     our best number of updates (beats) or of leases (cycles) a second over the peer's best
    parked    that many bots with a connection each, all waiting: memory of the controller in MiB before and after they came, and
              the time from the submission of a build until a bot has its lease, in milliseconds
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.buildbot_peer import PeerError
from benchmarks.buildgrid_peer import buildgrid

SERVER, CLIENT = 0, 1
QUEUED = 600
"""Builds or executions for each second that leases are taken."""


class Latent:
    """`benchmarks.bots_server` in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._answer()["address"]

    def ask(self, order: str) -> dict[str, Any]:
        self.tell(order)
        return self._answer()

    def tell(self, order: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("bots: the controller ended; its words are above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def latent(directory: Path, workers: int, *, empty: bool = False) -> Iterator[Latent]:
    command = [sys.executable, "-m", "benchmarks.bots_server", str(directory), "--workers", str(workers), "--core", str(SERVER)]
    with subprocess.Popen(command + ["--empty"] * empty, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Latent(process)
        finally:
            process.kill()


def client(address: str, mode: str, bots: int, seconds: float, told: Any = None) -> dict[str, Any]:
    """What `benchmarks.bots_client` prints in the end; ``told`` is called with each of its lines before that."""
    command = [sys.executable, "-m", "benchmarks.bots_client", address, mode]
    command += ["--bots", str(bots), "--seconds", str(seconds), "--core", str(CLIENT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                process.wait(60)
                found: dict[str, Any] = json.loads(line)
                return found
            if told is not None:
                told(line.strip())
    raise SystemExit("bots: the client ended without a result; its words are above")


def ours(mode: str, bots: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bots-") as directory, latent(Path(directory), bots) as server:
        server.ask(f"submit {bots if mode == 'beat' else int(bots + QUEUED * seconds)} 0")
        before = server.ask("usage")["cpu"]
        found = client(server.address, mode, bots, seconds)
        found["server_cpu_ms_per_update"] = round((server.ask("usage")["cpu"] - before) * 1e3 / found["updates"], 3)
        return found


def theirs(mode: str, bots: int, seconds: float) -> dict[str, Any]:
    executions = bots if mode == "beat" else int(bots + QUEUED / 20 * seconds)
    with (
        tempfile.TemporaryDirectory(prefix="bots-") as directory,
        buildgrid(Path(directory), executions, SERVER) as (address, peer),
    ):
        before = sum(peer.cpu_times()[:2])
        found = client(address, mode, bots, seconds)
        found["server_cpu_ms_per_update"] = round((sum(peer.cpu_times()[:2]) - before) * 1e3 / max(1, found["updates"]), 3)
        return found


def empty(bots: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bots-") as directory, latent(Path(directory), bots, empty=True) as server:
        return client(server.address, "beat", bots, seconds)


def parked(bots: int, builds: int, every: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="bots-") as directory, latent(Path(directory), bots) as server:
        before = server.ask("usage")["rss_mb"]
        memory: list[float] = []

        def told(line: str) -> None:
            if line == "parked":
                memory.append(server.ask("usage")["rss_mb"])
                server.tell(f"submit {builds} {every}")

        found = client(server.address, "park", bots, 3 + builds * (every + 0.005) + 5, told)
        return {"bots": bots, "rss_mb_before": before, "rss_mb": memory[0], **found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bots", type=int, nargs="*", default=[4, 16], help="how many at once (default 4 and 16)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement (default 8)")
    parser.add_argument("--peer", choices=("buildgrid",), help="measure it in the same way")
    parser.add_argument("--parked", type=int, default=0, help="bots that wait (default: not measured)")
    parser.add_argument("--builds", type=int, default=500, help="builds for the bots that wait (default 500)")
    parser.add_argument("--every", type=float, default=0.02, help="seconds between two of them (default 0.02)")
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found: dict[str, Any] = {}
    try:
        if given.bots:
            found["empty"] = {n: empty(n, given.seconds) for n in given.bots}
            for name, mode in (("beats", "beat"), ("cycles", "cycle")):
                found[name] = {"latent": {n: ours(mode, n, given.seconds) for n in given.bots}}
                if given.peer:
                    found[name]["peer"] = {n: theirs(mode, n, given.seconds) for n in given.bots}
            if given.peer:
                found["ratio"] = {
                    "beats": _ratio(found["beats"], "updates"),
                    "cycles": _ratio(found["cycles"], "leases_done"),
                }
        if given.parked:
            found["parked"] = parked(given.parked, given.builds, given.every)
    except PeerError as error:
        print(f"bots: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=2))
    return 0


def _ratio(found: dict[str, dict[int, dict[str, Any]]], of: str) -> float:
    best = {server: max(one[of] / one["seconds"] for one in runs.values()) for server, runs in found.items()}
    return round(best["latent"] / best["peer"], 1)


if __name__ == "__main__":
    sys.exit(main())
