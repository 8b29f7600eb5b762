"""This machine's processes: which belong to an instance, whether one is still the same, and how it is made to end.

Everything here blocks and is called from a `latent.worker.threads.ThreadPool`.

Note [Same process]. A pid is used again; a pid and the moment the process was born are not. Linux tells that moment in ticks
since the boot, which no change of the clock moves; elsewhere the time of day has to do. Where a process is remembered over a
restart (also of the machine) its environment must carry the instance's marker as well.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
from attrs import field, frozen

MARKER = "LATENT_INSTANCE"
"""The variable in the environment of every process of an instance: ``<controller id>/<worker>/<attempt>``."""

DIRECTORY = "LATENT_INSTANCE_DIR"

SETTLING = 100
"""How often a process is looked at, a millisecond apart, that is just being replaced by exec(): for a moment it has no
environment, also after whoever started it has been told that it runs."""

_DEAD = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


@frozen
class Seen:
    """A process as it was looked at. ``born`` tells it from later ones of the same pid.

    ``created``: when, in POSIX seconds; 0 without a marker.
    ``readable``: whether its environment could be read, so that an empty ``marker`` says something.
    ``suspended``: whether it was stopped by a signal and does nothing until it is sent SIGCONT.
    """

    pid: int
    parent: int
    session: int
    born: float
    created: float
    marker: str = ""
    directory: str = ""
    readable: bool = True
    suspended: bool = field(default=False, eq=False)


@frozen
class _Stat:
    parent: int
    session: int
    born: float
    alive: bool
    suspended: bool


def look(pid: int) -> Seen | None:
    """The process, or None if it is gone (a zombie is). One that may not be looked at has no marker."""
    for _ in range(SETTLING):
        stat = _stat(pid)
        if stat is None or not stat.alive:
            return None
        readable, created, settled = True, 0.0, True
        environment: Mapping[str, str] = {}
        try:
            environment = _environment(pid)
            if environment:
                created = psutil.Process(pid).create_time() if MARKER in environment else 0.0
            else:
                # Session 0 is the kernel's own threads, which have neither environment nor arguments.
                settled = stat.session == 0 or bool(psutil.Process(pid).cmdline())
        except (PermissionError, psutil.AccessDenied):
            readable = False
        except (psutil.Error, OSError):
            return None
        marker, directory = environment.get(MARKER, ""), environment.get(DIRECTORY, "")
        seen = Seen(pid, stat.parent, stat.session, stat.born, created, marker, directory, readable, stat.suspended)
        if settled:
            return seen
        wait((seen,), 0.001)
    return seen


def snapshot() -> tuple[Seen, ...]:
    """All processes. Children of ours that have ended are reaped first."""
    children.reap()
    return tuple(seen for pid in psutil.pids() if (seen := look(pid)) is not None)


def family(processes: Iterable[Seen], marker: str, known: Collection[int] = ()) -> tuple[Seen, ...]:
    """All processes of an instance: those that carry the marker, what descends from them, and what is in their sessions.

    ``known``: pids that belong to it for another reason.

    The last two find what was started with an empty environment. Ourselves and our ancestors are never among them.
    """
    everything = {process.pid: process for process in processes}
    mine = {pid for pid, process in everything.items() if process.marker == marker or pid in known}
    parents: dict[int, list[Seen]] = {}
    for process in everything.values():
        parents.setdefault(process.parent, []).append(process)
    mine |= {pid for pid, process in everything.items() if process.session in mine}
    queue = list(mine)
    while queue:
        for child in parents.get(queue.pop(), ()):
            if child.pid not in mine:
                mine.add(child.pid)
                queue.append(child.pid)
    ancestor = everything.get(os.getpid())
    while ancestor is not None and ancestor.pid in everything:
        mine.discard(ancestor.pid)
        everything.pop(ancestor.pid)
        ancestor = everything.get(ancestor.parent)
    return tuple(everything[pid] for pid in sorted(mine))


def agent_of(carriers: Iterable[Seen]) -> Seen:
    """Which of the processes that carry one marker is the agent: the first, with a session of its own.

    When the agent has died, one of those that it left.
    """
    carriers = list(carriers)
    pids = {process.pid for process in carriers}

    def rank(process: Seen) -> tuple[bool, bool, float, int]:
        return process.parent in pids, process.session != process.pid, process.born, process.pid

    return min(carriers, key=rank)


def alive(pid: int, born: float) -> bool:
    """Whether that very process runs."""
    stat = _stat(pid)
    return stat is not None and stat.alive and stat.born == born


def send(processes: Iterable[Seen], signum: signal.Signals) -> None:
    """Signal the processes that are still the same. Those that are gone, or may not be signalled, are passed over."""
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            if sys.platform == "linux":
                _send_to_descriptor(process, signum)
            elif alive(process.pid, process.born):
                os.kill(process.pid, signum)


def _send_to_descriptor(process: Seen, signum: signal.Signals) -> None:
    """Between the look and the signal the descriptor holds the process, so that none with the same pid can be hit."""
    descriptor = os.pidfd_open(process.pid)
    try:
        if alive(process.pid, process.born):
            signal.pidfd_send_signal(descriptor, signum)
    finally:
        os.close(descriptor)


def wait(processes: Sequence[Seen], seconds: float) -> tuple[Seen, ...]:
    """Wait until all are gone, at most ``seconds``. Returns those that are not."""
    if sys.platform == "linux":
        _poll(processes, seconds)
    else:
        psutil.wait_procs(_handles(processes), timeout=seconds)
    children.reap()
    return tuple(process for process in processes if alive(process.pid, process.born))


class Children:
    """The processes that we started and have not forgotten: somebody has to reap them, and their exit codes are wanted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: dict[tuple[int, float], subprocess.Popen[bytes]] = {}

    def spawn(self, command: Sequence[str], environment: Mapping[str, str], directory: Path, log: Path) -> Seen:
        """Start a command in a session of its own, its output appended to ``log``. OSError if it can't be started."""
        with log.open("ab") as output:
            child = subprocess.Popen(
                list(command),
                cwd=directory,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                close_fds=True,
            )
        # It can't be gone without a trace: nobody but `reap` could reap it, and that does not know it yet.
        stat = _stat(child.pid)
        born = stat.born if stat is not None else 0.0
        with self._lock:
            self._children[child.pid, born] = child
        # From here on a scan finds it by its marker.
        seen = look(child.pid)
        if seen is not None and seen.created:
            return seen
        return Seen(child.pid, os.getpid(), child.pid, born, time.time())

    def reap(self) -> None:
        with self._lock:
            for child in self._children.values():
                child.poll()

    def has(self, pid: int, born: float) -> bool:
        """Whether it is one of them."""
        with self._lock:
            return (pid, born) in self._children

    def exit_code(self, pid: int, born: float) -> int | None:
        """How a child ended, negative for a signal; None if it has not, or is not ours."""
        with self._lock:
            child = self._children.get((pid, born))
            return None if child is None else child.poll()

    def forget(self, pids: Iterable[tuple[int, float]]) -> None:
        """Those of them that have ended are not asked for again."""
        with self._lock:
            for key in pids:
                child = self._children.get(key)
                if child is not None and child.poll() is not None:
                    del self._children[key]


children = Children()
"""One for the whole program: a process has one parent, whichever worker started it."""


def _stat(pid: int) -> _Stat | None:
    return _stat_of_linux(pid) if sys.platform == "linux" else _stat_of_psutil(pid)


def _stat_of_linux(pid: int) -> _Stat | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses and may hold anything.
    fields = line[line.rindex(b")") + 2 :].split()
    return _Stat(
        parent=int(fields[1]),
        session=int(fields[3]),
        born=float(fields[19]),
        alive=fields[0] not in (b"Z", b"X", b"x"),
        suspended=fields[0] == b"T",
    )


def _environment(pid: int) -> Mapping[str, str]:
    """A process's environment as it was when its program started. PermissionError, or psutil's, if it may not be read."""
    if sys.platform != "linux":
        return psutil.Process(pid).environ()
    with open(f"/proc/{pid}/environ", "rb") as file:
        pairs = (entry.partition(b"=") for entry in file.read().split(b"\0") if entry)
        return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def _stat_of_psutil(pid: int) -> _Stat | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            status = process.status()
            return _Stat(
                process.ppid(), os.getsid(pid), process.create_time(), status not in _DEAD, status == psutil.STATUS_STOPPED
            )
    except (psutil.Error, OSError):
        return None


def _poll(processes: Iterable[Seen], seconds: float) -> None:
    """Wait on file descriptors of the processes: they become readable when one ends, also when it becomes a zombie."""
    with ExitStack() as stack:
        poller = select.poll()
        waiting = set()
        for process in processes:
            try:
                descriptor = os.pidfd_open(process.pid)
            except ProcessLookupError:
                continue
            stack.callback(os.close, descriptor)
            if alive(process.pid, process.born):
                poller.register(descriptor, select.POLLIN)
                waiting.add(descriptor)
        until = time.monotonic() + seconds
        while waiting and (left := until - time.monotonic()) > 0:
            for descriptor, _ in poller.poll(left * 1000):
                poller.unregister(descriptor)
                waiting.discard(descriptor)


def _handles(processes: Iterable[Seen]) -> list[psutil.Process]:
    found = []
    for process in processes:
        try:
            found.append(psutil.Process(process.pid))
        except psutil.NoSuchProcess:
            continue
    return found
