"""The process worker keeps its promises."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

from twisted.internet import reactor

from latent.model import JSON
from latent.testing.contract import Mistake, Provider, make_latent_worker_tests
from latent.worker import AbstractLatentWorker, instances, processes
from latent.worker.process import Host, ProcessLatentWorker
from latent.worker.threads import discard

IDLE = ["sleep", "1000"]


class ThisMachine(Provider):
    """An instance is named by its directory, below one of the test's own."""

    reactor = reactor
    mistakes = (
        Mistake("command .*write a list", keywords={"command": "latent-agent"}),
        Mistake("orphan_timeout", keywords={"orphan_timeout": 0}),
        Mistake("basedir", keywords={"basedir": ""}),
        Mistake("stop_grace", keywords={"stop_grace": -1}),
    )
    failing = MappingProxyType({"command": ["/no/such/program"]})

    def __init__(self, case: Any) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="latent-contract-"))
        self.foreign: dict[str, subprocess.Popen[bytes]] = {}
        self.patches = contextlib.ExitStack()

    def make_worker(self, name: str, **keywords: Any) -> AbstractLatentWorker:
        return ProcessLatentWorker(name, **{"command": IDLE, "basedir": self.base, "stop_grace": 1, **keywords})

    def existing(self) -> Any:
        return self._in_thread(self._existing)

    def vanish(self, instance: str) -> Any:
        def gone() -> None:
            self._end(instance, signal.SIGKILL)
            shutil.rmtree(self.base / instance)

        return self._in_thread(gone)

    def exit(self, instance: str) -> Any:
        return self._in_thread(self._end, instance, signal.SIGTERM)

    def hang(self, instance: str) -> None:
        for seen in self._processes(instance):
            os.kill(seen.pid, signal.SIGSTOP)

    def plant(self) -> str:
        """The same program in the same place, as the same worker: it lacks the mark alone."""
        environment = {**os.environ, "LATENT_WORKER": "kit", "LATENT_ATTEMPT": "1"}
        process = subprocess.Popen(IDLE, cwd=self.base, env=environment, start_new_session=True)
        name = f"process {process.pid}"
        self.foreign[name] = process
        return name

    def is_of(self, handle: JSON, instance: str) -> bool:
        return instance in (Path(handle["dir"]).name, f"process {handle['pid']}")

    def hold_starts(self) -> Callable[[], object]:
        released = threading.Event()
        start = instances.start

        def slow(*args: Any) -> Any:
            handle = start(*args)
            released.wait(self.patience)
            return handle

        self.patches.enter_context(mock.patch.object(instances, "start", slow))

        def release() -> None:
            self.patches.close()
            released.set()

        return release

    def clean_up(self) -> Any:
        self.patches.close()
        return self._in_thread(self._clean_up)

    def _clean_up(self) -> None:
        for process in self.foreign.values():
            process.kill()
            process.wait()
        for name in {seen.directory for seen in processes.snapshot() if self._is_here(seen)}:
            self._end(Path(name).name, signal.SIGKILL)
        shutil.rmtree(self.base)

    def _existing(self) -> list[str]:
        foreign = [name for name, process in self.foreign.items() if process.poll() is None]
        return [*foreign, *{Path(seen.directory).name for seen in processes.snapshot() if self._is_here(seen)}]

    def _is_here(self, seen: processes.Seen) -> bool:
        return seen.directory.startswith(f"{self.base}/")

    def _processes(self, instance: str) -> list[processes.Seen]:
        return [seen for seen in processes.snapshot() if seen.directory == str(self.base / instance)]

    def _end(self, instance: str, number: signal.Signals) -> None:
        found = self._processes(instance)
        processes.send(found, number)
        assert processes.wait(found, 10) == ()

    def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        return Host.of(reactor).threads.run(work, *args, adopt=discard)


class TestProcessLatentWorker(make_latent_worker_tests(ThisMachine)):  # type: ignore[misc]
    """Every promise, none skipped."""
