"""The open store: what a controller has of durable state. The tables' own functions are in the modules beside this one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from twisted.internet.defer import Deferred, execute, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from latent.errors import StoreError
from latent.store.engine import BUSY_TIMEOUT, Engines, open_engines
from latent.store.failures import explained
from latent.store.lock import ControllerLock
from latent.store.logs import LogFiles
from latent.store.migrations import upgrade
from latent.store.sql import Statement
from latent.store.writer import Committer, Writer

T = TypeVar("T")

READERS = 4

_KEEP_FIRST = Statement("INSERT INTO meta (name, value) VALUES (:name, :value) ON CONFLICT (name) DO NOTHING")
_META = Statement("SELECT value FROM meta WHERE name = :name")


class Store:
    """Made by `open`. `write` and `read` are called in the reactor's thread."""

    controller_id: str
    """Which controller this state belongs to; made when it was first opened."""
    secret: bytes
    """32 random bytes that tokens are derived from; made when it was first opened."""
    logs: LogFiles
    engine: Engine
    """For `latent.store.runs_sql.SqlRunStore`, and for tests."""

    def __init__(self, engines: Engines, lock: ControllerLock, logs: LogFiles, threaded: bool, reactor: Any, clock: Any) -> None:
        self.engine = engines.write
        self.logs = logs
        with explained(engines.place), engines.write.begin() as conn:
            self.controller_id = _once(conn, "controller_id", secrets.token_hex(16))
            self.secret = bytes.fromhex(_once(conn, "secret", secrets.token_hex(32)))
        self._engines = engines
        self._lock = lock
        self._reactor = reactor
        self._writer = Writer(Committer(engines), clock, reactor if threaded else None)
        self._readers: ThreadPool | None = None
        self._closing: Deferred[None] | None = None
        if threaded:
            self._readers = ThreadPool(minthreads=0, maxthreads=READERS, name="latent-store-reader")
            self._readers.start()

    @classmethod
    def open(
        cls,
        url: str,
        state_dir: Path,
        *,
        threaded: bool = True,
        reactor: Any = None,
        clock: IReactorTime | None = None,
        busy_timeout: float = BUSY_TIMEOUT,
    ) -> Store:
        """Open the database at the URL, bring its schema up to date, and lock the state directory. Blocks.

        Not ``threaded``: `write` and `read` run in the calling thread before they return, with `clock` (or nobody) for
        retries. Raises `StoreError` (in use, unreachable, made by a newer latent...) and `StoreCorrupt`, with the remedy.
        """
        if threaded and reactor is None:
            raise TypeError("a threaded store needs the reactor that it answers in")
        _private_directory(state_dir)
        lock = ControllerLock(state_dir)
        try:
            engines = open_engines(url, busy_timeout=busy_timeout)
            try:
                if threaded and engines.in_memory:
                    raise StoreError(f"db url {url!r}: a database in memory is lost with the controller; name a file")
                with explained(engines.place):
                    upgrade(engines.write, engines.place)
                return cls(engines, lock, LogFiles(state_dir), threaded, reactor, clock or reactor or Clock())
            except BaseException:
                engines.dispose()
                raise
        except BaseException:
            lock.release()
            raise

    @property
    def stalled(self) -> str | None:
        """Why nothing can be written now, with the remedy; None when all is well."""
        return self._writer.stalled

    def write(self, op: Callable[[Connection], T]) -> Deferred[T]:
        """Run ``op`` in a transaction, together with what else is queued; fires with its result once that is on disk.

        ``op`` may be run more than once, and in another thread: it has no effects but those on its connection. What it
        raises is the Deferred's failure, and undoes only itself; errors of the database arrive as `StoreError`. While the
        database is locked or the disk is full nothing is answered, `stalled` says so, and all is tried again.
        """
        return self._writer.submit(op)

    def read(self, query: Callable[[Connection], T]) -> Deferred[T]:
        """Run ``query`` on a connection that can't write, beside the writer; it sees all that was answered before."""
        if self._closing is not None:
            return fail(StoreError("the store is closed: nothing more can be read from it"))
        if self._readers is None:
            return execute(self._query, query)
        return deferToThreadPool(self._reactor, self._readers, self._query, query)

    def finish_log(self, run_id: int) -> Deferred[None]:
        """Close and compress the log of a run that is over, without holding the reactor up."""
        if self._closing is not None:
            return fail(StoreError(f"the store is closed: the log of run {run_id} stays as it is"))
        if self._readers is None:
            return execute(self.logs.finish, run_id)
        return deferToThreadPool(self._reactor, self._readers, self.logs.finish, run_id)

    def close(self) -> Deferred[None]:
        """Commit what is queued and close all. Fires when that is done; what can't be written now fails with the reason."""
        if self._closing is None:
            self._closing = Deferred()
            self._writer.close().addCallback(self._close_rest)
        waiting: Deferred[None] = Deferred()
        self._closing.chainDeferred(waiting)
        return waiting

    def _close_rest(self, _: None) -> None:
        assert self._closing is not None
        if self._readers is not None:
            self._readers.stop()
        self.logs.close()
        self._engines.dispose()
        self._lock.release()
        self._closing.callback(None)

    def _query(self, query: Callable[[Connection], T]) -> T:
        with explained(self._engines.place), self._engines.read.connect() as conn:
            return query(conn)


def _private_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chmod(path, 0o700)
    except OSError as error:
        raise StoreError(f"state directory {path} can't be used: {error.strerror}; make it this user's own") from error


def _once(conn: Connection, name: str, value: str) -> str:
    """The value that was kept under this name first."""
    _KEEP_FIRST(conn, name, value)
    row = _META.one(conn, name)
    assert row is not None
    return str(row[0])
