"""The one clock of the controller: POSIX seconds to read, the reactor's timers to wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol


class Wait(Protocol):
    """A call that is to be made later."""

    def cancel(self) -> None: ...
    def active(self) -> bool: ...


class Clock(Protocol):
    """What the shell needs of time. `twisted.internet.task.Clock` has it too."""

    def seconds(self) -> float: ...

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> Wait: ...


class WallClock:
    """Deadlines are absolute and outlive a restart, so they are read off the wall; the waiting itself is the reactor's, which
    does not mind when the wall clock is set. Who waits for a deadline looks at `seconds` again when the wait is over."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def seconds(self) -> float:
        return time.time()

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> Wait:
        wait: Wait = self._reactor.callLater(max(0.0, delay), callable, *args, **kwargs)
        return wait


class Alarm:
    """Calls ``ring`` once the clock has reached a time that may be moved as often as one likes.

    Moving it later costs nothing: the wait that is under way is left alone and looks again when it ends.
    """

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._at: float | None = None
        self._call: Wait | None = None
        self._call_at = 0.0

    @property
    def armed(self) -> bool:
        return self._at is not None

    def set(self, at: float | None) -> None:
        """Ring at ``at`` (POSIX seconds), or never."""
        self._at = at
        if at is None:
            if self._call is not None:
                self._call.cancel()
                self._call = None
        elif self._call is None or at < self._call_at:
            if self._call is not None:
                self._call.cancel()
            self._wait(at)

    def _wait(self, at: float) -> None:
        self._call_at = at
        self._call = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._over)

    def _over(self) -> None:
        self._call = None
        if self._at is None:
            return
        if self._clock.seconds() < self._at:
            self._wait(self._at)
            return
        self._at = None
        self._ring()
