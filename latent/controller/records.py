"""The public records of runs in a controller's store, and dispatches to its machines (specs/runs.md)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from latent.controller.clock import Clock
from latent.controller.roster import Roster
from latent.errors import NotFound
from latent.killpoints import here, passing
from latent.model import Build, BuildRequest, Run, RunStatus
from latent.store import builds, dispatches, owners, runs_sql
from latent.store.database import Store
from latent.store.runs import PrepareOutcome, Runs, adoptable

log = Logger()


class Acceptance(Protocol):
    """How builds come to be carried out. ``check_open`` raises ControllerStopping when none are taken."""

    def check_open(self) -> None: ...
    def accept(self, build: Build) -> None: ...
    def when_planned(self) -> Deferred[None]: ...


@frozen(kw_only=True)
class DispatchDetails:
    """``outcome``: CREATED or REUSE. ``build``: None if the run is another process's. ``run``: the one that is not over."""

    outcome: PrepareOutcome
    build: Build | None
    run: Run | None


class Records:
    def __init__(self, store: Store, clock: Clock, roster: Roster, acceptance: Acceptance) -> None:
        self._store = store
        self._clock = clock
        self._roster = roster
        self._acceptance = acceptance

    async def find(
        self,
        *,
        machine: str | None = None,
        statuses: Collection[RunStatus] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Runs:
        """See `latent.store.runs.RunStore.find`."""
        return await self._store.read(
            lambda conn: runs_sql.find(conn, machine=machine, statuses=statuses, after=after, limit=limit)
        )

    async def get(self, id: str) -> Run:
        """Raises RunNotFound."""
        return await self._store.read(lambda conn: runs_sql.get(conn, id))

    async def adopt(self, runs: Sequence[Run], *, new_ids: bool = False) -> Runs:
        """See `latent.store.runs.RunStore.adopt`."""
        wanted = adoptable(runs, new_ids=new_ids)
        adopted = await self._store.write(lambda conn: runs_sql.adopt(conn, wanted, new_ids=new_ids))
        here("records.adopt.written")
        return adopted

    async def dispatch(self, request: BuildRequest) -> DispatchDetails:
        """Carry the request out on the machine that its `Dispatch` names, unless that has it already.

        A machine is a worker, or all workers that were declared with it as ``machine_name``. Raises NotFound for one that is not
        declared, and MachineBusy, which names the occupant; then nothing is stored.
        """
        self._acceptance.check_open()
        assert request.dispatch is not None
        workers = self._workers_of(request.dispatch.machine)
        needs = evolve(request.requirements, workers=frozenset(workers))
        request = evolve(request, requirements=needs)
        now = self._clock.seconds()
        here("records.dispatch.before")
        found = await self._store.write(lambda conn: dispatches.dispatch(conn, request, workers, now))
        here("records.dispatch.written")
        id = found.build_id
        if id is None:
            return DispatchDetails(outcome=found.outcome, build=None, run=found.run)
        build = await self._store.read(lambda conn: builds.get(conn, id))
        if found.outcome is not PrepareOutcome.CREATED:
            return DispatchDetails(outcome=found.outcome, build=build, run=found.run)
        planned = self._acceptance.when_planned()
        self._acceptance.accept(build)
        # A machine that is free has its run by then, and the answer can name it.
        await planned
        build = await self._store.read(lambda conn: builds.get(conn, id))
        run = await self._store.read(lambda conn: dispatches.run_of(conn, id))
        return DispatchDetails(outcome=found.outcome, build=build, run=run)

    def _workers_of(self, machine: str) -> list[str]:
        workers = [post.name for post in self._roster if machine in (post.name, post.plugin.machine_name)]
        if not workers:
            known = {post.plugin.machine_name or post.name for post in self._roster}
            raise NotFound(f"no machine or worker is called {machine!r} (known: {', '.join(sorted(known)) or 'none'})")
        return workers

    def reconcile(self) -> None:
        """End runs that other processes have put into the store and do not carry out any more: they would hold their machines."""
        now = self._clock.seconds()
        ended = self._store.write(lambda conn: runs_sql.reconcile(conn, now, owners.is_alive))
        ended.addCallback(passing("records.reconcile.written"))
        ended.addCallbacks(_tell, lambda failure: log.failure("runs of other processes could not be looked after", failure))


def _tell(ended: Runs) -> None:
    for run in ended:
        log.warn("run {run} on {machine}: {message}", run=run.id, machine=run.machine, message=run.error_msg)
