"""The search finds bugs: ten that the reference implementation has (specs/latent-worker.md, "Ten defects"), and more of our own.

Each mutant is `step` with one thing wrong; the search must break the promise that the bug is about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import pytest
from attrs import evolve

from latent.core import events as ev
from latent.core.states import (
    Call,
    Insubstantiating,
    InsubstantiatingSubstantiating,
    NotSubstantiated,
    ShutDown,
    State,
    Substantiated,
    Substantiating,
    SubstantiatingStarting,
    Timer,
)
from latent.core.substantiation import step
from tests.core.promises import Promise
from tests.core.search import Search

Next = tuple[State, tuple[ev.Action, ...]]
Mutant = Callable[[State, ev.Event, float], Next]


# --- the reference's ten ------------------------------------------------------------------------------------------------------


def cancelled_request_still_starts(state: State, event: ev.Event, now: float) -> Next:
    """1. Requested, told to go and requested again during a stop: the waiters are cancelled, yet the start runs."""
    if isinstance(state, InsubstantiatingSubstantiating) and isinstance(event, ev.Insubstantiate):
        nobody = ev.Failure(ev.Fault.NOBODY, event.reason)
        return evolve(state, waiters=()), (ev.Unready(state.waiters, nobody),) if state.waiters else ()
    return step(state, event, now)


def hung_call_keeps_the_lock(state: State, event: ev.Event, now: float) -> Next:
    """2. A start that hangs keeps the lock, and the next build waits for ever."""
    if isinstance(state, InsubstantiatingSubstantiating) and isinstance(event, ev.TimedOut):
        return state, ()
    return step(state, event, now)


def missing_timer_survives_the_agent(state: State, event: ev.Event, now: float) -> Next:
    """3. With a negative build_wait_timeout and the agent already there, the missing timer runs on and kills the build."""
    after, actions = step(state, event, now)
    if isinstance(state, SubstantiatingStarting) and isinstance(after, Substantiated) and after.policy.build_wait_timeout < 0:
        return evolve(after, reattach_deadline=state.missing_deadline), actions
    return after, actions


def failed_stop_is_forgotten(state: State, event: ev.Event, now: float) -> Next:
    """4. A stop that fails is taken for one that succeeded, and the instance leaks."""
    if isinstance(event, ev.StopFailed):
        return step(state, ev.Stopped(event.attempt), now)
    return step(state, event, now)


def graceful_request_is_for_ever(state: State, event: ev.Event, now: float) -> Next:
    """5. A graceful request to let the instance go leaves the worker unschedulable."""
    if isinstance(event, ev.Insubstantiate) and not event.fast:
        after, actions = step(state, event, now)
        return (evolve(after, then_shut_down=True) if isinstance(after, Insubstantiating) else after), actions
    return step(state, event, now)


def idle_reconnect_is_refused(state: State, event: ev.Event, now: float) -> Next:
    """6. An agent that loses its connection while idle may not come back, and its instance lingers."""
    if isinstance(state, Substantiated) and isinstance(event, ev.Attached) and state.session is None and not state.builds:
        return state, (ev.Refuse(event.session, "no build wants it"),)
    return step(state, event, now)


def attempts_have_no_identity(state: State, event: ev.Event, now: float) -> Next:
    """7. A stale agent attaches to the next start and runs its build."""
    if isinstance(event, ev.Attached) and isinstance(state, SubstantiatingStarting):
        return step(state, ev.Attached(state.attempt, event.session), now)
    return step(state, event, now)


def missing_timer_survives_a_cancelled_start(state: State, event: ev.Event, now: float) -> Next:
    """8. What is left of the last start's missing timer is all the time that the next one gets."""
    after, actions = step(state, event, now)
    if isinstance(state, Insubstantiating) and isinstance(after, InsubstantiatingSubstantiating):
        return evolve(after, missing_deadline=now), actions
    return after, actions


def one_kind_of_worker_cannot_be_made(state: State, event: ev.Event, now: float) -> Next:
    """9. One class of workers raises when it is constructed: here, one that is never idle."""
    if isinstance(event, ev.Attached) and state.policy.build_wait_timeout < 0:
        _raise(TypeError("__init__() got an unexpected keyword argument"))
    return step(state, event, now)


def machine_start_checks_no_state(state: State, event: ev.Event, now: float) -> Next:
    """10. Once the machine is up, the instance is started, whatever happened meanwhile."""
    if isinstance(event, ev.MachineStarted) and isinstance(state, NotSubstantiated) and event.attempt == state.attempt:
        waiting = Substantiating(policy=state.policy, attempt=state.attempt, waiters=(), missing_deadline=now)
        return step(waiting, event, now)
    return step(state, event, now)


# --- and more -----------------------------------------------------------------------------------------------------------------


def failed_start_is_not_stopped(state: State, event: ev.Event, now: float) -> Next:
    """A start that failed is taken for one that made nothing."""
    after, actions = step(state, event, now)
    if isinstance(event, ev.StartFailed) and isinstance(state, SubstantiatingStarting):
        kept = tuple(a for a in actions if not isinstance(a, ev.StopInstance))
        return NotSubstantiated(policy=state.policy, attempt=state.attempt), kept
    return after, actions


def stale_agent_replaces_the_right_one(state: State, event: ev.Event, now: float) -> Next:
    """An agent of an older attempt takes the place of the one that is attached."""
    if isinstance(event, ev.Attached) and isinstance(state, Substantiated):
        return step(state, ev.Attached(state.attempt, event.session), now)
    return step(state, event, now)


def late_start_is_dropped(state: State, event: ev.Event, now: float) -> Next:
    """What a start that was given up makes in the end is nobody's."""
    after, actions = step(state, event, now)
    if isinstance(event, ev.Started):
        return after, tuple(a for a in actions if not isinstance(a, ev.Condemn))
    return after, actions


def next_start_does_not_wait(state: State, event: ev.Event, now: float) -> Next:
    """A build that comes during a stop starts the next instance at once."""
    if isinstance(state, Insubstantiating) and isinstance(event, ev.Substantiate) and not state.then_shut_down:
        return step(NotSubstantiated(policy=state.policy, attempt=state.attempt), event, now)
    return step(state, event, now)


def stop_is_repeated(state: State, event: ev.Event, now: float) -> Next:
    """A stop that failed is simply tried again."""
    if isinstance(event, ev.StopFailed) and isinstance(state, Insubstantiating) and state.call.hook is Timer.STOP:
        return evolve(state, call=Call(Timer.STOP, now + 300)), (ev.StopInstance(state.attempt, state.fast),)
    return step(state, event, now)


def early_agent_is_refused(state: State, event: ev.Event, now: float) -> Next:
    """An agent is refused while start_instance has not answered."""
    if isinstance(event, ev.Attached) and isinstance(state, SubstantiatingStarting) and state.start:
        return state, (ev.Refuse(event.session, "too early"),)
    return step(state, event, now)


def restart_forgets_the_stop(state: State, event: ev.Event, now: float) -> Next:
    """After a restart, an instance that was being stopped is taken for gone."""
    if isinstance(event, ev.Recovered) and isinstance(state, Insubstantiating):
        return NotSubstantiated(policy=state.policy, attempt=state.attempt), ()
    return step(state, event, now)


def warm_instance_never_goes(state: State, event: ev.Event, now: float) -> Next:
    """An instance that was started without a build gets no idle timer."""
    after, actions = step(state, event, now)
    if isinstance(state, SubstantiatingStarting) and isinstance(after, Substantiated):
        return evolve(after, idle_deadline=None), actions
    return after, actions


def waiters_are_lost(state: State, event: ev.Event, now: float) -> Next:
    """Builds that waited for an instance that was told to go are told nothing."""
    after, actions = step(state, event, now)
    if isinstance(event, ev.Insubstantiate):
        return after, tuple(a for a in actions if not isinstance(a, ev.Unready))
    return after, actions


def lost_connection_ends_the_build(state: State, event: ev.Event, now: float) -> Next:
    """A build ends with its agent's connection, though the agent may be back in a second."""
    if isinstance(state, Substantiated) and isinstance(event, ev.Detached) and event.session == state.session:
        return step(state, ev.Insubstantiate("its agent is away"), now)
    return step(state, event, now)


def hung_start_of_an_attached_agent_is_forgotten(state: State, event: ev.Event, now: float) -> Next:
    """A start that hangs though its agent is there is given up, and nobody remembers it when the instance goes."""
    after, actions = step(state, event, now)
    if isinstance(after, Substantiated) and after.start and after.start.cancelled:
        return evolve(after, start=None), actions
    return after, actions


def shutdown_is_slow(state: State, event: ev.Event, now: float) -> Next:
    """A fast shutdown does not tell the stop that waits for its start."""
    if isinstance(event, ev.Shutdown):
        return step(state, ev.Shutdown(fast=False), now)
    return step(state, event, now)


def request_after_shutdown_is_kept(state: State, event: ev.Event, now: float) -> Next:
    """A worker that was shut down starts again for a build that came too late."""
    if isinstance(state, ShutDown) and isinstance(event, ev.Substantiate):
        return step(NotSubstantiated(policy=state.policy, attempt=state.attempt), event, now)
    return step(state, event, now)


def stale_check_is_believed(state: State, event: ev.Event, now: float) -> Next:
    """The check of an instance that is over decides about the one that is there."""
    if isinstance(event, ev.Checked):
        return step(state, evolve(event, attempt=state.attempt), now)
    return step(state, event, now)


def stop_never_ends(state: State, event: ev.Event, now: float) -> Next:
    """Whoever is told that a stop succeeded goes on waiting for it."""
    if isinstance(event, ev.Stopped):
        return state, ()
    return step(state, event, now)


def hung_call_is_never_given_up(state: State, event: ev.Event, now: float) -> Next:
    """A call that ignores its cancellation is waited for again and again."""
    after, actions = step(state, event, now)
    if isinstance(state, Insubstantiating) and isinstance(event, ev.TimedOut) and state.call.cancelled and after != state:
        return evolve(state, call=evolve(state.call, deadline=now + 30)), ()
    return after, actions


def _raise(error: Exception) -> NoReturn:
    raise error


REFERENCE: list[tuple[Mutant, Promise]] = [
    (cancelled_request_still_starts, Promise.UNWANTED),
    (hung_call_keeps_the_lock, Promise.HUNG),
    (missing_timer_survives_the_agent, Promise.TIMERS),
    (failed_stop_is_forgotten, Promise.FAILED_STOP),
    (graceful_request_is_for_ever, Promise.SHUTDOWN),
    (idle_reconnect_is_refused, Promise.EARLY),
    (attempts_have_no_identity, Promise.RIGHT_ATTEMPT),
    (missing_timer_survives_a_cancelled_start, Promise.TIMERS),
    (one_kind_of_worker_cannot_be_made, Promise.TOTAL),
    (machine_start_checks_no_state, Promise.UNWANTED),
]
MORE: list[tuple[Mutant, Promise]] = [
    (failed_start_is_not_stopped, Promise.STOPPED_ONCE),
    (stale_agent_replaces_the_right_one, Promise.RIGHT_ATTEMPT),
    (late_start_is_dropped, Promise.LATE),
    (next_start_does_not_wait, Promise.OVERLAP),
    (stop_is_repeated, Promise.FAILED_STOP),
    (early_agent_is_refused, Promise.EARLY),
    (restart_forgets_the_stop, Promise.LEAK),
    (warm_instance_never_goes, Promise.IDLE),
    (waiters_are_lost, Promise.LOST_BUILD),
    (lost_connection_ends_the_build, Promise.RUNNING_BUILD),
    (hung_start_of_an_attached_agent_is_forgotten, Promise.OVERLAP),
    (shutdown_is_slow, Promise.SHUTDOWN),
    (request_after_shutdown_is_kept, Promise.SHUTDOWN),
    (stale_check_is_believed, Promise.NOISE),
    (stop_never_ends, Promise.STUCK),
    (hung_call_is_never_given_up, Promise.LATE),
]


@pytest.mark.parametrize(("mutant", "promise"), REFERENCE, ids=[f"{n}-{m.__name__}" for n, (m, _) in enumerate(REFERENCE, 1)])
def test_a_defect_of_the_reference_is_found(mutant: Mutant, promise: Promise) -> None:
    """Each of the ten is found, and the promise that it breaks is named."""
    _found(mutant, promise)


@pytest.mark.parametrize(("mutant", "promise"), MORE, ids=[m.__name__ for m, _ in MORE])
def test_a_planted_bug_is_found(mutant: Mutant, promise: Promise) -> None:
    """So is each other bug that was thought of."""
    _found(mutant, promise)


def _found(mutant: Mutant, promise: Promise) -> None:
    # What can be seen of a state alone is looked at when all are known: without older attempts, that is in seconds.
    search = Search(step=mutant, olds=0 if promise is Promise.NOISE else 1)
    broken = search.run()
    assert broken is not None, f"{mutant.__name__} was not found"
    print(
        f"{mutant.__name__}: found after {len(search.parents)} states; the shortest way has {len(broken.steps)} steps\n{broken}"
    )
    assert broken.promise is promise, str(broken)
