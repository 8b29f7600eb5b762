"""Who drives a workflow: the first, and whoever takes it over from one that has died or is to stop."""

from __future__ import annotations

from attrs import frozen
from sqlalchemy import Connection

from latent.errors import NotResumable
from latent.killpoints import here
from latent.store import tasks
from latent.store import workflows as rows
from latent.store.workflows import RunRow, WorkflowRow
from latent.swarm import stored
from latent.swarm.keeping import LINKED_PATIENCE, Keeper
from latent.swarm.statuses import RunStatus, TaskStatus, WorkflowStatus
from latent.swarm.values import Linked, Resume

ENDED = {
    Resume.COLD: TaskStatus.INSTANTIATED + TaskStatus.LAUNCHED + TaskStatus.RUNNING,
    Resume.HOT: TaskStatus.INSTANTIATED + TaskStatus.LAUNCHED,
}
"""The tasks whose builds end when a workflow is taken over."""

KEPT = {Resume.COLD: TaskStatus.DONE.value, Resume.HOT: TaskStatus.DONE + TaskStatus.RUNNING}
"""The tasks that do not begin anew."""

ASKED = {Resume.COLD: RunStatus.COLD_RESUME, Resume.HOT: RunStatus.HOT_RESUME}


@frozen
class _Waits:
    """The workflow can't be had yet. ``driver``: who has to let go of it."""

    driver: str | None


async def link(keeper: Keeper, workflow_id: int, driver: str, resume: Resume | None) -> Linked:
    """See `latent.swarm.requester.Requester.link`."""

    def begin(conn: Connection) -> RunRow | _Waits:
        workflow = rows.get(conn, workflow_id)
        _check(workflow)
        last = rows.last_run(conn, workflow_id)
        if last is not None and last.ended_at is None:
            if (last.driver, last.status) == (driver, RunStatus.LINKED):
                return last  # its answer was lost
            if keeper.due(last) > keeper.clock.seconds():
                return _Waits(_ask_for(conn, last, resume))
            keeper.give_up(conn, last)
        elif last is None:
            return _new_run(keeper, conn, workflow, driver)
        if resume is None:
            raise NotResumable(
                f"workflow {workflow_id} was driven before, by {last.driver}, and is not finished; "
                f"go on with it: --resume {workflow_id} --hot, or --cold to end what still runs of it"
            )
        return _Waits(None)

    answer = await keeper.store.write(begin)
    here("workflows.link.written")
    if isinstance(answer, RunRow):
        return Linked(run=stored.run_info(answer))
    assert resume is not None
    left = await keeper.end_builds(workflow_id, ENDED[resume], f"workflow {workflow_id} is taken over by {driver}")
    if not left and answer.driver is None:
        here("workflows.link.before")
        taken = await keeper.store.write(lambda conn: _take_over(keeper, conn, workflow_id, driver, resume))
        here("workflows.link.begun")
        if taken is not None:
            return Linked(run=stored.run_info(taken))
        left = 1
    waits = [f"{left} build{'s' if left > 1 else ''} to end"] if left else []
    if answer.driver is not None:
        waits.append(f"driver {answer.driver} to let go")
    return Linked(run=None, waits_for=", and ".join(waits))


def _check(workflow: WorkflowRow) -> None:
    if workflow.bound < workflow.tasks:
        raise NotResumable(
            f"workflow {workflow.id} has {workflow.bound} of its {workflow.tasks} tasks: who stored it did not come to the end; "
            "run its file again, which goes on from there"
        )
    if workflow.status == WorkflowStatus.DONE:
        raise NotResumable(f"workflow {workflow.id} is finished, there is nothing to resume; change its name to run it once more")


def _ask_for(conn: Connection, run: RunRow, resume: Resume | None) -> str:
    """Tell the driver of a live run to let go; who that is."""
    if resume is None:
        raise NotResumable(
            f"workflow {run.workflow_id} is driven by {run.driver}; wait for it, "
            f"or take it over: --resume {run.workflow_id} --hot, or --cold to end what runs of it"
        )
    if run.status != ASKED[resume]:
        rows.set_run_status(conn, run.id, ASKED[resume].value)
    return run.driver


def _new_run(keeper: Keeper, conn: Connection, workflow: WorkflowRow, driver: str) -> RunRow:
    now = keeper.clock.seconds()
    rows.set_status(conn, workflow.id, WorkflowStatus.QUEUED.value)
    return rows.begin_run(conn, workflow.id, driver, now, now + LINKED_PATIENCE)


def _take_over(keeper: Keeper, conn: Connection, workflow_id: int, driver: str, resume: Resume) -> RunRow | None:
    """The new run, with all tasks that are to begin anew; None when something has begun or is not over yet after all."""
    keeper.follow(conn, workflow_id)
    workflow = rows.get(conn, workflow_id)
    _check(workflow)
    last = rows.last_run(conn, workflow_id)
    if last is not None and last.ended_at is None:
        return None
    if any(status in ENDED[resume] for _, status, _, _ in tasks.building(conn, workflow_id)):
        return None
    tasks.reset(conn, workflow, KEPT[resume])
    return _new_run(keeper, conn, workflow, driver)
