"""The same store on a real PostgreSQL server, started for these tests."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import Clock

from latent.errors import NotFound, StoreError
from latent.model import Attempt, BuildState, RunStatus, StepState, StepStatus
from latent.store import attempts, builds, journal, runs, schema, sessions
from latent.store.database import Store
from latent.store.runs_sql import SqlRunStore
from tests.requires import require
from tests.store.helpers import REQUEST, finish, pending, result
from tests.store.run_store_contract import RunStoreContract
from tests.store.workflow_life import lead

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name)) or [
    Path(shutil.which("postgres") or "/nowhere/postgres").parent
]
require((BINARIES[-1] / "initdb").exists(), "a PostgreSQL server", "apt-get install postgresql")
require(importlib.util.find_spec("psycopg"), "the driver psycopg", "pip install 'latent[postgres]'")


def unprivileged() -> list[str]:
    """What a command starts with so that it does not run as root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return []
    require(shutil.which("setpriv"), "setpriv", "apt-get install util-linux, or run the tests as another user")
    return ["setpriv", "--reuid=nobody", f"--regid={pwd.getpwnam('nobody').pw_gid}", "--clear-groups"]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The folder of the socket of a new server."""
    prefix = unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="latent-pg-"))
    try:
        if prefix:
            shutil.chown(folder, "nobody")
        settings = {"listen_addresses": "", "unix_socket_directories": folder, "fsync": "off", "autovacuum": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        initdb = [
            *prefix,
            BINARIES[-1] / "initdb",
            "-D",
            folder / "data",
            "-U",
            "latent",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ]
        subprocess.run(initdb, check=True, cwd=folder, capture_output=True)
        command = [*prefix, BINARIES[-1] / "postgres", "-D", folder / "data", *options]
        with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            log = []
            for line in process.stderr:
                log.append(line)
                if "ready to accept connections" in line:
                    break
            else:
                pytest.fail(f"the server did not start:\n{''.join(log)}")
            yield str(folder)
            process.terminate()
            process.communicate()
    finally:
        shutil.rmtree(folder)


NAMES = count()


@pytest.fixture
def address(server: str) -> Iterator[str]:
    """The URL of a new, empty database."""
    name = f"test_{next(NAMES)}"
    root = create_engine(f"postgresql+psycopg://latent@/postgres?host={server}", isolation_level="AUTOCOMMIT")
    with root.connect() as conn:
        conn.execute(text(f"CREATE DATABASE {name}"))
    yield f"postgresql://latent@/{name}?host={server}"
    with root.connect() as conn:
        conn.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    root.dispose()


class TestRunStore(RunStoreContract):
    calls = 1000

    @pytest.fixture
    def store(self, address: str) -> Any:
        store = SqlRunStore.open(address)
        yield store
        store.close()


def test_the_revisions_add_up_to_the_schema(address: str, tmp_path: Path) -> None:
    for _ in range(2):
        store = Store.open(address, tmp_path, threaded=False)
        with store.engine.begin() as conn:
            assert compare_metadata(MigrationContext.configure(conn), schema.metadata) == []
        result(store.close())


def test_a_workflows_life(address: str, tmp_path: Path) -> None:
    store = Store.open(address, tmp_path, threaded=False)
    lead(store)
    result(store.close())


def test_a_builds_life(address: str, tmp_path: Path) -> None:
    """Every statement that a build's life takes runs here as well."""
    store = Store.open(address, tmp_path, threaded=False)

    def write(op: Any) -> Any:
        return result(store.write(op))

    attempt = Attempt("w", 1)
    build = write(lambda conn: builds.insert(conn, REQUEST, 1.0))
    other = write(lambda conn: builds.insert(conn, REQUEST, 1.5))
    write(lambda conn: attempts.begin(conn, attempt, "h", 1.0))
    write(lambda conn: attempts.begin(conn, attempt, "h", 1.0))
    write(lambda conn: attempts.set_handle(conn, attempt, {"pid": 5}))
    write(lambda conn: journal.record(conn, "w", 1.0, "Started", {"x": "é"}, {"state": "SUBSTANTIATED", "attempt": 1}))
    write(lambda conn: journal.save_quarantine(conn, "w", {"until": 1}))
    assert write(lambda conn: attempts.use_token(conn, "h", 2.0)) == attempt
    session = write(lambda conn: sessions.open_session(conn, worker="w", attempt=None, protocol="peer", token_hash="h", at=2.0))
    write(lambda conn: sessions.update_session(conn, session, capacity=1, labels={"a": "b"}, info={}))
    run_id = write(lambda conn: builds.claim(conn, build.id, "w", "w", 1, 2.0))
    with pytest.raises(runs.MachineBusy):
        write(lambda conn: builds.claim(conn, other.id, "w", "w", 1, 2.0))
    write(lambda conn: builds.activate(conn, run_id, session, 3.0))
    step = StepState(uuid="u", status=StepStatus.FAILURE, exit_code=2, error="a\0b")
    write(lambda conn: builds.set_step(conn, run_id, step))
    write(lambda conn: builds.set_step(conn, run_id, step))
    assert [live.session_id for live in result(store.read(builds.live_runs))] == [session]
    write(lambda conn: builds.request_cancel(conn, build.id, 3.5))
    write(lambda conn: finish(conn, run_id))
    write(lambda conn: sessions.close_session(conn, session, "bye", 4.0))
    write(lambda conn: attempts.condemn(conn, attempt, "lost", 5.0))
    write(lambda conn: attempts.condemn(conn, attempt, "again", 5.0))
    write(lambda conn: attempts.destroy_failed(conn, attempt, "x", 6.0))
    assert [(each.reason, each.tries) for each in result(store.read(attempts.condemned))] == [("lost", 1)]
    write(lambda conn: attempts.gone(conn, attempt, 7.0))
    write(lambda conn: attempts.stopped(conn, attempt, 7.0))
    assert result(store.read(attempts.live)) == []
    assert result(store.read(sessions.open_sessions)) == []
    done = result(store.read(lambda conn: builds.list_builds(conn, states=[BuildState.FINISHED])))
    assert [each.id for each in done] == [build.id]
    assert result(store.read(builds.unfinished)) == ([other], {})
    (details,) = result(store.read(lambda conn: builds.runs_of(conn, build.id)))
    assert details.run.status is RunStatus.COMPLETED
    assert [each.error for each in details.steps] == ["a\ufffdb"]
    assert [entry.detail for entry in result(store.read(lambda conn: journal.history(conn, "w")))] == [{"x": "é"}]
    assert result(store.read(journal.load_quarantines)) == {"w": {"until": 1}}
    assert write(lambda conn: journal.prune(conn, 100.0)) == 1
    with pytest.raises(StoreError, match="read-only"):
        result(store.read(lambda conn: builds.insert(conn, REQUEST, 1.0)))
    result(store.close())


@pytest_twisted.ensureDeferred
async def test_group_commit(address: str, tmp_path: Path) -> None:
    """In order, and a bad operation fails alone."""
    store = Store.open(address, tmp_path, reactor=reactor)
    insert = store.write

    def bad(conn: Any) -> None:
        builds.insert(conn, REQUEST, 1.0)
        raise NotFound("x")

    ops = [bad if n % 10 == 5 else lambda conn: builds.insert(conn, REQUEST, 1.0).submitted_at for n in range(40)]
    answers = await DeferredList([insert(op) for op in ops], consumeErrors=True)
    assert [ok for ok, _ in answers] == [n % 10 != 5 for n in range(40)]
    found = await gatherResults([store.read(lambda conn: len(builds.list_builds(conn, limit=100))) for _ in range(10)])
    assert found == [36] * 10
    await store.close()


def test_a_lost_connection_stalls_the_store(address: str, tmp_path: Path) -> None:
    """The server ends the connection: nothing is lost, the store connects again."""
    clock = Clock()
    store = Store.open(address, tmp_path, threaded=False, clock=clock)
    first = result(store.write(lambda conn: builds.insert(conn, REQUEST, 1.0)))
    pid = result(store.write(lambda conn: conn.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()))
    with store.engine.begin() as other:
        other.execute(text(f"SELECT pg_terminate_backend({pid}, 5000)"))
    answer: Deferred[Any] = store.write(lambda conn: builds.insert(conn, REQUEST, 2.0))
    assert pending(answer)
    assert store.stalled is not None
    assert "goes on by itself" in store.stalled
    clock.advance(0.1)
    assert result(answer).submitted_at == 2.0
    assert store.stalled is None
    assert len(result(store.read(builds.unfinished))[0]) == 2
    assert first.id != result(answer).id
    result(store.close())


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    """The message has the remedy, and no password."""
    with pytest.raises(StoreError, match="check that the server runs") as caught:
        Store.open(f"postgresql://latent:secret@/x?host={tmp_path}", tmp_path, threaded=False)
    assert "secret" not in str(caught.value)
