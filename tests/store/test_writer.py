"""Group commit: order, one bad operation among good ones, and what happens while nothing can be written."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from sqlalchemy import Connection, event
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import Clock

from latent.errors import NotFound, StoreCorrupt, StoreError
from latent.store.database import Store
from tests.store.helpers import open_inline, pending, result, url


def note(text: str) -> Any:
    """An operation that appends a row, and returns how many there are."""

    def op(conn: Connection) -> int:
        conn.exec_driver_sql("CREATE TABLE IF NOT EXISTS notes (n INTEGER PRIMARY KEY, note TEXT UNIQUE)")
        conn.exec_driver_sql("INSERT INTO notes (note) VALUES (?)", (text,))
        return int(conn.exec_driver_sql("SELECT count(*) FROM notes").scalar_one())

    return op


def notes(conn: Connection) -> list[str]:
    return list(conn.exec_driver_sql("SELECT note FROM notes ORDER BY n").scalars())


def bad(conn: Connection) -> None:
    note("must not stay")(conn)
    raise NotFound("no such thing")


class WatchedClock(Clock):
    """Tells when the store waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Deferred[None] = Deferred()

    def callLater(self, *args: Any, **kwargs: Any) -> Any:
        call = super().callLater(*args, **kwargs)
        reactor.callLater(0, self.waits.callback, None)
        return call


@pytest.fixture
def inline(tmp_path: Path) -> Any:
    store = open_inline(tmp_path)
    yield store
    result(store.close())


class Lock:
    """Another process's lock on the database."""

    def __init__(self, state_dir: Path) -> None:
        self._conn = sqlite3.connect(state_dir / "latent.sqlite", isolation_level=None)
        self._conn.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        self._conn.rollback()
        self._conn.close()


@pytest_twisted.ensureDeferred
async def test_operations_run_in_their_order(tmp_path: Path) -> None:
    """Operations are committed in the order in which they were written, and each gets its own answer."""
    store = Store.open(url(tmp_path), tmp_path, reactor=reactor)
    answers = await gatherResults([store.write(note(str(i))) for i in range(2500)])
    assert answers == list(range(1, 2501))
    assert await store.read(notes) == [str(i) for i in range(2500)]
    await store.close()


@pytest_twisted.ensureDeferred
async def test_operations_share_a_commit(tmp_path: Path) -> None:
    """What is written in one turn of the reactor costs few commits, not one each."""
    store = Store.open(url(tmp_path), tmp_path, reactor=reactor)
    commits: list[object] = []
    event.listen(store.engine, "commit", commits.append)
    await gatherResults([store.write(note(str(i))) for i in range(200)])
    assert len(commits) <= 3
    await store.close()


@pytest_twisted.ensureDeferred
async def test_a_bad_operation_fails_alone(tmp_path: Path) -> None:
    """An operation that raises leaves no trace; those before and behind it in the batch are committed, in order."""
    store = Store.open(url(tmp_path), tmp_path, reactor=reactor)
    ops = [note("a"), bad, note("b"), note("b"), bad, note("c")]
    answers = await DeferredList([store.write(op) for op in ops], consumeErrors=True)
    assert [ok for ok, _ in answers] == [True, False, True, False, False, True]
    assert [value for ok, value in answers if ok] == [1, 2, 3]
    assert answers[1][1].check(NotFound)
    assert answers[3][1].check(StoreError)
    assert "UNIQUE" in answers[3][1].getErrorMessage()
    assert await store.read(notes) == ["a", "b", "c"]
    assert store.stalled is None
    await store.close()


@pytest_twisted.ensureDeferred
async def test_an_answer_is_on_disk(tmp_path: Path) -> None:
    """Another connection sees what was answered."""
    store = Store.open(url(tmp_path), tmp_path, reactor=reactor)
    await store.write(note("a"))
    other = sqlite3.connect(tmp_path / "latent.sqlite")
    assert other.execute("SELECT note FROM notes").fetchall() == [("a",)]
    other.close()
    await store.close()


def test_an_inline_write_has_fired(inline: Store) -> None:
    """Without a thread, a Deferred has fired when `write` returns, also with a failure."""
    assert result(inline.write(note("a"))) == 1
    with pytest.raises(NotFound):
        result(inline.write(bad))
    assert result(inline.read(notes)) == ["a"]


def test_a_failed_commit_fails_only_who_caused_it(inline: Store) -> None:
    """An error that shows only at the commit is pinned down to its operation."""

    def prepare(conn: Connection) -> None:
        conn.exec_driver_sql("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        conn.exec_driver_sql("CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")

    def orphan(conn: Connection) -> None:
        conn.exec_driver_sql("INSERT INTO child VALUES (7)")

    result(inline.write(prepare))
    report = inline._writer._committer.run([note("a"), note("b"), orphan, note("c"), note("d")])
    assert [answer if isinstance(answer, int) else answer.type for answer in report.answers] == [1, 2, StoreError, 3, 4]
    assert result(inline.read(notes)) == ["a", "b", "c", "d"]


def test_a_locked_database_stalls_the_store(tmp_path: Path) -> None:
    """While another process holds the lock nothing is answered and `stalled` says why; then all is, in order."""
    clock = Clock()
    store = open_inline(tmp_path, clock, busy_timeout=0.01)
    lock = Lock(tmp_path)
    first, second = store.write(note("a")), store.write(note("b"))
    assert pending(first)
    assert store.stalled is not None
    assert "another process holds a lock" in store.stalled
    assert str(tmp_path) in store.stalled
    order: list[str] = []
    first.addCallback(
        lambda n: (order.append(f"first {n}"), store.write(note("c")).addCallback(lambda n: order.append(f"c {n}")))
    )
    second.addCallback(lambda n: order.append(f"second {n}"))
    clock.advance(0.1)
    assert pending(first)
    assert store.stalled is not None
    lock.release()
    clock.advance(0.2)
    assert store.stalled is None
    # What is written from inside a callback comes behind what had been written before.
    assert order == ["first 1", "second 2", "c 3"]
    assert result(store.read(notes)) == ["a", "b", "c"]
    result(store.close())


@pytest_twisted.ensureDeferred
async def test_a_locked_database_stalls_the_thread(tmp_path: Path) -> None:
    """The same with the writer in its thread."""
    clock = WatchedClock()
    store = Store.open(url(tmp_path), tmp_path, reactor=reactor, clock=clock, busy_timeout=0.01)
    lock = Lock(tmp_path)
    writes = gatherResults([store.write(note(str(i))) for i in range(20)])
    await clock.waits
    assert store.stalled is not None
    lock.release()
    clock.advance(1)
    assert await writes == list(range(1, 21))
    assert store.stalled is None
    await store.close()


def test_the_back_off_grows_to_its_limit(tmp_path: Path) -> None:
    clock = Clock()
    store = open_inline(tmp_path, clock, busy_timeout=0)
    lock = Lock(tmp_path)
    answer = store.write(note("a"))
    waits = []
    for _ in range(8):
        waits.append(clock.getDelayedCalls()[0].getTime() - clock.seconds())
        clock.advance(waits[-1])
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    lock.release()
    clock.advance(5)
    assert result(answer) == 1
    result(store.close())


def test_a_full_disk_stalls_the_store(tmp_path: Path) -> None:
    """What does not fit is not lost: it is written once there is room. Nothing of it shows before."""
    clock = Clock()
    store = open_inline(tmp_path, clock)
    result(store.write(note("a")))
    full = True

    @event.listens_for(store.engine, "connect")
    def connected(connection: Any, record: Any) -> None:
        if full:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")

    store._writer._committer._drop()
    answer = store.write(note("x" * 100_000))
    behind = store.write(note("b"))
    assert pending(answer)
    assert "the disk is full" in str(store.stalled)
    assert "free some space" in str(store.stalled)
    assert result(store.read(notes)) == ["a"]
    clock.advance(0.1)
    assert pending(answer)
    full = False
    clock.advance(0.2)
    assert store.stalled is None
    assert (result(answer), result(behind)) == (2, 3)
    result(store.close())


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("disk I/O error", "I/O error"),
        ("attempt to write a readonly database", "read-only"),
        ("unable to open database file", "can't be opened"),
        ("database or disk is full", "disk is full"),
    ],
)
def test_other_obstacles_are_waited_for(tmp_path: Path, message: str, reason: str) -> None:
    """The second of three operations meets an obstacle once: all three are written, once each, in order."""
    clock = Clock()
    store = open_inline(tmp_path, clock)
    faults = [sqlite3.OperationalError(message)]

    def unlucky(conn: Connection) -> int:
        if faults:
            raise faults.pop()
        return int(note("b")(conn))

    answers = [store.write(note("a")), store.write(unlucky), store.write(note("c"))]
    assert result(answers[0]) == 1
    assert pending(answers[1])
    assert reason in str(store.stalled)
    clock.advance(0.1)
    assert [result(answer) for answer in answers[1:]] == [2, 3]
    assert result(store.read(notes)) == ["a", "b", "c"]
    result(store.close())


def test_damage_is_not_waited_for(inline: Store) -> None:
    """An operation that meets a damaged page fails with `StoreCorrupt`; others go on."""

    def damaged(conn: Connection) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with pytest.raises(StoreCorrupt, match="restore it from a backup"):
        result(inline.write(damaged))
    assert inline.stalled is None
    assert result(inline.write(note("a"))) == 1


@pytest_twisted.ensureDeferred
async def test_closing_writes_what_is_queued(tmp_path: Path) -> None:
    """What was written before `close` is on disk after it; nothing can be written any more."""
    store = Store.open(url(tmp_path), tmp_path, reactor=reactor)
    writes = [store.write(note(str(i))) for i in range(50)]
    await gatherResults([store.close(), store.close()])
    assert [result(answer) for answer in writes] == list(range(1, 51))
    for call in (store.write, store.read):
        with pytest.raises(StoreError, match="the store is closed"):
            result(call(notes))
    await store.close()


def test_closing_a_stalled_store_tells_who_waits(tmp_path: Path) -> None:
    """What can't be written at the end fails with the reason."""
    store = open_inline(tmp_path, busy_timeout=0)
    lock = Lock(tmp_path)
    answers = [store.write(note("a")), store.write(note("b"))]
    result(store.close())
    for answer in answers:
        with pytest.raises(StoreError, match=r"not written, because the store was closed: .*holds a lock"):
            result(answer)
    lock.release()


def test_closing_tries_once_more(tmp_path: Path) -> None:
    """A stalled store whose obstacle is gone is written when it is closed."""
    store = open_inline(tmp_path, busy_timeout=0)
    lock = Lock(tmp_path)
    answer = store.write(note("a"))
    lock.release()
    result(store.close())
    assert result(answer) == 1
    assert not list(tmp_path.glob("*-wal"))


@pytest_twisted.ensureDeferred
async def test_closing_from_an_answer(tmp_path: Path) -> None:
    """The callback of a write may close the store."""
    for threaded in (True, False):
        store = Store.open(url(tmp_path), tmp_path, threaded=threaded, reactor=reactor)
        closed: list[Deferred[None]] = []
        await store.write(lambda conn: None).addCallback(lambda _, store=store, closed=closed: closed.append(store.close()))
        await closed[0]
