"""Ends the runs of workflows whose drivers are not heard of any more, and says of which nobody has taken notice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from attrs import frozen
from sqlalchemy import Connection
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.controller.health import HealthItem
from latent.killpoints import here
from latent.store import tasks
from latent.store import workflows as rows
from latent.store.workflows import RunRow
from latent.swarm.keeping import Keeper
from latent.swarm.statuses import RunStatus

log = Logger()

INTERVAL = 30.0
"""Seconds from one look at the drivers to the next."""

JUMP = 3 * INTERVAL
"""Seconds between two looks that can't have passed: the clock was set, or this process was stopped."""


@frozen
class _Lost:
    """A run whose driver was given up. ``building``: how many builds of the workflow were not over then."""

    run: RunRow
    workflow: str
    building: int


class Reaper:
    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._open: list[RunRow] = []
        self._lost: list[_Lost] = []
        self._looked = keeper.clock.seconds()
        self._stopped = False
        self._loop = LoopingCall(self.look)
        self._loop.clock = keeper.clock  # type: ignore[assignment]

    def start(self) -> None:
        self._keeper.started_at = self._looked = self._keeper.clock.seconds()
        self._loop.start(INTERVAL, now=True)

    def stop(self) -> None:
        self._stopped = True
        if self._loop.running:
            self._loop.stop()

    def look(self) -> Deferred[None]:
        """Give up the drivers that are overdue. What goes wrong is logged: the next look is made all the same."""
        return Deferred.fromCoroutine(self._look()).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if not self._stopped:  # else the store is closed
            log.failure("the drivers of workflows could not be looked at", failure)

    async def _look(self) -> None:
        keeper = self._keeper
        now = keeper.clock.seconds()
        if now - self._looked > JUMP:
            # No driver could report in time that has not passed.
            keeper.started_at = now
        self._looked = now
        self._open, lost = await keeper.store.read(_runs)
        if any(keeper.due(run) <= keeper.clock.seconds() for run in self._open):
            here("workflows.reap.before")
            await keeper.store.write(self._reap)
            here("workflows.reap.written")
            self._open, lost = await keeper.store.read(_runs)
        self._lost = lost

    def _reap(self, conn: Connection) -> None:
        for run in rows.open_runs(conn):
            if self._keeper.due(run) <= self._keeper.clock.seconds():
                self._keeper.follow(conn, run.workflow_id)
                self._keeper.give_up(conn, run)
                log.warn("workflow run {id} is given up: {driver} was not heard of", id=run.id, driver=run.driver)

    # --- what is known since the last look -------------------------------------------------------------------------------

    def health(self) -> list[HealthItem]:
        """A workflow that nobody drives any more, though nobody said that it should stop."""
        return [
            HealthItem(
                subject=f"workflow {lost.run.workflow_id}",
                ok=False,
                message=f"{lost.workflow}: {lost.run.reason}"
                + (f"; {lost.building} of its builds go on" if lost.building else ""),
                remedy=f"resume it (latent workflow run FILE.py --resume {lost.run.workflow_id} --hot), "
                f"or let it be: latent workflow cancel {lost.run.workflow_id}",
            )
            for lost in self._lost
        ]

    def counts(self) -> Mapping[tuple[tuple[str, str], ...], float]:
        found = Counter(RunStatus(run.status).name.lower() for run in self._open)
        return {(("status", status),): float(number) for status, number in sorted(found.items())}


def _runs(conn: Connection) -> tuple[list[RunRow], list[_Lost]]:
    lost = [
        _Lost(run, rows.get(conn, run.workflow_id).name, len(tasks.building(conn, run.workflow_id)))
        for run in rows.lost_runs(conn)
    ]
    return rows.open_runs(conn), lost
