"""How the statuses of tasks are told to people: fewer words than letters, each with a sign and a colour."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from latent.swarm.statuses import TaskStatus


class Look(Enum):
    """What a task looks like from outside, in the order in which counts are told."""

    DONE = "done"
    FAILED = "failed"
    RUNNING = "running"
    STARTING = "starting"
    QUEUED = "queued"
    RETRYING = "retrying"
    WAITING = "waiting"

    @property
    def sign(self) -> str:
        """One character, for who can't tell the colours apart."""
        return SIGNS[self]


SIGNS = {
    Look.DONE: "✓",
    Look.FAILED: "✗",
    Look.RUNNING: "▶",
    Look.STARTING: "▷",
    Look.QUEUED: "◦",
    Look.RETRYING: "↻",
    Look.WAITING: "",
}

LOOKS = {
    TaskStatus.REGISTERING: Look.WAITING,
    TaskStatus.QUEUED: Look.QUEUED,
    TaskStatus.INSTANTIATED: Look.QUEUED,
    TaskStatus.LAUNCHED: Look.STARTING,
    TaskStatus.RUNNING: Look.RUNNING,
    TaskStatus.DONE: Look.DONE,
    TaskStatus.ERROR_RECOVERABLE: Look.RETRYING,
    TaskStatus.ADJUSTING_RESOURCES: Look.RETRYING,
    TaskStatus.ERROR_FATAL: Look.FAILED,
}


def by_look(counts: Mapping[TaskStatus, int]) -> dict[Look, int]:
    """The same counts in fewer words; those that are 0 are left out."""
    found = dict.fromkeys(Look, 0)
    for status, number in counts.items():
        found[LOOKS[status]] += number
    return {look: number for look, number in found.items() if number}


def told(counts: Mapping[Look, int], *, without: frozenset[Look] = frozenset()) -> str:
    """``3 done, 1 failed``; empty if there is nothing to tell."""
    return ", ".join(f"{counts[look]:,} {look.value}" for look in Look if counts.get(look) and look not in without)
