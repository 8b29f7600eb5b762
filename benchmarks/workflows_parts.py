"""The processes of `benchmarks.workflows`: a controller whose agents do nothing, and drivers.

python -m benchmarks.workflows_parts controller DIRECTORY WORKERS
python -m benchmarks.workflows_parts bind DIRECTORY TASKS       stores a layered workflow, prints its id and how long it took
python -m benchmarks.workflows_parts rebuild DIRECTORY ID       links it, rebuilds its state from the store, lets go
python -m benchmarks.workflows_parts chain DIRECTORY TASKS      the same for one chain
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from twisted.internet import asyncioreactor

asyncioreactor.install()

from twisted.internet import reactor  # noqa: E402
from twisted.internet.defer import Deferred  # noqa: E402
from twisted.internet.task import deferLater  # noqa: E402
from twisted.python.failure import Failure  # noqa: E402

import latent.swarm.builder as builder_module  # noqa: E402
from benchmarks.workflows_shape import chain as linked_up  # noqa: E402
from benchmarks.workflows_shape import layered  # noqa: E402
from latent.config.builder import Builder  # noqa: E402
from latent.config.settings import Config  # noqa: E402
from latent.controller.clock import WallClock  # noqa: E402
from latent.controller.service import Controller  # noqa: E402
from latent.model import Lease, Outcome  # noqa: E402
from latent.store.database import Store  # noqa: E402
from latent.swarm.binding import bind  # noqa: E402
from latent.swarm.builder import SwarmBuilder  # noqa: E402
from latent.swarm.http import Address, HttpRequester  # noqa: E402
from latent.swarm.service import attach  # noqa: E402
from latent.swarm.statuses import RunStatus, TaskStatus  # noqa: E402
from latent.testing.agent import succeed_at_once  # noqa: E402
from latent.testing.worker import InProcessLatentWorker  # noqa: E402
from latent.web.address import load_token, read_address, read_token  # noqa: E402
from latent.web.service import ApiService  # noqa: E402

INTERVAL, BUFFER = 5.0, 1.5
"""Of the heartbeats while a state is rebuilt."""


async def control(directory: Path, workers: int, seconds: float) -> None:
    """A controller with the builder ``nothing``, whose instances and agents are in this process."""

    async def wait(lease: Lease) -> Outcome:
        await deferLater(reactor, seconds)
        return await succeed_at_once(lease)

    state = directory / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    store = Store.open(f"sqlite:///{state}/latent.sqlite", state, reactor=reactor)
    declared = {f"w{n}": InProcessLatentWorker(f"w{n}", build_wait_timeout=3600) for n in range(workers)}
    clock = WallClock(reactor)
    config = Config(path=directory, workers=declared, builders={"nothing": Builder("nothing", ["true"])}, db_url="")
    controller = Controller(config, store, reactor=reactor, clock=clock, state_dir=state, jitter=lambda: 0.0)
    for worker in declared.values():
        worker.plug(controller, clock.seconds, wait if seconds else succeed_at_once)
    workflows = attach(controller, store, clock)

    async def refuse() -> list[str]:
        return []

    api = ApiService(
        controller,
        socket_path=state / "api.sock",
        tcp=None,
        token=load_token(state / "token"),
        reactor=reactor,
        reconfigure=refuse,
        stop=lambda fast: None,
        workflows=workflows,
    )
    await controller.start()
    await api.start()
    workflows.start()


def requester(directory: Path) -> HttpRequester:
    def find() -> Address | None:
        address, token = read_address(directory / "state" / "api.json"), read_token(directory / "state" / "token")
        return None if address is None or token is None else Address("http://latent", token, address.socket)

    return HttpRequester(reactor, find)


def peak_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


async def store(directory: Path, tasks: int) -> dict[str, Any]:
    before = time.perf_counter()
    workflow = layered(f"layered-{tasks}", tasks)
    written = time.perf_counter()
    bound = await bind(requester(directory), workflow)
    return {
        "workflow": bound.workflow_id,
        "tasks": bound.tasks,
        "seconds_to_write_it_down": round(written - before, 2),
        "seconds_to_bind": round(time.perf_counter() - written, 2),
        "peak_rss_mb": peak_mb(),
    }


class Beats:
    """Notes each heartbeat: how much of the time that was promised for it had passed when it was sent."""

    def __init__(self, inner: HttpRequester) -> None:
        self._inner = inner
        self.times: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def heartbeat(self, run_id: int, status: RunStatus, increment: float) -> RunStatus:
        self.times.append(time.monotonic())
        return await self._inner.heartbeat(run_id, status, increment)


async def rebuild(directory: Path, workflow_id: int) -> dict[str, Any]:
    asked = Beats(requester(directory))
    linked = await asked.link(workflow_id, f"benchmark {os.getpid()}")
    assert linked.run is not None
    before, base = time.perf_counter(), peak_mb()
    builder = SwarmBuilder(asked, linked.run.id, INTERVAL, BUFFER, clock=WallClock(reactor))  # type: ignore[arg-type]
    await builder.build_from_workflow_id(workflow_id)
    seconds = time.perf_counter() - before
    state = builder.state
    assert state is not None
    gaps = [later - earlier for earlier, later in zip(asked.times, asked.times[1:], strict=False)]
    await asked.detach(linked.run.id)
    return {
        "tasks": len(state.tasks),
        "ready": sum(len(array.ready) for array in state.arrays.values()),
        "waiting": len(state.task_status_map[TaskStatus.REGISTERING]),
        "edges": sum(len(task.downstream) for task in state.tasks.values()),
        "ids": [min(state.tasks), max(state.tasks)],
        "seconds_to_rebuild": round(seconds, 2),
        "peak_rss_mb": peak_mb(),
        "peak_rss_before_mb": base,
        "heartbeats": len(asked.times),
        "longest_gap_seconds": round(max(gaps, default=0.0), 2),
        "promised_within_seconds": INTERVAL * BUFFER,
    }


async def chain(directory: Path, tasks: int) -> dict[str, Any]:
    """Each task after the one before; read back in pages of 500, as they end around powers of ten."""
    workflow = linked_up(f"chain-{tasks}", tasks)
    bound = await bind(requester(directory), workflow)
    builder_module.TASK_CHUNK_SIZE = 500
    return await rebuild(directory, bound.workflow_id)


def answer(job: Awaitable[Any]) -> Any:
    """Run the reactor until the job is done."""
    outcome: list[Any] = []

    async def work() -> Any:
        return await job

    def begin() -> None:
        Deferred.fromCoroutine(work()).addBoth(outcome.append).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["controller", "bind", "rebuild", "chain"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("number", type=int)
    parser.add_argument("seconds", type=float, nargs="?", default=0.0)
    options = parser.parse_args()
    if options.part == "controller":

        def failed(failure: Failure) -> None:
            failure.printTraceback(sys.stderr)
            reactor.stop()

        def begin() -> None:
            started = control(options.directory, options.number, options.seconds)
            Deferred.fromCoroutine(started).addErrback(failed)

        reactor.callWhenRunning(begin)
        reactor.run()
        os._exit(0)  # as a crash would end it: what is to be kept is on disk
    part = {"bind": store, "rebuild": rebuild, "chain": chain}[options.part]
    print(json.dumps(answer(part(options.directory, options.number))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
