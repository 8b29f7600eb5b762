"""Where a region's calls wait until its budget allows them: `latent_ec2.budget`, on the reactor's clock."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred

from latent_ec2.budget import Bucket

REQUESTS = Bucket.full(usual=5.0, burst=20.0, floor=0.2)
"""Calls of all kinds. EC2 allows more of most of them, but what an account has is shared by all who use it."""

INSTANCES = Bucket.full(usual=2.0, burst=1000.0, floor=0.2, keeps=0.5)
"""Instances that RunInstances may be asked for: AWS's own limits for an account and region."""


class Turns:
    """A bucket with a queue: who asks first is served first."""

    def __init__(self, clock: Any, bucket: Bucket) -> None:
        self._clock = clock
        self._bucket = bucket
        self._queue: deque[_Turn] = deque()
        self._call: Any = None

    def __len__(self) -> int:
        return len(self._queue)

    def bucket(self) -> Bucket:
        return self._bucket.upto(self._clock.seconds())

    def take(self, count: float = 1.0) -> Deferred[float]:
        """Fires with the clock's seconds when there are as many tokens; cancelling leaves the queue."""
        turn = _Turn(count, Deferred(lambda _: self._leave(turn)))
        self._queue.append(turn)
        self._serve()
        return turn.answer

    def throttled(self, sent_at: float) -> None:
        self._bucket = self._bucket.throttled(self._clock.seconds(), sent_at)
        self._wait()

    def _leave(self, turn: _Turn) -> None:
        if turn in self._queue:
            self._queue.remove(turn)
            self._serve()

    def _serve(self) -> None:
        now = self._clock.seconds()
        while self._queue and self._bucket.wait(now, self._queue[0].count) <= 0:
            turn = self._queue.popleft()
            self._bucket = self._bucket.take(now, turn.count)
            turn.answer.callback(now)
        self._wait()

    def _wait(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        if self._queue:
            wait = self._bucket.wait(self._clock.seconds(), self._queue[0].count)
            self._call = self._clock.callLater(max(wait, 0.001), self._serve)


class Gate:
    """The budget of one account and region. ``calls``: by operation, as they were sent."""

    def __init__(self, clock: Any, requests: Bucket = REQUESTS, instances: Bucket = INSTANCES) -> None:
        now = clock.seconds()
        self.requests = Turns(clock, requests.upto(now))
        self.instances = Turns(clock, instances.upto(now))
        self.calls: Counter[str] = Counter()
        self.throttles = 0

    def throttled(self, sent_at: float) -> None:
        """A call that was sent then was refused for being one too many."""
        self.throttles += 1
        self.requests.throttled(sent_at)


@define(eq=False)
class _Turn:
    count: float
    answer: Deferred[float]
