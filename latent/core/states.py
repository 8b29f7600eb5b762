"""The states of one worker's life, and the values they are made of. `latent.core.substantiation` moves between them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import assert_never

from attrs import frozen


@frozen(kw_only=True)
class Policy:
    """What the declaration says of time, in seconds. ``build_wait_timeout``: 0 stops at once, below 0 never."""

    build_wait_timeout: float = 600.0
    missing_timeout: float = 1200.0
    check_instance_interval: float = 10.0
    start_timeout: float = 900.0
    stop_timeout: float = 300.0
    reattach_timeout: float = 60.0
    has_machine: bool = False


class Timer(enum.Enum):
    """What a deadline in a state is for. At most one of each is armed."""

    MISSING = "missing"
    START = "start"
    STOP = "stop"
    CHECK = "check"
    IDLE = "idle"
    REATTACH = "reattach"


@frozen
class Call:
    """A hook of the plugin that has not answered. ``deadline``: when to cancel it or, once cancelled, to give it up."""

    hook: Timer
    deadline: float
    cancelled: bool = False


@frozen(kw_only=True)
class NotSubstantiated:
    """There is no instance. ``attempt`` is the number of the last one (0: there never was one)."""

    policy: Policy
    attempt: int = 0


@frozen(kw_only=True)
class Substantiating:
    """An instance is wanted; the machine that it lives on is being started."""

    policy: Policy
    attempt: int
    waiters: tuple[str, ...]
    missing_deadline: float


@frozen(kw_only=True)
class SubstantiatingStarting:
    """`start_instance` was called and the agent has not attached. ``start`` is None once the hook has answered.

    ``build`` is the one that the instance is made for. ``check_deadline`` is None before the answer and during a check.
    """

    policy: Policy
    attempt: int
    build: str | None
    waiters: tuple[str, ...]
    missing_deadline: float
    start: Call | None
    check_deadline: float | None = None
    retiring: str = ""


@frozen(kw_only=True)
class Substantiated:
    """The agent has attached. ``session`` is None while it is away; ``start`` is set while start_instance still runs.

    A start that was cancelled here is given up only when the instance goes, so that what it may yet make is not forgotten.
    ``retiring``: why the instance takes no more builds and stops after its last (empty: it goes on).
    """

    policy: Policy
    attempt: int
    session: str | None
    builds: frozenset[str] = frozenset()
    start: Call | None = None
    idle_deadline: float | None = None
    reattach_deadline: float | None = None
    check_deadline: float | None = None
    retiring: str = ""


@frozen(kw_only=True)
class Insubstantiating:
    """The instance is going: ``call`` is the start that must end first, or the stop. ``then_shut_down``: no more after it."""

    policy: Policy
    attempt: int
    call: Call
    fast: bool = False
    then_shut_down: bool = False


@frozen(kw_only=True)
class InsubstantiatingSubstantiating:
    """The instance is going, and builds wait for the next one."""

    policy: Policy
    attempt: int
    call: Call
    waiters: tuple[str, ...]
    missing_deadline: float
    fast: bool = False


@frozen(kw_only=True)
class ShutDown:
    """There is no instance and there will be none."""

    policy: Policy
    attempt: int = 0


State = (
    NotSubstantiated
    | Substantiating
    | SubstantiatingStarting
    | Substantiated
    | Insubstantiating
    | InsubstantiatingSubstantiating
    | ShutDown
)

NAMES: Mapping[type[State], str] = {
    NotSubstantiated: "NOT_SUBSTANTIATED",
    Substantiating: "SUBSTANTIATING",
    SubstantiatingStarting: "SUBSTANTIATING_STARTING",
    Substantiated: "SUBSTANTIATED",
    Insubstantiating: "INSUBSTANTIATING",
    InsubstantiatingSubstantiating: "INSUBSTANTIATING_SUBSTANTIATING",
    ShutDown: "SHUT_DOWN",
}


def deadlines(state: State) -> dict[Timer, float]:
    """When each armed timer of the state is due, in POSIX seconds."""
    armed: dict[Timer, float | None] = {}
    match state:
        case Substantiating():
            armed = {Timer.MISSING: state.missing_deadline}
        case SubstantiatingStarting():
            armed = {Timer.MISSING: state.missing_deadline, Timer.CHECK: state.check_deadline, **_due(state.start)}
        case Substantiated():
            armed = {
                Timer.IDLE: state.idle_deadline,
                Timer.REATTACH: state.reattach_deadline,
                Timer.CHECK: state.check_deadline,
                **({} if state.start and state.start.cancelled else _due(state.start)),
            }
        case Insubstantiating():
            armed = _due(state.call)
        case InsubstantiatingSubstantiating():
            armed = {Timer.MISSING: state.missing_deadline, **_due(state.call)}
        case NotSubstantiated() | ShutDown():
            pass
        case _:
            assert_never(state)
    return {timer: at for timer, at in armed.items() if at is not None}


def _due(call: Call | None) -> dict[Timer, float | None]:
    return {call.hook: call.deadline} if call else {}


def just(build: str | None) -> tuple[str, ...]:
    """Who waits when an instance is wanted for ``build``, or (None) to be warm."""
    return () if build is None else (build,)


def without(waiters: tuple[str, ...], build: str) -> tuple[str, ...]:
    return tuple(b for b in waiters if b != build)
