"""What the tests of this room share."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from latent.model import Attempt
from latent.worker import AbstractLatentWorker, Enrolment

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds after which a test that waits for a thread gives up; a passing test never waits so long."""


class HandReactor:
    """A reactor that runs what threads hand to it when the test says so, and that can be shut down."""

    def __init__(self) -> None:
        self._calls: queue.Queue[Callable[[], Any]] = queue.Queue()
        self._triggers: list[Callable[[], Any]] = []

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._calls.put(lambda: callable(*args, **kwargs))

    def addSystemEventTrigger(self, phase: str, eventType: str, callable: Callable[..., Any]) -> None:
        self._triggers.append(callable)

    def turn(self, times: int = 1) -> None:
        """Wait for as many calls from threads, and make them."""
        for _ in range(times):
            self._calls.get(timeout=PATIENCE)()

    def shut_down(self) -> None:
        for trigger in self._triggers:
            trigger()


class Idle(AbstractLatentWorker):
    """A worker that does nothing."""

    def start_instance(self, build: Any) -> Any:
        return None

    def stop_instance(self, fast: bool = False) -> Any:
        return None


def enrolment(worker: str = "w1", number: int = 1, controller_id: str = "c" * 32) -> Enrolment:
    return Enrolment(
        attempt=Attempt(worker, number),
        controller_id=controller_id,
        idempotency_token=f"{worker}-{number}",
        agent_token=f"secret-{worker}-{number}",
        servers={"peer": "127.0.0.1:9989"},
    )


def result_of(deferred: Deferred[T]) -> T:
    """The answer of a Deferred that must have fired; raises its error."""
    answers: list[Any] = []
    deferred.addBoth(answers.append)
    assert answers, "it has not fired"
    if isinstance(answers[0], Failure):
        answers[0].raiseException()
    return answers[0]
