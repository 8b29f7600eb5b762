"""Waiting for the reactor in a test that is a plain function, whoever runs it: pytest, pytest-twisted, trial or unittest."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from latent.worker import hooks

PAUSE = 0.01
"""Seconds between two looks at something that is waited for."""


def wait_for(reactor: Any, answer: Deferred[Any]) -> Any:
    """The Deferred's result, or its error. The reactor runs meanwhile."""
    if reactor.running:
        # pytest-twisted has it running in a greenlet of its own.
        return _pytest_twisted().blockon(answer)
    results: list[Any] = []
    answer.addBoth(results.append)
    if not results:
        _run_until(reactor, answer)
    if not results:
        answer.cancel()
        raise KeyboardInterrupt("the reactor was stopped")
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result


def _pytest_twisted() -> Any:
    try:
        return importlib.import_module("pytest_twisted")
    except ImportError:
        raise RuntimeError("the reactor is running already: run the tests with pytest-twisted, trial or unittest") from None


def _run_until(reactor: Any, answer: Deferred[Any]) -> None:
    """As trial does it: a reactor that was crashed can be run again."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    answer.addBoth(lambda _: reactor.crash())
    try:
        reactor.run()
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        _let_threads_end(reactor)


def _let_threads_end(reactor: Any) -> None:
    """The reactor's own threads, which it would only end when it is stopped for good, keep the process from ending."""
    if reactor.threadpool is not None:
        size = reactor.threadpool.max
        reactor.suggestThreadPoolSize(0)
        reactor.suggestThreadPoolSize(size)


async def until(reactor: Any, seconds: float, look: Callable[[], Any], lasting: float = 0) -> Any:
    """Look again and again until the answer is true, for at most ``seconds``; the last answer.

    ``lasting``: seconds for which it must have been true.
    """
    end, since = reactor.seconds() + seconds, None
    while True:
        seen = await hooks.call(look)
        now = reactor.seconds()
        since = (now if since is None else since) if seen else None
        if (since is not None and now >= since + lasting) or (since is None and now >= end):
            return seen
        await deferLater(reactor, PAUSE)
