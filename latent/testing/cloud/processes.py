"""Instances that are real: a `latent-agent` in a process group of its own, with a directory of its own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from latent.testing.cloud.values import Instance
from latent.worker import processes
from latent.worker.processes import Seen, children
from latent.worker.threads import ThreadPool, discard

log = Logger()

LOOK = 0.2
"""Seconds between two looks at whether agents still run."""

ROUNDS = 100
"""How often the processes of an instance are killed before that is given up."""


class AgentProcesses:
    """``directory``: where instances have their own. ``command``: what runs in place of `latent-agent`.

    ``orphan_timeout``: seconds after which an agent ends that finds no controller: nothing is left for good even when the cloud
    itself is killed.
    """

    def __init__(
        self, reactor: Any, directory: Path, *, command: Sequence[str] | None = None, orphan_timeout: float = 120.0
    ) -> None:
        self.directory = directory
        self.command = tuple(command or (sys.executable, "-P", "-m", "latent.agent.main"))
        self.orphan_timeout = orphan_timeout
        self.threads = ThreadPool.shared("cloud instances", 8, reactor)
        self.guests: set[AgentProcess] = set()
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def __call__(self, instance: Instance) -> AgentProcess:
        return AgentProcess(self, instance)

    def watch(self, guest: AgentProcess) -> None:
        self.guests.add(guest)
        if not self._looking.running:
            self._looking.start(LOOK, now=False)

    def forget(self, guest: AgentProcess) -> None:
        self.guests.discard(guest)
        if not self.guests and self._looking.running:
            self._looking.stop()

    def _look(self) -> None:
        for guest in list(self.guests):
            guest.look()


class AgentProcess:
    """What runs in one instance."""

    def __init__(self, host: AgentProcesses, instance: Instance) -> None:
        self._host = host
        self._instance = instance
        # No identity that a ProcessLatentWorker would take for one of its own.
        self.marker = f"cloud-{instance.id}-{os.getpid()}"
        self.directory = host.directory / instance.id
        self.agent: Seen | None = None
        self._ended: Callable[[str], None] | None = None

    def start(self, ended: Callable[[str], None]) -> None:
        self._ended = ended
        self.directory.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LATENT_") or "TEST" in name}
        environment = {
            **inherited,
            "LATENT_ORPHAN_TIMEOUT": f"{self._host.orphan_timeout:g}",
            "GRPC_ENABLE_FORK_SUPPORT": "0",  # its handlers around fork() kill children of programs that also start processes
            **self._instance.environment,
            processes.MARKER: self.marker,
            processes.DIRECTORY: str(self.directory),
        }
        try:
            self.agent = children.spawn(self._host.command, environment, self.directory, self.directory / "agent.log")
        except OSError as error:
            ended(f"{self._host.command[0]} could not be started: {error.strerror}")
            return
        self._host.watch(self)

    def look(self) -> None:
        if self.agent is None or self._ended is None:
            return
        code = children.exit_code(self.agent.pid, self.agent.born)
        if code is not None:
            ended, self._ended = self._ended, None
            self._host.forget(self)
            ended(f"its agent was ended by signal {-code}" if code < 0 else f"its agent exited with code {code}")

    def stop(self) -> Deferred[None]:
        self._ended = None
        self._host.forget(self)
        return self._host.threads.run(self._kill, adopt=discard)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        processes.send(self._family(), number)

    def _family(self) -> tuple[Seen, ...]:
        known = [self.agent.pid] if self.agent is not None and processes.alive(self.agent.pid, self.agent.born) else []
        return processes.family(processes.snapshot(), self.marker, known)

    def _kill(self) -> None:
        """All that belongs to the instance, also what its steps started. Runs in a thread."""
        for _ in range(ROUNDS):
            family = self._family()
            if not family:
                break
            processes.send(family, signal.SIGKILL)
            processes.wait(family, 0.1)
        else:
            log.error("{marker}: its processes do not end", marker=self.marker)
        if self.agent is not None:
            children.exit_code(self.agent.pid, self.agent.born)
            children.forget([(self.agent.pid, self.agent.born)])
        shutil.rmtree(self.directory, ignore_errors=True)
