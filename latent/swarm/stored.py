"""The rows of `latent.store.workflows` and `latent.store.tasks` as the values of `latent.swarm.values`, and back."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from latent.errors import ConfigError
from latent.store import tasks
from latent.store import workflows as rows
from latent.store.sql import Row
from latent.store.tasks import NewTask
from latent.store.workflows import RunRow, WorkflowRow
from latent.swarm import documents
from latent.swarm.statuses import RunStatus, TaskStatus, WorkflowStatus
from latent.swarm.values import ArrayDefinition, ArrayInfo, Bound, RunInfo, TaskChange, TaskDefinition, Trouble, WorkflowInfo

STATUSES = {status.value: status for status in TaskStatus}
TROUBLES = {trouble.value: trouble for trouble in Trouble}


def store_tasks(
    conn: Connection, workflow: WorkflowRow, arrays: Sequence[tuple[int, ArrayDefinition]], new: Sequence[TaskDefinition]
) -> None:
    """The tasks that follow those that are stored. Raises ConfigError for values that are not JSON."""
    needs = [dict(array.resources) for _, array in arrays]
    first = workflow.first_task
    made = [
        NewTask(
            arrays[task.array][0],
            task.name,
            task.max_attempts,
            {**needs[task.array], **task.resources} if task.resources else needs[task.array],
            {"properties": dict(task.properties), "labels": dict(task.labels)} if task.properties or task.labels else None,
            [first + other for other in task.downstream],
        )
        for task in new
    ]
    try:
        tasks.add(conn, workflow, workflow.bound, made)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a property of a task can't be stored: {error}; give values that JSON has") from error


def bound(conn: Connection, workflow: WorkflowRow) -> Bound:
    arrays = rows.array_ids(conn, workflow.id)
    return Bound(workflow_id=workflow.id, first_task=workflow.first_task, arrays=tuple(arrays), tasks=workflow.bound)


def info(conn: Connection, workflow: WorkflowRow, now: float) -> WorkflowInfo:
    counts: dict[int, dict[TaskStatus, int]] = {}
    for array_id, status, number in tasks.counts(conn, workflow):
        counts.setdefault(array_id, {})[STATUSES[status]] = number
    run = rows.last_run(conn, workflow.id)
    return WorkflowInfo(
        id=workflow.id,
        name=workflow.name,
        digest=workflow.digest,
        status=WorkflowStatus(workflow.status),
        tasks=workflow.tasks,
        first_task=workflow.first_task,
        max_running=workflow.max_running,
        fail_fast=workflow.fail_fast,
        arrays=[
            ArrayInfo(
                id=array.id,
                definition=documents.read_array(array.definition, f"array {array.id}"),
                counts=counts.get(array.id, {}),
            )
            for array in rows.arrays(conn, workflow.id)
        ],
        run=None if run is None else run_info(run),
        created_at=workflow.created_at,
        now=now,
    )


def change(row: Row) -> TaskChange:
    id, status, attempts, build_id, trouble, reason = row
    return TaskChange(id, STATUSES[status], attempts, build_id, None if trouble is None else TROUBLES[trouble], reason)


def run_info(run: RunRow) -> RunInfo:
    return RunInfo(
        id=run.id,
        workflow_id=run.workflow_id,
        status=RunStatus(run.status),
        driver=run.driver,
        created_at=run.created_at,
        heartbeat_at=run.heartbeat_at,
        report_by=run.report_by,
    )
