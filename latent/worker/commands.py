"""Commands that the actions of latent machines run on the controller's own machine.

They are not ended when the controller is killed: half a start may be worse than a whole one. So each is written down while it
runs, and before a machine's next command is run, the one that another controller left is waited for.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from latent.errors import MachineError

KILL_GRACE = 5.0
"""Seconds from SIGTERM to SIGKILL for a command that is cancelled."""

DRAIN = 0.5
"""Seconds after a command's end in which what it has written is still read."""

LOOK = 0.5
"""Seconds between two looks whether a command has ended that another controller began."""

TAIL = 2000
"""Bytes of a command's output that are kept: its last."""

# A session of its own, so that a cancelled command can be ended with all that it has started; and what Python ignores of signals
# is as usual again.
_LEADER = (
    "import os, signal, sys\n"
    "os.setsid()\n"
    "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
    "try:\n"
    "    os.execvp(sys.argv[1], sys.argv[1:])\n"
    "except OSError as error:\n"
    "    sys.exit(f'{sys.argv[1]}: {error.strerror}')\n"
)


@frozen
class Ended:
    """``code``: the exit code, or minus the number of the signal that ended it. ``output``: the last of what it wrote."""

    code: int
    output: str


class _Command(ProcessProtocol):
    def __init__(self, reactor: Any) -> None:
        self.ended: Deferred[Ended] = Deferred()
        self._reactor = reactor
        self._output = b""
        self._close: Any = None

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._output = (self._output + data)[-TAIL:]

    def processExited(self, reason: Failure) -> None:
        # What a command leaves running on purpose, a virtual machine say, may hold its pipes: nobody waits for their end.
        self._close = self._reactor.callLater(DRAIN, self._close_pipes)

    def _close_pipes(self) -> None:
        transport: Any = self.transport
        for fd in (1, 2):
            transport.closeChildFD(fd)

    def processEnded(self, reason: Failure) -> None:
        if self._close is not None and self._close.active():
            self._close.cancel()
        status: Any = reason.value
        code = -status.signal if status.signal else status.exitCode or 0
        self.ended.callback(Ended(code, self._output.decode("utf-8", "replace")))


@frozen
class Place:
    """Whose commands: ``machine`` is told to them as LATENT_MACHINE; ``record`` is where the one that runs is written down."""

    reactor: Any
    machine: str
    record: Path


async def run_command(place: Place, argv: Sequence[str]) -> Ended:
    """Run it to its end; cancelled, it is ended first, with its children. It may leave processes running."""
    reactor = place.reactor
    while _runs(place.record):
        await deferLater(reactor, LOOK)
    command = _Command(reactor)
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        process = reactor.spawnProcess(
            command,
            sys.executable,
            [sys.executable, "-I", "-S", "-c", _LEADER, *argv],
            env={**os.environ, "LATENT_MACHINE": place.machine},
            childFDs={0: nothing, 1: "r", 2: "r"},
        )
    finally:
        os.close(nothing)
    pid = process.pid
    _write_down(place.record, pid)
    waiting: Deferred[Ended] = Deferred()
    command.ended.addCallback(lambda ended: None if waiting.called else waiting.callback(ended))
    try:
        return await waiting
    except CancelledError:
        await _end(reactor, pid, command.ended)
        raise
    finally:
        place.record.unlink(missing_ok=True)


async def checked(place: Place, argv: Sequence[str]) -> Ended:
    """`run_command`. Raises MachineError with the last of its output unless its exit code is 0."""
    ended = await run_command(place, argv)
    if ended.code != 0:
        raise MachineError(explained(argv, ended))
    return ended


def explained(argv: Sequence[str], ended: Ended) -> str:
    """What a command that failed is told of."""
    how = f"was ended by signal {-ended.code}" if ended.code < 0 else f"ended with exit code {ended.code}"
    said = " ".join(ended.output.split())
    return f"{shlex.join(argv)} {how}" + (f": {said[-400:]}" if said else "")


def _write_down(record: Path, pid: int) -> None:
    record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(psutil.NoSuchProcess):
        record.write_text(json.dumps([pid, psutil.Process(pid).create_time()]))


def _runs(record: Path) -> bool:
    """Whether the command that is written down still runs. A record that a crash has cut short says nothing."""
    try:
        pid, created = json.loads(record.read_text())
        process = psutil.Process(pid)
        return bool(process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE)
    except (OSError, ValueError, TypeError, psutil.NoSuchProcess):
        return False


async def _end(reactor: Any, pid: int, ended: Deferred[Ended]) -> None:
    _send(pid, signal.SIGTERM)
    kill = reactor.callLater(KILL_GRACE, _send, pid, signal.SIGKILL)
    await ended
    if kill.active():
        kill.cancel()


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:  # it has not come to lead a session yet
            os.kill(pid, number)
