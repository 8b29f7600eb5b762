"""Latent machines' states on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latent.core.machines import Call, Due, MachinePolicy, MachineState, Started, Starting, Stopped, Stopping
from latent.errors import StoreCorrupt
from latent.store import journal, machines
from tests.store.helpers import open_inline, result

POLICY = MachinePolicy(build_wait_timeout=5)

times = st.none() | st.floats(0, 2e9)
numbers = st.integers(0, 9)
flags = st.booleans()
calls = st.builds(Call, st.sampled_from(Due), st.floats(0, 2e9), flags)
fixed = {"policy": st.just(POLICY), "attempt": numbers, "hung": numbers}
states: st.SearchStrategy[MachineState] = st.one_of(
    st.builds(Stopped, **fixed, error=st.text(), tries=numbers, retry_deadline=times, closed=flags),
    st.builds(Starting, **fixed, call=calls, closing=flags),
    st.builds(Started, **fixed, idle_deadline=times),
    st.builds(Stopping, **fixed, call=st.none() | calls, tries=numbers, again=flags, closing=flags),
)


@given(states)
def test_a_state_is_read_as_it_was_written(state: MachineState) -> None:
    """The policy comes from the declaration."""
    assert machines.load(machines.dump(state), POLICY) == state


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"state": "STARTED", "attempt": 1, "hung": 0},
        {"state": "BROKEN", "attempt": 1, "hung": 0},
        {"state": "STARTED", "attempt": True, "hung": 0, "idle_deadline": None},
        {"state": "STARTED", "attempt": 1, "hung": 0, "idle_deadline": "soon"},
        {"state": "STARTING", "attempt": 1, "hung": 0, "call": None, "closing": False},
        {
            "state": "STARTING",
            "attempt": 1,
            "hung": 0,
            "call": {"hook": "x", "deadline": 1, "cancelled": False},
            "closing": False,
        },
    ],
)
def test_a_damaged_state_is_refused(document: object) -> None:
    with pytest.raises(StoreCorrupt, match="a machine's state"):
        machines.load(document, POLICY)


def test_machines_and_workers_of_the_same_name_do_not_meet(tmp_path: Path) -> None:
    """Each has its own state and its own history; a damaged row of one is no other's."""
    store = open_inline(tmp_path)
    worker = {"state": "NOT_SUBSTANTIATED", "attempt": 3}
    with store.engine.begin() as conn:
        journal.record(conn, "box", 1.0, "Stopped", {}, worker)
        machines.record(conn, "box", 2.0, "Wanted", {"worker": "box#4"}, Stopped(policy=POLICY, attempt=7))
        assert [entry.state_name for entry in journal.history(conn, "box")] == ["NOT_SUBSTANTIATED"]
        (entry,) = journal.history(conn, machines.journal_name("box"))
        assert (entry.event, entry.state_name, entry.attempt) == ("Wanted", "STOPPED", 7)
        found, damaged = machines.load_all(conn)
        assert list(found) == ["box"]
        assert machines.load(found["box"], POLICY) == Stopped(policy=POLICY, attempt=7)
        assert damaged == {}
    result(store.close())
