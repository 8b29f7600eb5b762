"""How a driver is told to let go, whatever it waits for just then."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred

from latent.controller.clock import Clock

T = TypeVar("T")


class LetGo(Exception):
    """What was waited for is given up: the driver is to let go."""


class Control:
    """A handle on a driver that runs: pass it to `latent.swarm.drive.drive`, and call `detach` from a signal handler, say."""

    def __init__(self) -> None:
        self.detaching = False
        self._give_up: Callable[[], None] | None = None

    def detach(self) -> None:
        """Let go of the workflow: what runs goes on, nothing new is queued, and the driver ends soon. It can be resumed hot."""
        self.detaching = True
        if self._give_up is not None:
            self._give_up()

    async def hold(self, coroutine: Coroutine[Deferred[Any], Any, T]) -> T:
        """What the coroutine answers. Raises LetGo, and cancels it, when the driver is to let go."""
        if self.detaching:
            coroutine.close()
            raise LetGo
        waiting = Deferred.fromCoroutine(coroutine)
        self._give_up = waiting.cancel
        try:
            return await waiting
        except CancelledError:
            if self.detaching:
                raise LetGo from None
            raise
        finally:
            self._give_up = None

    async def nap(self, clock: Clock, seconds: float) -> None:
        """Raises LetGo as `hold` does."""
        await self.hold(_slept(clock, seconds))


async def _slept(clock: Clock, seconds: float) -> None:
    over: Deferred[None] = Deferred()
    timer = clock.callLater(seconds, over.callback, None)
    try:
        await over
    finally:
        if timer.active():
            timer.cancel()
