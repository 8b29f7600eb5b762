"""One worker's machine, told what happens: its life reads as a transcript."""

from __future__ import annotations

from typing import Any

import attrs
from attrs import define, evolve

from latent.core.events import (
    Action,
    Attached,
    BackOff,
    BuildFinished,
    Event,
    Failure,
    Fault,
    Started,
    Substantiate,
    TimedOut,
    Unready,
)
from latent.core.states import NAMES, NotSubstantiated, Policy, State, deadlines
from latent.core.substantiation import step

POLICY = Policy(
    build_wait_timeout=600,
    missing_timeout=1200,
    check_instance_interval=10,
    start_timeout=900,
    stop_timeout=300,
    reattach_timeout=60,
)
NO_CAPACITY = Failure(Fault.INFRASTRUCTURE, "no capacity", "LatentWorkerCapacityError")
NO_SUCH_IMAGE = Failure(Fault.BUILD, "no such image", "LatentWorkerCannotSubstantiate")


@define
class Life:
    """One worker: `tell` it what happens, `wait` for time to pass."""

    state: State
    now: float = 0.0

    @property
    def name(self) -> str:
        return NAMES[type(self.state)]

    def tell(self, *events: Event) -> list[Action]:
        """What it does about them all; what it says in words is left out."""
        done: list[Action] = []
        for event in events:
            self.state, actions = step(self.state, event, self.now)
            done += actions
        return [_without_words(action) for action in done]

    def wait(self, seconds: float) -> list[Action]:
        """Let time pass; deadlines fire when they are due, the earliest first."""
        end, done = self.now + seconds, []
        while due := [(at, timer) for timer, at in deadlines(self.state).items() if at <= end]:
            at, timer = min(due, key=lambda item: item[0])
            self.now = max(self.now, at)
            done += self.tell(TimedOut(timer))
        self.now = end
        return done


def _without_words(action: Any) -> Action:
    if isinstance(action, Unready | BackOff):
        return attrs.evolve(action, failure=Failure(action.failure.fault, ""))
    worded = any(field.name == "reason" for field in attrs.fields(type(action)))
    changed: Action = evolve(action, reason="") if worded else action
    return changed


def unready(fault: Fault, *builds: str) -> Unready:
    return Unready(builds, Failure(fault, ""))


BACK_OFF = BackOff(Failure(Fault.INFRASTRUCTURE, ""))


def cold(**policy: Any) -> Life:
    return Life(NotSubstantiated(policy=evolve(POLICY, **policy)))


def starting(*builds: str, **policy: Any) -> Life:
    life = cold(**policy)
    life.tell(*(Substantiate(build) for build in builds or (None,)))
    return life


def building(*builds: str, **policy: Any) -> Life:
    life = starting(*builds, **policy)
    life.tell(Started(1), Attached(1, "s"))
    return life


def idle(**policy: Any) -> Life:
    life = building("a", **policy)
    life.tell(BuildFinished("a"))
    return life
