"""What happened to each worker, and the state that it left it in. Tables workers and journal; times are POSIX seconds."""

from __future__ import annotations

import json

from attrs import frozen
from sqlalchemy import Connection

from latent.errors import StoreCorrupt
from latent.model import JSON
from latent.store.codec import clean
from latent.store.sql import Statement, dumps, loads


@frozen(kw_only=True)
class JournalEntry:
    """One event. ``attempt`` and ``state_name`` are those of the state that it led to."""

    seq: int
    at: float
    worker: str
    attempt: int
    event: str
    detail: JSON
    state_name: str


_APPEND = Statement(
    "INSERT INTO journal (at, worker, attempt, event, state_name, detail)"
    " VALUES (:at, :worker, :attempt, :event, :state_name, :detail)"
)
_SET_STATE = Statement(
    "INSERT INTO workers (name, state) VALUES (:name, :state) ON CONFLICT (name) DO UPDATE SET state = excluded.state"
)
_STATES = Statement("SELECT name, state FROM workers WHERE state IS NOT NULL ORDER BY name")
_HISTORY = Statement(
    "SELECT seq, at, worker, attempt, event, detail, state_name FROM journal"
    " WHERE worker = :worker ORDER BY seq DESC LIMIT :count"
)
# `seq` grows with time, so the scan ends at the first row that is kept, and no index on the time is needed.
_FIRST_KEPT = Statement("SELECT seq FROM journal WHERE at >= :before ORDER BY seq LIMIT 1")
_DELETE_BEFORE = Statement("DELETE FROM journal WHERE seq < :seq")
_DELETE_ALL = Statement("DELETE FROM journal")
_SET_QUARANTINE = Statement(
    "INSERT INTO workers (name, quarantine) VALUES (:name, :quarantine)"
    " ON CONFLICT (name) DO UPDATE SET quarantine = excluded.quarantine"
)
_QUARANTINES = Statement("SELECT name, quarantine FROM workers WHERE quarantine IS NOT NULL ORDER BY name")


def record(conn: Connection, worker: str, at: float, event: str, detail: JSON, state: JSON) -> None:
    """Append an event to the journal and keep the state that it led to (a document of `latent.store.states.dump`)."""
    _APPEND(conn, at, worker, state["attempt"], event, state["state"], dumps(detail))
    _SET_STATE(conn, worker, dumps(state))


def load(conn: Connection) -> tuple[dict[str, JSON], dict[str, str]]:
    """The last state of each worker and, apart, why the state of some can't be read: one bad row stops no other."""
    states: dict[str, JSON] = {}
    errors: dict[str, str] = {}
    for name, document in _STATES.all(conn):
        try:
            states[name] = loads(document, f"the state of worker {name}")
        except StoreCorrupt as error:
            errors[name] = str(error)
    return states, errors


def history(conn: Connection, worker: str, limit: int = 100) -> list[JournalEntry]:
    """The worker's last ``limit`` events, oldest first."""
    return [
        JournalEntry(seq=seq, at=at, worker=name, attempt=attempt, event=event, detail=_detail(detail), state_name=state_name)
        for seq, at, name, attempt, event, detail, state_name in reversed(_HISTORY.all(conn, worker, limit))
    ]


def prune(conn: Connection, before: float) -> int:
    """Forget the events before that time; the workers' states stay. Returns how many there were."""
    kept = _FIRST_KEPT.one(conn, before)
    deleted = _DELETE_ALL(conn) if kept is None else _DELETE_BEFORE(conn, kept[0])
    return int(deleted.rowcount)


def save_quarantine(conn: Connection, worker: str, doc: JSON) -> None:
    """Keep why a worker is not to be used for a while; None when it may be used."""
    _SET_QUARANTINE(conn, worker, None if doc is None else dumps(doc))


def load_quarantines(conn: Connection) -> dict[str, JSON]:
    """Those that can be read: a damaged one is as good as over, as it only delays."""
    found: dict[str, JSON] = {}
    for name, document in _QUARANTINES.all(conn):
        try:
            found[name] = json.loads(document)
        except ValueError:
            continue
    return found


def _detail(document: str) -> JSON:
    try:
        return json.loads(document)
    except ValueError:
        return {"damaged": clean(document)}
