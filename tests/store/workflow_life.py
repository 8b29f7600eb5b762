"""A workflow's life in the store, with every statement that it takes, on any database."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from sqlalchemy.exc import IntegrityError

from latent.errors import NotFound, StoreError
from latent.model import BuildState, Result
from latent.store import builds, tasks
from latent.store import workflows as rows
from latent.store.database import Store
from latent.store.tasks import Moved, NewTask, TaskOfArray, TaskOfBuild, Try
from latent.store.workflows import WorkflowRow
from tests.store.helpers import REQUEST, finish, result

LETTERS = "GQIORDEAF"


def bind(conn: Any, digest: str, number: int) -> WorkflowRow:
    return rows.bind(
        conn,
        digest=digest,
        name="näme\0",
        tasks=number,
        max_running=5,
        fail_fast=True,
        arrays=[{"name": "a"}, {"name": "b"}],
        at=1.0,
    )


def new(number: int, array_id: int, first: int) -> list[NewTask]:
    """Each waits for the one before it; every other has something of its own."""
    needs = {"memory": 1}
    return [
        NewTask(array_id, f"t{n}", 3, needs, {"properties": {"é": n}, "labels": {}} if n % 2 else None, [first + n + 1])
        for n in range(number)
    ]


def lead(store: Store) -> None:
    """Bind, add, link, queue, follow, settle, reset."""

    def write(op: Any) -> Any:
        return result(store.write(op))

    def read(op: Any) -> Any:
        return result(store.read(op))

    # --- definitions
    other = write(lambda conn: bind(conn, "other", 7))
    workflow = write(lambda conn: bind(conn, "digest", 20))
    assert workflow == write(lambda conn: bind(conn, "digest", 99))
    assert (workflow.first_task, workflow.end, workflow.status, workflow.bound) == (other.end, other.end + 20, "G", 0)
    assert (workflow.name, workflow.fail_fast) == ("näme\ufffd", True)
    assert read(lambda conn: rows.by_digest(conn, "nobody's")) is None
    assert read(lambda conn: rows.by_digest(conn, "digest")) == workflow
    assert read(lambda conn: [row.id for row in rows.latest(conn, 5)]) == [workflow.id, other.id]
    ids = read(lambda conn: rows.array_ids(conn, workflow.id))
    assert [row.definition for row in read(lambda conn: rows.arrays(conn, workflow.id))] == [{"name": "a"}, {"name": "b"}]
    assert read(lambda conn: rows.array(conn, workflow.id, ids[1])).definition == {"name": "b"}
    for missing in (
        lambda conn: rows.get(conn, 99),
        lambda conn: rows.array(conn, other.id, ids[0]),
        lambda conn: rows.run(conn, 99),
    ):
        with pytest.raises(NotFound):
            read(missing)
    write(lambda conn: tasks.add(conn, workflow, 0, new(12, ids[0], workflow.first_task)))
    write(lambda conn: tasks.add(conn, workflow, 12, new(8, ids[1], workflow.first_task + 12)))
    write(lambda conn: rows.set_bound(conn, workflow.id, 20))
    write(lambda conn: rows.set_status(conn, workflow.id, "Q"))
    assert read(lambda conn: rows.get(conn, workflow.id)) == evolve(workflow, bound=20, status="Q")
    with pytest.raises((StoreError, IntegrityError)):
        write(lambda conn: tasks.add(conn, workflow, 3, new(1, ids[0], 0)))
    # --- what there is
    first = workflow.first_task
    page = read(lambda conn: tasks.page(conn, workflow, first, 5, "GQ"))
    assert [row[:4] for row in page] == [(first + n, ids[0], f"t{n}", "G") for n in range(1, 6)]
    assert tasks.resources_of(page[0][6], page[0][0]) == {"memory": 1}
    assert read(lambda conn: tasks.page(conn, workflow, 0, 5, "QIORDEAF")) == []
    assert read(lambda conn: tasks.page(conn, other, 0, 50, LETTERS)) == []
    for wanted in (range(first, first + 20), [first, first + 19], [first - 1, first + 3, first + 20], []):
        found = dict(read(lambda conn, wanted=wanted: tasks.downstream(conn, workflow, list(wanted))))
        assert {id: tasks.ids_of(text, id) for id, text in found.items()} == {
            id: [id + 1] for id in wanted if first <= id < first + 20
        }
    assert read(lambda conn: sorted(tasks.counts(conn, workflow))) == [(ids[0], "G", 12), (ids[1], "G", 8)]
    assert read(lambda conn: tasks.any_not_done(conn, workflow)) == ("t0", "G")
    assert read(lambda conn: tasks.any_not_done(conn, other)) is None
    assert read(lambda conn: tasks.several(conn, other, [first])) == []
    own = {"properties": {"é": 1}, "labels": {}}
    task = TaskOfArray(first + 1, ids[0], "t1", "G", 0, None, own)
    assert read(lambda conn: tasks.several(conn, workflow, [first + 1])) == [task]
    # --- a run
    assert read(lambda conn: rows.last_run(conn, workflow.id)) is None
    run = write(lambda conn: rows.begin_run(conn, workflow.id, "somebody\0", 10.0, 20.0))
    assert (run.status, run.heartbeat_at, run.report_by, run.driver) == ("L", 10.0, 20.0, "somebody\ufffd")
    with pytest.raises((StoreError, IntegrityError)):
        write(lambda conn: rows.begin_run(conn, workflow.id, "another", 10.0, 20.0))
    write(lambda conn: rows.heard(conn, run.id, "R", 11.0, 21.0))
    write(lambda conn: rows.set_run_status(conn, run.id, "H"))
    run = read(lambda conn: rows.run(conn, run.id))
    assert (run.status, run.heartbeat_at, run.report_by, run.ended_at) == ("H", 11.0, 21.0, None)
    assert read(rows.open_runs) == [run] == [read(lambda conn: rows.last_run(conn, workflow.id))]
    # --- builds
    assert read(lambda conn: tasks.last_change(conn, workflow.id)) == 0.0
    wanted = [(first + n, 1, REQUEST) for n in range(3)]
    made = write(lambda conn: tasks.queue(conn, run.id, wanted, {"memory": 2}, 1, at=30.0, now=12.0))
    assert [build.request for build in made] == [REQUEST] * 3
    with pytest.raises((StoreError, IntegrityError)):
        write(lambda conn: tasks.queue(conn, run.id, wanted[:1], {}, 0, at=30.5, now=12.0))
    write(lambda conn: tasks.refuse(conn, [(first + 3, 1, "no\0")], "refused", {}, 0, 31.0))
    assert read(lambda conn: tasks.states(conn, workflow, [first, first + 3, 1])) == [
        (first, "I", 1, made[0].id, None, ""),
        (first + 3, "F", 1, None, "refused", "no\ufffd"),
    ]
    assert read(lambda conn: tasks.moved(conn, workflow.id)) == []
    assert read(lambda conn: tasks.of_build(conn, made[1].id)) == TaskOfBuild(workflow.id, "näme\ufffd", first + 1, "t1", 1)
    assert read(lambda conn: tasks.of_build(conn, 999)) is None
    claimed = [write(lambda conn, n=n: builds.claim(conn, made[n].id, f"m{n}", "w", 1, 13.0)) for n in range(2)]
    write(lambda conn: builds.activate(conn, claimed[0], 1, 14.0))
    write(lambda conn: builds.request_cancel(conn, made[2].id, 15.0))
    assert sorted(read(lambda conn: tasks.moved(conn, workflow.id)), key=lambda moved: moved.task_id) == [
        Moved(first, "I", made[0].id, "running", None, ""),
        Moved(first + 1, "I", made[1].id, "starting", None, ""),
    ]
    write(lambda conn: tasks.move(conn, [(first, "R", None, ""), (first + 1, "O", None, "")], 32.0))
    assert read(lambda conn: tasks.moved(conn, workflow.id)) == []
    assert read(lambda conn: tasks.building(conn, workflow.id)) == [
        (first, "R", made[0].id, False),
        (first + 1, "O", made[1].id, False),
        (first + 2, "I", made[2].id, True),
    ]
    write(lambda conn: finish(conn, claimed[0]))
    write(lambda conn: builds.end(conn, made[2].id, Result.CANCELLED, "no", 16.0))
    assert {moved.result for moved in read(lambda conn: tasks.moved(conn, workflow.id))} == {"success", "cancelled"}
    assert read(lambda conn: tasks.tries(conn, made[0].id)) == [Try(0, "", "")]
    write(lambda conn: tasks.move(conn, [(first, "D", None, ""), (first + 2, "E", "cancelled", "no")], 33.0))
    # --- what has changed
    changed = read(lambda conn: tasks.changed(conn, workflow.id, 31.0))
    assert sorted((row[0] - first, row[1]) for row in changed) == [(0, "D"), (1, "O"), (2, "E")]
    assert read(lambda conn: tasks.changed(conn, workflow.id, 1e300)) == []
    assert [row[0] - first for row in read(lambda conn: tasks.begun(conn, workflow, first, 2))] == [1, 2]
    assert read(lambda conn: tasks.last_change(conn, workflow.id)) == 33.0
    verdict = [(first + 1, "A", {"memory": 9}, 2), (first + 2, "A", {"memory": 4}, 0)]
    write(lambda conn: tasks.settle(conn, workflow.id, verdict, 34.0))
    page = read(lambda conn: tasks.page(conn, workflow, first, 2, LETTERS))
    assert [(row[3], row[6], row[7]) for row in page] == [("O", '{"memory":2}', 1), ("A", '{"memory":4}', 0)]
    # --- it begins anew
    write(lambda conn: tasks.reset(conn, workflow, "DRO"))
    assert read(lambda conn: sorted(row[1:] for row in tasks.counts(conn, workflow) if row[0] == ids[0])) == [
        ("D", 1),
        ("G", 10),
        ("O", 1),
    ]
    assert read(lambda conn: tasks.states(conn, workflow, [first + 2])) == [(first + 2, "G", 0, None, None, "")]
    write(lambda conn: rows.end_run(conn, run.id, "E", "lost", 40.0, lost=True))
    assert [lost.id for lost in read(rows.lost_runs)] == [run.id]
    assert read(rows.open_runs) == []
    second = write(lambda conn: rows.begin_run(conn, workflow.id, "another", 41.0, 50.0))
    assert read(rows.lost_runs) == []
    again = write(lambda conn: tasks.queue(conn, second.id, [(first + 2, 1, REQUEST)], {}, 0, at=42.0, now=42.0))
    assert again[0].state is BuildState.QUEUED
    write(lambda conn: rows.end_run(conn, second.id, "T", "", 43.0, lost=True))
    write(lambda conn: rows.noticed(conn, workflow.id))
    assert read(rows.lost_runs) == []
