"""What a driver asks of the controller, in process (`latent.swarm.service.Workflows`) or over HTTP (`latent.swarm.http`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from latent.swarm.statuses import RunStatus, TaskStatus
from latent.swarm.values import (
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
    WorkflowInfo,
)


class Requester(Protocol):
    """Every call may be made again when its answer was lost: the second is the same call.

    All raise `NotFound` for an unknown id and `ControllerAway` when no controller has answered for a while. What a workflow run
    asks (`queue`, `settle`, `sync`, `finish`) raises `NotYourWorkflow` when the run is over or another one has taken its place.
    """

    async def bind(self, definition: Definition) -> Bound:
        """The workflow of that digest: as it is, or new and without tasks. Raises ConfigError with all that is wrong."""

    async def add_tasks(self, workflow_id: int, first: int, tasks: Sequence[TaskDefinition]) -> Bound:
        """Store the tasks at the positions from ``first`` on; those that are stored already are left as they are.

        The workflow is QUEUED once all are there. Raises ConfigError.
        """

    async def workflow(self, workflow_id: int) -> WorkflowInfo: ...

    async def workflows(self, limit: int = 50) -> Sequence[WorkflowInfo]:
        """Newest first."""

    async def link(self, workflow_id: int, driver: str, resume: Resume | None = None) -> Linked:
        """Become the workflow's driver. With ``resume``, take it over from who is; ask again until there is a run.

        The tasks that are not DONE begin anew; RUNNING ones go on if ``resume`` is HOT. Raises NotResumable.
        """

    async def heartbeat(self, run_id: int, status: RunStatus, next_report_increment: float) -> RunStatus:
        """The driver lives, and will say so again within ``next_report_increment`` seconds. What it is to be from now on."""

    async def tasks(
        self, workflow_id: int, after: int, limit: int, statuses: Collection[TaskStatus] | None = None
    ) -> Sequence[TaskRow]:
        """The tasks of these statuses (None: all but DONE) whose ids are greater than ``after``, in order of their ids."""

    async def downstream(self, workflow_id: int, ids: Sequence[int]) -> Mapping[int, Sequence[int]]:
        """The ids of the tasks that wait for each of these."""

    async def queue(self, run_id: int, batch: Batch) -> Sequence[TaskChange]:
        """Have the tasks carried out. An attempt that was asked for already is not made again."""

    async def settle(self, run_id: int, changes: Mapping[int, tuple[TaskStatus, Resources, int]]) -> None:
        """What the driver has decided of tasks whose builds failed: G, A or F; the next attempt's resources and level."""

    async def sync(self, run_id: int, since: float | None) -> Delta:
        """What has changed since; None: every task that is not REGISTERING."""

    async def finish(self, run_id: int, status: RunStatus, reason: str) -> None:
        """The driver ends, and the run with it: D, E, S or T. What is not over of its builds is ended for E and S."""

    async def detach(self, run_id: int) -> None:
        """The driver ends, and what runs goes on: the run is to be resumed."""

    async def cancel(self, workflow_id: int, reason: str) -> WorkflowInfo:
        """End its builds and its run."""
