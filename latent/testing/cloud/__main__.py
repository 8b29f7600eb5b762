"""The cloud by itself:

    python -m latent.testing.cloud --port-file FILE [--port N] [--seed S] [--boot S] [--ending S] [--latency S] ...

prints where it is ("127.0.0.1:PORT", which is what FILE then holds), and runs until SIGTERM or SIGINT. All its instances end
with it. Loopback only, and no secrets: for tests.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred

from latent.controller.clock import WallClock
from latent.testing.cloud.cloud import Cloud
from latent.testing.cloud.processes import AgentProcesses
from latent.testing.cloud.server import serve


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m latent.testing.cloud", description="a cloud on loopback, for tests")
    parser.add_argument("--port-file", type=Path, metavar="FILE", help="where to write its address once it answers")
    parser.add_argument("--port", type=int, default=0, help="of loopback; by default any that is free")
    parser.add_argument("--seed", type=int, default=0, help="decides all that is left to chance")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="until a call is carried out")
    parser.add_argument("--boot", type=float, default=0.0, metavar="SECONDS", help="how long an instance is pending")
    parser.add_argument("--ending", type=float, default=0.0, metavar="SECONDS", help="how long it is stopping")
    parser.add_argument("--orphan-timeout", type=float, default=120.0, metavar="SECONDS", help="of the agents in the instances")
    parser.add_argument("--directory", type=Path, help="where instances have their directories (default: a temporary one)")
    parser.add_argument("--reclaim", action="store_true", help="destroy an instance whose agent has ended")
    parser.add_argument("--empty", action="store_true", help="nothing runs in the instances")
    parser.add_argument("--tied", action="store_true", help="end when standard input does: with the process that started it")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="latent-cloud-", ignore_cleanup_errors=True) as temporary:
        task.react(lambda reactor: Deferred.fromCoroutine(_run(reactor, chosen, chosen.directory or Path(temporary))))


async def _run(reactor: Any, chosen: argparse.Namespace, directory: Path) -> None:
    boots = None if chosen.empty else AgentProcesses(reactor, directory, orphan_timeout=chosen.orphan_timeout)
    cloud = Cloud(
        WallClock(reactor),
        seed=chosen.seed,
        boots=boots,
        latency=chosen.latency,
        boot=chosen.boot,
        ending=chosen.ending,
        reclaims=chosen.reclaim,
    )
    if chosen.tied:
        threading.Thread(target=_until_the_end_of_input, args=(reactor,), daemon=True).start()
    await serve(reactor, cloud, chosen.port, chosen.port_file, _say)


def _until_the_end_of_input(reactor: Any) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    reactor.callFromThread(reactor.stop)


def _say(address: str) -> None:
    sys.stdout.write(address + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
