"""One question on behalf of many: what a provider lists is asked for once, whoever wants to know it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Shared(Generic[T]):
    """``ask`` runs once for all who wait, and never twice at once.

    Everyone gets an answer that was asked for after they wanted it: who comes while a question runs waits for the next, since
    the running one may have passed by what they look for.
    """

    def __init__(self, ask: Callable[[], Deferred[T]]) -> None:
        self._ask = ask
        self._waiting: list[Deferred[T]] = []
        self._running = False

    def get(self) -> Deferred[T]:
        """The answer. Cancelling gives up one's own wait only."""
        waiter: Deferred[T] = Deferred(self._leave)
        self._waiting.append(waiter)
        self._next()
        return waiter

    def _leave(self, waiter: Deferred[T]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def _next(self) -> None:
        if self._running or not self._waiting:
            return
        self._running = True
        asked, self._waiting = self._waiting, []
        self._ask().addBoth(self._answered, asked)

    def _answered(self, result: T | Failure, asked: list[Deferred[T]]) -> None:
        self._running = False
        for waiter in asked:
            if not waiter.called:
                waiter.callback(result) if not isinstance(result, Failure) else waiter.errback(result)
        self._next()
