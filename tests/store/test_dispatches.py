"""Dispatches: a machine has one at a time, and the same again is that one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from latent.model import BuildState, Dispatch
from latent.store import builds
from latent.store.database import Store
from latent.store.dispatches import Dispatched, dispatch
from latent.store.runs import MachineBusy, PrepareOutcome
from latent.store.runs_sql import SqlRunStore, find, get
from tests.store.helpers import REQUEST, finish, open_inline, result
from tests.store.run_store_contract import run

CREATED, REUSE = PrepareOutcome.CREATED, PrepareOutcome.REUSE
D1 = evolve(REQUEST, dispatch=Dispatch(machine="m1", test_dir="/t", test_dir_hash="h1", batch_id="b", plan_entry="e"))
D2 = evolve(REQUEST, dispatch=Dispatch(machine="m1", test_dir="/other", test_dir_hash="h2"))


@pytest.fixture
def store(tmp_path: Path) -> Any:
    store = open_inline(tmp_path)
    yield store
    result(store.close())


def write(store: Store, op: Any) -> Any:
    return result(store.write(op))


def dispatched(store: Store, request: Any = D1, workers: Any = ("m1",)) -> Dispatched:
    return write(store, lambda conn: dispatch(conn, request, workers, 1.0))  # type: ignore[no-any-return]


def claimed(store: Store, id: int, machine: str = "m1") -> int:
    return write(store, lambda conn: builds.claim(conn, id, machine, machine, 1, 2.0, D1.dispatch))  # type: ignore[no-any-return]


def count(store: Store) -> int:
    return len(write(store, builds.list_builds))


def test_a_dispatch_is_a_build_that_comes_back_as_it_was(store: Store) -> None:
    made = dispatched(store)
    assert made == Dispatched(CREATED, 1, None)
    build = write(store, lambda conn: builds.get(conn, 1))
    assert (build.request, build.state) == (D1, BuildState.QUEUED)


def test_its_runs_say_what_was_dispatched(store: Store) -> None:
    """The record has directory, hash, batch and entry."""
    dispatched(store)
    id = claimed(store, 1)
    record = write(store, lambda conn: get(conn, str(id)))
    assert (record.machine, record.test_dir, record.test_dir_hash) == ("m1", "/t", "h1")
    assert (record.batch_id, record.plan_entry) == ("b", "e")


def test_the_same_again_is_that_one(store: Store) -> None:
    """From its queueing to its end, also between two runs; then it is a new one."""
    dispatched(store)
    assert dispatched(store) == Dispatched(REUSE, 1, None)
    first = claimed(store, 1)
    again = dispatched(store)
    assert (again.outcome, again.build_id, again.run and again.run.id) == (REUSE, 1, str(first))
    write(store, lambda conn: finish(conn, first, requeue=True))
    assert dispatched(store) == Dispatched(REUSE, 1, None)
    second = claimed(store, 1)
    write(store, lambda conn: finish(conn, second))
    assert dispatched(store) == Dispatched(CREATED, 2, None)


def test_another_is_busy_and_nothing_is_stored(store: Store) -> None:
    """The error names the build and, as soon as there is one, its run."""
    dispatched(store)
    with pytest.raises(MachineBusy, match=r"machine m1 is busy with build 1 \(pending, /t\); wait") as busy:
        dispatched(store, D2)
    assert (busy.value.build_id, busy.value.occupant.id) == (1, "")
    id = claimed(store, 1)
    with pytest.raises(MachineBusy, match=rf"machine m1 is busy with run {id} of build 1 \(pending, /t\)"):
        dispatched(store, D2)
    assert count(store) == 1
    write(store, lambda conn: finish(conn, id))
    assert dispatched(store, D2).outcome is CREATED
    assert dispatched(store, evolve(D2, dispatch=evolve(D2.dispatch, machine="m2")), ("m2",)).outcome is CREATED


def test_any_run_occupies_the_machine(store: Store) -> None:
    """One of another build, on any slot and any worker of the machine, or of another process."""
    build = write(store, lambda conn: builds.insert(conn, REQUEST, 1.0))
    id = write(store, lambda conn: builds.claim(conn, build.id, "w1/2", "w1", 1, 2.0))
    with pytest.raises(MachineBusy, match=rf"machine w1/2 is busy with run {id} of build 1"):
        dispatched(store, D1, ("w0", "w1"))
    assert dispatched(store, D1, ("w0", "w2")).outcome is CREATED
    assert count(store) == 2


def test_the_same_run_of_another_process_is_found(store: Store) -> None:
    """It is no build's; another hash is busy with it."""
    other = SqlRunStore(store.engine)
    theirs = other.create(run())
    assert dispatched(store) == Dispatched(REUSE, None, theirs)
    with pytest.raises(MachineBusy, match=rf"busy with run {theirs.id} \(pending, /t\)"):
        dispatched(store, D2)


def test_a_claim_takes_no_run_of_others(store: Store) -> None:
    """A run for the same hash that another process has created meanwhile is not the build's."""
    dispatched(store)
    theirs = SqlRunStore(store.engine).create(run())
    with pytest.raises(MachineBusy):
        claimed(store, 1)
    assert write(store, lambda conn: find(conn)) == [theirs]
    assert write(store, lambda conn: builds.get(conn, 1)).state is BuildState.QUEUED
