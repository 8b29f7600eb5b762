"""How long something will take that consists of many like parts. Pure: the time is given."""

from __future__ import annotations

SHORTEST = 20.0
"""Seconds: the rate is not taken over less, once there are so many."""

MOST = 256
"""Samples that are kept."""


class Estimate:
    """The rate over the later half of the time that it has taken so far, and what follows from it."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []
        self._between = 0.0

    def note(self, now: float, finished: int) -> None:
        """So many parts are finished. The first call is the beginning."""
        samples = self._samples
        if samples and now - samples[-1][0] < self._between:
            return
        samples.append((now, finished))
        if len(samples) > MOST:
            # Of long work fewer are kept, the first always.
            del samples[1::2]
            self._between = (now - samples[0][0]) / (MOST // 2)

    def left(self, now: float, finished: int, total: int) -> float | None:
        """Seconds until all are; None while nobody can know."""
        if finished >= total:
            return 0.0
        if not self._samples:
            return None
        since = now - max(SHORTEST, (now - self._samples[0][0]) / 2)
        at, before = self._samples[0]
        for sample in self._samples:
            if sample[0] > since:
                break
            at, before = sample
        if finished <= before or now <= at:
            return None
        return (total - finished) * (now - at) / (finished - before)
