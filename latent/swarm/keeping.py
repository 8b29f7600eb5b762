"""What the parts of `latent.swarm.service` share: whose a run is, when a driver is given up, and the time that changes bear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sqlalchemy import Connection
from twisted.internet.defer import Deferred, gatherResults

from latent.controller.clock import Clock
from latent.errors import NotYourWorkflow
from latent.killpoints import here
from latent.model import JSON, Build, BuildRequest
from latent.store import tasks
from latent.store import workflows as rows
from latent.store.database import Store
from latent.store.workflows import RunRow, WorkflowRow
from latent.swarm.following import follow
from latent.swarm.statuses import RunStatus, WorkflowStatus

LINKED_PATIENCE = 120.0
"""Seconds that a new driver has until its first heartbeat."""

TICK = 1e-6
"""Between the times of two changes, in seconds; a double holds as much until the year 2242."""

AT_ONCE = 500
"""Builds that are cancelled side by side."""


class Builds(Protocol):
    """What is asked of the controller; `latent.controller.service.Controller` has it."""

    async def request_for(
        self,
        builder: str,
        properties: Mapping[str, JSON],
        labels: Mapping[str, str],
        *,
        priority: int | None = None,
        timeout: float | None = None,
    ) -> BuildRequest: ...
    def builders(self) -> Mapping[str, object]: ...
    def check_open(self) -> None: ...
    def accept(self, build: Build) -> None: ...
    async def cancel(self, build_id: int, reason: str) -> Build: ...


class Keeper:
    """``builds``: the controller. Methods that take a connection are called in the store's transactions, and in its thread."""

    def __init__(self, builds: Builds, store: Store, clock: Clock) -> None:
        self.builds = builds
        self.store = store
        self.clock = clock
        self.started_at = clock.seconds()
        self._stamps: dict[int, float] = {}

    def stamp(self, conn: Connection, workflow_id: int) -> float:
        """The time of the changes of this transaction: later than all before, though the clock may have been set back."""
        last = self._stamps.get(workflow_id)
        if last is None:
            last = tasks.last_change(conn, workflow_id)
        # A transaction that is made again has another, which is as good.
        self._stamps[workflow_id] = at = max(self.clock.seconds(), last + TICK)
        return at

    def follow(self, conn: Connection, workflow_id: int) -> float:
        """Bring the tasks up to their builds; the time by which that was so."""
        at = self.stamp(conn, workflow_id)
        follow(conn, workflow_id, at)
        return at

    def own(self, conn: Connection, run_id: int) -> tuple[RunRow, WorkflowRow]:
        """A run that is not over, and so is its workflow's. Raises NotFound, NotYourWorkflow."""
        run = rows.run(conn, run_id)
        if run.ended_at is not None:
            raise NotYourWorkflow(
                f"workflow run {run_id} of {run.driver} is over: {run.reason or RunStatus(run.status).name.lower()}; "
                f"go on with workflow {run.workflow_id} by resuming it"
            )
        return run, rows.get(conn, run.workflow_id)

    def due(self, run: RunRow) -> float:
        """When the run is given up. A driver whose controller was away could not report, and has its time again."""
        return max(run.report_by, self.started_at + run.report_by - run.heartbeat_at)

    def give_up(self, conn: Connection, run: RunRow) -> None:
        """End a run whose driver is not heard of any more. Its builds go on: whoever resumes decides what becomes of them."""
        now = self.clock.seconds()
        status = RunStatus(run.status)
        after = ABANDONED.get(status, RunStatus.ERROR)
        reason = f"its driver {run.driver} was not heard of for {now - run.heartbeat_at:.0f} s"
        rows.end_run(conn, run.id, after.value, reason, now, lost=not status.resumes)
        rows.set_status(conn, run.workflow_id, WorkflowStatus.HALTED.value)

    async def end_builds(self, workflow_id: int, letters: str, reason: str) -> int:
        """Have the builds of the tasks with these statuses end; how many of them have not yet."""

        def look(conn: Connection) -> list[tuple[int, bool]]:
            self.follow(conn, workflow_id)
            found = tasks.building(conn, workflow_id)
            return [(build, asked) for _, status, build, asked in found if status in letters]

        unfinished = await self.store.write(look)
        new = [build for build, asked in unfinished if not asked]
        if not new:
            return len(unfinished)
        here("workflows.end.before")
        for at in range(0, len(new), AT_ONCE):
            await gatherResults(
                [Deferred.fromCoroutine(self.builds.cancel(build, reason)) for build in new[at : at + AT_ONCE]],
                consumeErrors=True,
            )
        return len(await self.store.write(look))


ABANDONED = {
    RunStatus.REGISTERED: RunStatus.ABORTED,
    RunStatus.LINKED: RunStatus.ABORTED,
    RunStatus.BOUND: RunStatus.ABORTED,
    RunStatus.COLD_RESUME: RunStatus.TERMINATED,
    RunStatus.HOT_RESUME: RunStatus.TERMINATED,
}
"""What becomes of a run whose driver is given up; of every other, ERROR."""
