"""Questions to plugins that are answered in time, whatever the plugin does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.controller.clock import Clock
from latent.errors import PluginError
from latent.worker import hooks

log = Logger()


def ask(clock: Clock, seconds: float, hook: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
    """Call a hook; its answer, or a PluginError that says that there was none in ``seconds``.

    A hook that is late is cancelled, and so it is when the answer is cancelled; one that takes no notice of that is left to
    itself, and what it answers then is nobody's business.
    """
    call = hooks.call(hook, *args, **kwargs)

    def give_up(_: Deferred[Any]) -> None:
        if wait.active():
            wait.cancel()
        call.cancel()

    def too_late() -> None:
        answer.errback(PluginError(f"{hooks.name(hook)} did not answer in {seconds:g} s"))
        call.cancel()

    def answered(result: Any) -> None:
        if wait.active():
            wait.cancel()
        if not answer.called:
            answer.callback(result)
        elif isinstance(result, Failure) and not result.check(CancelledError):
            log.warn("{hook} failed when nobody waited any more: {error}", hook=hooks.name(hook), error=result.value)

    answer: Deferred[Any] = Deferred(give_up)
    wait = clock.callLater(seconds, too_late)
    call.addBoth(answered)
    return answer
