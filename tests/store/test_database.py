"""Opening and closing the store."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from latent.errors import StoreCorrupt, StoreError
from latent.model import LogLine
from latent.store import builds
from latent.store.database import Store
from latent.store.runs_sql import SqlRunStore
from tests.store.helpers import REQUEST, open_inline, result, url


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("latent.sqlite*")}


def test_identity_is_kept(tmp_path: Path) -> None:
    """Controller id and secret are made once, and differ between controllers."""
    first = open_inline(tmp_path / "a")
    result(first.close())
    again, other = open_inline(tmp_path / "a"), open_inline(tmp_path / "b")
    assert (again.controller_id, again.secret) == (first.controller_id, first.secret)
    assert other.controller_id != first.controller_id
    assert other.secret != first.secret
    assert len(first.secret) == 32
    assert len(first.controller_id) == 32
    result(again.close())
    result(other.close())


def test_state_is_private(tmp_path: Path) -> None:
    """State directory 0700, also where it was there with other permissions; database 0600."""
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    store = open_inline(state)
    result(store.write(lambda conn: builds.insert(conn, REQUEST, 1.0)))
    assert state.stat().st_mode & 0o777 == 0o700
    for path in state.glob("latent.sqlite*"):
        assert path.stat().st_mode & 0o777 == 0o600
    result(store.close())


def test_the_settings_are_as_promised(tmp_path: Path) -> None:
    """SQLite: write-ahead log, synchronous FULL, foreign keys on."""
    store = open_inline(tmp_path)

    def settings(conn: Any) -> list[Any]:
        return [conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("journal_mode", "synchronous", "foreign_keys")]

    assert result(store.write(settings)) == ["wal", 2, 1]
    result(store.close())


def test_reading_can_not_write(tmp_path: Path) -> None:
    store = open_inline(tmp_path)
    with pytest.raises(StoreError, match="readonly"):
        result(store.read(lambda conn: builds.insert(conn, REQUEST, 1.0)))
    assert result(store.read(builds.unfinished)) == ([], {})
    result(store.close())


def test_a_second_controller_is_refused(tmp_path: Path) -> None:
    """The message names the holder; once that one has closed, the directory is free."""
    first = open_inline(tmp_path)
    with pytest.raises(StoreError, match=rf"in use by the controller of process {os.getpid()}; stop that one first"):
        open_inline(tmp_path)
    result(first.close())
    result(open_inline(tmp_path).close())


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """Also when the first is another process; its death frees the directory."""
    code = "import sys, pathlib; from tests.store.helpers import open_inline; open_inline(pathlib.Path(sys.argv[1])); "
    code += "print('open', flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(StoreError, match=f"process {child.pid};"):
            open_inline(tmp_path)
        child.kill()
    result(open_inline(tmp_path).close())


def test_a_failed_opening_leaves_no_lock(tmp_path: Path) -> None:
    (tmp_path / "latent.sqlite").write_bytes(b"x" * 5000)
    for _ in range(2):
        with pytest.raises(StoreCorrupt):
            open_inline(tmp_path)


@pytest.mark.parametrize("damage", ["no database", "page", "cut"])
def test_a_damaged_database_is_refused(tmp_path: Path, damage: str) -> None:
    """The error names the file and the remedy, and the file is left as it was, byte for byte."""
    store = open_inline(tmp_path)
    for _ in range(200):
        result(store.write(lambda conn: builds.insert(conn, REQUEST, 1.0)))
    result(store.close())
    path = tmp_path / "latent.sqlite"
    data = bytearray(path.read_bytes())
    assert len(data) > 100_000
    if damage == "no database":
        data[:100] = b"\xff" * 100
    elif damage == "page":
        for page in range(2, len(data) // 4096, 3):
            data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    else:
        del data[len(data) // 2 :]
    path.write_bytes(data)
    before = digests(tmp_path)
    for open_it in (open_inline, lambda folder: SqlRunStore.open(url(folder))):
        with pytest.raises(
            StoreCorrupt, match=r"latent\.sqlite is damaged .* was left as it is; restore it from a backup, or move"
        ):
            open_it(tmp_path)
    assert {name: digest for name, digest in digests(tmp_path).items() if name in before} == before


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    (tmp_path / "latent.sqlite").touch()
    result(open_inline(tmp_path).close())


def test_a_deleted_database_is_missed(tmp_path: Path) -> None:
    """A database that is removed is not silently replaced by an empty one."""
    store = open_inline(tmp_path)
    for path in tmp_path.glob("latent.sqlite*"):
        path.unlink()
    with pytest.raises(StoreError, match="can't be opened"):
        result(store.read(builds.live_runs))
    result(store.close())


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("nonsense", "is not a URL; write"),
        ("mysql://host/name", 'no support for "mysql"; use sqlite or postgresql'),
        ("sqlite:////proc/nowhere/latent.sqlite", "can't be opened: No such file or directory; make"),
    ],
)
def test_a_bad_url_is_refused(tmp_path: Path, bad: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        Store.open(bad, tmp_path, threaded=False)


def test_a_state_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(StoreError, match=r"state directory .*state can't be used: File exists"):
        open_inline(tmp_path / "state")


def test_a_locked_database_can_not_be_opened(tmp_path: Path) -> None:
    """A new database that somebody holds is refused after the patience given, with the reason."""
    conn = sqlite3.connect(tmp_path / "latent.sqlite", isolation_level=None)
    conn.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match=r"another process holds a lock on it .*fuser"):
        open_inline(tmp_path, busy_timeout=0)
    conn.close()


def test_in_memory(tmp_path: Path) -> None:
    """A database in memory serves tests; a controller with threads is refused it."""
    store = Store.open("sqlite://", tmp_path, threaded=False)
    build = result(store.write(lambda conn: builds.insert(conn, REQUEST, 1.0)))
    assert result(store.read(lambda conn: builds.get(conn, build.id))) == build
    result(store.close())
    with pytest.raises(StoreError, match="a database in memory is lost with the controller; name a file"):
        Store.open("sqlite://", tmp_path, reactor=reactor)


@pytest_twisted.ensureDeferred
async def test_reads_run_beside_the_writer(tmp_path: Path) -> None:
    """Many reads at once are answered while writes go on, and each sees what was answered before it."""
    store = Store.open(url(tmp_path), tmp_path, reactor=reactor)

    async def write_and_read() -> bool:
        build = await store.write(lambda conn: builds.insert(conn, REQUEST, 1.0))
        found = await store.read(lambda conn: builds.get(conn, build.id))
        return bool(found == build)

    assert all(await gatherResults([Deferred.fromCoroutine(write_and_read()) for _ in range(40)]))
    await store.close()


@pytest_twisted.ensureDeferred
async def test_a_log_is_finished_in_a_thread(tmp_path: Path) -> None:
    for threaded in (True, False):
        store = Store.open(url(tmp_path), tmp_path, threaded=threaded, reactor=reactor)
        run_id = 1 + threaded
        store.logs.append(run_id, [LogLine(step_uuid="u", line=0, time=0.0, stream="stdout", text="x")])
        await store.finish_log(run_id)
        assert store.logs.path(run_id).suffix == ".gz"
        await store.close()
        with pytest.raises(StoreError, match="the store is closed"):
            await store.finish_log(run_id)


def test_closing_gives_back_all_descriptors(tmp_path: Path) -> None:
    result(open_inline(tmp_path).close())
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        store = open_inline(tmp_path)
        result(store.write(lambda conn: builds.insert(conn, REQUEST, 1.0)))
        result(store.read(builds.live_runs))
        result(store.close())
    assert len(os.listdir("/proc/self/fd")) == before
