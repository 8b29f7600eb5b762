"""Makes the state of a workflow run: of the workflow in memory, or of what the store has of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from latent.controller.clock import Clock
from latent.errors import EmptyWorkflowError, NotFound, WorkflowError
from latent.swarm.heart import Heart
from latent.swarm.listener import Listener
from latent.swarm.requester import Requester
from latent.swarm.state import SwarmArray, SwarmState, SwarmTask
from latent.swarm.statuses import RunStatus, TaskStatus
from latent.swarm.values import ArrayInfo, TaskRow, WorkflowInfo
from latent.swarm.workflow import Workflow

TASK_CHUNK_SIZE = 5000

LOOK = 1000
"""After so many tasks of a chunk the clock is looked at: no chunk is so long that a heartbeat comes late."""


class SwarmBuilder:
    """Builds a state once, and is asked for it then.

    ``heartbeat_interval``: seconds between two heartbeats; each announces the next within ``heartbeat_report_by_buffer`` times
    that. ``initial_status``: the run's status, told with the first heartbeat. ``heart`` goes on to the orchestrator.
    """

    def __init__(
        self,
        requester: Requester,
        workflow_run_id: int,
        heartbeat_interval: float = 30.0,
        heartbeat_report_by_buffer: float = 1.5,
        initial_status: str = RunStatus.BOUND,
        *,
        clock: Clock,
        listener: Listener | None = None,
    ) -> None:
        self.requester = requester
        self.workflow_run_id = workflow_run_id
        self.heartbeat_interval = heartbeat_interval
        self.heartbeat_report_by_buffer = heartbeat_report_by_buffer
        self.initial_status = RunStatus(initial_status)
        self.heart = Heart(
            requester,
            workflow_run_id,
            clock,
            interval=heartbeat_interval,
            buffer=heartbeat_report_by_buffer,
            status=self.initial_status,
        )
        self._listener = listener or Listener()
        self._state: SwarmState | None = None

    @property
    def state(self) -> SwarmState | None:
        """None until it is built."""
        return self._state

    @property
    def task_status_map(self) -> dict[TaskStatus, set[SwarmTask]]:
        """The tasks by status; a set for every status."""
        return {status: set() for status in TaskStatus} if self._state is None else self._state.task_status_map

    @property
    def last_sync(self) -> float | None:
        """The controller's time when the build began: what changes later is to be asked for."""
        return None if self._state is None else self._state.last_sync

    @property
    def status(self) -> RunStatus:
        """The run's, as the controller has it."""
        return self.heart.status

    async def build_from_workflow(self, workflow: Workflow) -> None:
        """For a run whose tasks are all still to be done. Sends no heartbeat.

        Raises WorkflowError for a workflow that is not bound (`latent.swarm.binding.bind`), and EmptyWorkflowError.
        """
        if workflow.bound is None:
            raise WorkflowError(f"workflow {workflow.name!r} is not in the store; bind it first")
        if not workflow.tasks:
            raise EmptyWorkflowError(f"workflow {workflow.name!r} has no tasks; add some with wf.array(...).task(...)")
        info = await self._info(workflow.bound.workflow_id)
        state = _state(info)
        first = workflow.bound.first_task
        arrays = [state.arrays[id] for id in workflow.bound.arrays]
        for task in workflow.tasks:
            array = arrays[task.array.position]
            resources = array.definition.resources
            if task.resources:
                resources = {**resources, **task.resources}
            ours = SwarmTask(first + task.position, array, task.name, TaskStatus.REGISTERING, task.max_attempts, resources)
            ours.resources = state.alike(resources)
            state.add(ours)
        for task in workflow.tasks:
            if task.downstream:
                state.link(state.tasks[first + task.position], (first + position for position in set(task.downstream)))
        self._built(state, info)

    async def build_from_workflow_id(self, workflow_id: int, edge_chunk_size: int = 500) -> None:
        """Of what the store has: the tasks that are not done, and those of their edges that lead to such tasks.

        ``edge_chunk_size``: of how many tasks the edges are asked for at a time. Raises EmptyWorkflowError where there is
        nothing, ValueError for a chunk of less than one task.
        """
        if edge_chunk_size < 1:
            raise ValueError(f"edge_chunk_size is {edge_chunk_size}; take 1 or more, 500 is usual")
        await self.heart.beat()
        self.heart.start()
        try:
            await self._build(workflow_id, edge_chunk_size)
        finally:
            self.heart.stop()

    async def _build(self, workflow_id: int, edge_chunk_size: int) -> None:
        info = await self._info(workflow_id)
        state = _state(info)
        await self._fetch_tasks(state, info)
        ids = list(state.tasks)
        for first in range(0, len(ids), edge_chunk_size):
            await self.heart.beat_if_due()
            await self._fetch_edges(state, ids[first : first + edge_chunk_size])
        self._built(state, info)

    async def _info(self, workflow_id: int) -> WorkflowInfo:
        try:
            info = await self.requester.workflow(workflow_id)
        except NotFound as error:
            raise EmptyWorkflowError(f"there is no workflow {workflow_id}; `latent workflow status` shows all") from error
        if not info.tasks:
            raise EmptyWorkflowError(f"workflow {workflow_id} ({info.name}) has no tasks; bind it with all its tasks")
        return info

    async def _fetch_tasks(self, state: SwarmState, info: WorkflowInfo) -> None:
        last = 0
        while True:
            await self.heart.beat_if_due()
            rows = await self.requester.tasks(info.id, last, TASK_CHUNK_SIZE)
            if not rows:
                return
            for number, row in enumerate(rows, 1):
                state.add(_task(state, row))
                if not number % LOOK:
                    await self.heart.beat_if_due()
            last = rows[-1].id
            self._listener.building(len(state.tasks), info.tasks)

    async def _fetch_edges(self, state: SwarmState, ids: list[int]) -> None:
        downstream = await self.requester.downstream(state.workflow_id, ids)
        for number, id in enumerate(ids, 1):
            state.link(state.tasks[id], downstream.get(id, ()))
            if not number % LOOK:
                await self.heart.beat_if_due()

    def _built(self, state: SwarmState, info: WorkflowInfo) -> None:
        for array in info.arrays:
            # What was done before is not fetched, but counts.
            counts = state.arrays[array.id].counts
            counts[TaskStatus.DONE] += max(0, sum(array.counts.values()) - sum(counts.values()))
        state.line_up()
        self._state = state
        if not self.heart.is_over:
            self.heart.status = RunStatus.BOUND
        self._listener.built(state)


def _state(info: WorkflowInfo) -> SwarmState:
    state = SwarmState(info.id, info.name, _arrays(info.arrays), max_running=info.max_running, fail_fast=info.fail_fast)
    state.last_sync = info.now
    return state


def _arrays(arrays: Iterable[ArrayInfo]) -> Iterator[SwarmArray]:
    return (SwarmArray(array.id, array.definition) for array in arrays)


def _task(state: SwarmState, row: TaskRow) -> SwarmTask:
    array = state.arrays[row.array_id]
    resources = state.alike(row.resources)
    return SwarmTask(row.id, array, row.name, row.status, row.max_attempts, resources, row.attempts, row.level)
