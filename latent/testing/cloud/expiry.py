"""The tag that says until when an instance is wanted, pushed forward for as long as somebody lives who wants it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

log = Logger()

PUSHES = 3
"""How often it is pushed before it would be over: two of them may fail."""


class Expiry:
    """Calls ``push`` every third of ``seconds`` from `begin` to `end`, if it is ``wanted`` then.

    A push that fails is made again the next time.
    """

    def __init__(self, reactor: Any, seconds: float, push: Callable[[], Deferred[Any]], wanted: Callable[[], bool]) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._push = push
        self._wanted = wanted
        self._wait: Any = None
        self._pushing: Deferred[Any] | None = None

    def begin(self, at_once: bool) -> None:
        """``at_once``: nobody knows how long ago it was pushed last."""
        self._wait = self._reactor.callLater(0 if at_once else self._seconds / PUSHES, self._due)

    def end(self) -> None:
        if self._wait is not None:
            self._wait.cancel()
            self._wait = None
        if self._pushing is not None:
            self._pushing.cancel()

    def _due(self) -> None:
        self._wait = self._reactor.callLater(self._seconds / PUSHES, self._due)
        if self._pushing is None and self._wanted():
            self._pushing = pushing = self._push()
            pushing.addErrback(lambda failure: log.warn("an expiry was not pushed: {error}", error=failure.value))
            pushing.addBoth(self._pushed)

    def _pushed(self, _: object) -> None:
        self._pushing = None
