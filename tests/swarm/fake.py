"""A controller's side of workflows in memory, and the hand that moves its builds.

`Controller` is a `Requester` that answers at once. Its builds move only when told to. It goes ``away``, and loses answers
(``lost``, names of calls: the next one has its effect, and the answer does not come) and calls (``missed``: it has none).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from attrs import define, evolve, field
from twisted.internet.task import Clock

from latent.errors import ConfigError, ControllerAway, NotFound, NotResumable, NotYourWorkflow
from latent.swarm.statuses import BUILDING, RunStatus, TaskStatus, WorkflowStatus
from latent.swarm.values import (
    ArrayInfo,
    Batch,
    Bound,
    Definition,
    Delta,
    Linked,
    Resources,
    Resume,
    RunInfo,
    TaskChange,
    TaskDefinition,
    TaskRow,
    Trouble,
    WorkflowInfo,
)

T = TypeVar("T")

G, I, R, D, E, F = (TaskStatus(letter) for letter in "GIRDEF")  # noqa: E741  # the letters of the statuses


@define(eq=False)
class Task:
    id: int
    array: int
    definition: TaskDefinition
    resources: Resources
    status: TaskStatus = G
    attempts: int = 0
    level: int = 0
    build_id: int | None = None
    trouble: Trouble | None = None
    reason: str = ""
    changed_at: float = 0.0


@define(eq=False)
class Stored:
    id: int
    first_task: int
    first_array: int
    definition: Definition
    created_at: float
    status: WorkflowStatus = WorkflowStatus.REGISTERING
    tasks: list[Task] = field(factory=list)
    runs: list[RunInfo] = field(factory=list)


class Controller:
    """``queued``: each (task, attempt) that a build was made for, in order. ``beats``: time, status, promise of each heartbeat.

    ``on_call`` hears the name of every call before it is answered.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.stored: dict[int, Stored] = {}
        self.task: dict[int, Task] = {}
        self.away = False
        self.lost: set[str] = set()
        self.missed: set[str] = set()
        self.on_call: Callable[[str], None] = lambda name: None
        self.calls: list[str] = []
        self.queued: list[tuple[int, int]] = []
        self.batches: list[Batch] = []
        self.beats: list[tuple[float, RunStatus, float]] = []
        self.finished: list[tuple[int, RunStatus, str]] = []
        self.refuses: Callable[[Task], str] = lambda task: ""
        self.since: list[float | None] = []
        self._ids: dict[str, int] = {}
        self._made: set[tuple[int, int, int]] = set()

    # --- the hand that moves builds ------------------------------------------------------------------------------------------

    def label(self, task: Task) -> str:
        return f"{self._of_task(task).definition.arrays[task.definition.array].name}/{task.definition.name}"

    def get(self, label: str) -> Task:
        return next(task for task in self.task.values() if self.label(task) == label)

    def building(self) -> list[Task]:
        return [task for task in self.task.values() if task.status in BUILDING]

    def start(self, *tasks: Task) -> None:
        for task in tasks:
            self._change(task, R)

    def end(self, task: Task, trouble: Trouble | None = None, reason: str = "") -> None:
        """Its build ends: with success, unless there was trouble."""
        assert task.status in BUILDING, task
        self._change(task, D if trouble is None else E, trouble, reason)

    def end_all(self) -> None:
        for task in self.building():
            self.end(task)

    def reap(self) -> None:
        """Give up the drivers that are not heard of."""
        for stored in self.stored.values():
            if stored.runs and not stored.runs[-1].status.is_terminal and stored.runs[-1].report_by < self.clock.seconds():
                self._over(stored, RunStatus.ERROR, end=False)

    # --- what a driver asks --------------------------------------------------------------------------------------------------

    async def bind(self, definition: Definition) -> Bound:
        self._called("bind")
        for stored in self.stored.values():
            if stored.definition.digest == definition.digest:
                return self._bound(stored)
        stored = Stored(
            self._next("workflow"),
            self._next("task", definition.tasks),
            self._next("array", len(definition.arrays)),
            definition,
            self.clock.seconds(),
        )
        self.stored[stored.id] = stored
        return self._answer("bind", self._bound(stored))

    async def add_tasks(self, workflow_id: int, first: int, tasks: Sequence[TaskDefinition]) -> Bound:
        self._called("add_tasks")
        stored = self._workflow(workflow_id)
        if first > len(stored.tasks):
            raise ConfigError(f"the tasks before {first} are missing")
        for position, definition in enumerate(tasks, first):
            if position >= len(stored.tasks):
                array = stored.definition.arrays[definition.array]
                resources = {**array.resources, **definition.resources}
                task = Task(stored.first_task + position, stored.first_array + definition.array, definition, resources)
                stored.tasks.append(task)
                self.task[task.id] = task
        if len(stored.tasks) == stored.definition.tasks:
            stored.status = WorkflowStatus.QUEUED
        return self._answer("add_tasks", self._bound(stored))

    async def workflow(self, workflow_id: int) -> WorkflowInfo:
        self._called("workflow")
        stored = self._workflow(workflow_id)
        arrays = []
        for position, definition in enumerate(stored.definition.arrays):
            counts = Counter(task.status for task in stored.tasks if task.definition.array == position)
            arrays.append(ArrayInfo(id=stored.first_array + position, definition=definition, counts=counts))
        return WorkflowInfo(
            id=stored.id,
            digest=stored.definition.digest,
            name=stored.definition.name,
            status=stored.status,
            tasks=len(stored.tasks),
            first_task=stored.first_task,
            max_running=stored.definition.max_running,
            fail_fast=stored.definition.fail_fast,
            arrays=arrays,
            run=stored.runs[-1] if stored.runs else None,
            created_at=stored.created_at,
            now=self.clock.seconds(),
        )

    async def workflows(self, limit: int = 50) -> Sequence[WorkflowInfo]:
        return [await self.workflow(id) for id in sorted(self.stored, reverse=True)[:limit]]

    async def link(self, workflow_id: int, driver: str, resume: Resume | None = None) -> Linked:
        self._called("link")
        stored = self._workflow(workflow_id)
        last = stored.runs[-1] if stored.runs else None
        if stored.status is WorkflowStatus.DONE:
            raise NotResumable(f"workflow {workflow_id} is done; there is nothing to resume")
        if last is not None and resume is None:
            raise NotResumable(f"workflow {workflow_id} has had driver {last.driver}; resume it with --cold or --hot")
        if last is not None:
            assert resume is not None
            for task in stored.tasks:
                if task.status in (BUILDING if resume is Resume.COLD else BUILDING - {R}):
                    self._change(task, E, Trouble.CANCELLED, "the workflow is resumed")
            if not last.status.is_terminal:
                asked = RunStatus.COLD_RESUME if resume is Resume.COLD else RunStatus.HOT_RESUME
                if self.clock.seconds() <= self._evolve(stored, status=asked).report_by:
                    return Linked(run=None, waits_for=f"driver {last.driver} to let go")
                self._over(stored, RunStatus.TERMINATED)
            for task in stored.tasks:
                if task.status is not D and not (resume is Resume.HOT and task.status is R):
                    task.attempts = 0
                    self._change(task, G)
        now = self.clock.seconds()
        run = RunInfo(
            id=self._next("run"),
            workflow_id=workflow_id,
            status=RunStatus.LINKED,
            driver=driver,
            created_at=now,
            heartbeat_at=now,
            report_by=now + 45,
        )
        stored.runs.append(run)
        return self._answer("link", Linked(run=run))

    async def heartbeat(self, run_id: int, status: RunStatus, next_report_increment: float) -> RunStatus:
        self._called("heartbeat")
        assert status in tuple("BIOR"), status
        now = self.clock.seconds()
        stored = self._of_run(run_id)
        run = next(run for run in stored.runs if run.id == run_id)
        self.beats.append((now, status, next_report_increment))
        if run is stored.runs[-1] and not run.status.is_terminal:
            kept = run.status if run.status.resumes else status
            run = self._evolve(stored, status=kept, heartbeat_at=now, report_by=now + next_report_increment)
        return self._answer("heartbeat", run.status)

    async def tasks(
        self, workflow_id: int, after: int, limit: int, statuses: Collection[TaskStatus] | None = None
    ) -> Sequence[TaskRow]:
        self._called("tasks")
        stored = self._workflow(workflow_id)
        wanted = set(TaskStatus) - {D} if statuses is None else statuses
        first = max(0, after + 1 - stored.first_task)
        rows = list(islice((task for task in stored.tasks[first:] if task.status in wanted), limit))
        return [
            TaskRow(
                *(task.id, task.array, task.definition.name, task.status, task.attempts),
                *(task.definition.max_attempts, task.resources, task.level),
            )
            for task in rows
        ]

    async def downstream(self, workflow_id: int, ids: Sequence[int]) -> Mapping[int, Sequence[int]]:
        self._called("downstream")
        first = self._workflow(workflow_id).first_task
        return {id: [first + position for position in self.task[id].definition.downstream] for id in ids}

    async def queue(self, run_id: int, batch: Batch) -> Sequence[TaskChange]:
        self._called("queue")
        self._current(run_id)
        self.batches.append(batch)
        for id, attempt in batch.tasks:
            task = self.task[id]
            if (run_id, id, attempt) in self._made:
                continue
            self._made.add((run_id, id, attempt))
            task.attempts, task.resources, task.level = attempt, batch.resources, batch.level
            if reason := self.refuses(task):
                self._change(task, F, Trouble.REFUSED, reason)
            else:
                self.queued.append((id, attempt))
                task.build_id = self._next("build")
                self._change(task, I)
        return self._answer("queue", [self._told(self.task[id]) for id, _ in batch.tasks])

    async def settle(self, run_id: int, changes: Mapping[int, tuple[TaskStatus, Resources, int]]) -> None:
        self._called("settle")
        self._current(run_id)
        for id, (status, resources, level) in changes.items():
            task = self.task[id]
            assert task.status in (E, status), f"{self.label(task)} is {task.status}, and is to be settled as {status}"
            task.resources, task.level = resources, level
            self._change(task, status, task.trouble, task.reason)
        self._answer("settle", None)

    async def sync(self, run_id: int, since: float | None) -> Delta:
        self._called("sync")
        self.since.append(since)
        stored = self._current(run_id)
        changed = [task for task in stored.tasks if (task.status is not G if since is None else task.changed_at >= since)]
        delta = Delta(now=self.clock.seconds(), status=stored.runs[-1].status, changes=[self._told(task) for task in changed])
        return self._answer("sync", delta)

    async def finish(self, run_id: int, status: RunStatus, reason: str) -> None:
        self._called("finish")
        stored = self._of_run(run_id)
        if stored.runs[-1].status is not status:
            self._current(run_id)
            self.finished.append((run_id, status, reason))
            self._over(stored, status)
        self._answer("finish", None)

    async def detach(self, run_id: int) -> None:
        self._called("detach")
        self._over(self._current(run_id), RunStatus.TERMINATED)
        self._answer("detach", None)

    async def cancel(self, workflow_id: int, reason: str) -> WorkflowInfo:
        self._called("cancel")
        stored = self._workflow(workflow_id)
        if stored.runs and not stored.runs[-1].status.is_terminal:
            self._over(stored, RunStatus.STOPPED)
        return await self.workflow(workflow_id)

    # --- how it does that ----------------------------------------------------------------------------------------------------

    def _called(self, name: str) -> None:
        self.on_call(name)
        if self.away or name in self.missed:
            self.missed.discard(name)
            raise ControllerAway("no controller answers")
        self.calls.append(name)

    def _answer(self, name: str, answer: T) -> T:
        if name in self.lost:
            self.lost.discard(name)
            raise ControllerAway(f"the answer to {name} was lost")
        return answer

    def _next(self, kind: str, count: int = 1) -> int:
        first = self._ids.get(kind, 1)
        self._ids[kind] = first + count
        return first

    def _bound(self, stored: Stored) -> Bound:
        arrays = tuple(range(stored.first_array, stored.first_array + len(stored.definition.arrays)))
        return Bound(workflow_id=stored.id, first_task=stored.first_task, arrays=arrays, tasks=len(stored.tasks))

    def _workflow(self, workflow_id: int) -> Stored:
        if workflow_id not in self.stored:
            raise NotFound(f"there is no workflow {workflow_id}")
        return self.stored[workflow_id]

    def _of_task(self, task: Task) -> Stored:
        return next(s for s in self.stored.values() if s.first_task <= task.id < s.first_task + s.definition.tasks)

    def _of_run(self, run_id: int) -> Stored:
        for stored in self.stored.values():
            if any(run.id == run_id for run in stored.runs):
                return stored
        raise NotFound(f"there is no workflow run {run_id}")

    def _current(self, run_id: int) -> Stored:
        stored = self._of_run(run_id)
        run = stored.runs[-1]
        if run.id != run_id:
            raise NotYourWorkflow(f"workflow {stored.id} is driven by {run.driver}, in run {run.id}")
        if run.status.is_terminal:
            raise NotYourWorkflow(f"run {run_id} of workflow {stored.id} is over ({run.status.value})")
        return stored

    def _evolve(self, stored: Stored, **changes: Any) -> RunInfo:
        stored.runs[-1] = evolve(stored.runs[-1], **changes)
        return stored.runs[-1]

    def _over(self, stored: Stored, status: RunStatus, end: bool = True) -> None:
        self._evolve(stored, status=status)
        stored.status = _WORKFLOW_IS.get(status, WorkflowStatus.HALTED)
        if end and status in (RunStatus.ERROR, RunStatus.STOPPED):
            for task in stored.tasks:
                if task.status in BUILDING:
                    self._change(task, E, Trouble.CANCELLED, "the run is over")

    def _change(self, task: Task, status: TaskStatus, trouble: Trouble | None = None, reason: str = "") -> None:
        task.status, task.trouble, task.reason = status, trouble, reason
        task.changed_at = self.clock.seconds()

    def _told(self, task: Task) -> TaskChange:
        return TaskChange(task.id, task.status, task.attempts, task.build_id, task.trouble, task.reason)


_WORKFLOW_IS = {RunStatus.DONE: WorkflowStatus.DONE, RunStatus.ERROR: WorkflowStatus.FAILED}
