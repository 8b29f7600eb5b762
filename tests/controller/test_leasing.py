"""The life of one run: every event in every state, and what becomes of its build."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from latent.core.leasing import (
    CANCEL_GRACE,
    Activated,
    CancelAsked,
    Event,
    Finished,
    NotReady,
    Offered,
    Over,
    Renewed,
    Running,
    SessionLost,
    Tick,
    due,
    step,
)
from latent.model import LeaseState, Outcome, Result, RunStatus

NOW = 1000.0
WAITING = Running(timeout=600.0, max_attempts=3)
OFFERED = evolve(WAITING, session=7, expires=NOW + 60)
ACTIVE = evolve(OFFERED, lease=LeaseState.ACTIVE, ends_by=NOW + 600, tries=1)
LAST = evolve(ACTIVE, tries=3)
CANCELLED = evolve(ACTIVE, cancelled=Result.CANCELLED, reason="not wanted", ends_by=NOW + CANCEL_GRACE)
GIVEN_BACK = evolve(CANCELLED, requeue=True)


def says(result: Result, exit_code: int | None = None) -> Finished:
    return Finished(Outcome(result=result, exit_code=exit_code, error="what the agent says"))


def after(state: Running, event: Event, now: float = NOW) -> Over:
    over = step(state, event, now)
    assert isinstance(over, Over), over
    return over


@pytest.mark.parametrize(
    ("state", "event", "status", "result"),
    [
        (ACTIVE, says(Result.SUCCESS, 0), RunStatus.COMPLETED, Result.SUCCESS),
        (ACTIVE, says(Result.FAILURE, 2), RunStatus.FAILED, Result.FAILURE),
        (ACTIVE, says(Result.TIMEOUT), RunStatus.TIMEOUT, Result.TIMEOUT),
        (ACTIVE, says(Result.EXCEPTION), RunStatus.INTERRUPTED, None),
        (LAST, says(Result.EXCEPTION), RunStatus.INTERRUPTED, Result.EXCEPTION),
        (OFFERED, says(Result.EXCEPTION), RunStatus.INTERRUPTED, Result.EXCEPTION),
        (ACTIVE, says(Result.CANCELLED), RunStatus.INTERRUPTED, None),
        (LAST, says(Result.CANCELLED), RunStatus.INTERRUPTED, Result.EXCEPTION),
        (CANCELLED, says(Result.CANCELLED), RunStatus.INTERRUPTED, Result.CANCELLED),
        (CANCELLED, says(Result.SUCCESS, 0), RunStatus.COMPLETED, Result.SUCCESS),
        (CANCELLED, says(Result.EXCEPTION), RunStatus.INTERRUPTED, Result.CANCELLED),
        (GIVEN_BACK, says(Result.CANCELLED), RunStatus.INTERRUPTED, None),
        (OFFERED, SessionLost("its agent is gone"), RunStatus.INTERRUPTED, None),
        (ACTIVE, SessionLost("its agent is gone"), RunStatus.INTERRUPTED, None),
        (LAST, SessionLost("its agent is gone"), RunStatus.INTERRUPTED, Result.EXCEPTION),
        (CANCELLED, SessionLost("its agent is gone"), RunStatus.INTERRUPTED, Result.CANCELLED),
        (GIVEN_BACK, SessionLost("its agent is gone"), RunStatus.INTERRUPTED, None),
        (WAITING, CancelAsked(Result.CANCELLED, "no"), RunStatus.INTERRUPTED, Result.CANCELLED),
        (WAITING, CancelAsked(Result.TIMEOUT, "no"), RunStatus.TIMEOUT, Result.TIMEOUT),
        (WAITING, CancelAsked(Result.CANCELLED, "no", requeue=True), RunStatus.INTERRUPTED, None),
        (WAITING, NotReady(None, "no capacity"), RunStatus.INTERRUPTED, None),
        (WAITING, NotReady(Result.EXCEPTION, "no such image"), RunStatus.INTERRUPTED, Result.EXCEPTION),
        (CANCELLED, NotReady(None, "no capacity"), RunStatus.INTERRUPTED, Result.CANCELLED),
    ],
)
def test_how_a_run_ends(state: Running, event: Event, status: RunStatus, result: Result | None) -> None:
    """The run's status, and its build's result; None: it is queued again."""
    over = after(state, event)
    assert (over.status, over.result) == (status, result)
    assert over.lease in (LeaseState.COMPLETED, LeaseState.CANCELLED)
    assert over.reason or over.result is Result.SUCCESS
    assert over.error_code or over.result is Result.SUCCESS


def test_the_agents_words_and_exit_code_are_kept() -> None:
    """A failed build says how it failed."""
    over = after(ACTIVE, says(Result.FAILURE, 2))
    assert (over.exit_code, over.reason, over.error_code) == (2, "what the agent says", "failure")


def test_a_build_that_was_tried_too_often_says_so() -> None:
    """It ends as an exception that names the last cause and the number of tries."""
    over = after(LAST, SessionLost("its agent is gone"))
    assert over.reason == "aborted: its agent is gone (tried 3 times)"


def test_an_offer_gives_the_agent_its_time_and_taking_it_the_builds() -> None:
    """Offered, activated, renewed: each sets the lease's end; only taking it counts as a try and sets the build's end."""
    offered = step(WAITING, Offered(7, 60), NOW)
    assert isinstance(offered, Running)
    assert (offered.session, offered.expires, offered.ends_by, offered.tries) == (7, NOW + 60, None, 0)
    active = step(offered, Activated(7, 60), NOW + 5)
    assert isinstance(active, Running)
    assert (active.lease, active.expires, active.ends_by, active.tries) == (LeaseState.ACTIVE, NOW + 65, NOW + 605, 1)
    again = step(active, Activated(7, 60), NOW + 10)
    assert isinstance(again, Running)
    assert (again.expires, again.ends_by, again.tries) == (NOW + 70, NOW + 605, 1)
    renewed = step(again, Renewed(60), NOW + 30)
    assert isinstance(renewed, Running)
    assert renewed == evolve(again, expires=NOW + 90)
    assert due(renewed) == NOW + 90


@pytest.mark.parametrize(
    ("state", "reason"), [(OFFERED, "its agent did not take the lease in time"), (ACTIVE, "its lease expired")]
)
def test_a_lease_that_is_not_renewed_lapses(state: Running, reason: str) -> None:
    """At its end, not before."""
    assert step(state, Tick(), NOW + 59) == state
    over = after(state, Tick(), NOW + 60)
    assert (over.result, over.reason, over.error_code) == (None, reason, "lease_expired")


def test_a_run_that_takes_too_long_is_asked_to_end_and_then_ended() -> None:
    """At its timeout its agent is told, and has a minute; then it ends without the agent."""
    long = evolve(ACTIVE, expires=NOW + 10_000)
    asked = step(long, Tick(), NOW + 600)
    assert isinstance(asked, Running)
    assert (asked.cancelled, asked.ends_by) == (Result.TIMEOUT, NOW + 600 + CANCEL_GRACE)
    over = after(asked, Tick(), NOW + 600 + CANCEL_GRACE)
    assert (over.status, over.result) == (RunStatus.TIMEOUT, Result.TIMEOUT)
    assert after(asked, says(Result.CANCELLED)).result is Result.TIMEOUT


def test_a_cancelled_run_has_a_minute_to_end() -> None:
    """Its agent is waited for; renewing does not prolong that, nor does taking the lease only now."""
    asked = step(OFFERED, CancelAsked(Result.CANCELLED, "no"), NOW)
    assert isinstance(asked, Running)
    for event in (Activated(7, 600), Renewed(600)):
        changed = step(asked, event, NOW + 1)
        assert isinstance(changed, Running)
        assert changed.ends_by == NOW + CANCEL_GRACE
        assert after(evolve(changed, expires=NOW + 900), Tick(), NOW + CANCEL_GRACE).result is Result.CANCELLED


def test_who_wants_the_build_to_end_has_the_last_word() -> None:
    """Cancelled with retry and then for good: it ends. The other way round, it ends too."""
    for first, second in ((True, False), (False, True)):
        asked = step(ACTIVE, CancelAsked(Result.CANCELLED, "first", requeue=first), NOW)
        assert isinstance(asked, Running)
        again = step(asked, CancelAsked(Result.CANCELLED, "second", requeue=second), NOW + 1)
        assert isinstance(again, Running)
        assert again.ends_by == NOW + CANCEL_GRACE
        assert after(again, says(Result.CANCELLED)).result is Result.CANCELLED


EVENTS = st.one_of(
    st.builds(Offered, st.just(7), st.just(60.0)),
    st.builds(Activated, st.just(7), st.just(60.0)),
    st.just(Renewed(60.0)),
    st.builds(says, st.sampled_from(list(Result))),
    st.just(SessionLost("gone")),
    st.just(Tick()),
    st.builds(CancelAsked, st.sampled_from([Result.CANCELLED, Result.TIMEOUT]), st.just("no"), st.booleans()),
    st.builds(NotReady, st.none() | st.just(Result.EXCEPTION), st.just("no")),
)


@settings(max_examples=300)
@given(st.lists(st.tuples(EVENTS, st.floats(0, 100)), max_size=200), st.integers(1, 4))
def test_a_build_ends_once_and_is_begun_at_most_max_attempts_times(events: list[tuple[Event, float]], max_attempts: int) -> None:
    """Whatever happens to its runs: one result, no more tries than allowed, and a run that nobody ends is due some time."""
    now, tries, granted, result = NOW, 0, 0, None
    run = Running(max_attempts=max_attempts)
    for event, passed in events:
        if isinstance(event, NotReady) and run.lease is LeaseState.ACTIVE:
            continue  # where an agent has begun, the instance was ready
        now += passed
        state = step(run, event, now)
        if isinstance(state, Running):
            assert state.tries in (run.tries, run.tries + 1)
            assert state.session is None or due(state) is not None, "it could wait for its agent for ever"
            tries, run = state.tries, state
            continue
        assert state.status.is_terminal
        if state.result is not None:
            result = state.result
            break
        # A build that somebody wants to have tried again may be: the limit is for what fails by itself.
        asked = run.requeue or (isinstance(event, CancelAsked) and event.requeue)
        assert tries < max_attempts or asked or isinstance(event, NotReady)
        granted += asked
        run = Running(max_attempts=max_attempts, tries=tries)
    assert tries <= max_attempts + granted or result is None


@settings(max_examples=200)
@given(st.lists(st.sampled_from(["session lost", "lapses", "agent fails", "agent is stopped"]), min_size=6, max_size=6))
def test_infrastructure_that_always_fails_is_tried_max_attempts_times(failures: list[str]) -> None:
    """Then the build ends as an exception."""
    tries = 0
    for failure in failures:
        run = step(step(Running(max_attempts=5, tries=tries), Offered(7, 60), NOW), Activated(7, 60), NOW)  # type: ignore[arg-type]
        assert isinstance(run, Running)
        tries = run.tries
        event: Event = {
            "session lost": SessionLost("gone"),
            "lapses": Tick(),
            "agent fails": says(Result.EXCEPTION),
            "agent is stopped": says(Result.CANCELLED),
        }[failure]
        over = after(run, event, NOW + 60)
        if over.result is not None:
            break
    assert (tries, over.result) == (5, Result.EXCEPTION)
