"""Connections to the database that a URL names: SQLite files with their settings, or PostgreSQL."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from attrs import frozen
from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool, StaticPool

from latent.errors import StoreError
from latent.store.failures import corrupt, explained

BUSY_TIMEOUT = 5.0
"""How long SQLite waits for another process's lock, in seconds, before the writer calls itself stalled."""

STATEMENTS = 512
"""How many prepared statements an SQLite connection keeps: more than there are in this package."""

CHECKED_SIZE = 256 * 2**20
"""Up to this many bytes a database is read through when it is opened; damage in a larger one shows when it is met."""


@frozen
class Engines:
    """``write`` begins transactions that may write at once; ``read`` has connections that can't write.

    An SQLite database in memory has but one connection, and so both are one. ``place`` names the database in messages.
    """

    write: Engine
    read: Engine
    place: str
    in_memory: bool

    def dispose(self) -> None:
        # The last SQLite connection to close tidies the write-ahead log away, which one that can't write can't.
        self.read.dispose()
        self.write.dispose()


def open_engines(url: str, *, busy_timeout: float = BUSY_TIMEOUT) -> Engines:
    """Check what is at the URL and make engines for it. Raises `StoreError` or `StoreCorrupt`; a damaged file is not touched."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError(
            f'db url {url!r} is not a URL; write "sqlite:///state/latent.sqlite" or "postgresql://HOST/NAME"'
        ) from error
    match parsed.get_backend_name():
        case "sqlite":
            return _sqlite(parsed, busy_timeout)
        case "postgresql":
            return _postgresql(parsed)
        case other:
            raise StoreError(f'db url: there is no support for "{other}"; use sqlite or postgresql')


def _sqlite(url: URL, busy_timeout: float) -> Engines:
    if url.database in (None, "", ":memory:"):
        engine = create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False, "cached_statements": STATEMENTS}
        )
        _adjust_sqlite(engine, "BEGIN IMMEDIATE", busy_timeout)
        return Engines(engine, engine, "the database in memory", in_memory=True)
    path = Path(str(url.database)).absolute()
    place = f"database {path}"
    _prepare_file(path, place)
    with explained(place):
        _check_file(path, place)

    def make(begin: str, mode: str, size: int) -> Engine:
        # mode=rw: a database that somebody deletes is missed, not silently replaced by an empty one.
        uri = f"file:{quote(str(path))}?mode={mode}"

        def connect() -> sqlite3.Connection:
            return sqlite3.connect(uri, uri=True, check_same_thread=False, cached_statements=STATEMENTS, timeout=busy_timeout)

        engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_size=size, max_overflow=size)
        _adjust_sqlite(engine, begin, busy_timeout)
        return engine

    return Engines(make("BEGIN IMMEDIATE", "rw", 4), make("BEGIN", "ro", 4), place, in_memory=False)


def _prepare_file(path: Path, place: str) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The -wal and -shm files get their permissions from this one.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreError(
            f"{place} can't be opened: {error.strerror}; make the file and its folder writable for this user"
        ) from error


def _check_file(path: Path, place: str) -> None:
    """Look at the file through a connection that can't change it, before anything is done that could."""
    if path.stat().st_size == 0:
        return
    conn = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
    try:
        complete = path.stat().st_size <= CHECKED_SIZE
        found = conn.execute("PRAGMA quick_check(1)" if complete else "SELECT 'ok' FROM sqlite_master LIMIT 1").fetchone()
    finally:
        conn.close()
    if found is not None and found[0] != "ok":
        raise corrupt(place, " ".join(found[0].split()))


def _adjust_sqlite(engine: Engine, begin: str, busy_timeout: float) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        # Transactions are begun below: the driver's own way begins them too late, at the first change.
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout = {int(busy_timeout * 1000)}",
            "foreign_keys = ON",
            "synchronous = FULL",
            "temp_store = MEMORY",
            "cache_size = -16000",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Any) -> None:
        connection.exec_driver_sql(begin)


def _postgresql(url: URL) -> Engines:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    place = f"database {url.render_as_string(hide_password=True)}"
    try:
        write = create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
        read = create_engine(
            url,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 10},
            isolation_level="REPEATABLE READ",
            execution_options={"postgresql_readonly": True},
        )
    except ModuleNotFoundError as error:
        raise StoreError(f"{place} needs a driver that is not installed: pip install 'latent[postgres]'") from error
    return Engines(write, read, place, in_memory=False)
