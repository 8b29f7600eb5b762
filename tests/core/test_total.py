"""`step` has an answer to every event in every state, also to those that no world brings about."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from latent.core import events as ev
from latent.core.states import (
    NAMES,
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
    deadlines,
)
from latent.core.substantiation import step

NOW = 1000.0

seconds = st.sampled_from([0.0, 1.0, 10.0, 600.0])
policies = st.builds(
    Policy,
    build_wait_timeout=st.sampled_from([-1.0, 0.0, 600.0]),
    missing_timeout=seconds,
    check_instance_interval=seconds,
    start_timeout=seconds,
    stop_timeout=seconds,
    reattach_timeout=seconds,
    has_machine=st.booleans(),
)
times = st.sampled_from([NOW - 5, NOW, NOW + 5])
maybe_times = st.none() | times
attempts = st.integers(0, 3)
builds = st.sampled_from(["a", "b", "c"])
waiters = st.lists(builds, unique=True, max_size=3).map(tuple)
sessions = st.sampled_from(["s1", "s2"])
retiring = st.sampled_from(["", "its declaration changed"])
starts = st.none() | st.builds(Call, st.just(Timer.START), times, st.booleans())
calls = st.builds(Call, st.sampled_from([Timer.START, Timer.STOP]), times, st.booleans())
failures = st.builds(ev.Failure, st.sampled_from(ev.Fault), st.just("why"), st.just("Kind"))
texts = st.just("why")

states: st.SearchStrategy[State] = st.one_of(
    st.builds(NotSubstantiated, policy=policies, attempt=attempts),
    st.builds(Substantiating, policy=policies, attempt=attempts, waiters=waiters, missing_deadline=times),
    st.builds(
        SubstantiatingStarting,
        policy=policies,
        attempt=attempts,
        build=st.none() | builds,
        waiters=waiters,
        missing_deadline=times,
        start=starts,
        check_deadline=maybe_times,
        retiring=retiring,
    ),
    st.builds(
        Substantiated,
        policy=policies,
        attempt=attempts,
        session=st.none() | sessions,
        builds=waiters.map(frozenset),
        start=starts,
        idle_deadline=maybe_times,
        reattach_deadline=maybe_times,
        check_deadline=maybe_times,
        retiring=retiring,
    ),
    st.builds(Insubstantiating, policy=policies, attempt=attempts, call=calls, fast=st.booleans(), then_shut_down=st.booleans()),
    st.builds(
        InsubstantiatingSubstantiating,
        policy=policies,
        attempt=attempts,
        call=calls,
        waiters=waiters,
        missing_deadline=times,
        fast=st.booleans(),
    ),
    st.builds(ShutDown, policy=policies, attempt=attempts),
)
events: st.SearchStrategy[ev.Event] = st.one_of(
    st.builds(ev.Substantiate, st.none() | builds, st.booleans()),
    st.builds(ev.GiveUp, builds),
    st.builds(ev.MachineStarted, attempts),
    st.builds(ev.MachineFailed, attempts, failures),
    st.builds(ev.Started, attempts),
    st.builds(ev.StartFailed, attempts, failures),
    st.builds(ev.Attached, attempts, sessions),
    st.builds(ev.Detached, sessions),
    st.builds(ev.Checked, attempts, st.booleans(), texts),
    st.builds(ev.BuildStarted, builds),
    st.builds(ev.BuildFinished, builds),
    st.builds(ev.Insubstantiate, texts, st.booleans()),
    st.builds(ev.Stopped, attempts),
    st.builds(ev.StopFailed, attempts, texts),
    st.builds(ev.TimedOut, st.sampled_from(Timer)),
    st.builds(ev.Reconfigured, policies, st.booleans()),
    st.builds(ev.Shutdown, st.booleans()),
    st.builds(ev.Recovered, st.none() | st.booleans()),
)


@settings(max_examples=1500, deadline=None)
@given(states, events)
def test_every_event_has_an_answer_in_every_state(state: State, event: ev.Event) -> None:
    """It never raises, what it returns is of the declared types, and no deadline is armed in the past."""
    after, actions = step(state, event, NOW)
    _valid(after)
    assert all(isinstance(action, ev.Action) for action in actions)
    armed_before = deadlines(state).values()
    for timer, at in deadlines(after).items():
        assert at >= NOW or at in armed_before, timer
    assert after.attempt in (state.attempt, state.attempt + 1)


@settings(max_examples=300, deadline=None)
@given(states, st.lists(events, max_size=12))
def test_no_sequence_of_events_leads_out_of_the_states(state: State, sequence: list[ev.Event]) -> None:
    """Nor does any number of them, one after the other."""
    now = NOW
    for event in sequence:
        state, _ = step(state, event, now)
        _valid(state)
        now += 3


@settings(max_examples=300, deadline=None)
@given(states, events)
def test_a_step_is_a_function(state: State, event: ev.Event) -> None:
    """The same state, event and time give the same answer: nothing is kept beside the state."""
    assert step(state, event, NOW) == step(state, event, NOW)


_TYPES: dict[str, Any] = {
    "Policy": Policy,
    "int": int,
    "bool": bool,
    "str": str,
    "float": float,
    "str | None": str | None,
    "float | None": float | None,
    "Call": Call,
    "Call | None": Call | None,
    "tuple[str, ...]": tuple,
    "frozenset[str]": frozenset,
}


def _valid(state: State) -> None:
    assert type(state) in NAMES
    for attribute in attrs.fields(type(state)):
        value = getattr(state, attribute.name)
        assert isinstance(value, _TYPES[str(attribute.type)]), (attribute.name, value)
        if isinstance(value, tuple | frozenset):
            assert all(isinstance(item, str) for item in value)
            assert len(set(value)) == len(value)
