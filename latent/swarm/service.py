"""Workflows in the controller: what drivers ask (`latent.swarm.requester.Requester`), over the store and the controller's builds.

A build is made of each attempt of a task, in one transaction with the task. Nobody is told when it moves on: whoever asks has the
tasks brought up to their builds first (`latent.swarm.following`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from attrs import evolve
from sqlalchemy import Connection

from latent.controller.clock import Clock
from latent.controller.health import HealthItem
from latent.controller.service import Controller
from latent.errors import ConfigError, LatentError, NotFound
from latent.killpoints import here
from latent.model import JSON, Build, BuildRequest
from latent.store import tasks
from latent.store import workflows as rows
from latent.store.database import Store
from latent.store.tasks import TaskOfArray, TaskOfBuild
from latent.store.workflows import WorkflowRow
from latent.swarm import checking, documents, resuming, stored
from latent.swarm.keeping import Builds, Keeper
from latent.swarm.reaping import Reaper
from latent.swarm.statuses import RunStatus, TaskStatus, WorkflowStatus
from latent.swarm.values import (
    ArrayDefinition,
    Batch,
    Bound,
    Definition,
    Delta,
    Linked,
    Resources,
    Resume,
    TaskChange,
    TaskDefinition,
    TaskRow,
    Trouble,
    WorkflowInfo,
)

PAGE = 20_000
"""Tasks that are read at a time where all are wanted."""

NEVER = 1e300
"""Nothing has changed since then, in POSIX seconds."""

LONGEST_REPORT = 86_400.0
"""Seconds that a driver may be silent at most."""

NOT_DONE = "".join(status.value for status in TaskStatus if status is not TaskStatus.DONE)
TO_QUEUE = frozenset({"G", "Q", "E", "A"})
"""The tasks of which builds are made: those that have none which is not over, and are not over themselves."""

SETTLED = frozenset({TaskStatus.REGISTERING, TaskStatus.ADJUSTING_RESOURCES, TaskStatus.ERROR_FATAL})

DRIVEN = {
    RunStatus.BOUND: WorkflowStatus.QUEUED,
    RunStatus.INSTANTIATED: WorkflowStatus.INSTANTIATING,
    RunStatus.LAUNCHED: WorkflowStatus.LAUNCHED,
    RunStatus.RUNNING: WorkflowStatus.RUNNING,
}
"""What drivers say that they are, and what their workflows are then."""

AFTER = {
    RunStatus.DONE: WorkflowStatus.DONE,
    RunStatus.ERROR: WorkflowStatus.FAILED,
    RunStatus.STOPPED: WorkflowStatus.HALTED,
    RunStatus.TERMINATED: WorkflowStatus.HALTED,
}
"""How drivers end, and what their workflows are then."""

ALL_BUILDS = "IOR"


class Workflows:
    """``builds``: the controller, which is started. `start` begins to look after drivers that are not heard of any more."""

    def __init__(self, builds: Builds, store: Store, clock: Clock) -> None:
        self._builds = builds
        self._store = store
        self._clock = clock
        self._keeper = Keeper(builds, store, clock)
        self._reaper = Reaper(self._keeper)
        self._queued = 0

    def start(self) -> None:
        self._reaper.start()

    def stop(self) -> None:
        self._reaper.stop()

    # --- what there is to do ---------------------------------------------------------------------------------------------

    async def bind(self, definition: Definition) -> Bound:
        known = await self._store.read(lambda conn: rows.by_digest(conn, definition.digest))
        if known is None:
            checking.definition(definition, self._builds.builders().keys())
        now = self._clock.seconds()

        def write(conn: Connection) -> Bound:
            workflow = rows.bind(
                conn,
                digest=definition.digest,
                name=definition.name,
                tasks=definition.tasks,
                max_running=definition.max_running,
                fail_fast=definition.fail_fast,
                arrays=[documents.array(array) for array in definition.arrays],
                at=now,
            )
            return stored.bound(conn, workflow)

        bound = await self._store.write(write)
        here("workflows.bind.written")
        return bound

    async def add_tasks(self, workflow_id: int, first: int, tasks: Sequence[TaskDefinition]) -> Bound:
        def write(conn: Connection) -> Bound:
            workflow = rows.get(conn, workflow_id)
            arrays = rows.arrays(conn, workflow_id)
            checking.tasks(workflow, len(arrays), first, tasks)
            new = tasks[workflow.bound - first :]
            if new:
                stored.store_tasks(conn, workflow, [(a.id, documents.read_array(a.definition, "")) for a in arrays], new)
                rows.set_bound(conn, workflow_id, workflow.bound + len(new))
                if workflow.bound + len(new) == workflow.tasks:
                    rows.set_status(conn, workflow_id, WorkflowStatus.QUEUED.value)
            return stored.bound(conn, rows.get(conn, workflow_id))

        bound = await self._store.write(write)
        here("workflows.tasks.written")
        return bound

    # --- what there is ---------------------------------------------------------------------------------------------------

    async def workflow(self, workflow_id: int) -> WorkflowInfo:
        now = await self._store.write(lambda conn: self._up_to_date(conn, workflow_id))
        here("workflows.follow.written")
        return await self._store.read(lambda conn: stored.info(conn, rows.get(conn, workflow_id), now))

    async def workflows(self, limit: int = 50) -> Sequence[WorkflowInfo]:
        def follow(conn: Connection) -> dict[int, float]:
            return {row.id: self._keeper.follow(conn, row.id) for row in rows.latest(conn, limit)}

        now = await self._store.write(follow)
        here("workflows.follow.written")
        return await self._store.read(
            lambda conn: [stored.info(conn, row, now[row.id]) for row in rows.latest(conn, limit) if row.id in now]
        )

    def _up_to_date(self, conn: Connection, workflow_id: int) -> float:
        rows.get(conn, workflow_id)
        return self._keeper.follow(conn, workflow_id)

    async def tasks(
        self, workflow_id: int, after: int, limit: int, statuses: Collection[TaskStatus] | None = None
    ) -> Sequence[TaskRow]:
        letters = NOT_DONE if statuses is None else "".join(status.value for status in statuses)

        def read(conn: Connection) -> list[TaskRow]:
            known: dict[str, Resources] = {}
            found = []
            for row in tasks.page(conn, rows.get(conn, workflow_id), after, limit, letters):
                id, array_id, name, letter, attempts, max_attempts, text, level, build_id, reason = row
                if (needs := known.get(text)) is None:
                    needs = known[text] = tasks.resources_of(text, id)
                status = stored.STATUSES[letter]
                found.append(TaskRow(id, array_id, name, status, attempts, max_attempts, needs, level, build_id, reason))
            return found

        return await self._store.read(read)

    async def downstream(self, workflow_id: int, ids: Sequence[int]) -> Mapping[int, Sequence[int]]:
        found = await self._store.read(lambda conn: tasks.downstream(conn, rows.get(conn, workflow_id), ids))
        return {id: tasks.ids_of(text, id) for id, text in found}

    async def downstream_text(self, workflow_id: int, ids: Sequence[int]) -> str:
        """The same as the text of a JSON list of pairs, as the store has it."""
        found = await self._store.read(lambda conn: tasks.downstream(conn, rows.get(conn, workflow_id), ids))
        return "[" + ",".join([f"[{id},{text}]" for id, text in found]) + "]"

    async def task_of(self, build_id: int) -> TaskOfBuild | None:
        """Which attempt of which task a build is; None if it is none."""
        return await self._store.read(lambda conn: tasks.of_build(conn, build_id))

    # --- who drives it ---------------------------------------------------------------------------------------------------

    async def link(self, workflow_id: int, driver: str, resume: Resume | None = None) -> Linked:
        answer = await resuming.link(self._keeper, workflow_id, driver, resume)
        await self._reaper.look()
        return answer

    async def heartbeat(self, run_id: int, status: RunStatus, next_report_increment: float) -> RunStatus:
        if status.is_terminal:
            raise ConfigError(f"a heartbeat can't say {status.value!r}: a run that is over has none; end it with finish")
        if not 0 < next_report_increment <= LONGEST_REPORT:
            raise ConfigError(f"next_report_increment is {next_report_increment}; give seconds, up to {LONGEST_REPORT:g}")

        def write(conn: Connection) -> RunStatus:
            run = rows.run(conn, run_id)
            was = RunStatus(run.status)
            if run.ended_at is not None:
                return was
            now = self._clock.seconds()
            adopted = was if was.resumes or status not in DRIVEN else status
            rows.heard(conn, run_id, adopted.value, now, now + next_report_increment)
            if adopted is not was:
                rows.set_status(conn, run.workflow_id, DRIVEN[adopted].value)
            return adopted

        answer = await self._store.write(write)
        here("workflows.heartbeat.written")
        return answer

    async def finish(self, run_id: int, status: RunStatus, reason: str) -> None:
        if status not in AFTER:
            known = ", ".join(each.value for each in AFTER)
            raise ConfigError(f"a workflow run can't be finished as {status.value!r}; it ends as one of {known}")
        ended = await self._store.write(lambda conn: self._end(conn, run_id, status, reason))
        here("workflows.finish.written")
        await self._reaper.look()
        if ended is not None and status in (RunStatus.ERROR, RunStatus.STOPPED):
            await self._keeper.end_builds(ended, ALL_BUILDS, reason or "its workflow has ended")

    async def detach(self, run_id: int) -> None:
        await self._store.write(lambda conn: self._end(conn, run_id, RunStatus.TERMINATED, "its driver has let go of it"))
        here("workflows.finish.written")
        await self._reaper.look()

    def _end(self, conn: Connection, run_id: int, status: RunStatus, reason: str) -> int:
        """The workflow of the run that has ended, now or, in this way, before."""
        known = rows.run(conn, run_id)
        if known.ended_at is not None and known.status == status.value and known.lost_at is None:
            return known.workflow_id
        run, workflow = self._keeper.own(conn, run_id)
        if status is RunStatus.DONE:
            self._keeper.follow(conn, workflow.id)
            if (left := tasks.any_not_done(conn, workflow)) is not None:
                raise ConfigError(f"workflow {workflow.id} is not done: task {left[0]!r} is {left[1]}; sync, and go on")
        rows.end_run(conn, run.id, status.value, reason, self._clock.seconds())
        rows.set_status(conn, workflow.id, AFTER[status].value)
        return workflow.id

    async def cancel(self, workflow_id: int, reason: str) -> WorkflowInfo:
        def write(conn: Connection) -> bool:
            workflow = rows.get(conn, workflow_id)
            run = rows.last_run(conn, workflow_id)
            if workflow.status == WorkflowStatus.DONE.value or run is None:
                return False
            if run.ended_at is None:
                rows.end_run(conn, run.id, RunStatus.STOPPED.value, f"it was cancelled: {reason}", self._clock.seconds())
            rows.noticed(conn, workflow_id)
            rows.set_status(conn, workflow_id, WorkflowStatus.HALTED.value)
            return True

        halted = await self._store.write(write)
        here("workflows.cancel.written")
        if halted:
            await self._reaper.look()
            await self._keeper.end_builds(workflow_id, ALL_BUILDS, reason)
        return await self.workflow(workflow_id)

    # --- its tasks -------------------------------------------------------------------------------------------------------

    async def queue(self, run_id: int, batch: Batch) -> Sequence[TaskChange]:
        self._builds.check_open()
        checking.batch(batch)
        numbers = dict(batch.tasks)
        workflow, array, found = await self._store.read(lambda conn: self._batch(conn, run_id, batch))
        wanted, refused = await self._rendered(workflow, array, batch, [t for t in found if _is_new(t, numbers[t.id])], numbers)

        def write(conn: Connection) -> tuple[list[Build], list[TaskChange]]:
            run, _ = self._keeper.own(conn, run_id)
            states = {row[0]: stored.change(row) for row in tasks.states(conn, workflow, numbers)}
            made: list[Build] = []
            if not RunStatus(run.status).resumes:
                asked = [one for one in wanted if _is_new(states[one[0]], one[1])]
                unfit = [one for one in refused if _is_new(states[one[0]], one[1])]
                at = self._keeper.stamp(conn, workflow.id)
                resources = dict(batch.resources)
                made = tasks.queue(conn, run_id, asked, resources, batch.level, at=at, now=self._clock.seconds())
                tasks.refuse(conn, unfit, Trouble.REFUSED.value, resources, batch.level, at)
                for (id, number, _), build in zip(asked, made, strict=True):
                    states[id] = TaskChange(id, TaskStatus.INSTANTIATED, number, build.id)
                for id, number, why in unfit:
                    states[id] = TaskChange(id, TaskStatus.ERROR_FATAL, number, None, Trouble.REFUSED, why)
            return made, [states[id] for id in numbers]

        here("workflows.queue.before")
        made, changes = await self._store.write(write)
        here("workflows.queue.written")
        for build in made:
            self._builds.accept(build)
        self._queued += len(made)
        return changes

    def _batch(self, conn: Connection, run_id: int, batch: Batch) -> tuple[WorkflowRow, ArrayDefinition, list[TaskOfArray]]:
        _, workflow = self._keeper.own(conn, run_id)
        array = rows.array(conn, workflow.id, batch.array_id)
        definition = documents.read_array(array.definition, f"array {array.id}")
        if batch.level > len(definition.fallbacks):
            raise ConfigError(
                f"array {definition.name!r} has {len(definition.fallbacks)} fallbacks, not {batch.level}; take one that it has"
            )
        ids = [id for id, _ in batch.tasks]
        found = {task.id: task for task in tasks.several(conn, workflow, ids) if task.array_id == array.id}
        for id in ids:
            if id not in found:
                raise NotFound(f"array {definition.name!r} of workflow {workflow.id} has no task {id}")
        return workflow, definition, [found[id] for id in ids]

    async def _rendered(
        self,
        workflow: WorkflowRow,
        array: ArrayDefinition,
        batch: Batch,
        new: Sequence[TaskOfArray],
        numbers: Mapping[int, int],
    ) -> tuple[list[tuple[int, int, BuildRequest]], list[tuple[int, int, str]]]:
        """The requests (task, attempt, request), and the tasks of which none can be made (task, attempt, why)."""
        amounts = {name: amount for name, amount in batch.resources.items() if name != "timeout"}
        labels = array.fallbacks[batch.level - 1] if batch.level else array.labels
        wanted, refused = [], []
        for task in new:
            own: Mapping[str, JSON] = task.own or {}
            number = numbers[task.id]
            about = {"workflow": workflow.name, "task": task.name, "task_attempt": number}
            try:
                request = await self._builds.request_for(
                    array.template,
                    {**about, **array.properties, **own.get("properties", {}), **amounts},
                    {**labels, **own.get("labels", {})},
                    priority=array.priority,
                    timeout=batch.resources.get("timeout"),
                )
            except LatentError as error:
                refused.append((task.id, number, str(error)))
            else:
                wanted.append((task.id, number, request))
        return wanted, refused

    async def settle(self, run_id: int, changes: Mapping[int, tuple[TaskStatus, Resources, int]]) -> None:
        errors = [
            f"task {id} can't be settled as {status.value!r}; it is one of {', '.join(sorted(s.value for s in SETTLED))}"
            for id, (status, _, _) in changes.items()
            if status not in SETTLED
        ]
        errors += [
            f"task {id}: {e}" for id, (_, resources, _) in changes.items() for e in checking.amounts("resources", resources)
        ]
        if errors:
            raise ConfigError(errors)

        def write(conn: Connection) -> None:
            _, workflow = self._keeper.own(conn, run_id)
            at = self._keeper.stamp(conn, workflow.id)
            tasks.settle(
                conn, workflow.id, [(id, status.value, dict(needs), level) for id, (status, needs, level) in changes.items()], at
            )

        await self._store.write(write)
        here("workflows.settle.written")

    async def sync(self, run_id: int, since: float | None) -> Delta:
        if since is None:
            return await self._all(run_id)

        def write(conn: Connection) -> Delta:
            run, workflow = self._keeper.own(conn, run_id)
            now = self._keeper.follow(conn, workflow.id)
            changes = [stored.change(row) for row in tasks.changed(conn, workflow.id, since)]
            return Delta(now=now, status=RunStatus(run.status), changes=changes)

        delta = await self._store.write(write)
        here("workflows.follow.written")
        return delta

    async def _all(self, run_id: int) -> Delta:
        delta = await self.sync(run_id, NEVER)
        page = changes = await self.begun(run_id, 0, PAGE)
        while len(page) == PAGE:
            page = await self.begun(run_id, page[-1].id, PAGE)
            changes = changes + page
        return evolve(delta, changes=changes)

    async def begun(self, run_id: int, after: int, limit: int) -> list[TaskChange]:
        """The tasks that are not REGISTERING, with ids above ``after``, in order of their ids. A part of a whole `sync`."""

        def read(conn: Connection) -> list[TaskChange]:
            _, workflow = self._keeper.own(conn, run_id)
            return [stored.change(row) for row in tasks.begun(conn, workflow, after, limit)]

        return await self._store.read(read)

    # --- for operators ---------------------------------------------------------------------------------------------------

    def health(self) -> list[HealthItem]:
        return self._reaper.health()

    def run_counts(self) -> Mapping[tuple[tuple[str, str], ...], float]:
        """Workflow runs that are not over, by status, as a gauge."""
        return self._reaper.counts()

    def queued_count(self) -> Mapping[tuple[tuple[str, str], ...], float]:
        """Builds that were made of tasks since the start, as a gauge."""
        return {(): float(self._queued)}


def attach(controller: Controller, store: Store, clock: Clock) -> Workflows:
    """A controller's workflows, told of in its health and its metrics. To be started after the controller, and stopped."""
    workflows = Workflows(controller, store, clock)
    controller.more_health.append(workflows.health)
    controller.gauges.add("latent_workflow_runs", "Workflow runs that are not over, by status.", workflows.run_counts)
    controller.gauges.add("latent_workflow_builds", "Builds made of tasks of workflows.", workflows.queued_count)
    return workflows


def _is_new(task: TaskOfArray | TaskChange, attempt: int) -> bool:
    return task.attempts < attempt and task.status in TO_QUEUE
