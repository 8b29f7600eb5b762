"""A driver on a clock that tests move, against the controller in memory."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from latent.swarm import Workflow
from latent.swarm.control import Control
from latent.swarm.drive import drive
from latent.swarm.listener import Listener, Summary
from latent.swarm.state import SwarmState, SwarmTask
from latent.swarm.values import TaskChange
from tests.swarm.fake import Controller

T = TypeVar("T")

STEP = 0.5
"""Seconds by which the clock is moved at a time."""


def answer(coroutine: Coroutine[Deferred[Any], Any, T]) -> T:
    """What a coroutine answers that has nothing to wait for. Raises what it raises."""
    results: list[T | Failure] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    assert results, "it still waits"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


class Heard(Listener):
    """Writes down what a driver tells."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.failures: list[tuple[str, str, str]] = []
        self.state: SwarmState | None = None

    def waits(self, what: str) -> None:
        self.told.append(f"waits for {what}")

    def built(self, state: SwarmState) -> None:
        self.state = state

    def changed(self, state: SwarmState, changes: Sequence[tuple[SwarmTask, TaskChange]]) -> None:
        self.failures += [(task.label, task.status.value, change.reason) for task, change in changes if change.reason]

    def away(self, why: str) -> None:
        self.told.append(f"away: {why}")

    def back(self) -> None:
        self.told.append("back")

    def ending(self, why: str) -> None:
        self.told.append(f"ending: {why}")


class Driver:
    """One that drives from now on. All keywords but ``clock`` go to `drive`."""

    def __init__(self, controller: Controller, workflow: Workflow | int, **keywords: Any) -> None:
        self.clock = controller.clock
        self.control = Control()
        self.heard = Heard()
        self._ended: list[Summary | Failure] = []
        keywords = {"listener": self.heard, "control": self.control, **keywords}
        self.driving = Deferred.fromCoroutine(drive(controller, workflow, clock=self.clock, **keywords))
        self.driving.addBoth(self._ended.append)

    def wait(self, seconds: float = 3.0) -> None:
        advance(self.clock, seconds)

    @property
    def is_over(self) -> bool:
        return bool(self._ended)

    @property
    def summary(self) -> Summary:
        assert self._ended, "it drives still"
        if isinstance(self._ended[0], Failure):
            self._ended[0].raiseException()
        return self._ended[0]

    def die(self) -> None:
        """As if killed: it says nothing to anybody any more."""
        self.driving.cancel()


def advance(clock: Clock, seconds: float) -> None:
    for _ in range(int(seconds / STEP)):
        clock.advance(STEP)
