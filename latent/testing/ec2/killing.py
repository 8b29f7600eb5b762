"""The processes of instances: who they are, and how they are ended, also when the cloud itself is killed. Linux alone.

Every process of an instance carries its mark in its environment. One that was started with another environment is found by its
parent or its session.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
from collections.abc import Collection, Iterator

from attrs import frozen

MARK = "LATENT_TESTING_EC2"
"""The variable: ``<cloud>/<instance id>``."""

ROUNDS, PAUSE = 200, 0.02
"""A process that has just been forked is seen the next time: so it is looked again, after so many seconds."""


@frozen
class Seen:
    pid: int
    parent: int
    session: int
    mark: str


def snapshot(variable: str = MARK) -> list[Seen]:
    """All processes that are not dead. ``mark`` is "" where there is none or it may not be read."""
    return list(_look(variable.encode() + b"="))


def _look(start: bytes) -> Iterator[Seen]:
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError):
            with open(f"/proc/{name}/stat", "rb") as file:
                line = file.read()
            state, parent, _, session, *_ = line[line.rindex(b")") + 2 :].split()
            if state in (b"Z", b"X", b"x"):
                continue
            mark = b""
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                text = file.read()
                if start in text:
                    mark = next((one[len(start) :] for one in text.split(b"\0") if one.startswith(start)), b"")
            yield Seen(int(name), int(parent), int(session), mark.decode(errors="replace"))


def members(processes: Collection[Seen], marks: Collection[str], sessions: Collection[int] = ()) -> dict[int, str]:
    """Pid -> mark of all that belong to these marks. ``sessions``: those known to be theirs."""
    found = {one.pid: one.mark for one in processes if one.mark in marks}
    of_session = {one.session: one.mark for one in processes if one.mark in marks}
    of_session |= {session: "" for session in sessions if session not in of_session}
    strangers = [one for one in processes if one.pid not in found]
    found |= {one.pid: of_session[one.session] for one in strangers if one.session in of_session}
    grew = True
    while grew:
        more = {one.pid: found[one.parent] for one in strangers if one.parent in found and one.pid not in found}
        found |= more
        grew = bool(more)
    for ours in (os.getpid(), os.getppid(), 1):
        found.pop(ours, None)
    return found


def send(pids: Collection[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


class Guard:
    """A child that outlives this process by a moment and ends what that has left. To be made before there are threads.

    ``cloud``: what the marks begin with. ``folder``: removed at the end.
    """

    def __init__(self, cloud: str, folder: str) -> None:
        reading, writing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                _watch(reading, cloud, folder)
            finally:
                os._exit(0)
        os.close(reading)
        self._pipe = writing

    def close(self) -> None:
        """Let it end, and wait until it has."""
        os.close(self._pipe)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _watch(pipe: int, cloud: str, folder: str) -> None:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for descriptor in os.listdir("/proc/self/fd"):
        if int(descriptor) > 2 and int(descriptor) != pipe:
            with contextlib.suppress(OSError):
                os.close(int(descriptor))
    os.read(pipe, 1)
    end_cloud(cloud)
    shutil.rmtree(folder, ignore_errors=True)


def end_cloud(cloud: str) -> None:
    """Kill all that runs in any instance of it. Blocks until nothing is left."""
    quiet = 0
    for _ in range(ROUNDS):
        processes = snapshot()
        left = members(processes, {one.mark for one in processes if one.mark.startswith(cloud + "/")})
        send(left, signal.SIGKILL)
        quiet = 0 if left else quiet + 1
        if quiet == 2:
            return
        select.select((), (), (), PAUSE)
