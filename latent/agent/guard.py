"""Who ends the steps when the agent is killed.

A process killed with -9 can't clean up, and its steps are in process groups of their own. The guard is a child of the agent that
holds the reading end of a pipe and is told which groups there are. When the pipe closes, the agent is gone, however that came
about, and the guard kills what is left: the groups that it knows, and where there is a /proc all that carry the agent's mark in
their environment, since the agent may die before it can tell of a step that it has just started, and steps may leave their group.
It is forked before the agent has threads or loads gRPC, so it costs about a millisecond.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import select
import signal
from typing import Protocol

PROC = "/proc"

MARK = "LATENT_AGENT"
"""The variable that holds the agent's mark in the environment of its steps."""

SEARCHES, PAUSE = 3, 0.05
"""A process that was forked but is not yet its own program has no mark: so it is searched again, after that many seconds."""


class Guard(Protocol):
    """Told of every process group while it exists. ``mark``: what steps carry in `MARK`, "" for nothing."""

    mark: str

    def add(self, group: int) -> None: ...

    def remove(self, group: int) -> None: ...


class NoGuard:
    """For an agent inside another program."""

    mark = ""

    def add(self, group: int) -> None:
        """Nobody listens."""

    def remove(self, group: int) -> None:
        """Nobody listens."""


class ForkedGuard:
    """A child process that outlives this one by a moment. To be made while this process has one thread."""

    def __init__(self) -> None:
        self.mark = secrets.token_hex(16)
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            # Nothing of the agent may run on in the child, whatever happens.
            try:
                _watch(reading, self.mark)
            finally:
                os._exit(0)
        os.close(reading)
        self._pipe = writing

    def add(self, group: int) -> None:
        self._tell(b"+%d\n" % group)

    def remove(self, group: int) -> None:
        self._tell(b"-%d\n" % group)

    def close(self) -> None:
        """Let the guard end and wait for it: the agent leaves no process behind."""
        os.close(self._pipe)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _tell(self, line: bytes) -> None:
        # Somebody may have killed the guard; the agent's work goes on without it.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._pipe, line)


def _watch(pipe: int, mark: str) -> None:
    """The child: read until the agent is gone, then kill the groups that are left."""
    os.setsid()
    pipe = fcntl.fcntl(pipe, fcntl.F_DUPFD, 3)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.closerange(3, pipe)
    os.closerange(pipe + 1, os.sysconf("SC_OPEN_MAX"))
    groups: set[int] = set()
    rest = b""
    while data := os.read(pipe, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    variable = f"{MARK}={mark}".encode()
    for _ in range(SEARCHES):
        while marked := _marked(variable):
            for process in marked:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)
            select.select((), (), (), PAUSE)
        select.select((), (), (), PAUSE)


def _marked(variable: bytes) -> list[int]:
    """The processes with ``variable`` in their environment; those that are dead already have none."""
    found = []
    for name in os.listdir(PROC) if os.path.isdir(PROC) else ():
        with contextlib.suppress(OSError, ValueError), open(f"{PROC}/{int(name)}/environ", "rb") as environ:
            if variable in environ.read().split(b"\0"):
                found.append(int(name))
    return found
