"""Full durable cycles a second: submit, start, attach, run, report, stop, all journalled, with instance and agent in-process.

    python -m benchmarks.cycle --workers 50 --builds 2000 --peer buildbot

Prints one JSON object: ``latent`` and, with a peer, ``peer`` (both as `benchmarks.buildbot_peer` describes its numbers) and
``ratio``, our builds a second over the peer's. The peer gets fewer builds (``--peer-builds``): it takes a minute for 200.

Each build has a substantiation of its own (``build_wait_timeout=0``), and a build counts when its end is on disk (SQLite, WAL,
synchronous=FULL).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from twisted.internet import asyncioreactor

asyncioreactor.install()

from twisted.internet import reactor  # noqa: E402
from twisted.internet.defer import Deferred, gatherResults  # noqa: E402
from twisted.python.failure import Failure  # noqa: E402

from benchmarks.buildbot_peer import PeerError, run_peer  # noqa: E402
from latent.config.settings import Config  # noqa: E402
from latent.controller.clock import WallClock  # noqa: E402
from latent.controller.service import Controller  # noqa: E402
from latent.model import BuildRequest, Result, Step  # noqa: E402
from latent.store.database import Store  # noqa: E402
from latent.testing.worker import InProcessLatentWorker  # noqa: E402


async def cycle(workers: int, builds: int, directory: Path) -> dict[str, Any]:
    """Run ``builds`` full cycles over ``workers`` workers on a store in ``directory``."""
    store = Store.open(f"sqlite:///{directory}/latent.sqlite", directory, reactor=reactor)
    declared = {f"w{n}": InProcessLatentWorker(f"w{n}", build_wait_timeout=0) for n in range(workers)}
    clock = WallClock(reactor)
    controller = Controller(
        Config(path=directory, workers=declared, db_url=""),
        store,
        reactor=reactor,
        clock=clock,
        state_dir=directory,
        jitter=lambda: 0.0,
    )
    for worker in declared.values():
        worker.plug(controller, clock.seconds)
    await controller.start()
    request = BuildRequest(builder="cycle", steps=(Step(name="nothing", command="true"),))
    began, cpu = time.perf_counter(), time.process_time()
    submitted = await gatherResults([Deferred.fromCoroutine(controller.submit(request)) for _ in range(builds)])
    finished = await gatherResults([controller.when_finished(build.id) for build in submitted])
    await gatherResults([post.when_at_rest() for post in controller.roster.latent()])
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    results = Counter(build.result for build in finished)
    instances = sum(status.attempt for status in controller.workers())
    await controller.stop()
    await store.close()
    if results != {Result.SUCCESS: builds} or instances != builds:
        raise RuntimeError(f"{builds} builds were to succeed on as many instances: {dict(results)}, {instances} instances")
    return {
        "builds": builds,
        "seconds": round(seconds, 3),
        "builds_per_second": round(builds / seconds, 1),
        "cpu_ms_per_build": round(cpu / builds * 1000, 3),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "succeeded": results[Result.SUCCESS],
        "instances": instances,
        "workers": workers,
    }


def run(workers: int, builds: int) -> dict[str, Any]:
    outcome: list[Any] = []

    def begin() -> None:
        with_directory = tempfile.TemporaryDirectory(prefix="latent-cycle-")
        job = Deferred.fromCoroutine(cycle(workers, builds, Path(with_directory.name)))
        job.addBoth(outcome.append)
        job.addBoth(lambda _: (with_directory.cleanup(), reactor.stop()))

    reactor.callWhenRunning(begin)
    reactor.run()
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]


def main() -> int:
    parser = argparse.ArgumentParser(description="Full durable cycles a second.")
    parser.add_argument("--workers", type=int, default=50, help="latent workers (default 50)")
    parser.add_argument("--builds", type=int, default=2000, help="builds to submit (default 2000)")
    parser.add_argument("--peer", choices=["buildbot"], help="do the same job on it too, in the same run")
    parser.add_argument("--peer-builds", type=int, default=100, help="builds that the peer gets (default 100)")
    options = parser.parse_args()
    printed: dict[str, Any] = {"latent": run(options.workers, options.builds)}
    if options.peer:
        try:
            printed["peer"] = run_peer(options.workers, options.peer_builds)
        except PeerError as error:
            print(f"cycle: {error}", file=sys.stderr)
            return 1
        printed["ratio"] = round(printed["latent"]["builds_per_second"] / printed["peer"]["builds_per_second"], 1)
    print(json.dumps(printed, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
