"""States of workers as JSON documents."""

from __future__ import annotations

import json

import pytest
from attrs import fields
from hypothesis import given
from hypothesis import strategies as st

from latent.core.states import NAMES, Call, Policy, ShutDown, State, Timer
from latent.errors import StoreCorrupt
from latent.store.states import dump, load

POLICY = Policy(stop_timeout=7.0)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
CALLS = st.builds(Call, st.sampled_from(Timer), NUMBERS, st.booleans())
OF_TYPE = {
    "int": st.integers(),
    "bool": st.booleans(),
    "str": st.text(),
    "str | None": st.none() | st.text(),
    "float": NUMBERS,
    "float | None": st.none() | NUMBERS,
    "tuple[str, ...]": st.lists(st.text()).map(tuple),
    "frozenset[str]": st.frozensets(st.text()),
    "Call": CALLS,
    "Call | None": st.none() | CALLS,
    "Policy": st.just(POLICY),
}
STATES = st.one_of([st.builds(kind, **{each.name: OF_TYPE[each.type] for each in fields(kind)}) for kind in NAMES])
STARTING = {
    "state": "SUBSTANTIATING_STARTING",
    "attempt": 3,
    "build": "7",
    "waiters": ["7", "8"],
    "missing_deadline": 1200.5,
    "start": {"hook": "start", "deadline": 900, "cancelled": False},
    "check_deadline": None,
    "retiring": "",
}


@given(STATES)
def test_every_state_comes_back_as_it_was(state: State) -> None:
    """A state that was dumped, written as JSON, read and loaded is the same state."""
    document = json.loads(json.dumps(dump(state)))
    assert document["state"] == NAMES[type(state)]
    assert "policy" not in document
    assert load(document, POLICY) == state


def test_the_policy_is_the_declarations() -> None:
    """A loaded state has the policy of today's declaration, not the one that it was dumped with."""
    assert load(dump(ShutDown(policy=POLICY)), Policy()) == ShutDown(policy=Policy())


def test_an_older_document_gets_the_default() -> None:
    """A field with a default may be missing: an older release did not know it."""
    document = {name: value for name, value in STARTING.items() if name != "retiring"}
    assert load(document, POLICY) == load(STARTING, POLICY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": "SUBSTANTIATING_SOMETHING"}, "can't be 'SUBSTANTIATING_SOMETHING'; it is one of NOT_SUBSTANTIATED,"),
        ({"state": ["x"]}, r"can't be \['x'\]"),
        ({"attempt": "3"}, "field 'attempt' should be an integer, but is '3'"),
        ({"attempt": True}, "field 'attempt' should be an integer, but is True"),
        ({"waiters": "7"}, "field 'waiters' should be a list of strings"),
        ({"waiters": [7]}, "field 'waiters' should be a list of strings"),
        ({"missing_deadline": None}, "field 'missing_deadline' should be a number, but is None"),
        ({"missing_deadline": float("nan")}, "field 'missing_deadline' should be a number, but is nan"),
        ({"start": {"hook": "start"}}, "field 'start' should be an object with"),
        ({"start": {"hook": "jump", "deadline": 1, "cancelled": False}}, "field 'start' should have one of"),
        ({"start": {"hook": [], "deadline": 1, "cancelled": False}}, "field 'start' should have one of"),
        ({"start": {"hook": "stop", "deadline": 1, "cancelled": 0}}, "field 'start' should be true or false"),
        ({"colour": 1}, "has no field 'colour'"),
    ],
)
def test_a_damaged_document_is_refused(change: dict[str, object], message: str) -> None:
    """What `dump` can't have written is refused, and the message says what is wrong with it."""
    with pytest.raises(StoreCorrupt, match=message):
        load({**STARTING, **change}, POLICY)


def test_a_missing_field_is_refused() -> None:
    with pytest.raises(StoreCorrupt, match="lacks its field 'waiters'"):
        load({name: value for name, value in STARTING.items() if name != "waiters"}, POLICY)


@pytest.mark.parametrize("document", [None, [], "x", 3])
def test_what_is_no_object_is_refused(document: object) -> None:
    with pytest.raises(StoreCorrupt, match="should be an object"):
        load(document, POLICY)
