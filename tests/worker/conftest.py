"""A process worker on the real reactor."""

from __future__ import annotations

import os
import selectors
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from latent.worker import Properties, WorkerBuild, hooks, processes, results
from latent.worker.process import Host, ProcessLatentWorker
from tests.worker.kit import PATIENCE, enrolment

Make = Callable[..., ProcessLatentWorker]

SLEEPER = [
    sys.executable,
    "-c",
    "import signal, sys; print('ready', flush=True); sys.argv[1:] and open(sys.argv[1], 'w').write('ready'); signal.pause()",
]
"""An agent that does nothing. Given the path of an `Ear`, it tells when it is ready."""


class Ear:
    """A named pipe on which an agent tells something to the test."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        os.mkfifo(path)

    async def heard(self) -> str:
        """What was told, once somebody tells it; waits in a thread."""
        from twisted.internet import reactor

        return await Host.of(reactor).threads.run(self._listen, adopt=lambda _: None)

    def _listen(self) -> str:
        # Opened for both ways, so that opening it waits for nobody.
        with open(os.open(self.path, os.O_RDWR), "rb", buffering=0) as pipe, selectors.DefaultSelector() as waits:
            waits.register(pipe, selectors.EVENT_READ)
            assert waits.select(PATIENCE), "nothing was told"
            return pipe.read(4096).decode()


BUILD = WorkerBuild(1, "b", Properties({"image": "img"}))


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


async def started(worker: ProcessLatentWorker, build: Any = BUILD) -> psutil.Process:
    """Start, and answer with the agent's process."""
    (text,) = results.start_result(worker, await hooks.call(worker.start_instance, build))
    handle = results.handle(worker, worker.instance_handle())
    assert text == f"pid {handle['pid']}"
    return psutil.Process(handle["pid"])


async def gone(process: psutil.Process) -> None:
    """Wait, in a thread, until a process has ended."""
    from twisted.internet import reactor

    stat = processes.look(process.pid)
    if stat is not None:
        assert await Host.of(reactor).threads.run(processes.wait, (stat,), 30.0, adopt=lambda _: None) == ()


@pytest.fixture
def controller_id(tmp_path: Path) -> str:
    """One for each test, so that tests that run beside each other do not find each other's instances."""
    return f"{abs(hash(str(tmp_path))):032x}"[-32:]


@pytest.fixture
def ear(tmp_path: Path) -> Ear:
    return Ear(tmp_path / "ear")


@pytest.fixture
def make(tmp_path: Path, controller_id: str) -> Iterator[Make]:
    """``make(name="w1", number=1, **keywords)``: a worker of this test's controller, about to be started."""
    from twisted.internet import reactor

    def made(name: str = "w1", number: int = 1, command: Any = SLEEPER, **keywords: Any) -> ProcessLatentWorker:
        worker = ProcessLatentWorker(name, command=command, **keywords)
        worker.reconfigService(name, command=command, **keywords)
        worker.reactor = reactor
        worker.state_dir = tmp_path
        worker.enrolment = enrolment(name, number, controller_id)
        return worker

    yield made
    left = [seen.pid for seen in processes.snapshot() if seen.marker.startswith(controller_id)]
    for pid in left:
        psutil.Process(pid).kill()
    assert left == [], "the test left processes of its instances behind"
