"""What a controller does with what the one before it left: read it, ask the plugins what exists, and feed the difference in.

Builds, runs and sessions come back at once, from the store alone. Then each worker is recovered by itself: one whose row is
damaged or whose plugin fails or hangs is reported and holds up no other. Until a worker is recovered, what happens to it waits
(`latent.controller.lifecycle.Lifecycle.resumed`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import define, evolve, field, frozen
from sqlalchemy import Connection
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.controller.asking import ask
from latent.controller.clock import Clock
from latent.controller.dispatcher import Dispatcher
from latent.controller.failures import explained
from latent.controller.identity import Identity
from latent.controller.lifecycle import Lifecycle
from latent.controller.queue import BuildQueue
from latent.controller.roster import Roster
from latent.controller.scan import accounts_for
from latent.core import events as ev
from latent.core import leasing
from latent.core.quarantine import Quarantine
from latent.core.states import (
    InsubstantiatingSubstantiating,
    NotSubstantiated,
    ShutDown,
    State,
    Substantiated,
    Substantiating,
    SubstantiatingStarting,
)
from latent.errors import StoreError
from latent.killpoints import here, passing
from latent.model import JSON, Build, BuildState, LeaseState, Result, RunStatus
from latent.store import attempts, builds, journal, sessions
from latent.store.database import Store
from latent.store.states import load
from latent.worker import results
from latent.worker.base import AbstractLatentWorker, AbstractWorker, ListedInstance, scope_of

log = Logger()

ANSWER_TIMEOUT = 60.0
"""Seconds that a plugin has to say what exists."""


@frozen(kw_only=True)
class Remains:
    """What the store has of the time before. ``damaged``: worker -> why its row can't be read. ``live``: the attempts that are
    neither stopped nor gone, oldest first."""

    states: Mapping[str, JSON]
    damaged: Mapping[str, str]
    quarantines: Mapping[str, JSON]
    live: Mapping[str, list[attempts.LiveAttempt]]
    problems: list[str] = field(factory=list)


async def read_remains(store: Store) -> Remains:
    states, damaged = await store.read(journal.load)
    live: dict[str, list[attempts.LiveAttempt]] = {}
    for found in await store.read(attempts.live):
        live.setdefault(found.attempt.worker, []).append(found)
    quarantines = await store.read(journal.load_quarantines)
    here("recovery.remains.read")
    return Remains(states=states, damaged=damaged, quarantines=quarantines, live=live)


async def state_of(plugin: AbstractLatentWorker, remains: Remains, store: Store) -> State:
    """The state that the worker was in; with a damaged row, that of a worker whose last attempt is over."""
    damage = remains.damaged.get(plugin.name, "")
    doc = remains.states.get(plugin.name)
    if doc is None and not damage:
        return NotSubstantiated(policy=plugin.policy())
    if not damage:
        try:
            return load(doc, plugin.policy())
        except StoreError as error:
            damage = str(error)
    remains.problems.append(f"worker {plugin.name}: its state can't be read ({damage}); what its last attempt made is destroyed")
    return NotSubstantiated(policy=plugin.policy(), attempt=await store.read(lambda conn: attempts.last(conn, plugin.name)))


def quarantine_of(plugin: AbstractWorker, remains: Remains) -> Quarantine:
    doc = remains.quarantines.get(plugin.name)
    try:
        return _quarantine(doc) if doc else Quarantine()
    except TypeError as error:
        remains.problems.append(f"worker {plugin.name}: its back-off can't be read ({error}); it starts without one")
        return Quarantine()


def _quarantine(doc: JSON) -> Quarantine:
    """Raises TypeError."""
    quarantine = Quarantine(**doc)
    for value in (quarantine.step, quarantine.until):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{value!r} is no number")
    if not isinstance(quarantine.reason, str) or not isinstance(quarantine.paused, bool):
        raise TypeError(f"{doc!r} is none")
    return quarantine


def report_undeclared(roster: Roster, remains: Remains) -> None:
    """Say which workers that are not there any more had an instance; `Remains.problems` is added to."""
    for name, live in remains.live.items():
        if not isinstance(roster.get(name), Lifecycle):
            remains.problems.append(
                f"worker {name} is no longer declared as it was, but attempt {live[-1].attempt.number} of it was up: "
                f"declare it again so that its instance can be stopped, or see to it by hand"
            )


@define(eq=False)
class _Listing:
    """One call of list_instances, for all who want to know."""

    outcome: tuple[ListedInstance, ...] | Failure | None = None
    waiting: list[Deferred[tuple[ListedInstance, ...]]] = field(factory=list)

    def is_known(self, outcome: tuple[ListedInstance, ...] | Failure) -> None:
        self.outcome = outcome
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            waiter.callback(outcome)

    def wait(self) -> Deferred[tuple[ListedInstance, ...]]:
        waiter: Deferred[tuple[ListedInstance, ...]] = Deferred()
        if self.outcome is None:
            self.waiting.append(waiter)
        else:
            waiter.callback(self.outcome)
        return waiter


class Recovery:
    """One recovery, with one look at each provider. ``remains.problems`` is added to."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        roster: Roster,
        queue: BuildQueue,
        dispatcher: Dispatcher,
        identity: Identity,
        remains: Remains,
    ) -> None:
        self._store = store
        self._clock = clock
        self._roster = roster
        self._queue = queue
        self._dispatcher = dispatcher
        self._identity = identity
        self._remains = remains
        self._listings: dict[str, _Listing] = {}

    # --- builds and sessions -------------------------------------------------------------------------------------------------

    async def builds_and_sessions(self) -> None:
        """Bring back what the store alone knows. The runs of latent workers are settled with their workers."""
        unfinished, unreadable = await self._store.read(builds.unfinished)
        for build_id, why in unreadable.items():
            self._remains.problems.append(f"build {build_id} can't be read and is left alone: {why}")
        open_sessions = {row.id: row for row in await self._store.read(sessions.open_sessions)}
        known = {build.id: build for build in unfinished}
        live_runs = await self._store.read(builds.live_runs)
        here("recovery.builds.read")
        for found in live_runs:
            build = known.pop(found.build_id, None)
            if build is None:
                await self._free_machine(found)
                continue
            row = open_sessions.get(found.session_id or 0)
            attempt = found.attempt if row is None else row.attempt or 0
            self._dispatcher.add(found.run_id, build, found.worker, attempt, self._lease(found, build))
        for build in known.values():
            if build.cancel_requested:
                await self._end_cancelled(build.id)
            else:
                self._queue.put(build if build.state is BuildState.QUEUED else evolve(build, state=BuildState.QUEUED))
        await self._dispatcher.fences.restore()
        for row in open_sessions.values():
            await self._session(row)
        await self._logs()
        for run in self._dispatcher.live():
            if not isinstance(self._roster.get(run.worker), Lifecycle):
                if run.state.session is None:
                    self._dispatcher.abandon(run, "the controller was restarted before an agent had it")
                self._cancel_again(run.id)
        here("recovery.builds.back")

    def _lease(self, found: builds.LiveRun, build: Build) -> leasing.Running:
        request = build.request
        state = leasing.Running(timeout=request.timeout, tries=build.attempts, max_attempts=request.max_attempts)
        if found.status is not RunStatus.RUNNING:
            return state
        now = self._clock.seconds()
        return evolve(
            state,
            lease=found.lease,
            session=found.session_id,
            # The agent could not renew while nobody listened: it gets a whole session's time to come back.
            expires=now + max(self._dispatcher.lease_seconds, self._dispatcher.sessions.timeout),
            ends_by=max(now, (found.started_at or now) + request.timeout),
        )

    async def _free_machine(self, found: builds.LiveRun) -> None:
        """A run whose build can't be read: nobody will end it, and its worker must not stay occupied."""
        now = self._clock.seconds()
        why = f"its build {found.build_id} can't be read"
        await self._store.write(
            lambda conn: builds.finish(
                conn,
                found.run_id,
                status=RunStatus.INTERRUPTED,
                exit_code=None,
                error_code="unreadable",
                error_msg=why,
                at=now,
                lease=LeaseState.CANCELLED,
                build_state=BuildState.QUEUED,
                build_result=None,
                reason=why,
            )
        )
        here("recovery.unreadable.written")

    async def _logs(self) -> None:
        """Logs of runs that are over, which the controller before did not come to compress."""
        try:
            left = await self._store.read(lambda _: self._store.logs.left())
        except StoreError as error:
            self._remains.problems.append(f"logs that a crash left are not compressed: {error}")
            return
        self._dispatcher.aftermath.take(run for run in left if self._dispatcher.get(run) is None)

    async def _end_cancelled(self, build_id: int) -> None:
        now = self._clock.seconds()
        await self._store.write(lambda conn: builds.end(conn, build_id, Result.CANCELLED, CANCELLED_BEFORE, now))
        here("recovery.cancelled.written")

    def _cancel_again(self, run_id: int) -> None:
        """The cancellation that was asked for before; the agent may not have heard of it."""
        run = self._dispatcher.get(run_id)
        if run is not None and run.build.cancel_requested:
            self._dispatcher.cancel(run, Result.CANCELLED, CANCELLED_BEFORE)

    async def _session(self, row: sessions.SessionRow) -> None:
        declared = row.worker in self._roster
        if declared and (row.info or row.attempt is None):
            self._dispatcher.sessions.recovered(row)
            return
        now = self._clock.seconds()
        why = "it had not attached before the restart" if declared else "its worker is no longer declared"

        def close(conn: Connection) -> None:
            sessions.close_session(conn, row.id, why, now)
            # Its agent may not have been told that it has a session, and is to get one.
            attempts.release_token(conn, row.token_hash)

        await self._store.write(close)
        here("recovery.session.written")

    # --- one worker ----------------------------------------------------------------------------------------------------------

    async def worker(self, post: Lifecycle) -> None:
        """Ask the plugin what exists, tell the worker, and bring it and its runs in line. Its plugin is set up."""
        found: bool | None = None
        if not _at_rest(post.state):
            try:
                found = await self._found(post)
            except Exception as error:
                log.failure("{worker}: its plugin could not say what exists", worker=post.name)
                self._remains.problems.append(
                    f"worker {post.name}: its plugin could not say whether its instance is there: {explained(error)}"
                )
        await self._condemn_forgotten(post)
        here("recovery.worker.before")
        await post.resumed(found)
        here("recovery.worker.told")
        self._settle(post)

    async def _found(self, post: Lifecycle) -> bool | None:
        """Whether the instance of the worker's attempt is there; None if the plugin can't tell."""
        plugin = post.plugin
        handle = next((one.handle for one in self._remains.live.get(post.name, ()) if one.attempt == post.attempt), None)
        post.kept = handle
        plugin.enrolment = self._identity.enrolment(post.attempt, handle)
        if isinstance(post.state, Substantiating) or post.unusable or not plugin.supports("resume_instance"):
            return None
        if handle is None:
            if not plugin.supports("list_instances"):
                return None
            mine = [one for one in await self._listed(plugin) if one.attempt == post.attempt]
            if not mine:
                return False
            handle = post.kept = mine[0].handle
            plugin.enrolment = self._identity.enrolment(post.attempt, handle)
            await self._store.write(lambda conn: attempts.set_handle(conn, post.attempt, handle))
            here("recovery.handle.written")
        here("recovery.resume.before")
        resumed = await ask(self._clock, ANSWER_TIMEOUT, plugin.resume_instance, handle)
        here("recovery.resume.answered")
        return results.resume_result(plugin, resumed)

    async def _condemn_forgotten(self, post: Lifecycle) -> None:
        """Attempts that are not known to be over, and that the worker's state says nothing of: its row was damaged."""
        now = self._clock.seconds()
        forgotten = [one.attempt for one in self._remains.live.get(post.name, ()) if not accounts_for(post, one.attempt)]

        def write(conn: Connection) -> None:
            for attempt in forgotten:
                attempts.condemn(conn, attempt, "its worker's state was lost", now)

        if forgotten:
            await self._store.write(write)
            here("recovery.forgotten.written")

    def _settle(self, post: Lifecycle) -> None:
        """Runs and their worker must agree; what only one of them knows is put right."""
        for run in self._dispatcher.runs_of(post.name):
            match post.state:
                case Substantiated(builds=held) if run.key in held:
                    if run.state.session is None:
                        run.attempt = post.state.attempt
                        self._dispatcher.offer_when_attached(run)
                case SubstantiatingStarting(waiters=waiters) | Substantiating(waiters=waiters) if run.key in waiters:
                    pass
                case InsubstantiatingSubstantiating(waiters=waiters) if run.key in waiters:
                    pass
                case _:
                    self._dispatcher.abandon(run, "the controller was restarted before its worker had it")
            self._cancel_again(run.id)
        for key in _builds_of(post.state):
            if self._dispatcher.get(int(key)) is None:
                post.apply(ev.GiveUp(key))

    # --- what was listed -----------------------------------------------------------------------------------------------------

    def listings(self) -> dict[str, tuple[ListedInstance, ...] | Failure]:
        """What each place that was listed has, of all controllers, by the place; or why that could not be said."""
        return {scope: one.outcome for scope, one in self._listings.items() if one.outcome is not None}

    async def _listed(self, plugin: AbstractLatentWorker) -> list[ListedInstance]:
        """What is ours in the plugin's place, asked for once."""
        scope = scope_of(plugin)
        listing = self._listings.get(scope)
        if listing is None:
            listing = self._listings[scope] = _Listing()
            here("recovery.list.before")
            asked = ask(self._clock, ANSWER_TIMEOUT, plugin.list_instances)
            asked.addCallback(passing("recovery.list.answered"))
            asked.addCallback(lambda result: results.listed(plugin, result)).addBoth(listing.is_known)
        return [instance for instance in await listing.wait() if instance.controller_id == self._identity.controller_id]


CANCELLED_BEFORE = "cancelled before the restart"


def _at_rest(state: State) -> bool:
    return isinstance(state, NotSubstantiated | ShutDown)


def _builds_of(state: State) -> Iterable[str]:
    match state:
        case Substantiated(builds=held):
            return sorted(held)
        case SubstantiatingStarting(waiters=waiters) | Substantiating(waiters=waiters):
            return waiters
        case InsubstantiatingSubstantiating(waiters=waiters):
            return waiters
        case _:
            return ()
