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

from latent.core.events import (
    Accept,
    Action,
    Attached,
    BackOff,
    BuildFinished,
    BuildStarted,
    CancelCall,
    Checked,
    CheckInstance,
    Condemn,
    Detached,
    DropSession,
    Event,
    Failure,
    Fault,
    GiveUp,
    Insubstantiate,
    Interrupt,
    MachineFailed,
    MachineStarted,
    NotifyMissing,
    Ready,
    Reconfigured,
    Recovered,
    Refuse,
    Shutdown,
    Started,
    StartFailed,
    StartInstance,
    StartMachine,
    StopFailed,
    StopInstance,
    Stopped,
    Substantiate,
    TimedOut,
    Unready,
)
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
)

CANCEL_GRACE = 30.0
"""Seconds that a cancelled hook has to unwind before it is given up."""

Next = tuple[State, tuple[Action, ...]]


def step(state: State, event: Event, now: float) -> Next:
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


def _not_substantiated(state: NotSubstantiated, event: Event, now: float) -> Next:
    match event:
        case Substantiate(build):
            return _begin(state.policy, state.attempt, _waiters(build), now + state.policy.missing_timeout, now)
        case Attached(_, session):
            return state, (Refuse(session, "no instance of this worker is expected"),)
        case BuildStarted(build):
            return state, (_too_late(build),)
        case Started(attempt) | StartFailed(attempt):
            return state, (_condemn_late(attempt),)
        case Reconfigured(policy):
            return evolve(state, policy=policy), ()
        case Shutdown():
            return ShutDown(policy=state.policy, attempt=state.attempt), ()
        case (
            GiveUp() | MachineStarted() | MachineFailed() | Detached() | Checked() | BuildFinished()
            | Insubstantiate() | Stopped() | StopFailed() | TimedOut() | Recovered()
        ):  # fmt: skip
            return state, ()
        case _:
            assert_never(event)


def _substantiating(state: Substantiating, event: Event, now: float) -> Next:
    rest = NotSubstantiated(policy=state.policy, attempt=state.attempt)
    match event:
        case Substantiate(build, replace):
            return _wait_too(state, build, replace)
        case GiveUp(build) if build in state.waiters:
            left = _without(state.waiters, build)
            return (evolve(state, waiters=left) if left else rest), ()
        case MachineStarted(attempt) if attempt == state.attempt:
            return _start(state.policy, attempt, state.waiters, state.missing_deadline, now)
        case MachineFailed(attempt, failure) if attempt == state.attempt:
            return rest, (*_unready(state.waiters, failure), *_blame(failure))
        case TimedOut(Timer.MISSING) if now >= state.missing_deadline:
            failure = _infrastructure(f"its machine did not start in {state.policy.missing_timeout:g} s")
            return rest, (*_unready(state.waiters, failure), *_blame(failure), NotifyMissing(state.attempt))
        case Attached(_, session):
            return state, (Refuse(session, "its instance has not been started"),)
        case BuildStarted(build):
            return state, (_too_late(build),)
        case Started(attempt) | StartFailed(attempt):
            return state, (_condemn_late(attempt),)
        case Insubstantiate(reason):
            return rest, _unready(state.waiters, _nobody(reason))
        case Reconfigured(policy):
            return evolve(state, policy=policy), ()
        case Shutdown():
            return ShutDown(policy=state.policy, attempt=state.attempt), _unready(state.waiters, _nobody(SHUTTING_DOWN))
        case Recovered():
            return state, (StartMachine(state.attempt),)
        case (
            GiveUp() | MachineStarted() | MachineFailed() | Detached() | Checked() | BuildFinished()
            | Stopped() | StopFailed() | TimedOut()
        ):  # fmt: skip
            return state, ()
        case _:
            assert_never(event)


def _starting(state: SubstantiatingStarting, event: Event, now: float) -> Next:
    match event:
        case Substantiate(build, replace) if (replace or state.retiring) and not state.waiters:
            return _start_another(state, build, replace, now)
        case Substantiate(build, replace):
            return _wait_too(state, build, replace or bool(state.retiring))
        case GiveUp(build) if build in state.waiters:
            left = _without(state.waiters, build)
            return (evolve(state, waiters=left), ()) if left else _leave(evolve(state, waiters=()), now)
        case Started(attempt) if state.start and attempt == state.attempt:
            return evolve(state, start=None, check_deadline=now + state.policy.check_instance_interval), ()
        case StartFailed(attempt, failure) if state.start and attempt == state.attempt:
            return _fail(evolve(state, start=None), failure, now)
        case Started(attempt) | StartFailed(attempt) if attempt != state.attempt:
            return state, (_condemn_late(attempt),)
        case TimedOut(Timer.START) if state.start and now >= state.start.deadline:
            message = f"start_instance did not answer in {state.policy.start_timeout:g} s"
            return _fail(state, _infrastructure(message), now, cancel=True)
        case TimedOut(Timer.MISSING) if now >= state.missing_deadline:
            message = f"its agent did not attach in {state.policy.missing_timeout:g} s"
            after, actions = _fail(state, _infrastructure(message), now)
            return after, (*actions, NotifyMissing(state.attempt))
        case TimedOut(Timer.CHECK) if state.check_deadline is not None and now >= state.check_deadline:
            return evolve(state, check_deadline=None), (CheckInstance(state.attempt),)
        case Checked(attempt, good, message) if attempt == state.attempt and state.start is None:
            if good:
                return evolve(state, check_deadline=now + state.policy.check_instance_interval), ()
            return _fail(state, _infrastructure(f"its instance is not good: {message}"), now)
        case Attached(attempt, session) if attempt == state.attempt:
            return _attach(state, session, now)
        case Attached(attempt, session):
            return state, (Refuse(session, f"it belongs to attempt {attempt}; attempt {state.attempt} is expected"),)
        case BuildStarted(build):
            return state, (_too_late(build),)
        case Insubstantiate(reason, fast):
            after, actions = _leave(state, now, fast=fast)
            return after, (*_unready(state.waiters, _nobody(reason)), *actions)
        case Reconfigured(policy, outdated):
            return evolve(state, policy=policy, retiring=state.retiring or _outdated(outdated)), ()
        case Shutdown(fast):
            after, actions = _leave(state, now, fast=fast, then_shut_down=True)
            return after, (*_unready(state.waiters, _nobody(SHUTTING_DOWN)), *actions)
        case Recovered(found):
            return _recover_starting(state, found, now)
        case (
            GiveUp() | MachineStarted() | MachineFailed() | Started() | StartFailed() | Detached() | Checked() | BuildFinished()
            | Stopped() | StopFailed() | TimedOut()
        ):  # fmt: skip
            return state, ()
        case _:
            assert_never(event)


def _substantiated(state: Substantiated, event: Event, now: float) -> Next:
    match event:
        case Substantiate(build, replace):
            return _substantiate_again(state, build, replace, now)
        case BuildStarted(build):
            if state.session is None or state.retiring:
                return state, (_too_late(build),)
            return evolve(state, builds=state.builds | {build}, idle_deadline=None), ()
        case BuildFinished(build) | GiveUp(build):
            if build not in state.builds:
                return state, ()
            return _settle(evolve(state, builds=state.builds - {build}), now)
        case Started(attempt) if state.start and attempt == state.attempt:
            return evolve(state, start=None, check_deadline=now + state.policy.check_instance_interval), ()
        case StartFailed(attempt, failure) if state.start and attempt == state.attempt:
            after, actions = _retire(evolve(state, start=None), f"start_instance failed: {failure.message}", now)
            return after, (*actions, *_blame(failure))
        case Started(attempt) | StartFailed(attempt) if attempt != state.attempt:
            return state, (_condemn_late(attempt),)
        case TimedOut(Timer.START) if state.start and not state.start.cancelled and now >= state.start.deadline:
            message = f"start_instance did not answer in {state.policy.start_timeout:g} s, though the agent attached"
            # The agent is there, so its builds may end; but the plugin does not know its instance: no more after them.
            cancelled = evolve(state, start=Call(Timer.START, now + CANCEL_GRACE, cancelled=True))
            after, actions = _retire(cancelled, message, now)
            return after, (CancelCall(state.attempt, Timer.START), *actions)
        case TimedOut(Timer.CHECK) if state.check_deadline is not None and now >= state.check_deadline:
            return evolve(state, check_deadline=None), (CheckInstance(state.attempt),)
        case Checked(attempt, good, message) if attempt == state.attempt and state.start is None:
            checked = evolve(state, check_deadline=now + state.policy.check_instance_interval)
            if good:
                return checked, ()
            reason = f"its instance is not good: {message}"
            # An agent that is attached is better evidence than the provider's word: let its builds end.
            return _retire(checked, reason, now) if state.session is not None else _leave(state, now, reason=reason)
        case TimedOut(Timer.IDLE) if state.idle_deadline is not None and now >= state.idle_deadline:
            return _leave(state, now)
        case TimedOut(Timer.REATTACH) if state.reattach_deadline is not None and now >= state.reattach_deadline:
            return _leave(state, now, reason=f"its agent was away for {state.policy.reattach_timeout:g} s")
        case Attached(attempt, session) if attempt == state.attempt:
            drop = (DropSession(state.session, "its agent attached again"),) if state.session not in (None, session) else ()
            return evolve(state, session=session, reattach_deadline=None), (*drop, Accept(session))
        case Attached(attempt, session):
            return state, (Refuse(session, f"it belongs to attempt {attempt}; attempt {state.attempt} is up"),)
        case Detached(session) if session == state.session:
            return _detached(state, now), ()
        case Insubstantiate(reason, fast):
            return _leave(state, now, reason=reason, fast=fast)
        case Reconfigured(policy, outdated):
            changed = evolve(state, policy=policy)
            return _retire(changed, _outdated(True), now) if outdated else _settle(changed, now)
        case Shutdown(fast):
            return _leave(state, now, reason=SHUTTING_DOWN, fast=fast, then_shut_down=True)
        case Recovered(found):
            if state.start and not found:
                # No stop is known to reach what the start left: when its builds are over, it is condemned.
                dead = Call(Timer.START, now, cancelled=True)
                return _retire(_detached(evolve(state, start=dead), now), "the controller was restarted during its start", now)
            if found is False:
                return _leave(evolve(state, session=None), now, reason="its instance was gone after a restart")
            kept = _detached(evolve(state, start=None, check_deadline=now), now)
            # The policy may have changed while the controller was down; an idle timer that still fits it runs on.
            return _settle(kept, now) if kept.idle_deadline is None or kept.policy.build_wait_timeout <= 0 else (kept, ())
        case (
            MachineStarted() | MachineFailed() | Started() | StartFailed() | Detached() | Checked()
            | Stopped() | StopFailed() | TimedOut()
        ):  # fmt: skip
            return state, ()
        case _:
            assert_never(event)


def _insubstantiating(state: Insubstantiating, event: Event, now: float) -> Next:
    if isinstance(event, Recovered):
        state = evolve(state, then_shut_down=False)  # what was shut down was the controller before this one
    match event:
        case Substantiate(build) if state.then_shut_down:
            return state, _unready(_waiters(build), _nobody(SHUTTING_DOWN))
        case Substantiate(build):
            return InsubstantiatingSubstantiating(
                policy=state.policy,
                attempt=state.attempt,
                call=state.call,
                waiters=_waiters(build),
                missing_deadline=now + state.policy.missing_timeout,
                fast=state.fast,
            ), ()
        case Shutdown(fast):
            return evolve(state, then_shut_down=True, fast=state.fast or fast), ()
        case Insubstantiate(_, fast):
            return evolve(state, fast=state.fast or fast), ()
        case Attached(_, session):
            return state, (Refuse(session, "its instance is being stopped"),)
        case BuildStarted(build):
            return state, (_too_late(build),)
        case Reconfigured(policy):
            return evolve(state, policy=policy), ()
        case Started() | StartFailed() | Stopped() | StopFailed() | TimedOut() | Recovered():
            call, actions = _going(state.policy, state.attempt, state.call, event, now, fast=state.fast)
            if call is not None:
                return evolve(state, call=call), actions
            rest = ShutDown if state.then_shut_down else NotSubstantiated
            return rest(policy=state.policy, attempt=state.attempt), actions
        case GiveUp() | MachineStarted() | MachineFailed() | Detached() | Checked() | BuildFinished():
            return state, ()
        case _:
            assert_never(event)


def _insubstantiating_substantiating(state: InsubstantiatingSubstantiating, event: Event, now: float) -> Next:
    alone = Insubstantiating(policy=state.policy, attempt=state.attempt, call=state.call, fast=state.fast)
    match event:
        case Substantiate(build, replace):
            return _wait_too(state, build, replace)
        case GiveUp(build) if build in state.waiters:
            left = _without(state.waiters, build)
            return (evolve(state, waiters=left) if left else alone), ()
        case TimedOut(Timer.MISSING) if now >= state.missing_deadline:
            failure = _infrastructure(f"the instance before did not go in {state.policy.missing_timeout:g} s")
            return alone, (*_unready(state.waiters, failure), *_blame(failure))
        case Insubstantiate(reason, fast):
            return evolve(alone, fast=state.fast or fast), _unready(state.waiters, _nobody(reason))
        case Shutdown(fast):
            going = evolve(alone, fast=state.fast or fast, then_shut_down=True)
            return going, _unready(state.waiters, _nobody(SHUTTING_DOWN))
        case Attached(_, session):
            return state, (Refuse(session, "its instance is being stopped"),)
        case BuildStarted(build):
            return state, (_too_late(build),)
        case Reconfigured(policy):
            return evolve(state, policy=policy), ()
        case Started() | StartFailed() | Stopped() | StopFailed() | TimedOut() | Recovered():
            call, actions = _going(state.policy, state.attempt, state.call, event, now, fast=state.fast)
            if call is not None:
                return evolve(state, call=call), actions
            after, more = _begin(state.policy, state.attempt, state.waiters, state.missing_deadline, now)
            return after, (*actions, *more)
        case GiveUp() | MachineStarted() | MachineFailed() | Detached() | Checked() | BuildFinished():
            return state, ()
        case _:
            assert_never(event)


def _shut_down(state: ShutDown, event: Event) -> Next:
    match event:
        case Substantiate(build):
            return state, _unready(_waiters(build), _nobody(SHUTTING_DOWN))
        case Attached(_, session):
            return state, (Refuse(session, SHUTTING_DOWN),)
        case BuildStarted(build):
            return state, (_too_late(build),)
        case Started(attempt) | StartFailed(attempt):
            return state, (_condemn_late(attempt),)
        case Reconfigured(policy):
            return evolve(state, policy=policy), ()
        case Recovered():
            return NotSubstantiated(policy=state.policy, attempt=state.attempt), ()
        case (
            GiveUp() | MachineStarted() | MachineFailed() | Detached() | Checked() | BuildFinished()
            | Insubstantiate() | Stopped() | StopFailed() | TimedOut() | Shutdown()
        ):  # fmt: skip
            return state, ()
        case _:
            assert_never(event)


# --- what several cells share -------------------------------------------------------------------------------------------------


def _begin(policy: Policy, attempt: int, waiters: tuple[str, ...], missing_deadline: float, now: float) -> Next:
    """A new attempt: its machine first, if it has one."""
    if not policy.has_machine:
        return _start(policy, attempt + 1, waiters, missing_deadline, now)
    state = Substantiating(policy=policy, attempt=attempt + 1, waiters=waiters, missing_deadline=missing_deadline)
    return state, (StartMachine(attempt + 1),)


def _start(policy: Policy, attempt: int, waiters: tuple[str, ...], missing_deadline: float, now: float) -> Next:
    build = waiters[0] if waiters else None
    state = SubstantiatingStarting(
        policy=policy,
        attempt=attempt,
        build=build,
        waiters=waiters,
        missing_deadline=missing_deadline,
        start=Call(Timer.START, now + policy.start_timeout),
    )
    return state, (StartInstance(attempt, build),)


def _attach(state: SubstantiatingStarting, session: str, now: float) -> Next:
    attached = Substantiated(
        policy=state.policy,
        attempt=state.attempt,
        session=session,
        builds=frozenset(state.waiters),
        start=state.start,
        # A check that is under way has no deadline in the state; its answer arms the next.
        check_deadline=state.check_deadline,
        retiring=state.retiring,
    )
    ready = (Ready(state.waiters),) if state.waiters else ()
    after, actions = _settle(attached, now)
    return after, (Accept(session), *ready, *actions)


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
        return state, _unready((build,), _nobody(BUSY))
    return evolve(state, waiters=(*state.waiters, build)), ()


def _substantiate_again(state: Substantiated, build: str | None, replace: bool, now: float) -> Next:
    waiters = _waiters(build)
    if build in state.builds:
        return state, ()
    if state.builds and (replace or state.retiring or state.session is None):
        return state, _unready(waiters, _nobody(state.retiring or BUSY))
    if replace or state.session is None:
        return _start_another(state, build, replace, now)
    builds = state.builds | set(waiters)
    ready = (Ready(waiters),) if waiters else ()
    return evolve(state, builds=builds, idle_deadline=None if builds else state.idle_deadline), ready


def _start_another(state: SubstantiatingStarting | Substantiated, build: str | None, replace: bool, now: float) -> Next:
    going, actions = _leave(state, now, reason="another instance is wanted" if replace else "its agent is away")
    after, more = step(going, Substantiate(build), now)
    return after, (*actions, *more)


def _fail(state: SubstantiatingStarting, failure: Failure, now: float, *, cancel: bool = False) -> Next:
    """The waiters do not get this instance. Only the build that it was made for can be at fault itself."""
    unready: tuple[Action, ...] = _unready(state.waiters, failure)
    if failure.fault is Fault.BUILD:
        mine = tuple(b for b in state.waiters if b == state.build)
        others = tuple(b for b in state.waiters if b != state.build)
        unready = (*_unready(mine, failure), *_unready(others, _nobody(failure.message)))
    after, actions = _leave(state, now, cancel=cancel)
    return after, (*unready, *_blame(failure), *actions)


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
    actions: tuple[Action, ...] = ()
    if isinstance(state, Substantiated):
        if state.builds:
            actions = (Interrupt(tuple(sorted(state.builds)), reason),)
        if state.session is not None:
            actions = (*actions, DropSession(state.session, reason))
    call = state.start
    if call is None:
        call = Call(Timer.STOP, now + state.policy.stop_timeout)
        actions = (*actions, StopInstance(state.attempt, fast))
    elif call.cancelled:
        call = evolve(call, deadline=max(call.deadline, now))
    elif cancel:
        call = Call(Timer.START, now + CANCEL_GRACE, cancelled=True)
        actions = (*actions, CancelCall(state.attempt, Timer.START))
    going = Insubstantiating(policy=state.policy, attempt=state.attempt, call=call, fast=fast, then_shut_down=then_shut_down)
    return going, actions


def _going(
    policy: Policy, attempt: int, call: Call, event: Event, now: float, *, fast: bool
) -> tuple[Call | None, tuple[Action, ...]]:
    """How the call that an instance's end waits for moves on: to the next call, or to None when all is over."""
    stop = Call(Timer.STOP, now + policy.stop_timeout)
    match call.hook, event:
        case Timer.START, Started(a) | StartFailed(a) if a == attempt:
            return stop, (StopInstance(attempt, fast),)
        case Timer.STOP, Stopped(a) if a == attempt:
            return None, ()
        case Timer.STOP, StopFailed(a, message) if a == attempt:
            return None, (Condemn(attempt, f"stop_instance failed: {message}"),)
        case _, Started(a) | StartFailed(a):
            return call, (_condemn_late(a),)
        case hook, TimedOut(timer) if timer is hook and now >= call.deadline:
            if not call.cancelled:
                return Call(hook, now + CANCEL_GRACE, cancelled=True), (CancelCall(attempt, hook),)
            condemn = Condemn(attempt, f"{hook.value}_instance was cut short and has not answered")
            return (stop, (condemn, StopInstance(attempt, fast))) if hook is Timer.START else (None, (condemn,))
        case Timer.START, Recovered(found):
            # Only where the instance was found is the stop known to reach it.
            lost = () if found else (Condemn(attempt, "the controller was restarted during its start"),)
            return stop, (*lost, StopInstance(attempt, fast))
        case _, Recovered(None):
            # Nobody can tell whether the stop took effect: to call it again is all that is left.
            return stop, (StopInstance(attempt, fast),)
        case _, Recovered(True):
            return None, (Condemn(attempt, "the controller was restarted during its stop"),)
        case _, Recovered(False):
            return None, ()
        case _:
            return call, ()


def _recover_starting(state: SubstantiatingStarting, found: bool | None, now: float) -> Next:
    """After a crash. A start that was cut short is repeated where the plugin could find what the first call made."""
    if found or (found is None and state.start is None):
        return evolve(state, start=None, check_deadline=now), ()
    if state.start is None:
        return _fail(state, _infrastructure("its instance was gone after a restart"), now)
    if found is None:
        after, actions = _fail(evolve(state, start=None), _nobody("the controller was restarted during its start"), now)
        return after, (Condemn(state.attempt, "the controller was restarted during its start"), *actions)
    again = evolve(state, start=Call(Timer.START, now + state.policy.start_timeout))
    return again, (StartInstance(state.attempt, state.build, again=True),)


SHUTTING_DOWN = "the controller is shutting down"
BUSY = "its instance is busy"


def _waiters(build: str | None) -> tuple[str, ...]:
    return () if build is None else (build,)


def _without(waiters: tuple[str, ...], build: str) -> tuple[str, ...]:
    return tuple(b for b in waiters if b != build)


def _infrastructure(message: str) -> Failure:
    return Failure(Fault.INFRASTRUCTURE, message, "LatentWorkerFailedToSubstantiate")


def _nobody(message: str) -> Failure:
    return Failure(Fault.NOBODY, message, "LatentWorkerSubstantiationCancelled")


def _blame(failure: Failure) -> tuple[Action, ...]:
    return (BackOff(failure),) if failure.fault is Fault.INFRASTRUCTURE else ()


def _unready(builds: tuple[str, ...], failure: Failure) -> tuple[Action, ...]:
    return (Unready(builds, failure),) if builds else ()


def _too_late(build: str) -> Action:
    return Unready((build,), _nobody("its instance is no longer there"))


def _condemn_late(attempt: int) -> Action:
    return Condemn(attempt, "start_instance answered after it had been given up")


def _outdated(outdated: bool) -> str:
    return "its declaration changed" if outdated else ""
