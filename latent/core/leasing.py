"""The life of one run: its lease, its status, and what a lost session, a cancellation or a time limit means for its build.

As in `latent.core.substantiation`, `step` is pure: a frozen state, an event and the time in; the next state and effects out.
The dispatcher writes the run, its lease and its build in one transaction and then performs the effects.
"""

from __future__ import annotations

from typing import assert_never

from attrs import evolve, frozen

from latent.model import LeaseState, Outcome, Payload, Result, RunStatus

CANCEL_GRACE = 60.0
"""Seconds that an agent has to end a run that was cancelled; after that the run is ended without it."""


@frozen(kw_only=True)
class Running:
    """A run that is not over.

    ``session``: who holds the lease (None: nobody has been offered it yet). ``expires``: when the lease lapses unless it is
    renewed, None before it is offered. ``tries``: how many runs of its build an agent has taken, this one included once it is
    ACTIVE. ``cancelled``: the result that was asked for, None if nobody asked; ``requeue``: try it again after that.
    """

    lease: LeaseState = LeaseState.PENDING
    session: int | None = None
    expires: float | None = None
    ends_by: float | None = None
    timeout: float = 3600.0
    tries: int = 0
    max_attempts: int = 5
    cancelled: Result | None = None
    reason: str = ""
    requeue: bool = False


@frozen(kw_only=True)
class Over:
    """How a run ended and what becomes of its build: ``result``, or (None) it is queued again."""

    status: RunStatus
    lease: LeaseState
    result: Result | None
    reason: str
    exit_code: int | None = None
    error_code: str = ""
    error_msg: str = ""
    answer: Payload | None = None


@frozen
class Offered:
    """The lease is put before ``session``, which has ``seconds`` to take it."""

    session: int
    seconds: float


@frozen
class Activated:
    """The agent took the lease and began."""

    session: int
    seconds: float


@frozen
class Renewed:
    seconds: float


@frozen
class Finished:
    """The agent says how it ended."""

    outcome: Outcome


@frozen
class SessionLost:
    """``ended``: its agent has said that what it ran has ended too. Of one that is only not heard any more nobody knows that."""

    reason: str
    ended: bool = False


@frozen
class Tick:
    """Time has passed."""


@frozen
class CancelAsked:
    """``result`` CANCELLED or TIMEOUT. ``requeue``: end this run, but try the build again."""

    result: Result
    reason: str
    requeue: bool = False


@frozen
class NotReady:
    """The worker's instance did not come up. ``result``: set if the build itself is at fault, None if it is tried again."""

    result: Result | None
    reason: str


Event = Offered | Activated | Renewed | Finished | SessionLost | Tick | CancelAsked | NotReady

State = Running | Over


def step(state: Running, event: Event, now: float) -> State:
    """What becomes of a run when ``event`` happens at ``now`` (POSIX seconds)."""
    match event:
        case Offered(session, seconds):
            return evolve(state, session=session, expires=now + seconds)
        case Activated(session, seconds):
            if state.lease is LeaseState.ACTIVE:
                return evolve(state, session=session, expires=now + seconds)
            return evolve(
                state,
                lease=LeaseState.ACTIVE,
                session=session,
                expires=now + seconds,
                # One that was cancelled before it began has the cancellation's time, not the build's.
                ends_by=now + state.timeout if state.cancelled is None else state.ends_by,
                tries=state.tries + 1,
            )
        case Renewed(seconds):
            return evolve(state, expires=now + seconds)
        case Finished(outcome):
            over = _finished(state, outcome)
            return over if outcome.answer is None else evolve(over, answer=outcome.answer)
        case SessionLost(reason):
            return _interrupted(state, "session_lost", reason)
        case CancelAsked(result, reason, requeue):
            if state.cancelled is not None:
                # Who wants the build to end for good is not put off by one who only wanted this run to end.
                return evolve(state, cancelled=result, reason=reason, requeue=False) if state.requeue and not requeue else state
            asked = evolve(state, cancelled=result, reason=reason, requeue=requeue)
            # Nobody holds it: there is nobody to wait for.
            return asked_over(asked) if state.session is None else evolve(asked, ends_by=now + CANCEL_GRACE)
        case NotReady(result, reason):
            if state.cancelled is not None:
                return asked_over(state)
            return Over(
                status=RunStatus.INTERRUPTED,
                lease=LeaseState.CANCELLED,
                result=result,
                reason=reason,
                error_code="cannot_substantiate" if result else "failed_to_substantiate",
                error_msg=reason,
            )
        case Tick():
            return _tick(state, now)
        case _:
            assert_never(event)


def due(state: Running) -> float | None:
    """When time next means something to the run, in POSIX seconds."""
    times = [at for at in (state.expires, state.ends_by) if at is not None]
    return min(times, default=None)


def asked_over(state: Running) -> Over:
    """The end that was asked for."""
    result = state.cancelled or Result.CANCELLED
    return Over(
        status=RunStatus.TIMEOUT if result is Result.TIMEOUT else RunStatus.INTERRUPTED,
        lease=LeaseState.CANCELLED,
        result=None if state.requeue else result,
        reason=state.reason,
        error_code=result.value,
        error_msg=state.reason,
    )


def _tick(state: Running, now: float) -> State:
    if state.expires is not None and now >= state.expires:
        taken = state.lease is LeaseState.ACTIVE
        reason = "its lease expired" if taken else "its agent did not take the lease in time"
        return _interrupted(state, "lease_expired", reason)
    if state.ends_by is not None and now >= state.ends_by:
        if state.cancelled is not None:
            return asked_over(state)
        reason = f"it ran longer than {state.timeout:g} s"
        return evolve(state, cancelled=Result.TIMEOUT, reason=reason, ends_by=now + CANCEL_GRACE)
    return state


def _finished(state: Running, outcome: Outcome) -> Over:
    """An agent that says "cancelled" though nobody asked was itself stopped: that is infrastructure, like an exception."""
    match outcome.result:
        case Result.SUCCESS | Result.FAILURE | Result.TIMEOUT:
            status = {Result.SUCCESS: RunStatus.COMPLETED, Result.FAILURE: RunStatus.FAILED}.get(
                outcome.result, RunStatus.TIMEOUT
            )
            return Over(
                status=status,
                lease=LeaseState.COMPLETED,
                result=outcome.result,
                reason=outcome.error,
                exit_code=outcome.exit_code,
                error_code="" if outcome.result is Result.SUCCESS else outcome.result.value,
                error_msg=outcome.error,
            )
        case Result.CANCELLED if state.cancelled is not None:
            return evolve(asked_over(state), exit_code=outcome.exit_code)
        case Result.CANCELLED:
            return _interrupted(state, "agent_stopped", outcome.error or "its agent was stopped")
        case Result.EXCEPTION if state.lease is LeaseState.PENDING and state.cancelled is None:
            # It could not even be begun, and no agent would fare better: nothing here counts as a try, so there would be no end.
            reason = outcome.error or "its agent could not begin"
            return evolve(_interrupted(state, "agent_error", reason), result=Result.EXCEPTION)
        case Result.EXCEPTION:
            return _interrupted(state, "agent_error", outcome.error or "its agent failed")
        case _:
            assert_never(outcome.result)


def _interrupted(state: Running, code: str, reason: str) -> Over:
    """Infrastructure failed: the build is tried again, unless it was to end anyway or has been tried often enough."""
    if state.cancelled is not None:
        return asked_over(state)
    worn_out = state.tries >= state.max_attempts
    return Over(
        status=RunStatus.INTERRUPTED,
        lease=LeaseState.CANCELLED,
        result=Result.EXCEPTION if worn_out else None,
        reason=f"aborted: {reason} (tried {state.tries} times)" if worn_out else reason,
        error_code=code,
        error_msg=reason,
    )


def may_go_on(state: Running, event: Event) -> bool:
    """Whether a run that ``event`` has ended may still be under way where nobody hears of it."""
    if state.lease is not LeaseState.ACTIVE:
        return False
    match event:
        case Finished():
            return False
        case SessionLost(ended=ended):
            return not ended
        case _:
            return True
