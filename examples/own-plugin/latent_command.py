"""A plugin for latent: instances that are started, stopped and looked at by commands of yours."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from typing import Any

from latent.errors import ConfigError, LatentError, LatentWorkerConfigurationError, LatentWorkerFailedToSubstantiate
from latent.model import JSON, Attempt
from latent.worker import AbstractLatentWorker, ListedInstance, ThreadPool, discard

ID = re.compile(r"latent-(?P<controller>[0-9a-f]+)-(?P<worker>.+)-(?P<attempt>[0-9]+)")
COMMANDS = ("start", "stop", "check", "list")
THREADS = 8


class CommandLatentWorker(AbstractLatentWorker):
    """Four commands, each a list of arguments in which ``{id}`` stands for the instance's name.

    ``start`` starts it, and answers when it has; the agent's variables are in its environment. ``stop`` ends it, and answers
    when it is gone (also if there was none). ``check`` exits with 0 while it is there. ``list`` prints the names of all that
    there are, one a line. ``command_timeout``: seconds that each may take.
    """

    settings = frozenset({"command_timeout"})  # when only this changes, an instance that is up may stay

    # --- the declaration -----------------------------------------------------------------------------------------------------

    def checkConfig(
        self,
        name: str,
        password: str | None = None,
        *,
        start: Any = None,
        stop: Any = None,
        check: Any = None,
        list: Any = None,
        command_timeout: float = 60,
        **kwargs: Any,
    ) -> None:
        super().checkConfig(name, password, **kwargs)
        for keyword, command in zip(COMMANDS, (start, stop, check, list), strict=True):
            try:
                _filled(command, "an-id")
            except ConfigError as error:
                self.config_error(f"{keyword}: {error}")
        if not isinstance(command_timeout, int | float) or command_timeout <= 0:
            self.config_error(f"command_timeout is {command_timeout!r}; write a number of seconds above 0")

    def reconfigService(
        self,
        name: str,
        password: str | None = None,
        *,
        start: Any = None,
        stop: Any = None,
        check: Any = None,
        list: Any = None,
        command_timeout: float = 60,
        **kwargs: Any,
    ) -> Any:
        self.commands = dict(zip(COMMANDS, (start, stop, check, list), strict=True))
        self.command_timeout = command_timeout
        return super().reconfigService(name, password, **kwargs)

    # --- the hooks -----------------------------------------------------------------------------------------------------------

    async def start_instance(self, build: Any) -> list[str]:
        name = self._id()
        # Written as it is read, one call after the other; the thread is what makes it asynchronous. Should this be cancelled
        # when the command already runs, what it started is ended when it comes.
        await self._threads().run(self._start, name, self.agent_environment(), adopt=lambda _: self._came_late(name))
        return [name]

    async def stop_instance(self, fast: bool = False) -> None:
        await self.destroy_instance({"id": self._id()})

    async def check_instance(self) -> tuple[bool, str]:
        there, message = await self._threads().run(self._check, self._id(), adopt=discard)
        return there, "" if there else f"{self._id()} is gone: {message}"

    def instance_handle(self) -> JSON:
        return {"id": self._id()}

    async def resume_instance(self, handle: JSON) -> bool:
        there, _ = await self._threads().run(self._check, handle["id"], adopt=discard)
        return bool(there and handle["id"] == self._id())

    async def list_instances(self) -> list[ListedInstance]:
        printed = await self._threads().run(self._run, "list", "", adopt=discard)
        if printed.returncode != 0:
            raise LatentError(f"the command {printed.args} failed: {_said(printed)}")
        found = [ID.fullmatch(line.strip()) for line in printed.stdout.splitlines()]
        return [
            ListedInstance(Attempt(one["worker"], int(one["attempt"])), {"id": one.string.strip()}, one["controller"])
            for one in found
            if one is not None  # somebody else's
        ]

    async def destroy_instance(self, handle: JSON) -> None:
        await self._threads().run(self._destroy, handle["id"], adopt=discard)

    # --- what blocks, and runs in a thread -----------------------------------------------------------------------------------

    def _start(self, name: str, environment: dict[str, str]) -> None:
        if self._check(name)[0]:
            return  # this start was cut short by a crash of the controller, and is being repeated
        done = self._run("start", name, environment)
        if done.returncode != 0:
            raise LatentWorkerFailedToSubstantiate(f"the command {done.args} failed: {_said(done)}")

    def _destroy(self, name: str) -> None:
        done = self._run("stop", name)
        if self._check(name)[0]:
            raise LatentError(f"{name} is still there after {done.args}: {_said(done)}")

    def _check(self, name: str) -> tuple[bool, str]:
        done = self._run("check", name)
        return done.returncode == 0, _said(done)

    def _run(self, which: str, name: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = _filled(self.commands[which], name)
        try:
            return subprocess.run(
                command,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=self.command_timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LatentWorkerFailedToSubstantiate(f"{command} took more than {self.command_timeout:g} s") from error
        except OSError as error:
            raise LatentWorkerConfigurationError(f"{command[0]} can't be run ({error.strerror}); correct {which}=") from error

    # --- inside --------------------------------------------------------------------------------------------------------------

    def _threads(self) -> ThreadPool:
        self._pool = ThreadPool.shared("commands", THREADS, self.reactor)
        return self._pool

    def _id(self) -> str:
        """Made from the identity alone: the same attempt has the same name, also after a crash."""
        assert self.enrolment is not None
        attempt = self.enrolment.attempt
        return f"latent-{self.enrolment.controller_id}-{attempt.worker}-{attempt.number}"

    def _came_late(self, name: str) -> None:
        self._threads().run(self._destroy, name, adopt=discard)  # an error is logged when nobody takes it


def _filled(command: Any, name: str) -> list[str]:
    """The command with its places filled in. ConfigError for what is no command."""
    if isinstance(command, str) or not isinstance(command, Sequence) or not command:
        raise ConfigError(f"{command!r} is not a command; write a list of arguments, ['systemctl', 'stop', '{{id}}']")
    try:
        return [argument.format(id=name) for argument in command]
    except (AttributeError, KeyError, IndexError, ValueError) as error:
        raise ConfigError(f"{command!r} can't be filled in ({error!r}); '{{id}}' is the only place there is") from error


def _said(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return f"exit code {done.returncode}; " + (" | ".join(lines[-5:]) or "no output")
