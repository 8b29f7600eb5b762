"""The journal and the workers' states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latent.store import journal
from tests.store.helpers import open_inline, result


@pytest.fixture
def conn(tmp_path: Path) -> Any:
    store = open_inline(tmp_path)
    with store.engine.begin() as connection:
        yield connection
    result(store.close())


def state(attempt: int, name: str = "SUBSTANTIATED") -> dict[str, object]:
    return {"state": name, "attempt": attempt}


def test_an_event_is_kept_with_the_state_it_led_to(conn: Any) -> None:
    """`record` appends to the history and replaces the worker's state."""
    journal.record(conn, "w1", 1.5, "Substantiate", {"build": "7"}, state(1, "SUBSTANTIATING"))
    journal.record(conn, "w2", 2.0, "Shutdown", {}, state(4, "SHUT_DOWN"))
    journal.record(conn, "w1", 2.5, "Attached", None, state(1))
    assert journal.load(conn) == ({"w1": state(1), "w2": state(4, "SHUT_DOWN")}, {})
    first, last = journal.history(conn, "w1")
    assert first == journal.JournalEntry(
        seq=first.seq, at=1.5, worker="w1", attempt=1, event="Substantiate", detail={"build": "7"}, state_name="SUBSTANTIATING"
    )
    assert (last.event, last.detail, last.state_name) == ("Attached", None, "SUBSTANTIATED")
    assert first.seq < last.seq


def test_history_is_the_last_events_oldest_first(conn: Any) -> None:
    for n in range(10):
        journal.record(conn, "w", float(n), f"event {n}", {}, state(n))
    assert [entry.event for entry in journal.history(conn, "w", 3)] == ["event 7", "event 8", "event 9"]
    assert journal.history(conn, "nobody") == []


def test_one_damaged_state_stops_no_other(conn: Any) -> None:
    """A worker whose state can't be read is left out, and reported with the reason."""
    for name in ("a", "b", "c"):
        journal.record(conn, name, 1.0, "Started", {}, state(1))
    conn.exec_driver_sql("UPDATE workers SET state = '{\"state\": ' WHERE name = 'b'")
    states, errors = journal.load(conn)
    assert sorted(states) == ["a", "c"]
    assert list(errors) == ["b"]
    assert "the state of worker b is damaged" in errors["b"]


def test_a_damaged_detail_is_shown_as_it_is(conn: Any) -> None:
    journal.record(conn, "w", 1.0, "Started", {"a": 1}, state(1))
    conn.exec_driver_sql("UPDATE journal SET detail = '{'")
    assert [entry.detail for entry in journal.history(conn, "w")] == [{"damaged": "{"}]


def test_pruning_forgets_events_but_no_state(conn: Any) -> None:
    for n in range(10):
        journal.record(conn, "w", float(n), f"event {n}", {}, state(n))
    assert journal.prune(conn, 4.0) == 4
    assert journal.prune(conn, 4.0) == 0
    assert [entry.event for entry in journal.history(conn, "w")] == [f"event {n}" for n in range(4, 10)]
    assert journal.prune(conn, 100.0) == 6
    assert journal.load(conn)[0] == {"w": state(9)}


def test_quarantines_are_kept_beside_the_state(conn: Any) -> None:
    """A worker may have a quarantine without ever having had a state, and the other way round. None ends it."""
    journal.save_quarantine(conn, "new", {"until": 5.0})
    journal.record(conn, "w", 1.0, "Started", {}, state(1))
    journal.save_quarantine(conn, "w", {"until": 7.0, "paused": True})
    journal.record(conn, "w", 2.0, "Stopped", {}, state(1))
    assert journal.load_quarantines(conn) == {"new": {"until": 5.0}, "w": {"until": 7.0, "paused": True}}
    assert journal.load(conn)[0] == {"w": state(1)}
    journal.save_quarantine(conn, "w", None)
    conn.exec_driver_sql("UPDATE workers SET quarantine = '?' WHERE name = 'new'")
    assert journal.load_quarantines(conn) == {}
