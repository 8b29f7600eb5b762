"""What befalls a controller and its providers, and what is asked of it, and when: all of it follows from the seed alone.

Which instance a fault strikes depends on which there are when it comes; ``lot`` picks one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

from attrs import frozen

PARTS = ("process", "docker", "cloud", "ec2")
"""The kinds of workers."""

FIRST = 6.0
"""Seconds before anything goes wrong."""

FAULTS_APART, ASKED_APART = 8.0, 6.0
"""Seconds between two faults, and between two builds, on the average."""


@frozen
class Kind:
    """How often a fault comes, beside others, and how many seconds it lasts: ``shortest`` to ``longest``, 0 for at once."""

    weight: int
    shortest: float = 0.0
    longest: float = 0.0


KINDS: Mapping[str, Kind] = {
    # The controller is killed, and away for so long; it is suspended; it is stopped in order, and started again.
    "controller.kill": Kind(10, 0.0, 8.0),
    "controller.freeze": Kind(3, 1.0, 15.0),
    "controller.stop": Kind(2, 0.0, 5.0),
    "controller.reconfig": Kind(4),
    "controller.disk": Kind(3, 1.0, 6.0),
    # Agents are killed and suspended.
    "process.kill": Kind(4),
    "process.freeze": Kind(4, 1.0, 45.0),
    # Its daemon is killed, and away for so long; a container's agent is killed, it is paused, it is removed.
    "docker.daemon": Kind(3, 0.5, 12.0),
    "docker.kill": Kind(2),
    "docker.freeze": Kind(2, 1.0, 45.0),
    "docker.remove": Kind(2),
    # The cloud in memory: calls that go wrong, no room, lists that lag behind; what happens to instances.
    "cloud.fail": Kind(2),
    "cloud.hang": Kind(2, 5.0, 45.0),
    "cloud.late": Kind(2, 1.0, 45.0),
    "cloud.twice": Kind(2),
    "cloud.ignore": Kind(1),
    "cloud.throttle": Kind(1, 5.0, 20.0),
    "cloud.capacity": Kind(1, 5.0, 20.0),
    "cloud.lag": Kind(1, 5.0, 20.0),
    "cloud.boot": Kind(1),
    "cloud.exit": Kind(2),
    "cloud.vanish": Kind(2),
    "cloud.freeze": Kind(2, 1.0, 45.0),
    # EC2: the same.
    "ec2.fail": Kind(2),
    "ec2.cut": Kind(2),
    "ec2.hang": Kind(2, 5.0, 30.0),
    "ec2.delay": Kind(2, 1.0, 5.0),
    "ec2.duplicate": Kind(2),
    "ec2.throttle": Kind(1, 5.0, 20.0),
    "ec2.capacity": Kind(1, 5.0, 20.0),
    "ec2.behind": Kind(1, 5.0, 20.0),
    "ec2.crash": Kind(2),
    "ec2.interrupt": Kind(2),
    "ec2.vanish": Kind(1),
    "ec2.freeze": Kind(2, 1.0, 45.0),
}


@frozen
class Fault:
    """``at``: seconds from the beginning. ``seconds``: how long it lasts, 0.0 for one that does not. ``lot``: from 0 to 1."""

    at: float
    kind: str
    seconds: float
    lot: float

    @property
    def part(self) -> str:
        return self.kind.partition(".")[0]

    @property
    def what(self) -> str:
        return self.kind.partition(".")[2]

    def __str__(self) -> str:
        lasts = f" for {self.seconds:g} s" if self.seconds else ""
        return f"{self.at:8.2f} s  {self.kind}{lasts}, lot {self.lot:.6f}"


@frozen
class Ask:
    """A build. ``part``: whose workers may carry it out; "" for any. ``nap``: seconds that its step takes.

    ``code``: what its step exits with. ``cancel_after``: seconds after which it is cancelled; None: it is not.
    """

    at: float
    part: str
    nap: float
    code: int
    cancel_after: float | None = None

    @property
    def results(self) -> tuple[str, ...]:
        """How it may end."""
        own = "failure" if self.code else "success"
        return (own,) if self.cancel_after is None else (own, "cancelled")


def faults(seed: int, seconds: float) -> tuple[Fault, ...]:
    """In the order of their times. Those of a longer day begin with those of a shorter one."""
    chance = Random(f"faults of chaos {seed}")
    kinds, weights = list(KINDS), [kind.weight for kind in KINDS.values()]

    def next_one(at: float) -> Fault:
        (name,) = chance.choices(kinds, weights)
        kind = KINDS[name]
        # Most are short.
        share = chance.random() ** 2
        return Fault(at, name, round(kind.shortest + share * (kind.longest - kind.shortest), 2), round(chance.random(), 6))

    return tuple(next_one(at) for at in _times(chance, FAULTS_APART, FIRST, seconds))


def asks(seed: int, seconds: float) -> tuple[Ask, ...]:
    """In the order of their times, likewise."""
    chance = Random(f"builds of chaos {seed}")

    def next_one(at: float) -> Ask:
        part = chance.choice(("", *PARTS))
        nap = round(8 * chance.random() ** 2, 2)
        code = 1 if chance.random() < 0.1 else 0
        cancel_after = round(10 * chance.random(), 2)
        return Ask(at, part, nap, code, cancel_after if chance.random() < 0.08 else None)

    return tuple(next_one(at) for at in _times(chance, ASKED_APART, 0.0, seconds))


def _times(chance: Random, apart: float, first: float, end: float) -> Iterator[float]:
    at = first + chance.expovariate(1 / apart)
    while at < end:
        yield round(at, 2)
        at += chance.expovariate(1 / apart)
