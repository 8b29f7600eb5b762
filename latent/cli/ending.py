"""How long a controller that stops waits for a store that can't be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

log = Logger()

STALLED = 5.0
"""Seconds that a fast stop waits while nothing can be written."""

LOOKS = 10
"""How often the store is looked at meanwhile."""


class Ending(Deferred[None]):
    """Fires when ``stopping`` has; or sooner, when a fast stop has waited for too long. ``stalled``: why nothing can be written
    now, if that is so and the stop is to be fast.

    What is not stopped then is as after a crash: the next controller takes it up.
    """

    def __init__(self, stopping: Deferred[None], stalled: Callable[[], str | None], reactor: Any) -> None:
        super().__init__()
        self._stalled = stalled
        self._reactor = reactor
        self._seen = 0
        self._call = reactor.callLater(STALLED / LOOKS, self._look)
        stopping.addBoth(self._over)

    def _over(self, result: object) -> None:
        if self.called:
            log.debug("the controller has stopped after all: {result}", result=result)
            return
        self._call.cancel()
        if isinstance(result, Failure):
            self.errback(result)
        else:
            self.callback(None)

    def _look(self) -> None:
        reason = self._stalled()
        self._seen = self._seen + 1 if reason else 0
        if self._seen < LOOKS:
            self._call = self._reactor.callLater(STALLED / LOOKS, self._look)
            return
        log.error(
            "not all could be stopped, because nothing can be written: {reason}; a start takes up what is left", reason=reason
        )
        self.callback(None)
