"""Commands that the actions of latent machines run on the controller's own machine."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from latent.errors import MachineError

KILL_GRACE = 5.0
"""Seconds from SIGTERM to SIGKILL for a command that is cancelled."""

DRAIN = 0.5
"""Seconds after a command's end in which what it has written is still read."""

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


async def run_command(reactor: Any, argv: Sequence[str], environment: Mapping[str, str]) -> Ended:
    """Run it to its end; cancelled, it is ended first, with its children.

    Its environment is the controller's and ``environment``. It may leave processes running.
    """
    command = _Command(reactor)
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        process = reactor.spawnProcess(
            command,
            sys.executable,
            [sys.executable, "-I", "-S", "-c", _LEADER, *argv],
            env={**os.environ, **environment},
            childFDs={0: nothing, 1: "r", 2: "r"},
        )
    finally:
        os.close(nothing)
    pid = process.pid
    waiting: Deferred[Ended] = Deferred()
    command.ended.addCallback(lambda ended: None if waiting.called else waiting.callback(ended))
    try:
        return await waiting
    except CancelledError:
        await _end(reactor, pid, command.ended)
        raise


async def checked(reactor: Any, argv: Sequence[str], environment: Mapping[str, str]) -> Ended:
    """`run_command`. Raises MachineError with the last of its output unless its exit code is 0."""
    ended = await run_command(reactor, argv, environment)
    if ended.code != 0:
        raise MachineError(explained(argv, ended))
    return ended


def explained(argv: Sequence[str], ended: Ended) -> str:
    """What a command that failed is told of."""
    how = f"was ended by signal {-ended.code}" if ended.code < 0 else f"ended with exit code {ended.code}"
    said = " ".join(ended.output.split())
    return f"{shlex.join(argv)} {how}" + (f": {said[-400:]}" if said else "")


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
