"""Instances that are processes of this machine: the worker that works without any provider."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from latent.errors import ConfigError, LatentWorkerCannotSubstantiate, PluginError
from latent.model import JSON
from latent.worker import instances, processes, values
from latent.worker.abstract import take_seconds, taken, taken_if_given
from latent.worker.base import BUILDBOT_PROTOCOLS, AbstractLatentWorker, ListedInstance, enrolled
from latent.worker.instances import Handle, InstanceRemains
from latent.worker.processes import Seen
from latent.worker.properties import is_renderable, render
from latent.worker.sharing import Shared
from latent.worker.threads import ThreadPool, discard
from latent.worker.words import kind, shown

log = Logger()

THREADS = 16
ROUND = 0.25
"""Seconds that one wait for processes holds a thread, so that a stubborn instance does not keep others from starting."""
KILL_ROUNDS = 40
FAST_GRACE = 1.0


class Host:
    """This machine's processes, looked at from one reactor: the threads for it, and one scan for all who want to know."""

    _hosts: ClassVar[WeakValueDictionary[int, Host]] = WeakValueDictionary()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor  # kept: its id() is the key
        self.threads = ThreadPool.shared("processes", THREADS, reactor)
        self.table: Shared[tuple[Seen, ...]] = Shared(lambda: self.threads.run(processes.snapshot, adopt=discard))

    @classmethod
    def of(cls, reactor: Any) -> Host:
        found = cls._hosts.get(id(reactor))
        if found is None:
            found = cls._hosts[id(reactor)] = cls(reactor)
        return found

    async def end(self, marker: str, agent: Handle | None, grace: float) -> tuple[Seen, ...]:
        """End an instance: SIGTERM, ``grace`` seconds, SIGKILL, until no process of it is left. Returns those that were ended.

        InstanceRemains if some don't go.
        """

        async def look() -> tuple[Seen, ...]:
            table = await self.table.get()
            known = [seen.pid for seen in table if agent is not None and instances.is_agent(seen, agent)]
            return processes.family(table, marker, known)

        family = await look()
        ended = set(family)
        left = family
        if family:
            await self.threads.run(processes.send, family, signal.SIGTERM, adopt=discard)
            # One that is suspended hears nothing before that.
            await self.threads.run(processes.send, family, signal.SIGCONT, adopt=discard)
        for seconds in _rounds(grace):
            if not left:
                break
            left = await self.threads.run(processes.wait, left, seconds, adopt=discard)
        for _ in range(KILL_ROUNDS):
            # Looked at again even when all are gone: one may have started another while it was ending.
            family = tuple({*left, *await look()})
            if not family:
                return tuple(ended)
            ended |= set(family)
            await self.threads.run(processes.send, family, signal.SIGKILL, adopt=discard)
            left = await self.threads.run(processes.wait, family, ROUND, adopt=discard)
        pids = ", ".join(str(seen.pid) for seen in family)
        raise InstanceRemains(
            f"the processes {pids} of {marker} don't end, not even by SIGKILL; see with ps whose they are and what they wait for"
        )


class ProcessLatentWorker(AbstractLatentWorker):
    """Each attempt is a group of processes on this machine, led by a `latent-agent`.

    ``command``: what to run in its place, a list of arguments; it or its elements may be renderables. ``basedir``: where the
    instances' directories are, below the state directory unless absolute. ``stop_grace``: seconds from SIGTERM to SIGKILL.
    ``orphan_timeout``: seconds after which an agent ends that finds no controller.

    The processes outlive the controller. They carry the variable LATENT_INSTANCE and are found by it.
    """

    renderables = ("command",)
    settings = frozenset({"stop_grace"})
    check_instance_interval = 2.0

    orphan_timeout: float = 3600.0
    stop_grace: float = 10.0
    log_tail: str = ""
    """The last lines that the agent of the last instance wrote before it was stopped."""

    _handle: Handle | None = None

    def checkConfig(
        self,
        name: str,
        password: str | None = None,
        *,
        command: Any = None,
        orphan_timeout: float | None = None,
        basedir: str | os.PathLike[str] = "instances",
        stop_grace: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().checkConfig(name, password, **kwargs)
        self._set(command, orphan_timeout, basedir, stop_grace)

    def reconfigService(
        self,
        name: str,
        password: str | None = None,
        *,
        command: Any = None,
        orphan_timeout: float | None = None,
        basedir: str | os.PathLike[str] = "instances",
        stop_grace: float | None = None,
        **kwargs: Any,
    ) -> Any:
        self._set(command, orphan_timeout, basedir, stop_grace)
        return super().reconfigService(name, password, **kwargs)

    def _set(self, command: Any, orphan_timeout: float | None, basedir: Any, stop_grace: float | None) -> None:
        self.command = taken_if_given(self, _check_command, "command", command)
        self.basedir = Path(taken(self, _check_path, "basedir", basedir, default="instances"))
        take_seconds(self, "orphan_timeout", orphan_timeout)
        take_seconds(self, "stop_grace", stop_grace, least=0)

    # --- the hooks -----------------------------------------------------------------------------------------------------------

    async def start_instance(self, build: Any) -> list[str]:
        self._handle = None
        command = await self._rendered(build)
        marker, directory = self._marker(), self._directory()
        environment = self._environment(marker, directory)
        threads = self._host().threads
        await threads.run(instances.sweep, directory.parent, marker, adopt=discard)
        self._handle = await threads.run(instances.start, marker, command, environment, directory, adopt=self._came_late)
        return [f"pid {self._handle.pid}"]

    async def stop_instance(self, fast: bool = False) -> None:
        if self.enrolment is None:
            return
        grace = min(FAST_GRACE, self.stop_grace) if fast else self.stop_grace
        directory = Path(self._handle.dir) if self._handle else self._directory()
        self.log_tail = await self._end(self._marker(), self._handle, directory, grace)
        self._handle = None

    async def check_instance(self) -> tuple[bool, str]:
        if self._handle is None:
            return False, "no process was started"
        return await self._host().threads.run(instances.check, self._handle, adopt=discard)

    def instance_handle(self) -> JSON:
        return None if self._handle is None else self._handle.to_json()

    async def resume_instance(self, handle: JSON) -> bool:
        found = Handle.from_json(handle)
        if found.instance != self._marker():
            return False
        if not await self._host().threads.run(instances.runs, found, adopt=discard):
            return False
        self._handle = found
        return True

    def list_scope(self) -> str:
        return "this machine"

    async def list_instances(self) -> list[ListedInstance]:
        host = self._host()
        return await host.threads.run(instances.listed, await host.table.get(), self._base(), adopt=discard)

    async def destroy_instance(self, handle: JSON) -> None:
        found = Handle.from_json(handle)
        await self._end(found.instance, found, Path(found.dir), FAST_GRACE)

    # --- inside --------------------------------------------------------------------------------------------------------------

    async def _rendered(self, build: Any) -> tuple[str, ...]:
        if self.command is None:
            # -P: what a build leaves in the agent's directory must not be imported in place of a library.
            return (sys.executable, "-P", "-m", "latent.agent.main", "--orphan-timeout", f"{self.orphan_timeout:g}")
        command = await render(self.command, self.properties if build is None else build.properties)
        try:
            checked = _check_command("command", command)
        except ConfigError as error:
            raise LatentWorkerCannotSubstantiate(f"worker {self.name}, as rendered: {error}") from error
        return tuple(str(argument) for argument in checked)

    def _environment(self, marker: str, directory: Path) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LATENT_")}
        return {
            **inherited,
            **self._stock_environment(directory),
            **self.agent_environment(),
            processes.MARKER: marker,
            processes.DIRECTORY: str(directory),
            "LATENT_CAPACITY": str(self.max_builds),
            "LATENT_ORPHAN_TIMEOUT": f"{self.orphan_timeout:g}",
            # gRPC's handlers around fork() kill children of programs that also start processes.
            "GRPC_ENABLE_FORK_SUPPORT": "0",
        }

    def _stock_environment(self, directory: Path) -> dict[str, str]:
        """What ``command`` needs to be a Woodpecker agent, a `buildbot-worker` if the controller speaks to those, or a bot."""
        variables = {
            **self.woodpecker_environment(),
            # Else all of them would keep their session's number in the same place, and answer health checks on the same port.
            "WOODPECKER_AGENT_CONFIG_FILE": str(directory / "woodpecker-agent.json"),
            "WOODPECKER_HEALTHCHECK": "false",
        }
        spoken = enrolled(self, "its environment").servers
        if any(name in spoken for name in BUILDBOT_PROTOCOLS):
            variables |= self.buildbot_environment()
        if self.agent_is_bot:
            variables |= self.bot_environment()
        return variables

    def _marker(self) -> str:
        enrolment = enrolled(self, "its identity")
        return instances.marker_of(enrolment.controller_id, enrolment.attempt)

    def _directory(self) -> Path:
        return self._base() / instances.directory_name(self._marker())

    def _base(self) -> Path:
        return (Path(self.state_dir) / self.basedir).absolute()

    def _host(self) -> Host:
        if self.reactor is None:
            raise PluginError(f"worker {self.name} has no reactor; whoever calls its hooks sets worker.reactor first")
        self._kept = Host.of(self.reactor)
        return self._kept

    async def _end(self, marker: str, agent: Handle | None, directory: Path, grace: float) -> str:
        """End the processes, then remove the directory. Returns the tail of the agent's log."""
        host = self._host()
        ended = await host.end(marker, agent, grace)
        return await host.threads.run(instances.clean_up, marker, directory, ended, adopt=discard)

    def _came_late(self, handle: Handle) -> None:
        """The start was cancelled; whoever cancelled it may have looked for the processes before there were any."""
        ending = Deferred.fromCoroutine(self._end(handle.instance, handle, Path(handle.dir), FAST_GRACE))
        ending.addErrback(lambda f: log.failure("{instance} came late and could not be ended", f, instance=handle.instance))


def _rounds(seconds: float) -> list[float]:
    """``seconds`` in pieces of at most ROUND."""
    count = math.ceil(seconds / ROUND)
    return [seconds / count] * count if count else []


def _check_command(subject: str, command: Any) -> Any:
    """A list of strings that is not empty, where renderables may stand for it or for its elements."""
    remedy = "write a list of arguments, ['latent-agent', '--orphan-timeout', '60'] for example"
    if is_renderable(command):
        return command
    if isinstance(command, str) or not isinstance(command, Sequence) or not command:
        raise ConfigError(f"{subject} is {kind(command)}, {shown(command)}; {remedy}")
    wrong = [argument for argument in command if not is_renderable(argument) and not isinstance(argument, str)]
    if wrong or command[0] == "" or any(isinstance(argument, str) and "\0" in argument for argument in command):
        bad = wrong[0] if wrong else command
        raise ConfigError(f"{subject} has {kind(bad)}, {shown(bad)}, in it, which no program can be given; {remedy}")
    return command


def _check_path(subject: str, value: Any) -> str:
    return values.text(subject, str(value) if isinstance(value, os.PathLike) else value)
