"""How many calls may be made: a token bucket that slows when it is told to, and recovers. Pure: ``now`` is an argument."""

from __future__ import annotations

from attrs import evolve, frozen

SLOWER = 0.5
"""What a bucket's rate is multiplied with when it is throttled."""

RECOVERY = 120.0
"""Seconds in which a rate of nothing would be back at the usual one."""


@frozen(kw_only=True)
class Bucket:
    """``rate`` tokens come in a second, up to ``burst``. As of ``at`` there are ``tokens``; fewer than none is a debt.

    Throttled, its rate is halved (not below ``floor``) and so are its ``tokens``, or they are lost (``keeps`` 0); from then on
    the rate grows evenly until it is the ``usual`` one. That is what makes several controllers share an account fairly.
    """

    usual: float
    burst: float
    floor: float
    rate: float
    tokens: float
    at: float = 0.0
    keeps: float = 0.0
    slowed_at: float | None = None
    """When it was last throttled, as long as it is slower than usual."""

    @classmethod
    def full(cls, usual: float, burst: float, *, floor: float, keeps: float = 0.0, at: float = 0.0) -> Bucket:
        return cls(usual=usual, burst=burst, floor=floor, rate=usual, tokens=burst, keeps=keeps, at=at)

    def upto(self, now: float) -> Bucket:
        """The bucket as it is now. A clock that goes back changes nothing."""
        passed = now - self.at
        if passed <= 0:
            return self
        growth = self.usual / RECOVERY
        growing = min(passed, (self.usual - self.rate) / growth)
        rate = self.rate + growth * growing if growing == passed else self.usual
        came = (self.rate + growth * growing / 2) * growing + self.usual * (passed - growing)
        tokens = min(self.burst, self.tokens + came)
        return evolve(self, at=now, rate=rate, tokens=tokens, slowed_at=self.slowed_at if rate < self.usual else None)

    def wait(self, now: float, count: float = 1.0) -> float:
        """Seconds until ``count`` tokens can be taken; 0: at once. More than ``burst`` are given for a full bucket, on credit."""
        there = self.upto(now)
        missing = min(count, self.burst) - there.tokens
        return 0.0 if missing <= 1e-9 else missing / there.rate

    def take(self, now: float, count: float = 1.0) -> Bucket:
        there = self.upto(now)
        return evolve(there, tokens=there.tokens - count)

    def throttled(self, now: float, sent_at: float) -> Bucket:
        """A call that was sent at ``sent_at`` was refused. One that was sent before the last slowing tells nothing new."""
        there = self.upto(now)
        if there.slowed_at is not None and sent_at < there.slowed_at:
            return there
        rate = max(there.floor, there.rate * SLOWER)
        return evolve(there, rate=rate, tokens=min(there.tokens, there.tokens * self.keeps), slowed_at=now)
