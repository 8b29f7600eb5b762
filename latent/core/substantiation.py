"""The life of one worker's instances. Every transition there is stands in this file and nowhere else.

`step` takes a state, an event and the time, and returns the next state and the actions to perform. States are frozen and
carry their own data: a timer is a deadline in the state, a waiting build is an id in the state, a running call of a plugin's
hook is a `Call` in the state, so nothing is known beside it and all of it can be written down. The shell
(`latent.controller.lifecycle`) performs the actions once the state is on disk, and feeds what comes of them back as events.

What the machine promises is listed in section 3 of the design and held to it by `tests/core/test_search.py`, which visits every
state that it can reach in a hostile world. The diagram in the docs is drawn from `step` by `scripts/draw_states.py`.

Note [Abandoned calls]. A hook that is past its deadline is cancelled and has `CANCEL_GRACE` seconds to unwind. A hook that
ignores even that is given up: the worker goes on without its answer (else one hung call would hold the worker for ever) and the
attempt is condemned, so that the reaper destroys whatever the call still makes. "Start and stop never overlap" holds for all
calls that were not given up so.
"""

from __future__ import annotations

from typing import assert_never

from attrs import evolve

from latent.core import events as ev
from latent.core.answers import BUSY, OUTDATED, SHUTTING_DOWN, blame, failed, infrastructure, late, nobody, too_late, unready
from latent.core.states import (
    Call,
    Insubstantiating,
    InsubstantiatingSubstantiating,
    NotSubstantiated,
    Policy,
    ShutDown,
    State,
    Substantiated,
    Substantiating,
    SubstantiatingStarting,
    Timer,
    just,
    without,
)

CANCEL_GRACE = 30.0
"""Seconds that a cancelled hook has to unwind before it is given up."""

Next = tuple[State, tuple[ev.Action, ...]]


def step(state: State, event: ev.Event, now: float) -> Next:
    """What follows when ``event`` meets ``state`` at ``now`` (POSIX seconds). An event that means nothing changes nothing."""
    match state:
        case NotSubstantiated():
            return _not_substantiated(state, event, now)
        case Substantiating():
            return _substantiating(state, event, now)
        case SubstantiatingStarting():
            return _starting(state, event, now)
        case Substantiated():
            return _substantiated(state, event, now)
        case Insubstantiating():
            return _insubstantiating(state, event, now)
        case InsubstantiatingSubstantiating():
            return _insubstantiating_substantiating(state, event, now)
        case ShutDown():
            return _shut_down(state, event)
        case _:
            assert_never(state)


def _not_substantiated(state: NotSubstantiated, event: ev.Event, now: float) -> Next:
    match event:
        case ev.Substantiate(build):
            return _begin(state.policy, state.attempt, just(build), now + state.policy.missing_timeout, now)
        case ev.Attached(_, session):
            return state, (ev.Refuse(session, "no instance of this worker is expected"),)
        case ev.BuildStarted(build):
            return state, (too_late(build),)
        case ev.Started(attempt) | ev.StartFailed(attempt):
            return state, (late(attempt),)
        case ev.Reconfigured(policy):
            return evolve(state, policy=policy), ()
        case ev.Shutdown():
            return ShutDown(policy=state.policy, attempt=state.attempt), ()
        case (ev.GiveUp() | ev.MachineStarted() | ev.MachineFailed() | ev.Detached() | ev.Checked() | ev.BuildFinished()
              | ev.Insubstantiate() | ev.Stopped() | ev.StopFailed() | ev.TimedOut() | ev.Recovered()):  # fmt: skip
            return state, ()
        case _:
            assert_never(event)


def _substantiating(state: Substantiating, event: ev.Event, now: float) -> Next:
    rest = NotSubstantiated(policy=state.policy, attempt=state.attempt)
    match event:
        case ev.Substantiate(build, replace):
            return _wait_too(state, build, replace)
        case ev.GiveUp(build) if build in state.waiters:
            left = without(state.waiters, build)
            return (evolve(state, waiters=left) if left else rest), ()
        case ev.MachineStarted(attempt) if attempt == state.attempt:
            return _start(state.policy, attempt, state.waiters, state.missing_deadline, now)
        case ev.MachineFailed(attempt, failure) if attempt == state.attempt:
            return rest, (*unready(state.waiters, failure), *blame(failure))
        case ev.TimedOut(Timer.MISSING) if now >= state.missing_deadline:
            failure = infrastructure(f"its machine did not start in {state.policy.missing_timeout:g} s")
            return rest, (*unready(state.waiters, failure), *blame(failure), ev.NotifyMissing(state.attempt))
        case ev.Attached(_, session):
            return state, (ev.Refuse(session, "its instance has not been started"),)
        case ev.BuildStarted(build):
            return state, (too_late(build),)
        case ev.Started(attempt) | ev.StartFailed(attempt):
            return state, (late(attempt),)
        case ev.Insubstantiate(reason):
            return rest, unready(state.waiters, nobody(reason))
        case ev.Reconfigured(policy):
            return evolve(state, policy=policy), ()
        case ev.Shutdown():
            return ShutDown(policy=state.policy, attempt=state.attempt), unready(state.waiters, nobody(SHUTTING_DOWN))
        case ev.Recovered():
            return state, (ev.StartMachine(state.attempt),)
        case (ev.GiveUp() | ev.MachineStarted() | ev.MachineFailed() | ev.Detached() | ev.Checked() | ev.BuildFinished()
              | ev.Stopped() | ev.StopFailed() | ev.TimedOut()):  # fmt: skip
            return state, ()
        case _:
            assert_never(event)


def _starting(state: SubstantiatingStarting, event: ev.Event, now: float) -> Next:
    match event:
        case ev.Substantiate(build, replace) if (replace or state.retiring) and not state.waiters:
            return _start_another(state, build, replace, now)
        case ev.Substantiate(build, replace):
            return _wait_too(state, build, replace or bool(state.retiring))
        case ev.GiveUp(build) if build in state.waiters:
            left = without(state.waiters, build)
            return (evolve(state, waiters=left), ()) if left else _leave(evolve(state, waiters=()), now)
        case ev.Started(attempt) if state.start and attempt == state.attempt:
            return evolve(state, start=None, check_deadline=now + state.policy.check_instance_interval), ()
        case ev.StartFailed(attempt, failure) if state.start and attempt == state.attempt:
            return _fail(evolve(state, start=None), failure, now)
        case ev.Started(attempt) | ev.StartFailed(attempt) if attempt != state.attempt:
            return state, (late(attempt),)
        case ev.TimedOut(Timer.START) if state.start and now >= state.start.deadline:
            message = f"start_instance did not answer in {state.policy.start_timeout:g} s"
            return _fail(state, infrastructure(message), now, cancel=True)
        case ev.TimedOut(Timer.MISSING) if now >= state.missing_deadline:
            message = f"its agent did not attach in {state.policy.missing_timeout:g} s"
            after, actions = _fail(state, infrastructure(message), now)
            return after, (*actions, ev.NotifyMissing(state.attempt))
        case ev.TimedOut(Timer.CHECK) if state.check_deadline is not None and now >= state.check_deadline:
            return evolve(state, check_deadline=None), (ev.CheckInstance(state.attempt),)
        case ev.Checked(attempt, good, message) if attempt == state.attempt and state.start is None:
            if good:
                return evolve(state, check_deadline=now + state.policy.check_instance_interval), ()
            return _fail(state, infrastructure(f"its instance is not good: {message}"), now)
        case ev.Attached(attempt, session) if attempt == state.attempt:
            return _attach(state, session, now)
        case ev.Attached(attempt, session):
            return state, (ev.Refuse(session, f"it belongs to attempt {attempt}; attempt {state.attempt} is expected"),)
        case ev.BuildStarted(build):
            return state, (too_late(build),)
        case ev.Insubstantiate(reason, fast):
            after, actions = _leave(state, now, fast=fast)
            return after, (*unready(state.waiters, nobody(reason)), *actions)
        case ev.Reconfigured(policy, outdated):
            return evolve(state, policy=policy, retiring=state.retiring or (OUTDATED if outdated else "")), ()
        case ev.Shutdown(fast):
            after, actions = _leave(state, now, fast=fast, then_shut_down=True)
            return after, (*unready(state.waiters, nobody(SHUTTING_DOWN)), *actions)
        case ev.Recovered(found):
            return _recover_starting(state, found, now)
        case (ev.GiveUp() | ev.MachineStarted() | ev.MachineFailed() | ev.Started() | ev.StartFailed() | ev.Detached()
              | ev.Checked() | ev.BuildFinished() | ev.Stopped() | ev.StopFailed() | ev.TimedOut()):  # fmt: skip
            return state, ()
        case _:
            assert_never(event)


def _substantiated(state: Substantiated, event: ev.Event, now: float) -> Next:
    match event:
        case ev.Substantiate(build, replace):
            return _substantiate_again(state, build, replace, now)
        case ev.BuildStarted(build):
            if state.session is None or state.retiring:
                return state, (too_late(build),)
            return evolve(state, builds=state.builds | {build}, idle_deadline=None), ()
        case ev.BuildFinished(build) | ev.GiveUp(build):
            if build not in state.builds:
                return state, ()
            return _settle(evolve(state, builds=state.builds - {build}), now)
        case ev.Started(attempt) if state.start and attempt == state.attempt:
            return evolve(state, start=None, check_deadline=now + state.policy.check_instance_interval), ()
        case ev.StartFailed(attempt, failure) if state.start and attempt == state.attempt:
            after, actions = _retire(evolve(state, start=None), f"start_instance failed: {failure.message}", now)
            return after, (*actions, *blame(failure))
        case ev.Started(attempt) | ev.StartFailed(attempt) if attempt != state.attempt:
            return state, (late(attempt),)
        case ev.TimedOut(Timer.START) if state.start and not state.start.cancelled and now >= state.start.deadline:
            message = f"start_instance did not answer in {state.policy.start_timeout:g} s, though the agent attached"
            # The agent is there, so its builds may end; but the plugin does not know its instance: no more after them.
            cancelled = evolve(state, start=Call(Timer.START, now + CANCEL_GRACE, cancelled=True))
            after, actions = _retire(cancelled, message, now)
            return after, (ev.CancelCall(state.attempt, Timer.START), *actions)
        case ev.TimedOut(Timer.CHECK) if state.check_deadline is not None and now >= state.check_deadline:
            return evolve(state, check_deadline=None), (ev.CheckInstance(state.attempt),)
        case ev.Checked(attempt, good, message) if attempt == state.attempt and state.start is None:
            checked = evolve(state, check_deadline=now + state.policy.check_instance_interval)
            if good:
                return checked, ()
            reason = f"its instance is not good: {message}"
            # An agent that is attached is better evidence than the provider's word: let its builds end.
            return _retire(checked, reason, now) if state.session is not None else _leave(state, now, reason=reason)
        case ev.TimedOut(Timer.IDLE) if state.idle_deadline is not None and now >= state.idle_deadline:
            return _leave(state, now)
        case ev.TimedOut(Timer.REATTACH) if state.reattach_deadline is not None and now >= state.reattach_deadline:
            return _leave(state, now, reason=f"its agent was away for {state.policy.reattach_timeout:g} s")
        case ev.Attached(attempt, session) if attempt == state.attempt:
            drop = (ev.DropSession(state.session, "its agent attached again"),) if state.session not in (None, session) else ()
            return evolve(state, session=session, reattach_deadline=None), (*drop, ev.Accept(session))
        case ev.Attached(attempt, session):
            return state, (ev.Refuse(session, f"it belongs to attempt {attempt}; attempt {state.attempt} is up"),)
        case ev.Detached(session) if session == state.session:
            return _detached(state, now), ()
        case ev.Insubstantiate(reason, fast):
            return _leave(state, now, reason=reason, fast=fast)
        case ev.Reconfigured(policy, outdated):
            changed = evolve(state, policy=policy)
            return _retire(changed, OUTDATED, now) if outdated else _settle(changed, now)
        case ev.Shutdown(fast):
            return _leave(state, now, reason=SHUTTING_DOWN, fast=fast, then_shut_down=True)
        case ev.Recovered(found):
            if state.start and not found:
                # No stop is known to reach what the start left: when its builds are over, it is condemned.
                dead = Call(Timer.START, now, cancelled=True)
                return _retire(_detached(evolve(state, start=dead), now), "the controller was restarted during its start", now)
            if found is False:
                return _leave(evolve(state, session=None), now, reason="its instance was gone after a restart")
            kept = _detached(evolve(state, start=None, check_deadline=now), now)
            # The policy may have changed while the controller was down; an idle timer that still fits it runs on.
            return _settle(kept, now) if kept.idle_deadline is None or kept.policy.build_wait_timeout <= 0 else (kept, ())
        case (ev.MachineStarted() | ev.MachineFailed() | ev.Started() | ev.StartFailed() | ev.Detached() | ev.Checked()
              | ev.Stopped() | ev.StopFailed() | ev.TimedOut()):  # fmt: skip
            return state, ()
        case _:
            assert_never(event)


def _insubstantiating(state: Insubstantiating, event: ev.Event, now: float) -> Next:
    if isinstance(event, ev.Recovered):
        state = evolve(state, then_shut_down=False)  # what was shut down was the controller before this one
    match event:
        case ev.Substantiate(build) if state.then_shut_down:
            return state, unready(just(build), nobody(SHUTTING_DOWN))
        case ev.Substantiate(build):
            return InsubstantiatingSubstantiating(
                policy=state.policy,
                attempt=state.attempt,
                call=state.call,
                fast=state.fast,
                waiters=just(build),
                missing_deadline=now + state.policy.missing_timeout,
            ), ()
        case ev.Shutdown(fast):
            return evolve(state, then_shut_down=True, fast=state.fast or fast), ()
        case ev.Insubstantiate(_, fast):
            return evolve(state, fast=state.fast or fast), ()
        case ev.Attached(_, session):
            return state, (ev.Refuse(session, "its instance is being stopped"),)
        case ev.BuildStarted(build):
            return state, (too_late(build),)
        case ev.Reconfigured(policy):
            return evolve(state, policy=policy), ()
        case ev.Started() | ev.StartFailed() | ev.Stopped() | ev.StopFailed() | ev.TimedOut() | ev.Recovered():
            call, actions = _going(state.policy, state.attempt, state.call, event, now, fast=state.fast)
            if call is not None:
                return evolve(state, call=call), actions
            rest = ShutDown if state.then_shut_down else NotSubstantiated
            return rest(policy=state.policy, attempt=state.attempt), actions
        case ev.GiveUp() | ev.MachineStarted() | ev.MachineFailed() | ev.Detached() | ev.Checked() | ev.BuildFinished():
            return state, ()
        case _:
            assert_never(event)


def _insubstantiating_substantiating(state: InsubstantiatingSubstantiating, event: ev.Event, now: float) -> Next:
    alone = Insubstantiating(policy=state.policy, attempt=state.attempt, call=state.call, fast=state.fast)
    match event:
        case ev.Substantiate(build, replace):
            return _wait_too(state, build, replace)
        case ev.GiveUp(build) if build in state.waiters:
            left = without(state.waiters, build)
            return (evolve(state, waiters=left) if left else alone), ()
        case ev.TimedOut(Timer.MISSING) if now >= state.missing_deadline:
            failure = infrastructure(f"the instance before did not go in {state.policy.missing_timeout:g} s")
            return alone, (*unready(state.waiters, failure), *blame(failure))
        case ev.Insubstantiate(reason, fast):
            return evolve(alone, fast=state.fast or fast), unready(state.waiters, nobody(reason))
        case ev.Shutdown(fast):
            going = evolve(alone, fast=state.fast or fast, then_shut_down=True)
            return going, unready(state.waiters, nobody(SHUTTING_DOWN))
        case ev.Attached(_, session):
            return state, (ev.Refuse(session, "its instance is being stopped"),)
        case ev.BuildStarted(build):
            return state, (too_late(build),)
        case ev.Reconfigured(policy):
            return evolve(state, policy=policy), ()
        case ev.Started() | ev.StartFailed() | ev.Stopped() | ev.StopFailed() | ev.TimedOut() | ev.Recovered():
            call, actions = _going(state.policy, state.attempt, state.call, event, now, fast=state.fast)
            if call is not None:
                return evolve(state, call=call), actions
            after, more = _begin(state.policy, state.attempt, state.waiters, state.missing_deadline, now)
            return after, (*actions, *more)
        case ev.GiveUp() | ev.MachineStarted() | ev.MachineFailed() | ev.Detached() | ev.Checked() | ev.BuildFinished():
            return state, ()
        case _:
            assert_never(event)


def _shut_down(state: ShutDown, event: ev.Event) -> Next:
    match event:
        case ev.Substantiate(build):
            return state, unready(just(build), nobody(SHUTTING_DOWN))
        case ev.Attached(_, session):
            return state, (ev.Refuse(session, SHUTTING_DOWN),)
        case ev.BuildStarted(build):
            return state, (too_late(build),)
        case ev.Started(attempt) | ev.StartFailed(attempt):
            return state, (late(attempt),)
        case ev.Reconfigured(policy):
            return evolve(state, policy=policy), ()
        case ev.Recovered():
            return NotSubstantiated(policy=state.policy, attempt=state.attempt), ()
        case (ev.GiveUp() | ev.MachineStarted() | ev.MachineFailed() | ev.Detached() | ev.Checked() | ev.BuildFinished()
              | ev.Insubstantiate() | ev.Stopped() | ev.StopFailed() | ev.TimedOut() | ev.Shutdown()):  # fmt: skip
            return state, ()
        case _:
            assert_never(event)


# --- what several cells share -------------------------------------------------------------------------------------------------


def _begin(policy: Policy, attempt: int, waiters: tuple[str, ...], missing_deadline: float, now: float) -> Next:
    """A new attempt: its machine first, if it has one."""
    if not policy.has_machine:
        return _start(policy, attempt + 1, waiters, missing_deadline, now)
    state = Substantiating(policy=policy, attempt=attempt + 1, waiters=waiters, missing_deadline=missing_deadline)
    return state, (ev.StartMachine(attempt + 1),)


def _start(policy: Policy, attempt: int, waiters: tuple[str, ...], missing_deadline: float, now: float) -> Next:
    build = waiters[0] if waiters else None
    call = Call(Timer.START, now + policy.start_timeout)
    state = SubstantiatingStarting(
        policy=policy, attempt=attempt, build=build, waiters=waiters, missing_deadline=missing_deadline, start=call
    )
    return state, (ev.StartInstance(attempt, build),)


def _attach(state: SubstantiatingStarting, session: str, now: float) -> Next:
    attached = Substantiated(
        policy=state.policy, attempt=state.attempt, session=session, builds=frozenset(state.waiters), retiring=state.retiring
    )
    # A check that is under way has no deadline in the state; its answer arms the next.
    attached = evolve(attached, start=state.start, check_deadline=state.check_deadline)
    ready = (ev.Ready(state.waiters),) if state.waiters else ()
    after, actions = _settle(attached, now)
    return after, (ev.Accept(session), *ready, *actions)


def _settle(state: Substantiated, now: float) -> Next:
    """Without builds, the idle timer runs or the instance goes."""
    if state.builds:
        return evolve(state, idle_deadline=None), ()
    if state.retiring:
        return _leave(state, now, reason=state.retiring)
    wait = state.policy.build_wait_timeout
    if wait == 0:
        return _leave(state, now)
    return evolve(state, idle_deadline=now + wait if wait > 0 else None), ()


def _retire(state: Substantiated, reason: str, now: float) -> Next:
    """No more builds. An instance that builds goes after its last build, also if its agent is away just now."""
    return _settle(evolve(state, retiring=state.retiring or reason), now)


def _detached(state: Substantiated, now: float) -> Substantiated:
    """The agent may come back; meanwhile the provider is asked whether its instance is still there."""
    check = now if state.check_deadline is not None else None
    return evolve(state, session=None, reattach_deadline=now + state.policy.reattach_timeout, check_deadline=check)


def _wait_too(
    state: Substantiating | SubstantiatingStarting | InsubstantiatingSubstantiating, build: str | None, replace: bool
) -> Next:
    """One more build for the instance that is coming, unless that is made for others and won't do for this one."""
    if build is None or build in state.waiters:
        return state, ()
    if replace and state.waiters:
        return state, unready((build,), nobody(BUSY))
    return evolve(state, waiters=(*state.waiters, build)), ()


def _substantiate_again(state: Substantiated, build: str | None, replace: bool, now: float) -> Next:
    waiters = just(build)
    if build in state.builds:
        return state, ()
    if state.builds and (replace or state.retiring or state.session is None):
        return state, unready(waiters, nobody(state.retiring or BUSY))
    if replace or state.session is None:
        return _start_another(state, build, replace, now)
    builds = state.builds | set(waiters)
    ready = (ev.Ready(waiters),) if waiters else ()
    return evolve(state, builds=builds, idle_deadline=None if builds else state.idle_deadline), ready


def _start_another(state: SubstantiatingStarting | Substantiated, build: str | None, replace: bool, now: float) -> Next:
    going, actions = _leave(state, now, reason="another instance is wanted" if replace else "its agent is away")
    after, more = step(going, ev.Substantiate(build), now)
    return after, (*actions, *more)


def _fail(state: SubstantiatingStarting, failure: ev.Failure, now: float, *, cancel: bool = False) -> Next:
    """The waiters do not get this instance."""
    after, actions = _leave(state, now, cancel=cancel)
    return after, (*failed(state.waiters, state.build, failure), *blame(failure), *actions)


def _leave(
    state: SubstantiatingStarting | Substantiated,
    now: float,
    *,
    reason: str = "it was idle",
    fast: bool = False,
    then_shut_down: bool = False,
    cancel: bool = False,
) -> Next:
    """The instance goes: first the start that still runs must end, then it is stopped, once."""
    actions: tuple[ev.Action, ...] = ()
    if isinstance(state, Substantiated):
        if state.builds:
            actions = (ev.Interrupt(tuple(sorted(state.builds)), reason),)
        if state.session is not None:
            actions = (*actions, ev.DropSession(state.session, reason))
    call = state.start
    if call is None:
        call = Call(Timer.STOP, now + state.policy.stop_timeout)
        actions = (*actions, ev.StopInstance(state.attempt, fast))
    elif call.cancelled:
        call = evolve(call, deadline=max(call.deadline, now))
    elif cancel:
        call = Call(Timer.START, now + CANCEL_GRACE, cancelled=True)
        actions = (*actions, ev.CancelCall(state.attempt, Timer.START))
    going = Insubstantiating(policy=state.policy, attempt=state.attempt, call=call, fast=fast, then_shut_down=then_shut_down)
    return going, actions


def _going(
    policy: Policy, attempt: int, call: Call, event: ev.Event, now: float, *, fast: bool
) -> tuple[Call | None, tuple[ev.Action, ...]]:
    """How the call that an instance's end waits for moves on: to the next call, or to None when all is over."""
    stop = Call(Timer.STOP, now + policy.stop_timeout)
    match call.hook, event:
        case Timer.START, ev.Started(a) | ev.StartFailed(a) if a == attempt:
            return stop, (ev.StopInstance(attempt, fast),)
        case Timer.STOP, ev.Stopped(a) if a == attempt:
            return None, ()
        case Timer.STOP, ev.StopFailed(a, message) if a == attempt:
            return None, (ev.Condemn(attempt, f"stop_instance failed: {message}"),)
        case _, ev.Started(a) | ev.StartFailed(a):
            return call, (late(a),)
        case hook, ev.TimedOut(timer) if timer is hook and now >= call.deadline:
            if not call.cancelled:
                return Call(hook, now + CANCEL_GRACE, cancelled=True), (ev.CancelCall(attempt, hook),)
            condemn = ev.Condemn(attempt, f"{hook.value}_instance was cut short and has not answered")
            return (stop, (condemn, ev.StopInstance(attempt, fast))) if hook is Timer.START else (None, (condemn,))
        case Timer.START, ev.Recovered(found):
            # Only where the instance was found is the stop known to reach it.
            lost = () if found else (ev.Condemn(attempt, "the controller was restarted during its start"),)
            return stop, (*lost, ev.StopInstance(attempt, fast))
        case _, ev.Recovered(None):
            # Nobody can tell whether the stop took effect: to call it again is all that is left.
            return stop, (ev.StopInstance(attempt, fast),)
        case _, ev.Recovered(True):
            return None, (ev.Condemn(attempt, "the controller was restarted during its stop"),)
        case _, ev.Recovered(False):
            return None, ()
        case _:
            return call, ()


def _recover_starting(state: SubstantiatingStarting, found: bool | None, now: float) -> Next:
    """After a crash. A start that was cut short is repeated where the plugin could find what the first call made."""
    if found or (found is None and state.start is None):
        return evolve(state, start=None, check_deadline=now), ()
    if state.start is None:
        return _fail(state, infrastructure("its instance was gone after a restart"), now)
    if found is None:
        after, actions = _fail(evolve(state, start=None), nobody("the controller was restarted during its start"), now)
        return after, (ev.Condemn(state.attempt, "the controller was restarted during its start"), *actions)
    again = evolve(state, start=Call(Timer.START, now + state.policy.start_timeout))
    return again, (ev.StartInstance(state.attempt, state.build, again=True),)
