"""Which agents are and were attached. Table sessions; times are POSIX seconds."""

# ruff: noqa: S608 -- what is put into the statements here are constants of this package
from __future__ import annotations

import json

from attrs import frozen
from sqlalchemy import Connection

from latent.errors import NotFound
from latent.model import JSON
from latent.store.codec import clean
from latent.store.schema import OPEN_SESSION
from latent.store.sql import Row, Statement, dumps


@frozen(kw_only=True)
class SessionRow:
    """``attempt`` is None for a plain worker's. ``closed_at`` is None while it is open; ``reason`` is why it was closed."""

    id: int
    worker: str
    attempt: int | None
    protocol: str
    token_hash: str
    capacity: int
    labels: JSON
    info: JSON
    opened_at: float
    closed_at: float | None
    reason: str


_COLUMNS = "id, worker, attempt, protocol, token_hash, capacity, labels, info, opened_at, closed_at, reason"
_OPEN = Statement(
    "INSERT INTO sessions (worker, attempt, protocol, token_hash, opened_at)"
    " VALUES (:worker, :attempt, :protocol, :token_hash, :at) RETURNING id"
)
_UPDATE = Statement("UPDATE sessions SET capacity = :capacity, labels = :labels, info = :info WHERE id = :id")
_CLOSE = Statement(f"UPDATE sessions SET closed_at = :at, reason = :reason WHERE id = :id AND {OPEN_SESSION}")
_EXISTS = Statement("SELECT 1 FROM sessions WHERE id = :id")
_NAME = Statement("UPDATE sessions SET worker = :worker WHERE id = :id")
_REOPEN = Statement("UPDATE sessions SET closed_at = NULL, reason = '' WHERE id = :id")
_ALL_OPEN = Statement(f"SELECT {_COLUMNS} FROM sessions WHERE {OPEN_SESSION} ORDER BY id")
_ALL_BY_TOKEN = Statement(f"SELECT {_COLUMNS} FROM sessions WHERE token_hash = :token_hash ORDER BY id DESC LIMIT :limit")
_BY_TOKEN = Statement(f"SELECT {_COLUMNS} FROM sessions WHERE token_hash = :token_hash ORDER BY id DESC LIMIT 1")
_OPENED_BY = Statement(f"SELECT {_COLUMNS} FROM sessions WHERE id = :id AND token_hash = :token_hash")


def open_session(conn: Connection, *, worker: str, attempt: int | None, protocol: str, token_hash: str, at: float) -> int:
    """Returns the session's id, never used again."""
    row = _OPEN.one(conn, worker, attempt, protocol, token_hash, at)
    assert row is not None
    return int(row[0])


def update_session(conn: Connection, id: int, *, capacity: int, labels: JSON, info: JSON) -> None:
    """What the agent says of itself when it attaches. Raises NotFound."""
    if not _UPDATE(conn, capacity, dumps(labels), dumps(info), id).rowcount:
        raise _unknown(id)


def name_session(conn: Connection, id: int, worker: str) -> None:
    """Whose agent it is, said after it was opened. Raises NotFound."""
    if not _NAME(conn, worker, id).rowcount:
        raise _unknown(id)


def reopen_session(conn: Connection, id: int) -> None:
    """It was closed because its agent could not be heard, and the agent is heard again. Raises NotFound."""
    if not _REOPEN(conn, id).rowcount:
        raise _unknown(id)


def close_session(conn: Connection, id: int, reason: str, at: float) -> None:
    """A session that is closed already keeps its first reason. Raises NotFound."""
    if not _CLOSE(conn, at, clean(reason), id).rowcount and _EXISTS.one(conn, id) is None:
        raise _unknown(id)


def open_sessions(conn: Connection) -> list[SessionRow]:
    """Oldest first."""
    return [_session(row) for row in _ALL_OPEN.all(conn)]


def session_by_token(conn: Connection, token_hash: str) -> SessionRow | None:
    """The newest with that token, open or closed."""
    row = _BY_TOKEN.one(conn, token_hash)
    return None if row is None else _session(row)


def session_opened_by(conn: Connection, id: int, token_hash: str) -> SessionRow | None:
    """That session, open or closed, if this token opened it."""
    row = _OPENED_BY.one(conn, id, token_hash)
    return None if row is None else _session(row)


def sessions_by_token(conn: Connection, token_hash: str, limit: int) -> list[SessionRow]:
    """Those with that token, open or closed, newest first."""
    return [_session(row) for row in _ALL_BY_TOKEN.all(conn, token_hash, limit)]


def _unknown(id: int) -> NotFound:
    return NotFound(f"there is no session {id}")


def _session(row: Row) -> SessionRow:
    id, worker, attempt, protocol, token_hash, capacity, labels, info, opened_at, closed_at, reason = row
    return SessionRow(
        id=id,
        worker=worker,
        attempt=attempt,
        protocol=protocol,
        token_hash=token_hash,
        capacity=capacity,
        labels=_described(labels),
        info=_described(info),
        opened_at=opened_at,
        closed_at=closed_at,
        reason=reason,
    )


def _described(document: str) -> JSON:
    # What an agent says of itself is for people to read; a session is none the worse without it.
    try:
        return json.loads(document)
    except ValueError:
        return {}
