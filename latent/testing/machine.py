"""A latent machine that does what a test says, no sooner."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from latent.testing.worker import _deaf
from latent.worker.machine import AbstractLatentMachine


@define(eq=False)
class MachineCall:
    """One call of start_machine or stop_machine. ``heard``: the controller that made it still lives."""

    answer: Deferred[Any] = field(factory=Deferred)
    heard: bool = True

    @property
    def waits(self) -> bool:
        return self.heard and not self.answer.called


class MachineControls:
    """``auto_start``, ``auto_stop``: answer at once with this (not None). ``deaf``: calls take no notice of being cancelled.

    ``up``: whether the machine is. ``overlapped``: whether a call was made while another ran.
    """

    def __init__(self) -> None:
        self.up = False
        self.starts: list[MachineCall] = []
        self.stops: list[MachineCall] = []
        self.auto_start: Any = None
        self.auto_stop: Any = None
        self.deaf = False
        self.overlapped = False

    @property
    def starting(self) -> bool:
        return bool(self.starts) and self.starts[-1].waits

    @property
    def stopping(self) -> bool:
        return bool(self.stops) and self.stops[-1].waits

    def start_answers(self, result: Any = True, *, up: bool | None = None) -> None:
        """``up``: whether the machine is up now; by itself, if the start does not fail."""
        self.up = (not isinstance(result, BaseException) and result is not False) if up is None else up
        _answer(self.starts[-1], result)

    def stop_answers(self, result: Any = True) -> None:
        """A stop that does not fail has stopped it."""
        if not isinstance(result, BaseException) and result is not False:
            self.up = False
        _answer(self.stops[-1], result)

    def controller_died(self) -> None:
        """Nobody hears the answers of the calls that run."""
        for call in (*self.starts, *self.stops):
            if call.waits:
                call.heard, call.answer = False, Deferred()


class ControllableLatentMachine(AbstractLatentMachine):
    """Does what its `MachineControls` say."""

    controls: MachineControls

    def checkConfig(self, name: str, controls: Any = None, **kwargs: Any) -> None:
        super().checkConfig(name, **kwargs)
        if not isinstance(controls, MachineControls):
            self.config_error("it has no controls; give it controls=latent.testing.MachineControls()")
        self.controls = controls

    def start_machine(self) -> Any:
        call = self._called(self.controls.starts)
        if self.controls.auto_start is not None:
            self.controls.start_answers(self.controls.auto_start)
        return _deaf(call.answer) if self.controls.deaf else call.answer

    def stop_machine(self) -> Any:
        call = self._called(self.controls.stops)
        if self.controls.auto_stop is not None:
            self.controls.stop_answers(self.controls.auto_stop)
        return _deaf(call.answer) if self.controls.deaf else call.answer

    def _called(self, calls: list[MachineCall]) -> MachineCall:
        controls = self.controls
        controls.overlapped = controls.overlapped or controls.starting or controls.stopping
        calls.append(MachineCall())
        return calls[-1]


def _answer(call: MachineCall, result: Any) -> None:
    if isinstance(result, BaseException):
        call.answer.errback(result)
    else:
        call.answer.callback(result)
