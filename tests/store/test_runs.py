"""The contract of run stores, in SQLite."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from latent.errors import StoreError
from latent.store import builds
from latent.store.engine import open_engines
from latent.store.runs_sql import SqlRunStore
from tests.store.helpers import REQUEST, open_inline, result, url
from tests.store.run_store_contract import FileContract, run


class TestSqlRunStore(FileContract):
    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        return url(tmp_path / "state")

    @pytest.fixture
    def store(self, address: str) -> Any:
        store = SqlRunStore.open(address)
        yield store
        store.close()

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "state" / "latent.sqlite"


def test_it_works_beside_a_controller(tmp_path: Path) -> None:
    """Both see each other's runs: a machine that one has taken is busy for the other. Builds' runs are not reconciled."""
    store = open_inline(tmp_path)
    runs = SqlRunStore.open(url(tmp_path))
    build, other = (result(store.write(lambda conn: builds.insert(conn, REQUEST, 1.0))) for _ in range(2))
    run_id = result(store.write(lambda conn: builds.claim(conn, build.id, "m1", "w", 1, 2.0)))
    assert runs.prepare_atomic("m1", "h1", run)[0].id == str(run_id)
    taken = runs.create(run("m2"))
    with pytest.raises(StoreError, match=rf"machine m2 is busy with run {taken.id}"):
        result(store.write(lambda conn: builds.claim(conn, other.id, "m2", "w", 1, 2.0)))
    assert runs.reconcile(1e12, lambda owner: False) == []
    assert [live.run_id for live in result(store.read(builds.live_runs))] == [run_id]
    runs.close()
    result(store.close())


def test_a_locked_database_is_an_error(tmp_path: Path) -> None:
    """It waits for a while, then says who is in the way."""
    SqlRunStore.open(url(tmp_path)).close()
    engines = open_engines(url(tmp_path), busy_timeout=0)
    store = SqlRunStore(engines.write, engines.place)
    conn = sqlite3.connect(tmp_path / "latent.sqlite", isolation_level=None)
    conn.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another process holds a lock on it"):
        store.prepare_atomic("m1", "h1", run)
    conn.close()
    assert store.list() == []
    store.close()
