"""What a database error means: try again later, the file is damaged, or this operation is at fault.

Statements reach the driver both through SQLAlchemy and past it (`latent.store.sql`), so errors of both kinds are read here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from latent.errors import StoreCorrupt, StoreError

_SQLITE_WAITS = {
    sqlite3.SQLITE_BUSY: ("another process holds a lock on it", "find it with `fuser` and end it, or wait"),
    sqlite3.SQLITE_LOCKED: ("another connection holds a lock on it", "wait"),
    sqlite3.SQLITE_PROTOCOL: ("its locks are in disorder", "end the other processes that use it"),
    sqlite3.SQLITE_FULL: ("the disk is full", "free some space on it"),
    sqlite3.SQLITE_IOERR: ("the disk reports an I/O error", "look into the kernel's log and check the disk"),
    sqlite3.SQLITE_NOMEM: ("there is no memory left", "free some memory"),
    sqlite3.SQLITE_READONLY: ("it is read-only", "make the file and its folder writable"),
    sqlite3.SQLITE_CANTOPEN: ("it can't be opened", "put the file back and make its folder writable"),
}
_SQLITE_MESSAGES = {
    "locked": sqlite3.SQLITE_BUSY,
    "is full": sqlite3.SQLITE_FULL,
    "disk i/o": sqlite3.SQLITE_IOERR,
    "readonly": sqlite3.SQLITE_READONLY,
    "unable to open": sqlite3.SQLITE_CANTOPEN,
}
_SQLITE_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_POSTGRESQL_WAITS = {
    "08": ("the connection to it was lost", "check that the server runs and can be reached"),
    "40": ("it could not serialize the change", "nothing need be done"),
    "53": ("its server is short of disk space, memory or connections", "give it more"),
    "55": ("another client holds a lock on it", "wait, or end that client"),
    "57": ("its server stops or starts", "wait"),
    "58": ("its server reports a system error", "look into the server's log"),
}


def driver_error(error: BaseException) -> BaseException:
    """The driver's own error inside SQLAlchemy's, or the error itself."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def stall_reason(error: BaseException, place: str) -> str | None:
    """What to wait for, with the remedy, when the same operation can succeed later; None when it can't."""
    return f"{found}; latent then goes on by itself" if (found := _obstacle(error, place)) else None


def _obstacle(error: BaseException, place: str) -> str | None:
    error = driver_error(error)
    found = None
    if isinstance(error, sqlite3.Error):
        found = _SQLITE_WAITS.get(_sqlite_code(error))
    elif _is_psycopg(error):
        state = getattr(error, "sqlstate", None)
        lost = state is None and type(error).__name__ in ("OperationalError", "InterfaceError")
        found = _POSTGRESQL_WAITS.get("08" if lost else (state or "")[:2])
    if found is None:
        return None
    what, remedy = found
    return f"{place} can't be used: {what} ({error}); {remedy}"


def explain(error: BaseException, place: str) -> BaseException:
    """The error as the callers of the store get it: those of a database become a `StoreError`, all others stay."""
    cause = driver_error(error)
    if isinstance(cause, sqlite3.Error) and _sqlite_code(cause) in _SQLITE_DAMAGE:
        return corrupt(place, str(cause))
    if isinstance(cause, sqlite3.Error) or _is_psycopg(cause) or isinstance(error, SQLAlchemyError):
        return StoreError(_obstacle(cause, place) or f"{place}: {cause}")
    return error


def corrupt(place: str, message: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"{place} is damaged ({message}) and was left as it is; restore it from a backup, "
        "or move it away together with its -wal and -shm files: latent then starts with an empty one"
    )


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Errors of a database leave the block as `StoreError`."""
    try:
        yield
    except Exception as error:
        better = explain(error, place)
        if better is error:
            raise
        raise better from error


def _sqlite_code(error: sqlite3.Error) -> int:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF
    message = str(error).lower()
    return next((code for words, code in _SQLITE_MESSAGES.items() if words in message), 0)


def _is_psycopg(error: BaseException) -> bool:
    # By name, so that the driver need not be installed; its errors for an SQLSTATE are in a module of their own.
    return any(base.__module__.split(".")[0] == "psycopg" for base in type(error).__mro__)
