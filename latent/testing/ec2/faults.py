"""Which calls go wrong, and how. No clock here: ``now`` is an argument, in seconds of any clock that does not go back."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from attrs import define

from latent.testing.ec2.answers import Refused

SLOW_DOWN = "Request limit exceeded."


@define
class Bucket:
    """Tokens: full at first, refilled at ``rate`` a second up to ``burst``."""

    rate: float
    burst: float
    level: float
    at: float

    @classmethod
    def full(cls, rate: float, burst: float, now: float) -> Bucket:
        return cls(rate, burst, burst, now)

    def take(self, amount: float, now: float) -> bool:
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < amount:
            return False
        self.level -= amount
        return True


@define
class Rule:
    """Something that happens to ``times`` calls of ``action``, to all where it is None."""

    kind: str
    action: str
    when: str
    times: int | None
    how: Mapping[str, Any]

    def fits(self, kind: str, action: str, when: str) -> bool:
        return self.kind == kind and self.when == when and self.action in ("*", action) and self.times != 0


class Faults:
    """All rules. To be used under the cloud's lock. ``healed`` is set when they are taken back, and is another from then on."""

    def __init__(self) -> None:
        self.healed = threading.Event()
        self.heal()

    def heal(self) -> None:
        self.rules: list[Rule] = []
        self.buckets: dict[str, Bucket] = {}
        self.instances: Bucket | None = None
        self.healed.set()
        self.healed = threading.Event()

    def add(self, kind: str, *, action: str = "*", when: str = "before", times: int | None = 1, **how: Any) -> None:
        self.rules.append(Rule(kind, action, when, times, how))

    def take(self, kind: str, action: str, when: str) -> Mapping[str, Any] | None:
        """What happens to this call; that has then happened once more."""
        for rule in self.rules:
            if rule.fits(kind, action, when):
                if rule.times is not None:
                    rule.times -= 1
                return rule.how
        return None

    def throttle(self, action: str, rate: float, burst: float, now: float) -> None:
        self.buckets[action] = Bucket.full(rate, burst, now)

    def check_rate(self, action: str, now: float) -> None:
        """`Refused` when there are too many calls."""
        for name in (action, "*"):
            bucket = self.buckets.get(name)
            if bucket is not None and not bucket.take(1, now):
                raise Refused("RequestLimitExceeded", SLOW_DOWN, 503)

    def check_instances(self, count: int, now: float) -> None:
        """`Refused` when there are too many instances asked for."""
        if self.instances is not None and not self.instances.take(count, now):
            raise Refused("RequestLimitExceeded", SLOW_DOWN, 503)
