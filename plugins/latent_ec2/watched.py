"""What is expected of an instance, by whom, and when it has to be looked at for that: pure but for who is told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred

from latent_ec2.instances import EXPIRES, Instance

Heard = Callable[[Instance | None], None]
Wanted = Callable[[], bool]

PACES = ((20.0, 5.0), (120.0, 10.0), (600.0, 15.0))
"""While something is awaited: up to so many seconds after it was last begun to wait, a look every so many seconds."""

SLOW_PACE = 30.0
"""Seconds between looks when something has been awaited for longer than that."""

QUIET = 30.0
"""Seconds between looks at instances that run and from which nothing is awaited."""

_ON_THE_WAY = ("pending", "stopping")


@define(eq=False)
class Watched:
    """``heard``: who listens -> (seconds, expiry, whether it is wanted). ``goals``: (states, who waits for one of them).

    ``seen``: by a look.
    """

    since: float
    awaited_since: float
    last: Instance | None = None
    seen: bool = False
    heard: dict[Heard, tuple[float, float | None, Wanted]] = field(factory=dict)
    goals: list[tuple[frozenset[str], Deferred[Instance | None]]] = field(factory=list)

    @property
    def awaited(self) -> bool:
        return bool(self.goals) or self.last is None or self.last.state in _ON_THE_WAY

    @property
    def every(self) -> float:
        return min((every for every, _, _ in self.heard.values()), default=QUIET)

    @property
    def expiry(self) -> float | None:
        """Seconds by which it is to be pushed forward; None while nobody lives who wants that."""
        return max((expiry for _, expiry, wanted in self.heard.values() if expiry is not None and wanted()), default=None)


def next_look(watched: Collection[Watched], now: float, looked: float) -> float | None:
    """When to look next at all of them; None: never. All in the clock's seconds; ``looked``: when that was last begun."""
    if not watched:
        return None
    times = [max(looked, min(one.since for one in watched)) + min(one.every for one in watched)]
    if awaited := [one.awaited_since for one in watched if one.awaited]:
        times.append(max(looked, min(awaited)) + _pace(now - max(awaited)))
    return min(times)


def due(watched: Mapping[str, Watched], wall: float) -> dict[float, list[str]]:
    """Whose expiry is to be pushed forward, by the seconds: once half of somebody's is over, all whose first quarter is.

    ``wall``: POSIX seconds.
    """
    left = [
        (one, (entry.last.expires or 0.0) - wall, entry.expiry)
        for one, entry in watched.items()
        if entry.seen and entry.last is not None and entry.last.state != "pending" and entry.expiry is not None
    ]
    if not any(seconds < expiry / 2 for _, seconds, expiry in left):
        return {}
    found: dict[float, list[str]] = {}
    for one, seconds, expiry in left:
        if seconds < expiry * 3 / 4:
            found.setdefault(expiry, []).append(one)
    return found


def telling(instance: Instance) -> Any:
    """What of it is worth telling: when it expires is the region's own business."""
    return evolve(instance, tags={key: value for key, value in instance.tags.items() if key != EXPIRES})


def _pace(age: float) -> float:
    return next((pace for upto, pace in PACES if age < upto), SLOW_PACE)
