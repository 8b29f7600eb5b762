"""Workflows, their arrays and their runs: tables workflows, workflow_arrays, workflow_runs. `latent.store.tasks` has the tasks.

Statuses are the letters of `latent.swarm.statuses`. At most one run of a workflow is not over; an index enforces it.
"""

# ruff: noqa: S608 -- what is put into the statements here are constants of this package
from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen
from sqlalchemy import Connection

from latent.errors import NotFound
from latent.model import JSON
from latent.store.codec import clean
from latent.store.schema import LOST_WORKFLOW_RUN, OPEN_WORKFLOW_RUN
from latent.store.sql import Row, Statement, dumps, loads


@frozen
class WorkflowRow:
    """``tasks``: how many there are to be; ``bound``: how many are stored. The one at position n has the id first_task + n."""

    id: int
    digest: str
    name: str
    status: str
    tasks: int
    bound: int
    first_task: int
    max_running: int
    fail_fast: bool
    created_at: float

    @property
    def end(self) -> int:
        """The first id after those of its tasks."""
        return self.first_task + self.tasks


@frozen
class ArrayRow:
    """``definition``: the document that `bind` was given."""

    id: int
    definition: JSON


@frozen
class RunRow:
    """A workflow run. ``lost_at``: its driver was given up then, and nobody has done anything about it."""

    id: int
    workflow_id: int
    status: str
    driver: str
    created_at: float
    heartbeat_at: float
    report_by: float
    ended_at: float | None
    lost_at: float | None
    reason: str


_WORKFLOW = "id, digest, name, status, tasks, bound, first_task, max_running, fail_fast, created_at"
# Others wait here for the end of this transaction: the ids of tasks are handed out by hand. The number is arbitrary but ours.
_LOCK_IDS = Statement("SELECT pg_advisory_xact_lock(7163925)")
_NEXT_TASK = Statement("SELECT first_task + tasks FROM workflows ORDER BY id DESC LIMIT 1")
_INSERT = Statement(
    "INSERT INTO workflows (digest, name, status, tasks, first_task, max_running, fail_fast, created_at)"
    " VALUES (:digest, :name, 'G', :tasks, :first_task, :max_running, :fail_fast, :at) RETURNING id"
)
_INSERT_ARRAY = Statement(
    "INSERT INTO workflow_arrays (workflow_id, position, definition) VALUES (:workflow_id, :position, :definition)"
)
_BY_DIGEST = Statement(f"SELECT {_WORKFLOW} FROM workflows WHERE digest = :digest")
_GET = Statement(f"SELECT {_WORKFLOW} FROM workflows WHERE id = :id")
_LATEST = Statement(f"SELECT {_WORKFLOW} FROM workflows ORDER BY id DESC LIMIT :limit")
_ARRAYS = Statement("SELECT id, definition FROM workflow_arrays WHERE workflow_id = :id ORDER BY position")
_ARRAY_IDS = Statement("SELECT id FROM workflow_arrays WHERE workflow_id = :id ORDER BY position")
_ARRAY = Statement("SELECT definition FROM workflow_arrays WHERE id = :id AND workflow_id = :workflow_id")
_SET_STATUS = Statement("UPDATE workflows SET status = :status WHERE id = :id")
_SET_BOUND = Statement("UPDATE workflows SET bound = :bound WHERE id = :id")

_RUN = "id, workflow_id, status, driver, created_at, heartbeat_at, report_by, ended_at, lost_at, reason"
_BEGIN_RUN = Statement(
    "INSERT INTO workflow_runs (workflow_id, status, driver, created_at, heartbeat_at, report_by)"
    f" VALUES (:workflow_id, 'L', :driver, :at, :at, :report_by) RETURNING {_RUN}"
)
_GET_RUN = Statement(f"SELECT {_RUN} FROM workflow_runs WHERE id = :id")
_LAST_RUN = Statement(f"SELECT {_RUN} FROM workflow_runs WHERE workflow_id = :workflow_id ORDER BY id DESC LIMIT 1")
_OPEN_RUNS = Statement(f"SELECT {_RUN} FROM workflow_runs WHERE {OPEN_WORKFLOW_RUN} ORDER BY id")
_LOST_RUNS = Statement(f"SELECT {_RUN} FROM workflow_runs WHERE {LOST_WORKFLOW_RUN} ORDER BY id")
_SET_RUN_STATUS = Statement("UPDATE workflow_runs SET status = :status WHERE id = :id")
_HEARD = Statement("UPDATE workflow_runs SET status = :status, heartbeat_at = :at, report_by = :report_by WHERE id = :id")
_END_RUN = Statement(
    "UPDATE workflow_runs SET status = :status, ended_at = :at, lost_at = :lost_at, reason = :reason WHERE id = :id"
)
_NOTICED = Statement("UPDATE workflow_runs SET lost_at = NULL WHERE workflow_id = :workflow_id AND lost_at IS NOT NULL")


# --- workflows and arrays ---------------------------------------------------------------------------------------------------


def bind(
    conn: Connection,
    *,
    digest: str,
    name: str,
    tasks: int,
    max_running: int,
    fail_fast: bool,
    arrays: Sequence[JSON],
    at: float,
) -> WorkflowRow:
    """The workflow of that digest: as it is, or new, with its arrays and the ids that its tasks will have."""
    if conn.dialect.name == "postgresql":
        _LOCK_IDS(conn)
    row = _BY_DIGEST.one(conn, clean(digest))
    if row is None:
        last = _NEXT_TASK.one(conn)
        first = 1 if last is None else last[0]
        made = _INSERT.one(conn, clean(digest), clean(name), tasks, first, max_running, int(fail_fast), at)
        assert made is not None
        _INSERT_ARRAY.many(conn, [(made[0], position, dumps(array)) for position, array in enumerate(arrays)])
        row = _GET.one(conn, made[0])
        assert row is not None
    return _workflow(row)


def by_digest(conn: Connection, digest: str) -> WorkflowRow | None:
    row = _BY_DIGEST.one(conn, clean(digest))
    return None if row is None else _workflow(row)


def get(conn: Connection, id: int) -> WorkflowRow:
    """Raises NotFound."""
    row = _GET.one(conn, id)
    if row is None:
        raise NotFound(f"there is no workflow {id}; see `latent workflow status`")
    return _workflow(row)


def latest(conn: Connection, limit: int) -> list[WorkflowRow]:
    """Newest first."""
    return [_workflow(row) for row in _LATEST.all(conn, limit)]


def arrays(conn: Connection, workflow_id: int) -> list[ArrayRow]:
    """In the order in which they were given. Raises StoreCorrupt."""
    return [ArrayRow(id, loads(text, f"array {id} of workflow {workflow_id}")) for id, text in _ARRAYS.all(conn, workflow_id)]


def array_ids(conn: Connection, workflow_id: int) -> list[int]:
    """In the order in which they were given."""
    return [row[0] for row in _ARRAY_IDS.all(conn, workflow_id)]


def array(conn: Connection, workflow_id: int, array_id: int) -> ArrayRow:
    """Raises NotFound, StoreCorrupt."""
    row = _ARRAY.one(conn, array_id, workflow_id)
    if row is None:
        raise NotFound(f"workflow {workflow_id} has no array {array_id}")
    return ArrayRow(array_id, loads(row[0], f"array {array_id} of workflow {workflow_id}"))


def set_status(conn: Connection, workflow_id: int, status: str) -> None:
    _SET_STATUS(conn, status, workflow_id)


def set_bound(conn: Connection, workflow_id: int, bound: int) -> None:
    """So many of its tasks are stored."""
    _SET_BOUND(conn, bound, workflow_id)


# --- runs -------------------------------------------------------------------------------------------------------------------


def begin_run(conn: Connection, workflow_id: int, driver: str, at: float, report_by: float) -> RunRow:
    """A new run, LINKED. The one before it must be over."""
    _NOTICED(conn, workflow_id)
    row = _BEGIN_RUN.one(conn, workflow_id, clean(driver), at, report_by)
    assert row is not None
    return RunRow(*row)


def run(conn: Connection, id: int) -> RunRow:
    """Raises NotFound."""
    row = _GET_RUN.one(conn, id)
    if row is None:
        raise NotFound(f"there is no workflow run {id}; see `latent workflow status`")
    return RunRow(*row)


def last_run(conn: Connection, workflow_id: int) -> RunRow | None:
    """The only one of the workflow that may not be over."""
    row = _LAST_RUN.one(conn, workflow_id)
    return None if row is None else RunRow(*row)


def open_runs(conn: Connection) -> list[RunRow]:
    """Those that are not over."""
    return [RunRow(*row) for row in _OPEN_RUNS.all(conn)]


def lost_runs(conn: Connection) -> list[RunRow]:
    """Those whose driver was given up, and that nobody has done anything about."""
    return [RunRow(*row) for row in _LOST_RUNS.all(conn)]


def noticed(conn: Connection, workflow_id: int) -> None:
    """Somebody has seen to the workflow, whose driver was lost."""
    _NOTICED(conn, workflow_id)


def set_run_status(conn: Connection, run_id: int, status: str) -> None:
    _SET_RUN_STATUS(conn, status, run_id)


def heard(conn: Connection, run_id: int, status: str, at: float, report_by: float) -> None:
    """Its driver is there, and is to be heard of again by ``report_by``."""
    _HEARD(conn, status, at, report_by, run_id)


def end_run(conn: Connection, run_id: int, status: str, reason: str, at: float, *, lost: bool = False) -> None:
    """``lost``: because its driver was not heard of any more."""
    _END_RUN(conn, status, at, at if lost else None, clean(reason), run_id)


def _workflow(row: Row) -> WorkflowRow:
    id, digest, name, status, tasks, bound, first_task, max_running, fail_fast, created_at = row
    return WorkflowRow(id, digest, name, status, tasks, bound, first_task, max_running, bool(fail_fast), created_at)
