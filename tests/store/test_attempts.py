"""Attempts: tokens, handles, and what is known of their instances. And the sessions that tokens open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latent.errors import EnrolmentRefused, NotFound, StoreCorrupt, StoreError
from latent.model import Attempt
from latent.store import attempts, sessions
from tests.store.helpers import open_inline, result

A1, A2, B1 = Attempt("a", 1), Attempt("a", 2), Attempt("b", 1)


@pytest.fixture
def conn(tmp_path: Path) -> Any:
    store = open_inline(tmp_path)
    with store.engine.begin() as connection:
        yield connection
    result(store.close())


def test_a_token_is_used_once(conn: Any) -> None:
    """It tells whose it is, and is refused the second time."""
    attempts.begin(conn, A1, "h1", 1.0)
    attempts.begin(conn, B1, "h2", 1.0)
    assert attempts.use_token(conn, "h2", 2.0) == B1
    assert attempts.use_token(conn, "h1", 2.0) == A1
    with pytest.raises(EnrolmentRefused, match="token of b#1 has been used already"):
        attempts.use_token(conn, "h2", 3.0)
    with pytest.raises(EnrolmentRefused, match="unknown"):
        attempts.use_token(conn, "h3", 3.0)


@pytest.mark.parametrize("end", ["stopped", "condemned", "gone"])
def test_the_token_of_an_attempt_that_is_over_is_refused(conn: Any, end: str) -> None:
    attempts.begin(conn, A1, "h1", 1.0)
    if end == "stopped":
        attempts.stopped(conn, A1, 2.0)
    else:
        attempts.condemn(conn, A1, "no answer", 2.0)
    if end == "gone":
        attempts.gone(conn, A1, 3.0)
    with pytest.raises(EnrolmentRefused, match="a#1, which is over"):
        attempts.use_token(conn, "h1", 4.0)


def test_a_start_may_be_repeated(conn: Any) -> None:
    """With the same token nothing changes, a used one stays used; with a new token that one counts."""
    attempts.begin(conn, A1, "h1", 1.0)
    attempts.set_handle(conn, A1, {"pid": 5})
    attempts.use_token(conn, "h1", 2.0)
    attempts.begin(conn, A1, "h1", 3.0)
    with pytest.raises(EnrolmentRefused, match="used already"):
        attempts.use_token(conn, "h1", 4.0)
    attempts.begin(conn, A1, "h2", 5.0)
    with pytest.raises(EnrolmentRefused, match="unknown"):
        attempts.use_token(conn, "h1", 6.0)
    assert attempts.use_token(conn, "h2", 6.0) == A1
    assert attempts.live(conn) == [attempts.LiveAttempt(attempt=A1, handle={"pid": 5}, started_at=1.0)]


def test_an_attempt_that_is_over_does_not_begin_again(conn: Any) -> None:
    attempts.begin(conn, A1, "h1", 1.0)
    attempts.stopped(conn, A1, 2.0)
    with pytest.raises(StoreError, match="attempt a#1 is over and can't begin again"):
        attempts.begin(conn, A1, "h1", 3.0)


def test_handles(conn: Any) -> None:
    """A handle is any JSON value; one that can't be read is told from none."""
    attempts.begin(conn, A1, "h1", 1.0)
    assert attempts.handle_of(conn, A1) is None
    assert attempts.handle_of(conn, B1) is None
    for handle in ({"id": "i-1", "n": [1]}, "i-1", 0, False):
        attempts.set_handle(conn, A1, handle)
        assert attempts.handle_of(conn, A1) == handle
    conn.exec_driver_sql("UPDATE attempts SET handle = '{'")
    with pytest.raises(StoreCorrupt, match="the handle of a#1 is damaged"):
        attempts.handle_of(conn, A1)


def test_live_attempts(conn: Any) -> None:
    """Those that were neither stopped nor are gone; one with a damaged handle is among them."""
    attempts.begin(conn, A1, "h1", 1.0)
    attempts.stopped(conn, A1, 2.0)
    attempts.begin(conn, A2, "h2", 3.0)
    attempts.begin(conn, B1, "h3", 3.5)
    attempts.set_handle(conn, A2, "x")
    conn.exec_driver_sql("UPDATE attempts SET handle = '{' WHERE worker = 'a'")
    assert [(each.attempt, each.handle, each.started_at) for each in attempts.live(conn)] == [(A2, None, 3.0), (B1, None, 3.5)]
    attempts.condemn(conn, B1, "lost", 4.0)
    attempts.gone(conn, B1, 5.0)
    assert [each.attempt for each in attempts.live(conn)] == [A2]


def test_the_condemned_are_remembered_until_they_are_gone(conn: Any) -> None:
    """The first reason stays; failures are counted; what is gone is forgotten."""
    attempts.begin(conn, A1, "h1", 1.0)
    attempts.set_handle(conn, A1, {"pid": 5})
    attempts.condemn(conn, A1, "stop failed", 2.0)
    attempts.condemn(conn, A1, "another reason", 3.0)
    assert attempts.condemned(conn) == [
        attempts.Condemned(attempt=A1, handle={"pid": 5}, reason="stop failed", since=2.0, tries=0, next_at=2.0, error="")
    ]
    attempts.destroy_failed(conn, A1, "no answer", 12.0)
    attempts.destroy_failed(conn, A1, "quota", 32.0)
    (it,) = attempts.condemned(conn)
    assert (it.tries, it.next_at, it.error, it.reason) == (2, 32.0, "quota", "stop failed")
    attempts.gone(conn, A1, 33.0)
    attempts.gone(conn, A1, 34.0)
    assert attempts.condemned(conn) == []


def test_what_was_gone_can_be_condemned_again(conn: Any) -> None:
    """A start that answers after its instance was confirmed gone may have made another."""
    attempts.begin(conn, A1, "h1", 1.0)
    attempts.condemn(conn, A1, "no answer", 2.0)
    attempts.destroy_failed(conn, A1, "quota", 3.0)
    attempts.gone(conn, A1, 4.0)
    attempts.condemn(conn, A1, "it answered late", 5.0)
    (it,) = attempts.condemned(conn)
    assert (it.reason, it.since, it.tries, it.next_at, it.error) == ("it answered late", 5.0, 0, 5.0, "")


def test_an_unknown_attempt_can_be_condemned(conn: Any) -> None:
    """What carries our tags and is in no table must go as well."""
    attempts.condemn(conn, B1, "nobody knows it", 5.0)
    attempts.set_handle(conn, B1, "i-9")
    assert [(each.attempt, each.handle) for each in attempts.condemned(conn)] == [(B1, "i-9")]


def test_a_damaged_handle_hides_no_condemned(conn: Any) -> None:
    attempts.condemn(conn, A1, "x", 1.0)
    attempts.condemn(conn, B1, "x", 1.0)
    conn.exec_driver_sql("UPDATE attempts SET handle = '{' WHERE worker = 'a'")
    first, second = attempts.condemned(conn)
    assert first.handle is None
    assert "its handle is damaged" in first.error
    assert second.error == ""


def test_unknown_attempts_are_not_found(conn: Any) -> None:
    for call in (
        lambda: attempts.set_handle(conn, A1, 1),
        lambda: attempts.stopped(conn, A1, 1.0),
        lambda: attempts.gone(conn, A1, 1.0),
        lambda: attempts.destroy_failed(conn, A1, "x", 1.0),
    ):
        with pytest.raises(NotFound, match="there is no attempt a#1"):
            call()


def open_session(conn: Any, token: str = "h1", at: float = 1.0) -> int:
    return sessions.open_session(conn, worker="a", attempt=1, protocol="peer", token_hash=token, at=at)


def test_a_sessions_life(conn: Any) -> None:
    """It is open until it is closed, and keeps what its agent said of itself."""
    id = open_session(conn)
    sessions.update_session(conn, id, capacity=2, labels={"os": "linux"}, info={"version": "1"})
    other = sessions.open_session(conn, worker="b", attempt=None, protocol="bots", token_hash="h2", at=2.0)
    row = sessions.SessionRow(
        id=id,
        worker="a",
        attempt=1,
        protocol="peer",
        token_hash="h1",
        capacity=2,
        labels={"os": "linux"},
        info={"version": "1"},
        opened_at=1.0,
        closed_at=None,
        reason="",
    )
    assert sessions.open_sessions(conn)[0] == row
    assert [each.id for each in sessions.open_sessions(conn)] == [id, other]
    sessions.close_session(conn, id, "its agent left", 3.0)
    sessions.close_session(conn, id, "another reason", 4.0)
    assert [each.id for each in sessions.open_sessions(conn)] == [other]
    closed = sessions.session_by_token(conn, "h1")
    assert closed is not None
    assert (closed.closed_at, closed.reason) == (3.0, "its agent left")


def test_the_newest_session_of_a_token(conn: Any) -> None:
    first = open_session(conn)
    second = open_session(conn, at=2.0)
    assert second > first
    found = sessions.session_by_token(conn, "h1")
    assert found is not None
    assert found.id == second
    assert sessions.session_by_token(conn, "h9") is None


def test_unknown_sessions_are_not_found(conn: Any) -> None:
    with pytest.raises(NotFound, match="there is no session 5"):
        sessions.update_session(conn, 5, capacity=1, labels={}, info={})
    with pytest.raises(NotFound, match="there is no session 5"):
        sessions.close_session(conn, 5, "x", 1.0)
