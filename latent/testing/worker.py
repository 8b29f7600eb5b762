"""A latent worker whose instance is an agent in the controller's process, and one that does only what a test tells it to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred

from latent.model import JSON, Attempt
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


@define(eq=False)
class HookCall:
    """A call of start_instance or stop_instance. ``build``: what the start was for; ``fast``: how the stop was asked for.

    ``heard``: whether the controller that made it is still there for the answer.
    """

    attempt: int
    token: str
    build: WorkerBuild | None = None
    fast: bool = False
    heard: bool = True
    answer: Deferred[Any] = field(factory=Deferred)

    @property
    def waits(self) -> bool:
        """Whether somebody waits for its answer."""
        return self.heard and not self.answer.called


class Controls:
    """What drives a `ControllableLatentWorker`, and what it was asked; the worker does nothing by itself.

    It is the provider too: ``instances`` are the attempts that have one. It outlives the controller, as a cloud does, so give
    the same to the worker of the controller that comes after a crash.

    ``starts`` and ``stops`` are the calls that were made; `start_answers` and `stop_answers` answer the last of them.
    ``auto_start``, ``auto_stop``: answer at once with this (not None). ``deaf``: calls take no notice of being cancelled.
    ``good``: what check_instance answers (or raises). ``compatible``: isCompatibleWithBuild.
    ``instead``: for a hook's name, what is called in its place.
    """

    def __init__(self) -> None:
        self.instances: set[int] = set()
        self.starts: list[HookCall] = []
        self.stops: list[HookCall] = []
        self.auto_start: Any = None
        self.auto_stop: Any = None
        self.deaf = False
        self.good: Any = (True, "")
        self.compatible: Callable[[Any], Any] = lambda props: True
        self.instead: dict[str, Callable[[], Any]] = {}
        self.checks = 0
        self.listings = 0
        self.resumed: list[int] = []
        self.destroyed: list[int] = []
        self.strangers: list[ListedInstance] = []
        self.controller_id = ""
        self.overlapped = False
        """Whether a start or stop was called while another was running."""

    @property
    def starting(self) -> bool:
        """Whether a start_instance is waiting for its answer."""
        return bool(self.starts) and self.starts[-1].waits

    @property
    def stopping(self) -> bool:
        return bool(self.stops) and self.stops[-1].waits

    @property
    def builds(self) -> list[int | None]:
        """What each start was for: the build's id, or None."""
        return [None if call.build is None else call.build.id for call in self.starts]

    def start_answers(self, result: Any = True, *, made: bool | None = None) -> None:
        """``made``: whether there is an instance now; by itself, if the start does not fail."""
        call = self.starts[-1]
        if (not isinstance(result, BaseException) and result is not False) if made is None else made:
            self.instances.add(call.attempt)
        _answer(call, result)

    def stop_answers(self, result: Any = None) -> None:
        """A stop that does not fail has removed the instance."""
        call = self.stops[-1]
        if not isinstance(result, BaseException):
            self.instances.discard(call.attempt)
        _answer(call, result)

    def controller_died(self) -> None:
        """Nobody hears the answers of the calls that run; what they did at the provider is done."""
        for call in (*self.starts, *self.stops):
            if call.waits:
                call.heard, call.answer = False, Deferred()

    def instance_appears(self) -> None:
        """The provider has made the instance, though start_instance has not answered."""
        self.instances.add(self.starts[-1].attempt)

    def instance_vanishes(self) -> None:
        """A spot interruption, a crash of the host: it is gone without a stop."""
        self.instances.clear()


class ControllableLatentWorker(AbstractLatentWorker):
    """Does what its `Controls` say, no sooner."""

    settings = frozenset({"controls"})
    controls: Controls

    def checkConfig(self, name: str, password: str | None = None, controls: Any = None, **kwargs: Any) -> None:
        super().checkConfig(name, password, **kwargs)
        if not isinstance(controls, Controls):
            self.config_error("ControllableLatentWorker has no controls; give it controls=latent.testing.Controls()")

    def reconfigService(self, name: str, password: str | None = None, controls: Any = None, **kwargs: Any) -> Any:
        self.controls = controls
        if "reconfigService" in self.controls.instead:
            return self.controls.instead["reconfigService"]()
        return super().reconfigService(name, password, **kwargs)

    def start_instance(self, build: WorkerBuild | None) -> Any:
        controls = self.controls
        call = self._called(controls.starts)
        call.build = build
        if "start_instance" in controls.instead:
            return controls.instead["start_instance"]()
        if controls.auto_start is not None:
            controls.start_answers(controls.auto_start)
        return _deaf(call.answer) if controls.deaf else call.answer

    def stop_instance(self, fast: bool = False) -> Any:
        controls = self.controls
        call = self._called(controls.stops)
        call.fast = fast
        if "stop_instance" in controls.instead:
            return controls.instead["stop_instance"]()
        if controls.auto_stop is not None:
            controls.stop_answers(controls.auto_stop)
        return _deaf(call.answer) if controls.deaf else call.answer

    def check_instance(self) -> Any:
        self.controls.checks += 1
        if "check_instance" in self.controls.instead:
            return self.controls.instead["check_instance"]()
        if isinstance(self.controls.good, Exception):
            raise self.controls.good
        return self.controls.good

    def isCompatibleWithBuild(self, build_props: Any) -> Any:
        if "isCompatibleWithBuild" in self.controls.instead:
            return self.controls.instead["isCompatibleWithBuild"]()
        return self.controls.compatible(build_props)

    def instance_handle(self) -> Any:
        if "instance_handle" in self.controls.instead:
            return self.controls.instead["instance_handle"]()
        return {"attempt": self._attempt().number}

    def resume_instance(self, handle: JSON) -> Any:
        self.controls.resumed.append(handle["attempt"])
        if "resume_instance" in self.controls.instead:
            return self.controls.instead["resume_instance"]()
        return handle["attempt"] in self.controls.instances

    def list_instances(self) -> Any:
        self.controls.listings += 1
        if "list_instances" in self.controls.instead:
            return self.controls.instead["list_instances"]()
        ours = [
            ListedInstance(Attempt(self.name, number), {"attempt": number}, self.controls.controller_id)
            for number in sorted(self.controls.instances)
        ]
        return ours + self.controls.strangers

    def destroy_instance(self, handle: JSON) -> Any:
        self.controls.destroyed.append(handle["attempt"])
        if "destroy_instance" in self.controls.instead:
            return self.controls.instead["destroy_instance"]()
        self.controls.instances.discard(handle["attempt"])
        return None

    def _attempt(self) -> Attempt:
        assert self.enrolment is not None
        return self.enrolment.attempt

    def _called(self, calls: list[HookCall]) -> HookCall:
        assert self.enrolment is not None
        controls = self.controls
        controls.controller_id = self.enrolment.controller_id
        controls.overlapped = controls.overlapped or controls.starting or controls.stopping
        calls.append(HookCall(self.enrolment.attempt.number, self.enrolment.agent_token))
        return calls[-1]


class BareLatentWorker(ControllableLatentWorker):
    """One whose plugin has none of the hooks that find an instance again after a crash."""

    def supports(self, hook: str) -> bool:
        super().supports(hook)
        return False


async def _deaf(answer: Deferred[Any]) -> Any:
    """Waits for the answer, and on when it is cancelled: what a plugin does whose SDK can't be interrupted."""
    while True:
        waiting: Deferred[Any] = Deferred()
        answer.chainDeferred(waiting)
        try:
            return await waiting
        except CancelledError:
            answer.addErrback(lambda _: None)


def _answer(call: HookCall, result: Any) -> None:
    if isinstance(result, BaseException):
        call.answer.errback(result)
    else:
        call.answer.callback(result)
