"""One row for each attempt: its enrolment token, its handle, and whether what it made is known to be gone. Table attempts."""

# ruff: noqa: S608 -- what is put into the statements here are constants of this package
from __future__ import annotations

import json

from attrs import frozen
from sqlalchemy import Connection

from latent.errors import EnrolmentRefused, NotFound, StoreError
from latent.model import JSON, Attempt
from latent.store.codec import clean
from latent.store.schema import CONDEMNED_ATTEMPT, LIVE_ATTEMPT
from latent.store.sql import Statement, dumps, loads


@frozen(kw_only=True)
class Condemned:
    """An attempt whose instance may still be there. ``tries``: failed ones so far; ``next_at``: when to try again."""

    attempt: Attempt
    handle: JSON | None
    reason: str
    since: float
    tries: int
    next_at: float
    error: str


@frozen(kw_only=True)
class LiveAttempt:
    attempt: Attempt
    handle: JSON | None
    started_at: float


_BEGIN = Statement(
    "INSERT INTO attempts (worker, number, token_hash, started_at) VALUES (:worker, :number, :token_hash, :at)"
    " ON CONFLICT (worker, number) DO UPDATE SET"
    " token_used_at = CASE WHEN attempts.token_hash = excluded.token_hash THEN attempts.token_used_at END,"
    " token_hash = excluded.token_hash"
    " WHERE attempts.stopped_at IS NULL AND attempts.gone_at IS NULL"
)
_SET_HANDLE = Statement("UPDATE attempts SET handle = :handle WHERE worker = :worker AND number = :number")
_HANDLE = Statement("SELECT handle FROM attempts WHERE worker = :worker AND number = :number")
_USE_TOKEN = Statement(
    "UPDATE attempts SET token_used_at = :at WHERE token_hash = :token_hash AND token_used_at IS NULL"
    f" AND {LIVE_ATTEMPT} AND condemned_at IS NULL RETURNING worker, number"
)
_RELEASE_TOKEN = Statement("UPDATE attempts SET token_used_at = NULL WHERE token_hash = :token_hash")
_USE_TOKEN_AGAIN = Statement(
    "UPDATE attempts SET token_used_at = COALESCE(token_used_at, :at) WHERE token_hash = :token_hash"
    f" AND {LIVE_ATTEMPT} AND condemned_at IS NULL RETURNING worker, number"
)
_TOKEN = Statement("SELECT worker, number, token_used_at FROM attempts WHERE token_hash = :token_hash")
_STOPPED = Statement("UPDATE attempts SET stopped_at = COALESCE(stopped_at, :at) WHERE worker = :worker AND number = :number")
_CONDEMN = Statement(
    "INSERT INTO attempts (worker, number, started_at, condemned_at, next_at, reason)"
    " VALUES (:worker, :number, :at, :at, :at, :reason)"
    " ON CONFLICT (worker, number) DO UPDATE SET condemned_at = excluded.condemned_at, next_at = excluded.next_at,"
    " reason = excluded.reason, tries = 0, error = '', gone_at = NULL"
    " WHERE attempts.condemned_at IS NULL OR attempts.gone_at IS NOT NULL"
)
_DESTROY_FAILED = Statement(
    "UPDATE attempts SET tries = tries + 1, error = :error, next_at = :next_at WHERE worker = :worker AND number = :number"
)
_GONE = Statement("UPDATE attempts SET gone_at = COALESCE(gone_at, :at) WHERE worker = :worker AND number = :number")
_CONDEMNED = Statement(
    "SELECT worker, number, handle, reason, condemned_at, tries, next_at, error FROM attempts"
    f" WHERE {CONDEMNED_ATTEMPT} ORDER BY worker, number"
)
_MAY_RUN = Statement(
    "SELECT 1 FROM attempts WHERE worker = :worker AND number = :number AND gone_at IS NULL"
    " AND (stopped_at IS NULL OR condemned_at IS NOT NULL)"
)
_LAST = Statement("SELECT MAX(number) FROM attempts WHERE worker = :worker")
_LIVE = Statement(f"SELECT worker, number, handle, started_at FROM attempts WHERE {LIVE_ATTEMPT} ORDER BY worker, number")


def begin(conn: Connection, attempt: Attempt, token_hash: str, at: float) -> None:
    """An attempt starts. Again, after a crash, with the same token: nothing changes; with another: that one counts.

    Raises StoreError when the attempt is over: numbers are never used again.
    """
    if not _BEGIN(conn, attempt.worker, attempt.number, token_hash, at).rowcount:
        raise StoreError(f"attempt {attempt} is over and can't begin again")


def set_handle(conn: Connection, attempt: Attempt, handle: JSON) -> None:
    """Keep what the plugin finds the instance by. Raises NotFound."""
    _known(_SET_HANDLE(conn, dumps(handle), attempt.worker, attempt.number), attempt)


def handle_of(conn: Connection, attempt: Attempt) -> JSON | None:
    """None when the plugin gave none, or the attempt is unknown. Raises StoreCorrupt."""
    row = _HANDLE.one(conn, attempt.worker, attempt.number)
    return None if row is None or row[0] is None else loads(row[0], f"the handle of {attempt}")


def use_token(conn: Connection, token_hash: str, at: float, *, again: bool = False) -> Attempt:
    """The attempt that this token was made for; the token can't be used again. Raises EnrolmentRefused.

    ``again``: one that has been used is as good as a new one, as long as its attempt is up.
    """
    row = (_USE_TOKEN_AGAIN if again else _USE_TOKEN).one(conn, at, token_hash)
    if row is not None:
        return Attempt(row[0], row[1])
    known = _TOKEN.one(conn, token_hash)
    if known is None:
        raise EnrolmentRefused("the token is unknown: it was made by another controller, or is not a token")
    attempt = Attempt(known[0], known[1])
    if known[2] is not None and not again:
        raise EnrolmentRefused(f"the token of {attempt} has been used already")
    raise EnrolmentRefused(f"the token is for {attempt}, which is over")


def attempt_of(conn: Connection, token_hash: str) -> Attempt | None:
    """The attempt that this token was made for, whether it is over or not."""
    row = _TOKEN.one(conn, token_hash)
    return None if row is None else Attempt(row[0], row[1])


def release_token(conn: Connection, token_hash: str) -> None:
    """The token can be used once more: who used it may never have heard that it was accepted."""
    _RELEASE_TOKEN(conn, token_hash)


def stopped(conn: Connection, attempt: Attempt, at: float) -> None:
    """The stop was confirmed. Raises NotFound."""
    _known(_STOPPED(conn, at, attempt.worker, attempt.number), attempt)


def condemn(conn: Connection, attempt: Attempt, reason: str, at: float) -> None:
    """What the attempt made may be there and must go. The first reason stays; one that was gone is condemned anew."""
    _CONDEMN(conn, attempt.worker, attempt.number, at, clean(reason))


def destroy_failed(conn: Connection, attempt: Attempt, error: str, next_at: float) -> None:
    """Destroying it failed and is tried again at ``next_at``. Raises NotFound."""
    _known(_DESTROY_FAILED(conn, clean(error), next_at, attempt.worker, attempt.number), attempt)


def gone(conn: Connection, attempt: Attempt, at: float) -> None:
    """The provider confirms that nothing of the attempt is there. Raises NotFound."""
    _known(_GONE(conn, at, attempt.worker, attempt.number), attempt)


def condemned(conn: Connection) -> list[Condemned]:
    """All that are not yet gone. A handle that can't be read is None, with the error in ``error``."""
    found = []
    for worker, number, document, reason, since, tries, next_at, error in _CONDEMNED.all(conn):
        handle, damage = _handle(document)
        found.append(
            Condemned(
                attempt=Attempt(worker, number),
                handle=handle,
                reason=reason,
                since=since,
                tries=tries,
                next_at=next_at,
                error=damage or error,
            )
        )
    return found


def live(conn: Connection) -> list[LiveAttempt]:
    """All that were neither stopped nor are gone. A handle that can't be read is None."""
    return [
        LiveAttempt(attempt=Attempt(worker, number), handle=_handle(document)[0], started_at=started_at)
        for worker, number, document, started_at in _LIVE.all(conn)
    ]


def may_run(conn: Connection, attempt: Attempt) -> bool:
    """Whether something of the attempt may be there: neither its stop nor its end is confirmed."""
    return _MAY_RUN.one(conn, attempt.worker, attempt.number) is not None


def last(conn: Connection, worker: str) -> int:
    """The highest number that an attempt of the worker ever had; 0 if there was none."""
    row = _LAST.one(conn, worker)
    return 0 if row is None or row[0] is None else int(row[0])


def _known(cursor: object, attempt: Attempt) -> None:
    if not getattr(cursor, "rowcount", 0):
        raise NotFound(f"there is no attempt {attempt}")


def _handle(document: str | None) -> tuple[JSON | None, str]:
    if document is None:
        return None, ""
    try:
        return json.loads(document), ""
    except ValueError as error:
        return None, f"its handle is damaged: {error}"
