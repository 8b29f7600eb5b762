"""The tasks of workflows and their builds: tables workflow_tasks, workflow_builds. `latent.store.workflows` hands out the ids.

Statuses are the letters of `latent.swarm.statuses`. ``at`` is when a status changed: whoever follows a workflow asks for what
changed later, so it never goes back, nor stands still from one transaction to the next.
"""

# ruff: noqa: S608 -- what is put into the statements here are constants of this package
from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from attrs import frozen
from sqlalchemy import Connection

from latent.errors import StoreCorrupt
from latent.model import JSON, Build, BuildRequest
from latent.store import builds
from latent.store.codec import clean
from latent.store.schema import BUILDING_TASK, CHANGED_TASK
from latent.store.sql import Row, Statement, dumps, loads
from latent.store.workflows import WorkflowRow


class NewTask(NamedTuple):
    """``own``: what of properties and labels is this task's alone; None if nothing is. ``downstream``: ids.

    A tuple, because there may be a million of them.
    """

    array_id: int
    name: str
    max_attempts: int
    resources: JSON
    own: JSON | None
    downstream: Sequence[int]


@frozen
class TaskOfArray:
    """What a build of the task is made of."""

    id: int
    array_id: int
    name: str
    status: str
    attempts: int
    build_id: int | None
    own: JSON | None


@frozen
class Moved:
    """A task whose build is not where the task's status says. ``result``: of a build that is over."""

    task_id: int
    status: str
    build_id: int
    state: str
    result: str | None
    reason: str


@frozen
class Try:
    """How a run of a build ended."""

    exit_code: int | None
    error_code: str
    error_msg: str


@frozen
class TaskOfBuild:
    """Which attempt of which task a build is."""

    workflow_id: int
    workflow: str
    task_id: int
    task: str
    attempt: int


DENSE = 4
"""Where this share of a range of ids is wanted, or more, the range is read."""


class _Several:
    """Columns of the tasks with some ids. The first column is the id."""

    def __init__(self, columns: str) -> None:
        self._range = Statement(f"SELECT {columns} FROM workflow_tasks WHERE id >= :first AND id < :end")
        self._one = Statement(f"SELECT {columns} FROM workflow_tasks WHERE id = :id AND workflow_id = :workflow_id")

    def __call__(self, conn: Connection, workflow: WorkflowRow, ids: Collection[int]) -> list[Row]:
        """Those that there are, of this workflow, in no order."""
        if not ids:
            return []
        first, end = max(min(ids), workflow.first_task), min(max(ids) + 1, workflow.end)
        if end - first > DENSE * len(ids):
            return [row for id in ids if (row := self._one.one(conn, id, workflow.id)) is not None]
        wanted = set(ids)
        return [row for row in self._range.all(conn, first, end) if row[0] in wanted]


_INSERT = Statement(
    "INSERT INTO workflow_tasks (id, workflow_id, array_id, name, status, max_attempts, resources, own, downstream)"
    " VALUES (:id, :workflow_id, :array_id, :name, 'G', :max_attempts, :resources, :own, :downstream)"
)
_PAGE = Statement(
    "SELECT id, array_id, name, status, attempts, max_attempts, resources, level, build_id, reason FROM workflow_tasks"
    " WHERE id > :after AND id >= :first AND id < :end AND :letters LIKE '%' || status || '%' ORDER BY id LIMIT :limit"
)
_DOWNSTREAM = _Several("id, downstream")
_TASKS = _Several("id, array_id, name, status, attempts, build_id, own")
_COUNTS = Statement(
    "SELECT array_id, status, COUNT(*) FROM workflow_tasks WHERE id >= :first AND id < :end GROUP BY array_id, status"
)
_ANY_NOT_DONE = Statement(
    "SELECT name, status FROM workflow_tasks WHERE id >= :first AND id < :end AND status <> 'D' ORDER BY id LIMIT 1"
)
_CHANGE = "id, status, attempts, build_id, trouble, reason"
_CHANGED = Statement(
    f"SELECT {_CHANGE} FROM workflow_tasks WHERE workflow_id = :workflow_id AND changed_at > :since AND {CHANGED_TASK}"
    " ORDER BY changed_at"
)
_ALL_BEGUN = Statement(
    f"SELECT {_CHANGE} FROM workflow_tasks WHERE id > :after AND id >= :first AND id < :end AND status <> 'G'"
    " ORDER BY id LIMIT :limit"
)
_STATES = _Several(_CHANGE)
_LAST_CHANGE = Statement(f"SELECT MAX(changed_at) FROM workflow_tasks WHERE workflow_id = :workflow_id AND {CHANGED_TASK}")
_QUEUE = Statement(
    "UPDATE workflow_tasks SET status = 'I', attempts = :attempts, resources = :resources, level = :level, build_id = :build_id,"
    " trouble = NULL, reason = '', changed_at = :at WHERE id = :id"
)
_REFUSE = Statement(
    "UPDATE workflow_tasks SET status = 'F', attempts = :attempts, resources = :resources, level = :level, build_id = NULL,"
    " trouble = :trouble, reason = :reason, changed_at = :at WHERE id = :id"
)
_INSERT_BUILD = Statement(
    "INSERT INTO workflow_builds (build_id, task_id, run_id, attempt) VALUES (:build_id, :task_id, :run_id, :attempt)"
)
_SETTLE = Statement(
    "UPDATE workflow_tasks SET status = :status, resources = :resources, level = :level, changed_at = :at"
    " WHERE id = :id AND workflow_id = :workflow_id AND status IN ('E', 'A', 'G', 'F')"
)
_MOVED = Statement(
    "SELECT t.id, t.status, t.build_id, b.state, b.result, b.reason FROM workflow_tasks t JOIN builds b ON b.id = t.build_id"
    f" WHERE t.workflow_id = :workflow_id AND t.{BUILDING_TASK} AND b.state <>"
    " CASE t.status WHEN 'I' THEN 'queued' WHEN 'O' THEN 'starting' ELSE 'running' END"
)
_MOVE = Statement(
    "UPDATE workflow_tasks SET status = :status, trouble = :trouble, reason = :reason, changed_at = :at WHERE id = :id"
)
_BUILDING = Statement(
    "SELECT t.id, t.status, b.id, b.cancel_requested_at FROM workflow_tasks t JOIN builds b ON b.id = t.build_id"
    f" WHERE t.workflow_id = :workflow_id AND t.{BUILDING_TASK} ORDER BY t.id"
)
_TRIES = Statement("SELECT exit_code, error_code, error_msg FROM runs WHERE build_id = :build_id ORDER BY id")
_RESET = Statement(
    "UPDATE workflow_tasks SET status = 'G', attempts = 0, build_id = NULL, trouble = NULL, reason = '', changed_at = NULL"
    " WHERE id >= :first AND id < :end AND :kept NOT LIKE '%' || status || '%'"
)
_OF_BUILD = Statement(
    "SELECT w.id, w.name, t.id, t.name, a.attempt FROM workflow_builds a JOIN workflow_tasks t ON t.id = a.task_id"
    " JOIN workflows w ON w.id = t.workflow_id WHERE a.build_id = :build_id"
)


# --- definition ---------------------------------------------------------------------------------------------------------


def add(conn: Connection, workflow: WorkflowRow, position: int, tasks: Iterable[NewTask]) -> None:
    """Store tasks that are not stored yet, from this position on."""
    first = workflow.first_task + position
    plain: dict[int, tuple[JSON, str]] = {}

    def resources(task: NewTask) -> str:
        # Tasks of an array share one value mostly.
        known = plain.get(id(task.resources))
        if known is None:
            known = plain[id(task.resources)] = (task.resources, dumps(task.resources))
        return known[1]

    _INSERT.many(
        conn,
        [
            (
                number,
                workflow.id,
                task.array_id,
                clean(task.name),
                task.max_attempts,
                resources(task),
                "" if task.own is None else dumps(task.own),
                f"[{','.join(map(str, task.downstream))}]",
            )
            for number, task in enumerate(tasks, first)
        ],
    )


def page(conn: Connection, workflow: WorkflowRow, after: int, limit: int, letters: str) -> list[Row]:
    """Tasks of these statuses with ids above ``after``: id, array_id, name, status, attempts, max_attempts, resources (text),
    level, build_id, reason."""
    return _PAGE.all(conn, after, workflow.first_task, workflow.end, letters, limit)


def downstream(conn: Connection, workflow: WorkflowRow, ids: Collection[int]) -> list[tuple[int, str]]:
    """For each of these tasks that there is the ids, as the text of a JSON list, of those that wait for it."""
    return [(id, text) for id, text in _DOWNSTREAM(conn, workflow, ids)]


def counts(conn: Connection, workflow: WorkflowRow) -> list[Row]:
    """Rows of array_id, status, how many."""
    return _COUNTS.all(conn, workflow.first_task, workflow.end)


def any_not_done(conn: Connection, workflow: WorkflowRow) -> tuple[str, str] | None:
    """Name and status of a task that is not DONE."""
    row = _ANY_NOT_DONE.one(conn, workflow.first_task, workflow.end)
    return None if row is None else (row[0], row[1])


# --- builds of tasks ----------------------------------------------------------------------------------------------------


def several(conn: Connection, workflow: WorkflowRow, ids: Collection[int]) -> list[TaskOfArray]:
    """Those of these tasks that there are, in no order. Raises StoreCorrupt."""
    return [
        TaskOfArray(id, array_id, name, status, attempts, build_id, loads(own, f"task {id}") if own else None)
        for id, array_id, name, status, attempts, build_id, own in _TASKS(conn, workflow, ids)
    ]


def queue(
    conn: Connection,
    run_id: int,
    wanted: Sequence[tuple[int, int, BuildRequest]],
    resources: JSON,
    level: int,
    *,
    at: float,
    now: float,
) -> list[Build]:
    """A build for each attempt (task, number, request), in this order. The caller has looked that none has one."""
    made = [builds.insert(conn, request, now) for _, _, request in wanted]
    text = dumps(resources)
    _QUEUE.many(conn, [(number, text, level, build.id, at, id) for (id, number, _), build in zip(wanted, made, strict=True)])
    _INSERT_BUILD.many(conn, [(build.id, id, run_id, number) for (id, number, _), build in zip(wanted, made, strict=True)])
    return made


def refuse(
    conn: Connection, refused: Iterable[tuple[int, int, str]], trouble: str, resources: JSON, level: int, at: float
) -> None:
    """Attempts (task, number, reason) that no build can be made of: the tasks fail for good."""
    text = dumps(resources)
    _REFUSE.many(conn, [(number, text, level, trouble, clean(reason), at, id) for id, number, reason in refused])


def settle(conn: Connection, workflow_id: int, changes: Iterable[tuple[int, str, JSON, int]], at: float) -> None:
    """Tasks (id, status, resources, level) that have no build which is not over. Others are left as they are."""
    _SETTLE.many(conn, [(status, dumps(resources), level, at, id, workflow_id) for id, status, resources, level in changes])


def moved(conn: Connection, workflow_id: int) -> list[Moved]:
    """The tasks whose builds have moved on since their status was written."""
    return [Moved(*row) for row in _MOVED.all(conn, workflow_id)]


def move(conn: Connection, changes: Iterable[tuple[int, str, str | None, str]], at: float) -> None:
    """New statuses: task, status, trouble, reason."""
    _MOVE.many(conn, [(status, trouble, clean(reason), at, id) for id, status, trouble, reason in changes])


def building(conn: Connection, workflow_id: int) -> list[tuple[int, str, int, bool]]:
    """The tasks that have a build which was not over when their statuses were written: task, status, build, whether somebody
    wants that to end."""
    return [(id, status, build, at is not None) for id, status, build, at in _BUILDING.all(conn, workflow_id)]


def tries(conn: Connection, build_id: int) -> list[Try]:
    """Oldest first."""
    return [Try(*row) for row in _TRIES.all(conn, build_id)]


def reset(conn: Connection, workflow: WorkflowRow, kept: str) -> None:
    """All begin anew but those of the statuses ``kept``. What they need is remembered."""
    _RESET(conn, workflow.first_task, workflow.end, kept)


def of_build(conn: Connection, build_id: int) -> TaskOfBuild | None:
    row = _OF_BUILD.one(conn, build_id)
    return None if row is None else TaskOfBuild(*row)


# --- what has changed ---------------------------------------------------------------------------------------------------


def changed(conn: Connection, workflow_id: int, since: float) -> list[Row]:
    """Tasks that changed after ``since``, in the order in which they did: id, status, attempts, build_id, trouble, reason."""
    return _CHANGED.all(conn, workflow_id, since)


def begun(conn: Connection, workflow: WorkflowRow, after: int, limit: int) -> list[Row]:
    """Tasks that are not REGISTERING, with ids above ``after``, as `changed` gives them."""
    return _ALL_BEGUN.all(conn, after, workflow.first_task, workflow.end, limit)


def states(conn: Connection, workflow: WorkflowRow, ids: Collection[int]) -> list[Row]:
    """Those of these tasks that there are, in no order, as `changed` gives them."""
    return _STATES(conn, workflow, ids)


def last_change(conn: Connection, workflow_id: int) -> float:
    """When a task of the workflow last changed; 0 if none has."""
    row = _LAST_CHANGE.one(conn, workflow_id)
    return 0.0 if row is None or row[0] is None else float(row[0])


def resources_of(text: str, task_id: int) -> JSON:
    """What a row of `page` has as resources. Raises StoreCorrupt."""
    found = loads(text, f"task {task_id}")
    if not isinstance(found, dict):
        raise StoreCorrupt(f"task {task_id} is damaged: its resources are {text[:60]!r}")
    return found


def ids_of(text: str, task_id: int) -> Sequence[int]:
    """What a row of `downstream` has. Raises StoreCorrupt."""
    found = loads(text, f"task {task_id}")
    if not isinstance(found, list):
        raise StoreCorrupt(f"task {task_id} is damaged: the tasks that wait for it are {text[:60]!r}")
    return found
