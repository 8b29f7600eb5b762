"""Processes as owners of runs (specs/runs.md, 9): told apart by host, id and start, so that no later process is taken for one."""

from __future__ import annotations

import os
import socket

import psutil

START_TOLERANCE = 2.0
"""Seconds by which a process's start may seem to move: it is reckoned from the boot, whose time moves with the clock."""


def this_process() -> str:
    return f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.2f}"


def is_alive(owner: str) -> bool:
    """Whether the process runs. One on another host, or an owner of another kind, can't be seen from here and counts as alive."""
    match owner.split("/"):
        case [host, number, start] if host == socket.gethostname() and number.isdecimal():
            pass
        case _:
            return True
    try:
        begun = float(start)
    except ValueError:
        return True
    try:
        process = psutil.Process(int(number))
        return abs(process.create_time() - begun) <= START_TOLERANCE and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, OverflowError):
        return False
    except psutil.AccessDenied:
        return True
