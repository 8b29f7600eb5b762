"""The life of one latent machine: a host that is started for the instances of its workers and stopped when nobody builds there.

Every transition stands in this file and nowhere else. `step` takes a state, an event, what the machine's workers do with it just
now (`Use`), and the time, and returns the next state and the actions to perform. Who waits for the machine or lives on it is in
the workers' own states (`latent.core.states`), which are on disk; it is not kept here a second time.

What is promised is held to by `tests/core/test_machines.py`, which visits every state that `step` can reach in a hostile world:

1. A start and a stop never overlap, but for calls that were given up (`latent.core.substantiation`, Note [Abandoned calls]).
2. The machine is not stopped while an instance is on it; the idle ones are asked to go first.
3. After every start, also one that failed, hung or was cut short by a crash, comes a stop; one that fails is tried again.
4. Whoever waits is told, once, that the machine is up or why it is not. A start that hangs keeps nobody waiting.

Note [Hung starts]. A start that was given up may still bring the machine up, at any time: whenever it answers, the machine is
stopped (once more) unless it is in use just then. ``hung`` counts such calls in every state: a crash makes them unheard of, and
then it is stopped in case.

Note [Being wanted]. Only `Wanted`, which a worker says once for each attempt, leads from STOPPED to STARTING, not that somebody
waits: those who were just told of a failed start are still seen waiting until each has heard it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import assert_never

from attrs import evolve, frozen

from latent.core.answers import SHUTTING_DOWN, infrastructure, nobody
from latent.core.events import Failure
from latent.model import Attempt

CANCEL_GRACE = 30.0
"""Seconds that a cancelled hook has to unwind before it is given up."""

FIRST_RETRY, LAST_RETRY = 10.0, 3600.0
"""Seconds from a stop that failed to the next try: the first, doubling up to the last."""


@frozen(kw_only=True)
class MachinePolicy:
    """What the declaration says of time, in seconds. ``build_wait_timeout``: 0 stops at once, below 0 not before the shutdown."""

    build_wait_timeout: float = 0.0
    missing_timeout: float = 1200.0
    stop_timeout: float = 300.0


@frozen(kw_only=True)
class Use:
    """What the machine's workers do with it. ``waiting``: attempts that can't start before it is up. ``users``: workers that have
    an instance on it, or are starting or stopping one; ``busy``: those of them that build, or are about to."""

    waiting: tuple[Attempt, ...] = ()
    users: frozenset[str] = frozenset()
    busy: frozenset[str] = frozenset()

    @property
    def needed(self) -> bool:
        return bool(self.waiting or self.busy)


class Due(enum.Enum):
    """What a deadline in a state is for. At most one of each is armed."""

    START = "start"
    STOP = "stop"
    IDLE = "idle"
    RETRY = "retry"


@frozen
class Call:
    """A hook of the plugin that has not answered. ``deadline``: when to cancel it or, once cancelled, to give it up."""

    hook: Due
    deadline: float
    cancelled: bool = False


# --- states -------------------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Stopped:
    """It is down, or counts as such. ``error``: why the last stop may not have taken effect (empty: it has).

    ``attempt`` counts its starts. ``tries``: stops that failed, running. ``closed``: it is not started again. ``hung``: see Note
    [Hung starts].
    """

    policy: MachinePolicy
    attempt: int = 0
    hung: int = 0
    error: str = ""
    tries: int = 0
    retry_deadline: float | None = None
    closed: bool = False


@frozen(kw_only=True)
class Starting:
    """start_machine was called. ``closing``: it is stopped as soon as that has ended, and not started again."""

    policy: MachinePolicy
    attempt: int
    call: Call
    hung: int = 0
    closing: bool = False


@frozen(kw_only=True)
class Started:
    """It is up. ``idle_deadline``: when it is stopped if nobody builds on it until then."""

    policy: MachinePolicy
    attempt: int
    hung: int = 0
    idle_deadline: float | None = None


@frozen(kw_only=True)
class Stopping:
    """It is going. ``call`` is None while instances are still on it, then it is stop_machine's.

    ``again``: a start that had been given up has answered since, so that one stop more is needed.
    """

    policy: MachinePolicy
    attempt: int
    call: Call | None = None
    hung: int = 0
    tries: int = 0
    again: bool = False
    closing: bool = False


MachineState = Stopped | Starting | Started | Stopping

NAMES: Mapping[type[MachineState], str] = {
    Stopped: "STOPPED",
    Starting: "STARTING",
    Started: "STARTED",
    Stopping: "STOPPING",
}


# --- events -------------------------------------------------------------------------------------------------------------------


@frozen
class Wanted:
    """``attempt`` of one of its workers can't start before it is up."""

    attempt: Attempt


@frozen
class Used:
    """What its workers do with it has changed."""


@frozen
class StartAnswered:
    """start_machine has answered; ``failure`` is None when the machine is up."""

    attempt: int
    failure: Failure | None = None


@frozen
class StopAnswered:
    """stop_machine has answered; ``error`` is None when the machine is down."""

    attempt: int
    error: str | None = None


@frozen
class TimedOut:
    """A deadline of the state has passed."""

    due: Due


@frozen
class Reconfigured:
    """The declaration changed. ``again``: it had been taken out of the configuration, and is back."""

    policy: MachinePolicy
    again: bool = False


@frozen
class Shutdown:
    """The controller stops, or the machine is no longer declared. ``fast``: a running start is not waited for."""

    fast: bool = False


@frozen
class Recovered:
    """The controller was restarted: the calls that ran are nobody's any more."""


MachineEvent = Wanted | Used | StartAnswered | StopAnswered | TimedOut | Reconfigured | Shutdown | Recovered


# --- actions ------------------------------------------------------------------------------------------------------------------


@frozen
class Start:
    """Call start_machine."""

    attempt: int


@frozen
class Stop:
    """Call stop_machine."""

    attempt: int


@frozen
class Cancel:
    """Cancel the running start_machine or stop_machine."""

    hook: Due


@frozen
class TellUp:
    """The machine is up: these attempts can go on."""

    waiting: tuple[Attempt, ...]


@frozen
class TellDown:
    """The machine won't be up for these attempts."""

    waiting: tuple[Attempt, ...]
    failure: Failure


@frozen
class Evict:
    """Instances of these workers are to go, unless one builds again by now."""

    workers: tuple[str, ...]


MachineAction = Start | Stop | Cancel | TellUp | TellDown | Evict

Next = tuple[MachineState, tuple[MachineAction, ...]]


def deadlines(state: MachineState) -> dict[Due, float]:
    """When each armed timer of the state is due, in POSIX seconds."""
    match state:
        case Stopped(retry_deadline=at) if at is not None:
            return {Due.RETRY: at}
        case Started(idle_deadline=at) if at is not None:
            return {Due.IDLE: at}
        case Starting(call=call):
            return {call.hook: call.deadline}
        case Stopping(call=call) if call is not None:
            return {call.hook: call.deadline}
        case _:
            return {}


def step(state: MachineState, event: MachineEvent, use: Use, now: float) -> Next:
    """What follows when ``event`` meets ``state`` at ``now`` (POSIX seconds). An event that means nothing changes nothing."""
    match event:
        case Reconfigured():
            state = _reconfigured(state, event)
        case StartAnswered(attempt) if not (isinstance(state, Starting) and attempt == state.attempt):
            state = evolve(state, hung=max(0, state.hung - 1))
        case _:
            pass
    match state:
        case Stopped():
            return _stopped(state, event, use, now)
        case Starting():
            return _starting(state, event, use, now)
        case Started():
            return _started(state, event, use, now)
        case Stopping():
            return _stopping(state, event, use, now)
        case _:
            assert_never(state)


def _stopped(state: Stopped, event: MachineEvent, use: Use, now: float) -> Next:
    match event:
        case Wanted(attempt) if attempt in use.waiting:
            if state.closed:
                return state, (TellDown((attempt,), nobody(SHUTTING_DOWN)),)
            return _start(state, state.attempt + 1, now)
        case StartAnswered():
            return _stop(state, now)
        case TimedOut(Due.RETRY) if state.retry_deadline is not None and now >= state.retry_deadline:
            return _stop(state, now)
        case Shutdown():
            return evolve(state, closed=True), ()
        case Recovered():
            fresh = evolve(state, closed=False, hung=0)
            return _stop(fresh, now) if state.hung else (fresh, ())
        case Wanted() | Used() | StopAnswered() | TimedOut() | Reconfigured():
            return state, ()
        case _:
            assert_never(event)


def _starting(state: Starting, event: MachineEvent, use: Use, now: float) -> Next:
    call = state.call
    match event:
        case Wanted(attempt) if attempt in use.waiting and state.closing:
            return state, (TellDown((attempt,), nobody(SHUTTING_DOWN)),)
        case StartAnswered(attempt, failure) if attempt == state.attempt:
            if failure is not None:
                after, actions = _stop(state, now)
                # Those who came since the start was cancelled have not been told, and get the next one.
                return (after, actions) if call.cancelled else (after, (*_down(use, failure), *actions))
            if state.closing or call.cancelled:
                return _stop(state, now)
            up = (TellUp(use.waiting),) if use.waiting else ()
            after, actions = _settle(Started(policy=state.policy, attempt=state.attempt, hung=state.hung), use, now)
            return after, (*up, *actions)
        case TimedOut(Due.START) if now >= call.deadline:
            if call.cancelled:
                return _stop(evolve(state, hung=state.hung + 1), now)
            told = _down(use, infrastructure(f"its machine did not start in {state.policy.missing_timeout:g} s"))
            return evolve(state, call=_cancelled(call, now)), (*told, Cancel(Due.START))
        case Shutdown(fast):
            told = _down(use, nobody(SHUTTING_DOWN))
            if fast and not call.cancelled:
                return evolve(state, closing=True, call=_cancelled(call, now)), (*told, Cancel(Due.START))
            return evolve(state, closing=True), told
        case Recovered():
            # Whether the machine has come up, nobody can tell: it is started again for whom it is for, or stopped.
            fresh = evolve(state, closing=False, hung=0)
            return _start(fresh, state.attempt, now) if use.waiting or use.users else _stop(fresh, now)
        case Wanted() | Used() | StartAnswered() | StopAnswered() | TimedOut() | Reconfigured():
            return state, ()
        case _:
            assert_never(event)


def _started(state: Started, event: MachineEvent, use: Use, now: float) -> Next:
    match event:
        case Wanted(attempt) if attempt in use.waiting:
            return evolve(state, idle_deadline=None), (TellUp((attempt,)),)
        case TimedOut(Due.IDLE) if state.idle_deadline is not None and now >= state.idle_deadline:
            return _settle(state, use, now) if use.needed else _leave(state, use, now)
        case Shutdown():
            after, actions = _leave(state, use, now, closing=True)
            return after, (*_down(use, nobody(SHUTTING_DOWN)), *actions)
        case Reconfigured():
            return _settle(evolve(state, idle_deadline=None), use, now)
        case Used():
            return _settle(state, use, now)
        case Recovered():
            return _settle(evolve(state, hung=0), use, now)
        case Wanted() | StartAnswered() | StopAnswered() | TimedOut():
            return state, ()
        case _:
            assert_never(event)


def _stopping(state: Stopping, event: MachineEvent, use: Use, now: float) -> Next:
    call = state.call
    match event:
        case Wanted(attempt) if attempt in use.waiting and state.closing:
            return state, (TellDown((attempt,), nobody(SHUTTING_DOWN)),)
        case Recovered():
            fresh = evolve(state, closing=False, hung=0)
            return _emptied(fresh, use, now) if call is None else _stop(fresh, now)
        case Wanted() | Used() | Reconfigured() if call is None:
            return _emptied(state, use, now)
        case StopAnswered(attempt, error) if call is not None and attempt == state.attempt:
            if state.again:
                return _stop(evolve(state, again=False), now)
            return _is_down(state, error or "", use, now)
        case TimedOut(Due.STOP) if call is not None and now >= call.deadline:
            if not call.cancelled:
                return evolve(state, call=_cancelled(call, now)), (Cancel(Due.STOP),)
            return _is_down(state, f"stop_machine did not answer in {state.policy.stop_timeout:g} s", use, now)
        case StartAnswered() if call is not None:
            return evolve(state, again=True), ()
        case Shutdown():
            return evolve(state, closing=True), _down(use, nobody(SHUTTING_DOWN))
        case Wanted() | Used() | StartAnswered() | StopAnswered() | TimedOut() | Reconfigured():
            return state, ()
        case _:
            assert_never(event)


# --- what several cells share -------------------------------------------------------------------------------------------------


def _reconfigured(state: MachineState, event: Reconfigured) -> MachineState:
    if event.again and isinstance(state, Stopped):
        state = evolve(state, closed=False)
    elif event.again and isinstance(state, Starting | Stopping):
        state = evolve(state, closing=False)
    return evolve(state, policy=event.policy)


def _start(state: Stopped | Starting | Stopping, attempt: int, now: float) -> Next:
    call = Call(Due.START, now + state.policy.missing_timeout)
    return Starting(policy=state.policy, attempt=attempt, call=call, hung=state.hung), (Start(attempt),)


def _stop(state: Stopped | Starting | Stopping, now: float) -> Next:
    """Call stop_machine: no instance is on the machine."""
    closing = state.closed if isinstance(state, Stopped) else state.closing
    tries = 0 if isinstance(state, Starting) else state.tries
    call = Call(Due.STOP, now + state.policy.stop_timeout)
    going = Stopping(policy=state.policy, attempt=state.attempt, call=call, hung=state.hung, tries=tries, closing=closing)
    return going, (Stop(state.attempt),)


def _settle(state: Started, use: Use, now: float) -> Next:
    """While nobody builds, the idle timer runs or the machine goes."""
    if use.needed:
        return evolve(state, idle_deadline=None), ()
    wait = state.policy.build_wait_timeout
    if wait == 0:
        return _leave(state, use, now)
    if wait < 0:
        return evolve(state, idle_deadline=None), ()
    return (state if state.idle_deadline is not None else evolve(state, idle_deadline=now + wait)), ()


def _leave(state: Started, use: Use, now: float, *, closing: bool = False) -> Next:
    """The machine goes once the instances on it have gone. At a shutdown their workers see to that themselves."""
    going = Stopping(policy=state.policy, attempt=state.attempt, hung=state.hung, closing=closing)
    if not use.users:
        return _stop(going, now)
    return going, () if closing else (Evict(tuple(sorted(use.users))),)


def _emptied(state: Stopping, use: Use, now: float) -> Next:
    """Somebody came or went while instances were still on the machine, which is up as yet."""
    if use.needed and not state.closing:
        told = (TellUp(use.waiting),) if use.waiting else ()
        return Started(policy=state.policy, attempt=state.attempt, hung=state.hung), told
    return (state, ()) if use.users else _stop(state, now)


def _is_down(state: Stopping, error: str, use: Use, now: float) -> Next:
    """The stop has ended. Whoever has come to wait meanwhile gets the next start, whatever became of the stop."""
    if use.waiting and not state.closing:
        return _start(state, state.attempt + 1, now)
    tries = state.tries + 1 if error else 0
    retry = now + min(FIRST_RETRY * 2 ** min(tries - 1, 20), LAST_RETRY) if error else None
    down = Stopped(policy=state.policy, attempt=state.attempt, hung=state.hung, closed=state.closing)
    return evolve(down, error=error, tries=tries, retry_deadline=retry), ()


def _down(use: Use, failure: Failure) -> tuple[MachineAction, ...]:
    return (TellDown(use.waiting, failure),) if use.waiting else ()


def _cancelled(call: Call, now: float) -> Call:
    return evolve(call, deadline=now + CANCEL_GRACE, cancelled=True)
