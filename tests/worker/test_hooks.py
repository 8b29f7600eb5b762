"""The gate through which a plugin's hooks are called."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, inlineCallbacks, succeed

from latent.errors import PluginError
from latent.worker import hooks
from tests.worker.kit import result_of


class Plugin:
    async def awaits(self, waited: Any) -> Any:
        return await waited


def test_plain_value() -> None:
    """A hook may return a plain value."""
    assert result_of(hooks.call(lambda a, b: a + b, 1, b=2)) == 3


def test_deferred() -> None:
    """A hook may return a Deferred."""
    assert result_of(hooks.call(lambda: succeed("yes"))) == "yes"


def test_async_def() -> None:
    """A hook may be async def, and wait for a Deferred."""
    waited: Deferred[str] = Deferred()
    answer = hooks.call(Plugin().awaits, waited)
    waited.callback("there")
    assert result_of(answer) == "there"


def test_inline_callbacks() -> None:
    """A hook may be a generator under inlineCallbacks."""

    @inlineCallbacks
    def hook() -> Any:
        value = yield succeed(4)
        return value

    assert result_of(hooks.call(hook)) == 4


@pytest.mark.parametrize("hook_result", [lambda: exec("raise SystemExit(3)"), lambda: fail(SystemExit(3))])
def test_a_hook_does_not_end_the_controller(hook_result: Callable[[], object]) -> None:
    """SystemExit, raised or as a failure, is an error of the plugin that whoever called the hook can handle."""
    with pytest.raises(PluginError, match="raised SystemExit: 3"):
        result_of(hooks.call(hook_result))


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration(), KeyError("k")])
def test_raising_is_an_answer(error: BaseException) -> None:
    """What a hook raises is its answer and never raised at the caller."""

    def hook() -> None:
        raise error

    answer = hooks.call(hook)
    with pytest.raises(type(error)):
        result_of(answer)


def test_wrong_arguments_are_an_answer() -> None:
    """A hook that can't take its arguments fails like one that raised."""
    with pytest.raises(TypeError):
        result_of(hooks.call(lambda: None, "too many"))


def test_cancel_reaches_what_is_awaited() -> None:
    """Cancelling the answer cancels what the hook waits for."""
    cancelled: list[object] = []
    waited: Deferred[None] = Deferred(cancelled.append)
    answer = hooks.call(Plugin().awaits, waited)
    answer.cancel()
    assert cancelled == [waited]
    with pytest.raises(CancelledError):
        result_of(answer)


@pytest.fixture
def loop() -> Any:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def test_returned_asyncio_future(loop: asyncio.AbstractEventLoop) -> None:
    """An asyncio Future that a hook returns is a TypeError that names the hook and says how to wrap it."""
    future: asyncio.Future[None] = loop.create_future()

    class Wrong:
        def start_instance(self) -> Any:
            return future

    with pytest.raises(TypeError, match=r"Wrong\.start_instance returned an asyncio Future.*Deferred\.fromFuture"):
        result_of(hooks.call(Wrong().start_instance))


def test_awaited_asyncio_future(loop: asyncio.AbstractEventLoop) -> None:
    """So is one that an async hook awaits."""
    with pytest.raises(TypeError, match=r"Plugin\.awaits awaited an asyncio Future.*Deferred\.fromFuture"):
        result_of(hooks.call(Plugin().awaits, loop.create_future()))


def test_other_awaitables() -> None:
    """What Twisted can't wait for is a TypeError that says what to return."""

    class Awaitable:
        def __await__(self) -> Any:
            return iter(())

    async def generator() -> AsyncIterator[int]:
        yield 1

    for wrong in (Awaitable(), generator()):
        with pytest.raises(TypeError, match="return a value, a Deferred, or use async def"):
            result_of(hooks.call(lambda wrong=wrong: wrong))
    with pytest.raises(TypeError, match=r"ThreadPool\.run"):
        result_of(hooks.call(concurrent.futures.Future))
