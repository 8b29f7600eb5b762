"""Bounded pools of threads, and questions that are asked once for many."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from latent.worker import Shared, ThreadPool, discard
from tests.worker.kit import PATIENCE, HandReactor, result_of


class Gate:
    """A blocking call that tells when it has begun and goes on when it is let."""

    def __init__(self, answer: Any = None) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.answer = answer

    def __call__(self) -> Any:
        self.begun.set()
        assert self.go.wait(PATIENCE)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def wait_begun(self) -> None:
        assert self.begun.wait(PATIENCE)


@pytest.fixture
def reactor() -> HandReactor:
    return HandReactor()


@pytest.fixture
def pool(reactor: HandReactor) -> Iterator[ThreadPool]:
    made = ThreadPool("test", 1, reactor)
    yield made
    made.stop()


def test_result(pool: ThreadPool, reactor: HandReactor) -> None:
    """The call runs in a thread, its answer comes in the reactor's."""
    answer = pool.run(lambda a, b: (a + b, threading.current_thread()), 1, 2, adopt=discard)
    assert not answer.called
    reactor.turn()
    total, thread = result_of(answer)
    assert total == 3
    assert thread is not threading.current_thread()
    assert (pool.running, pool.waiting) == (0, 0)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit()])
def test_error(pool: ThreadPool, reactor: HandReactor, error: BaseException) -> None:
    """What the call raises is its answer."""
    gate = Gate(error)
    gate.go.set()
    answer = pool.run(gate, adopt=discard)
    reactor.turn()
    with pytest.raises(type(error)):
        result_of(answer)


def test_bound(pool: ThreadPool, reactor: HandReactor) -> None:
    """No more than ``size`` run at once; the others wait their turn, in order, and are counted."""
    first, second, third = Gate(1), Gate(2), Gate(3)
    answers = [pool.run(gate, adopt=discard) for gate in (first, second, third)]
    first.wait_begun()
    assert (pool.running, pool.waiting) == (1, 2)
    first.go.set()
    reactor.turn()
    second.wait_begun()
    assert not third.begun.is_set()
    second.go.set()
    third.go.set()
    reactor.turn(2)
    assert [result_of(answer) for answer in answers] == [1, 2, 3]


def test_cancelled_while_it_waits(pool: ThreadPool, reactor: HandReactor) -> None:
    """A call that waits for its turn is taken out of the queue and never made."""
    first, second = Gate(), Gate()
    pool.run(first, adopt=discard)
    answer = pool.run(second, adopt=discard)
    answer.cancel()
    with pytest.raises(CancelledError):
        result_of(answer)
    assert pool.waiting == 0
    first.go.set()
    reactor.turn()
    assert (pool.running, second.begun.is_set()) == (0, False)


def test_cancelled_while_it_runs(pool: ThreadPool, reactor: HandReactor) -> None:
    """A call that runs answers CancelledError at once; its late result is adopted in the reactor's thread."""
    adopted: list[Any] = []
    gate = Gate("instance")
    answer = pool.run(gate, adopt=lambda result: adopted.append((result, threading.current_thread())))
    gate.wait_begun()
    answer.cancel()
    with pytest.raises(CancelledError):
        result_of(answer)
    assert (pool.running, adopted) == (1, [])
    gate.go.set()
    reactor.turn()
    assert adopted == [("instance", threading.current_thread())]
    assert pool.running == 0


def test_cancelled_call_that_fails_late(pool: ThreadPool, reactor: HandReactor) -> None:
    """A cancelled call that fails has nothing to adopt, and is no error of ours."""
    gate = Gate(ValueError("late"))
    answer = pool.run(gate, adopt=lambda result: pytest.fail("nothing to adopt"))
    gate.wait_begun()
    answer.cancel()
    with pytest.raises(CancelledError):
        result_of(answer)
    gate.go.set()
    reactor.turn()


def test_adoption_that_fails(pool: ThreadPool, reactor: HandReactor, flush_logged_errors: Callable[..., list[Failure]]) -> None:
    """A late result that can't be adopted is logged, and the pool goes on."""

    def adopt(result: object) -> None:
        raise ZeroDivisionError

    gate = Gate()
    answer = pool.run(gate, adopt=adopt)
    gate.wait_begun()
    answer.cancel()
    with pytest.raises(CancelledError):
        result_of(answer)
    gate.go.set()
    reactor.turn()
    assert len(flush_logged_errors(ZeroDivisionError)) == 1
    after = pool.run(lambda: "on", adopt=discard)
    reactor.turn()
    assert result_of(after) == "on"


def test_shutdown(pool: ThreadPool, reactor: HandReactor) -> None:
    """At the reactor's end what waits is cancelled, and what runs holds up nothing."""
    gate = Gate()
    running = pool.run(gate, adopt=discard)
    waiting = pool.run(Gate(), adopt=discard)
    gate.wait_begun()
    reactor.shut_down()
    late = pool.run(Gate(), adopt=discard)
    for answer in (waiting, late):
        with pytest.raises(CancelledError):
            result_of(answer)
    assert not running.called
    gate.go.set()
    reactor.turn()
    assert result_of(running) is None


def test_shared_pool(reactor: HandReactor) -> None:
    """Whoever asks for a pool by its name gets the same one; another reactor has its own."""
    first = ThreadPool.shared("account", 3, reactor)
    assert ThreadPool.shared("account", 9, reactor) is first
    assert first.size == 3
    assert ThreadPool.shared("other", 3, reactor) is not first
    assert ThreadPool.shared("account", 3, HandReactor()) is not first
    first.stop()
    assert ThreadPool.shared("account", 3, reactor) is not first


# --- one question for many ----------------------------------------------------------------------------------------------------


def test_shared_question() -> None:
    """Who comes while a question runs waits for the next one; all who wait share it."""
    asked: list[Deferred[str]] = []

    def ask() -> Deferred[str]:
        asked.append(Deferred())
        return asked[-1]

    shared = Shared(ask)
    first, second, third = shared.get(), shared.get(), shared.get()
    assert len(asked) == 1
    asked[0].callback("old")
    assert result_of(first) == "old"
    assert len(asked) == 2
    asked[1].callback("new")
    assert (result_of(second), result_of(third)) == ("new", "new")
    assert len(asked) == 2


def test_shared_question_fails() -> None:
    """Its error is everyone's, and the next question is asked anew."""
    asked: list[Deferred[str]] = []

    def ask() -> Deferred[str]:
        asked.append(Deferred())
        return asked[-1]

    shared = Shared(ask)
    first, second = shared.get(), shared.get()
    asked[0].errback(ValueError("down"))
    with pytest.raises(ValueError, match="down"):
        result_of(first)
    asked[1].callback("up")
    assert result_of(second) == "up"


def test_shared_question_given_up() -> None:
    """Cancelling gives up one's own wait; nobody asks when nobody waits."""
    asked: list[Deferred[str]] = []

    def ask() -> Deferred[str]:
        asked.append(Deferred())
        return asked[-1]

    shared = Shared(ask)
    first, second = shared.get(), shared.get()
    first.cancel()
    second.cancel()
    for given_up in (first, second):
        with pytest.raises(CancelledError):
            result_of(given_up)
    asked[0].callback("nobody listens")
    assert len(asked) == 1
