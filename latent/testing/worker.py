"""A latent worker whose instance is an agent in the controller's process, and one that does only what a test tells it to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from latent.model import JSON
from latent.testing.agent import HasDispatcher, InProcessAgent, Work, succeed_at_once
from latent.worker.base import AbstractLatentWorker, ListedInstance
from latent.worker.build import WorkerBuild


class InProcessLatentWorker(AbstractLatentWorker):
    """Its instance is an `InProcessAgent`: substantiation costs nothing, so what is measured with it is the controller.

    `plug` it into the controller before the controller is started.
    """

    def plug(self, controller: HasDispatcher, now: Callable[[], float], work: Work = succeed_at_once) -> None:
        self._controller = controller
        self._now = now
        self._work = work
        self._agent: InProcessAgent | None = None

    def start_instance(self, build: WorkerBuild | None) -> None:
        assert self.enrolment is not None
        self._agent = InProcessAgent(self._controller, self.enrolment.agent_token, self._now, self._work)
        self._agent.start()

    def stop_instance(self, fast: bool = False) -> None:
        if self._agent is not None:
            self._agent.stop()
            self._agent = None


class Controls:
    """What drives a `ControllableLatentWorker`, and what it was asked: the fake does nothing by itself.

    ``starts`` and ``stops`` are the calls that were made; the last of them is answered with `start_answers` or `stop_answers`.
    """

    def __init__(self) -> None:
        self.starts: list[Deferred[Any]] = []
        self.stops: list[Deferred[Any]] = []
        self.start_builds: list[WorkerBuild | None] = []
        self.stop_fast: list[bool] = []
        self.checks = 0
        self.destroyed: list[JSON] = []
        self.good: Any = (True, "")
        self.auto_start: Any = None
        self.auto_stop: Any = None
        self.compatible: Callable[[Any], bool] = lambda props: True
        self.listed: list[ListedInstance] = []
        self.there = True

    @property
    def starting(self) -> bool:
        """Whether a start_instance is waiting for its answer."""
        return bool(self.starts) and not self.starts[-1].called

    @property
    def stopping(self) -> bool:
        return bool(self.stops) and not self.stops[-1].called

    def start_answers(self, result: Any = True) -> None:
        _answer(self.starts[-1], result)

    def stop_answers(self, result: Any = None) -> None:
        _answer(self.stops[-1], result)


class ControllableLatentWorker(AbstractLatentWorker):
    """Does what its `Controls` say, no sooner. ``controls.auto_start`` and ``auto_stop``: answer at once with this (not None)."""

    def checkConfig(self, name: str, password: str | None = None, controls: Any = None, **kwargs: Any) -> None:
        super().checkConfig(name, password, **kwargs)

    def reconfigService(self, name: str, password: str | None = None, controls: Any = None, **kwargs: Any) -> Any:
        self.controls: Controls = controls or Controls()
        return super().reconfigService(name, password, **kwargs)

    def start_instance(self, build: WorkerBuild | None) -> Deferred[Any]:
        controls = self.controls
        controls.start_builds.append(build)
        controls.starts.append(Deferred())
        if controls.auto_start is not None:
            controls.start_answers(controls.auto_start)
        return controls.starts[-1]

    def stop_instance(self, fast: bool = False) -> Deferred[Any]:
        controls = self.controls
        controls.stop_fast.append(fast)
        controls.stops.append(Deferred())
        if controls.auto_stop is not None:
            controls.stop_answers(controls.auto_stop)
        return controls.stops[-1]

    def check_instance(self) -> Any:
        self.controls.checks += 1
        if isinstance(self.controls.good, Exception):
            raise self.controls.good
        return self.controls.good

    def isCompatibleWithBuild(self, build_props: Any) -> bool:
        return self.controls.compatible(build_props)

    def instance_handle(self) -> JSON:
        assert self.enrolment is not None
        return {"attempt": self.enrolment.attempt.number}

    def resume_instance(self, handle: JSON) -> bool:
        return self.controls.there

    def list_instances(self) -> list[ListedInstance]:
        return self.controls.listed

    def destroy_instance(self, handle: JSON) -> None:
        self.controls.destroyed.append(handle)


def _answer(call: Deferred[Any], result: Any) -> None:
    if isinstance(result, BaseException):
        call.errback(result)
    else:
        call.callback(result)
