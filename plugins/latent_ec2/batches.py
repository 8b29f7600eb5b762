"""What is asked for by many within a moment is asked of EC2 once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Mapping
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

MOMENT = 0.05
"""Seconds without another wish after which what was gathered is asked for."""

MOMENTS = 0.25
"""Seconds after which it is asked for in any case."""

FIRST_PACE = 1.0
LAST_PACE = 15.0
"""Seconds between two batches when one follows the other: the first, three times as many each time, and the most."""

FORGOTTEN = 30.0
"""Seconds without a batch after which the next does not have to wait."""


class Moment:
    """Calls ``over`` once nothing was added for `MOMENT` seconds, or after `MOMENTS`."""

    def __init__(self, clock: Any, over: Callable[[], object], moment: float = MOMENT) -> None:
        self._clock = clock
        self._over = over
        self._moment = moment
        self._since: float | None = None
        self._call: Any = None

    def touch(self) -> None:
        now = self._clock.seconds()
        if self._since is None:
            self._since = now
        self.stop(again=True)
        self._call = self._clock.callLater(
            max(0.0, min(now + self._moment, self._since + max(self._moment, MOMENTS)) - now), self._ring
        )

    def stop(self, *, again: bool = False) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        if not again:
            self._since = None

    def _ring(self) -> None:
        self._call = self._since = None
        self._over()


class Batch(Generic[K, T]):
    """``ask`` gets all keys of a moment at once, and answers each with its result or an exception.

    ``paced``: where batches follow one another, each waits a while longer for more to come along.
    """

    def __init__(
        self,
        clock: Any,
        ask: Callable[[list[K]], Coroutine[Any, Any, Mapping[K, T | Exception]]],
        *,
        paced: bool = False,
        moment: float = MOMENT,
    ) -> None:
        self._clock = clock
        self._ask = ask
        self._paced = paced
        self._pace = 0.0
        self._last: float | None = None
        self._waiting: dict[K, list[Deferred[T]]] = {}
        self._moment = Moment(clock, self._gathered, moment)
        self._held: Any = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: K, *, soon: bool = False) -> Deferred[T]:
        """The answer for ``key``. Cancelling gives up one's own wait only. ``soon``: this does not wait for more."""
        waiter: Deferred[T] = Deferred()
        self._waiting.setdefault(key, []).append(waiter)
        if soon:
            self.hurry()
        elif self._held is None:
            self._moment.touch()
        return waiter

    def hurry(self) -> None:
        """What waits is asked for after this moment."""
        if self._waiting:
            self._last = None
            self._moment.touch()

    def _gathered(self) -> None:
        if self._held is not None and self._held.active():
            self._held.cancel()
        self._held = None
        now = self._clock.seconds()
        if self._paced and self._last is not None and now < self._last + self._pace:
            self._held = self._clock.callLater(self._last + self._pace - now, self._send)
        else:
            self._send()

    def _send(self) -> None:
        self._held = None
        self._moment.stop()
        now = self._clock.seconds()
        busy = self._last is not None and now - self._last < FORGOTTEN
        self._pace = min(max(self._pace * 3, FIRST_PACE), LAST_PACE) if busy else FIRST_PACE
        self._last = now
        waiting, self._waiting = self._waiting, {}
        waiting = {key: left for key, waiters in waiting.items() if (left := [one for one in waiters if not one.called])}
        if waiting:
            Deferred.fromCoroutine(self._ask(list(waiting))).addBoth(self._answered, waiting)

    def _answered(self, answers: Mapping[K, T | Exception] | Failure, waiting: dict[K, list[Deferred[T]]]) -> None:
        for key, waiters in waiting.items():
            answer = answers if isinstance(answers, Failure) else answers[key]
            for waiter in waiters:
                if waiter.called:
                    continue
                if isinstance(answer, Failure | Exception):
                    waiter.errback(answer)
                else:
                    waiter.callback(answer)
