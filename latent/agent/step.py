"""One step: a process group of its own, its output as log entries, and its end.

A step is over when its own process is. Whatever that left behind in its process group is killed then; a program that is
meant to live on has to leave the group (setsid). A step with more output than the controller takes is made to wait, and is not
silent meanwhile: `Step.timeout` counts only while the agent reads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from latent.agent import groups
from latent.agent.guard import Guard
from latent.agent.lines import LineSplitter
from latent.agent.logs import LogBuffer
from latent.agent.plan import PlannedStep
from latent.wire import calls
from latent.wire import peer_pb2 as pb

log = logging.getLogger(__name__)

CHUNK = 64 * 1024
DRAIN = 5.0
"""Seconds that output is waited for after the step's processes are gone: one that left the group may hold the pipe."""

CANNOT_RUN = 126
NOT_FOUND = 127
"""Exit codes of a step whose program can't be started, as a shell has them."""


@frozen(kw_only=True)
class Ended:
    """How a step ended. ``timed_out``: by its own time limits. ``stopped``: because its run was ended."""

    exit_code: int
    error: str = ""
    timed_out: bool = False
    stopped: bool = False

    @property
    def good(self) -> bool:
        return self.exit_code == 0 and not self.timed_out and not self.stopped


class StepLog:
    """The numbered lines of one step."""

    def __init__(self, uuid: str, buffer: LogBuffer) -> None:
        self._uuid = uuid
        self._buffer = buffer
        self._line = 0
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()

    @property
    def elapsed(self) -> float:
        return self._loop.time() - self._began

    def write(self, kind: int, data: bytes) -> None:
        self._buffer.add(pb.LogEntry(step_uuid=self._uuid, line=self._line, time=int(self.elapsed), type=kind, data=data))
        self._line += 1

    def note(self, text: str) -> None:
        """A line of ours, apart from the step's output."""
        self.write(calls.METADATA, text.encode(errors="replace"))


def arguments(command: str | tuple[str, ...]) -> list[str]:
    """A command line goes to bash, or to sh where there is none, and ends at its first failing command, as with a stock agent."""
    if isinstance(command, str):
        return [shutil.which("bash") or "/bin/sh", "-e", "-c", command]
    return list(command)


class StepProcess:
    """Runs ``planned`` in ``folder``. ``grace``: seconds between SIGTERM and SIGKILL."""

    def __init__(
        self, planned: PlannedStep, env: Mapping[str, str], folder: Path, buffer: LogBuffer, guard: Guard, grace: float
    ) -> None:
        self._step = planned.step
        self._env = env
        self._folder = folder / (planned.step.workdir or "")
        self._buffer = buffer
        self._guard = guard
        self._grace = grace
        self._log = StepLog(planned.uuid, buffer)
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._reading: list[asyncio.ReadTransport] = []

    async def run(self, stop: asyncio.Future[str]) -> Ended:
        """Until the step is over. ``stop`` is done, with the reason, when it shall be ended; it is left as it is."""
        command = self._step.command
        self._log.note(f"$ {command if isinstance(command, str) else ' '.join(command)}")
        try:
            return await self._run(stop)
        except (OSError, ValueError) as error:
            message = f"can't be started: {error.strerror if isinstance(error, OSError) else error}"
            self._log.note(message)
            return Ended(exit_code=NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN, error=message)
        finally:
            for transport in self._reading:
                transport.close()

    async def _run(self, stop: asyncio.Future[str]) -> Ended:
        process, readers = await self._start()
        self._guard.add(process.pid)
        exited = asyncio.ensure_future(process.wait())
        pumps = [asyncio.ensure_future(self._pump(reader, kind)) for kind, reader in readers.items()]
        try:
            limit = await self._watch(exited, stop)
            reason = ""
            if not exited.done():
                reason = limit or stop.result()
                self._log.note(f"{reason}: ending the step")
                await self._end(process.pid, exited)
            groups.send(process.pid, signal.SIGKILL)
            await self._drain(pumps)
        finally:
            # Also when this is cancelled: nothing is left running.
            groups.send(process.pid, signal.SIGKILL)
            self._guard.remove(process.pid)
            for task in (exited, *pumps):
                task.cancel()
        return self._ended(process.returncode or 0, reason, bool(limit))

    def _ended(self, returned: int, reason: str, timed_out: bool) -> Ended:
        """``reason``: why the agent ended it, "" if it ended by itself."""
        code = returned if returned >= 0 else 128 - returned
        error = reason or (f"ended by {groups.name_of(-returned)}" if returned < 0 else "")
        self._log.note(f"{error + ', ' if error else ''}exit code {code} after {self._log.elapsed:.1f} s")
        return Ended(exit_code=code, error=error, timed_out=timed_out, stopped=bool(reason) and not timed_out)

    # --- its process -----------------------------------------------------------------------------------------------------------

    async def _start(self) -> tuple[asyncio.subprocess.Process, dict[int, asyncio.StreamReader]]:
        """The process, and a reader for each kind of output. Raises OSError or ValueError when it can't be started.

        The pipes are our own: asyncio's make `Process.wait` wait for whoever holds them.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        readers: dict[int, asyncio.StreamReader] = {}
        theirs: list[int] = []
        try:
            for kind in (calls.OUT, calls.ERR):
                reading, writing = os.pipe()
                theirs.append(writing)
                readers[kind] = await self._reader(reading)
            process = await asyncio.create_subprocess_exec(
                *arguments(self._step.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=theirs[0],
                stderr=theirs[1],
                cwd=self._folder,
                env=self._env,
                start_new_session=True,
            )
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        return process, readers

    async def _reader(self, descriptor: int) -> asyncio.StreamReader:
        reader = asyncio.StreamReader(limit=CHUNK)
        pipe = os.fdopen(descriptor, "rb", buffering=0)
        transport, _ = await self._loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        self._reading.append(transport)
        return reader

    async def _pump(self, reader: asyncio.StreamReader, kind: int) -> None:
        """Output into the log, no faster than the log is taken."""
        lines = LineSplitter()
        while data := await reader.read(CHUNK):
            self._heard = self._loop.time()
            for line in lines.feed(data):
                self._log.write(kind, line)
            await self._buffer.room()
            self._heard = self._loop.time()
        for line in lines.close():
            self._log.write(kind, line)

    # --- its end ---------------------------------------------------------------------------------------------------------------

    async def _watch(self, exited: asyncio.Future[int], stop: asyncio.Future[str]) -> str:
        """Until the step exits ("") or is to be ended: the limit it ran into, or "" when ``stop`` is done."""
        began = self._loop.time()
        silence, most = self._step.timeout, self._step.max_time
        while not exited.done() and not stop.done():
            now = self._loop.time()
            if not self._buffer.has_room:
                self._heard = now
            limits = []
            if silence is not None:
                limits.append((self._heard + silence, f"no output for {silence:g} s"))
            if most is not None:
                limits.append((began + most, f"took longer than {most:g} s"))
            due, reason = min(limits, default=(None, ""))
            if due is not None and now >= due:
                return reason
            await asyncio.wait((exited, stop), timeout=None if due is None else due - now, return_when=asyncio.FIRST_COMPLETED)
        return ""

    async def _end(self, group: int, exited: asyncio.Future[int]) -> None:
        """SIGTERM, and SIGKILL after the grace; done when the step and all of its group are gone."""
        deadline = self._loop.time() + self._grace
        groups.send(group, signal.SIGTERM)
        await asyncio.wait((exited,), timeout=self._grace)
        # Its children may still be cleaning up.
        while groups.lives(group) and self._loop.time() < deadline:
            await asyncio.sleep(0.05)
        groups.send(group, signal.SIGKILL)
        await exited

    async def _drain(self, pumps: list[asyncio.Task[None]]) -> None:
        """The output that is still in the pipes, as long as it takes when it is the controller that is slow."""
        pending: set[asyncio.Task[None]] = set(pumps)
        while pending:
            _, pending = await asyncio.wait(pending, timeout=DRAIN)
            if pending and self._buffer.has_room and self._loop.time() - self._heard >= DRAIN:
                self._log.note("a program that the step started holds its output open; not waiting for more")
                return
