"""Process groups: to signal one, and to see whether anybody in it lives."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

PROC = Path("/proc")


def send(group: int, number: int) -> bool:
    """Signal all of ``group``. Whether there was anybody to be signalled, be it a process that is dead and not yet waited for."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Members that changed their user; there is no more to be done about them.
        return False
    return True


def lives(group: int) -> bool:
    """Whether a process of ``group`` runs. Where there is no /proc, the dead that nobody waits for count as living.

    Orphans are waited for by process 1, which in a container may take its time or not do it at all.
    """
    if not send(group, 0):
        return False
    if not (PROC / "self" / "stat").exists():
        return True
    return any(_state(PROC / name, group) not in "ZX" for name in os.listdir(PROC) if name.isdigit())


def _state(folder: Path, group: int) -> str:
    """The state letter of a process; "X", dead, when it is none of the group's."""
    try:
        stat = (folder / "stat").read_text(errors="replace")
    except OSError:
        return "X"
    state, _, its_group = stat.rpartition(")")[2].split()[:3]
    return state if int(its_group) == group else "X"


def name_of(number: int) -> str:
    """Of a signal."""
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
