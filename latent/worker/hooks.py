"""The one gate through which a plugin's hooks are called."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from latent.errors import PluginError

_AWAITED_FUTURE = "await wasn't used with future"
"""What asyncio says when its Future is awaited in a coroutine that Twisted drives."""


def call(hook: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
    """Call a hook that may return a plain value, return a Deferred, or be ``async def``; never raises by itself.

    Cancelling the answer cancels what the hook waits for. An asyncio Future, returned or awaited, fails with a TypeError
    that says how to wrap it: nothing in Twisted would ever wake the waiter up.
    """
    try:
        result = later(hook(*args, **kwargs), name(hook))
    except BaseException:
        return fail(_contained(Failure(), hook))
    return result.addErrback(_contained, hook) if isinstance(result, Deferred) else succeed(result)


def _contained(failure: Failure, hook: Callable[..., Any]) -> Failure:
    """A plugin does not end the controller: SystemExit and its like are errors of the hook like any other."""
    if failure.check(Exception):
        return failure
    error = PluginError(f"{name(hook)} raised {type(failure.value).__name__}: {failure.value}")
    error.__cause__ = failure.value
    return Failure(error)


def later(result: Any, who: str) -> Any:
    """``result`` as a Deferred if it is something to wait for, else as it is. ``who``: whose result, for the error."""
    if isinstance(result, Deferred):
        return result
    if inspect.iscoroutine(result):
        return _follow(result, who)
    if isinstance(result, asyncio.Future):
        raise TypeError(_wrap(f"{who} returned an asyncio {type(result).__name__}"))
    if isinstance(result, concurrent.futures.Future):
        raise TypeError(f"{who} returned a concurrent.futures.Future; run the blocking call with latent.worker.ThreadPool.run")
    if inspect.isawaitable(result) or inspect.isasyncgen(result):
        what = type(result).__name__
        raise TypeError(f"{who} returned {what}, which Twisted can't wait for; return a value, a Deferred, or use async def")
    return result


def name(hook: Callable[..., Any]) -> str:
    """How a message names a hook: ``EC2LatentWorker.start_instance``."""
    owner = getattr(hook, "__self__", None)
    plain = getattr(hook, "__name__", type(hook).__name__)
    return f"{type(owner).__name__}.{plain}" if owner is not None and not inspect.ismodule(owner) else plain


def _follow(coroutine: Coroutine[Deferred[Any], Any, Any], who: str) -> Deferred[Any]:
    def explain(failure: Failure) -> Failure:
        if isinstance(failure.value, RuntimeError) and str(failure.value) == _AWAITED_FUTURE:
            error = TypeError(_wrap(f"{who} awaited an asyncio Future"))
            error.__cause__ = failure.value
            return Failure(error)
        return failure

    return Deferred.fromCoroutine(coroutine).addErrback(explain)


def _wrap(what: str) -> str:
    return f"{what}, which Twisted can't wait for; wrap it: Deferred.fromFuture(asyncio.ensure_future(...))"
