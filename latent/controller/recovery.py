"""What a controller does with what the one before it left: read it, ask the plugins what exists, and feed the difference in.

Each worker is recovered by itself; one whose row is damaged or whose plugin fails is reported and holds up no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from attrs import evolve, field, frozen
from sqlalchemy import Connection
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger

from latent.controller.clock import Clock
from latent.controller.dispatcher import Dispatcher
from latent.controller.identity import Identity
from latent.controller.lifecycle import Lifecycle
from latent.controller.queue import BuildQueue
from latent.controller.roster import Post, Roster
from latent.core import events as ev
from latent.core import leasing
from latent.core.quarantine import Quarantine
from latent.core.states import (
    InsubstantiatingSubstantiating,
    NotSubstantiated,
    State,
    Substantiated,
    Substantiating,
    SubstantiatingStarting,
)
from latent.errors import StoreError
from latent.model import JSON, Attempt, BuildState, Result, RunStatus
from latent.store import attempts, builds, journal, sessions
from latent.store.database import Store
from latent.store.states import load
from latent.worker import hooks, results
from latent.worker.base import AbstractLatentWorker, AbstractWorker, ListedInstance

log = Logger()

ANSWER_TIMEOUT = 60.0
"""Seconds that a plugin has to say what exists."""


@frozen(kw_only=True)
class Remains:
    """What the store has of the time before. ``damaged``: worker -> why its row can't be read."""

    states: Mapping[str, JSON]
    damaged: Mapping[str, str]
    quarantines: Mapping[str, JSON]
    live: Mapping[str, attempts.LiveAttempt]
    condemned: list[attempts.Condemned]
    problems: list[str] = field(factory=list)


async def read_remains(store: Store) -> Remains:
    states, damaged = await store.read(journal.load)
    live = await store.read(attempts.live)
    return Remains(
        states=states,
        damaged=damaged,
        quarantines=await store.read(journal.load_quarantines),
        live={found.attempt.worker: found for found in live},
        condemned=await store.read(attempts.condemned),
    )


def state_of(plugin: AbstractLatentWorker, remains: Remains) -> State:
    """The state that the worker was in; with a damaged row, that of a worker whose last attempt is over."""
    last = remains.live.get(plugin.name)
    fallback = NotSubstantiated(policy=plugin.policy(), attempt=last.attempt.number if last else 0)
    damage = remains.damaged.get(plugin.name, "")
    doc = remains.states.get(plugin.name)
    if doc is not None and not damage:
        try:
            return load(doc, plugin.policy())
        except StoreError as error:
            damage = str(error)
    if damage:
        remains.problems.append(
            f"worker {plugin.name}: its state can't be read ({damage}); what its last attempt made is destroyed"
        )
    return fallback


def quarantine_of(plugin: AbstractWorker, remains: Remains) -> Quarantine:
    doc = remains.quarantines.get(plugin.name)
    try:
        return Quarantine(**doc) if doc else Quarantine()
    except TypeError as error:
        remains.problems.append(f"worker {plugin.name}: its back-off can't be read ({error}); it starts without one")
        return Quarantine()


class Recovery:
    def __init__(
        self,
        store: Store,
        clock: Clock,
        roster: Roster,
        queue: BuildQueue,
        dispatcher: Dispatcher,
        identity: Identity,
    ) -> None:
        self._store = store
        self._clock = clock
        self._roster = roster
        self._queue = queue
        self._dispatcher = dispatcher
        self._identity = identity

    async def run(self, remains: Remains) -> list[attempts.Condemned]:
        """Bring runs, sessions and workers back. Returns what the reaper is to look after; ``remains.problems`` is added to."""
        await self._builds_and_runs(remains)
        for row in await self._store.read(sessions.open_sessions):
            self._session(row)
        await self._workers(self._roster.latent(), remains)
        await self._condemn_strays(remains)
        return await self._store.read(attempts.condemned)

    # --- builds --------------------------------------------------------------------------------------------------------------

    async def _builds_and_runs(self, remains: Remains) -> None:
        unfinished, unreadable = await self._store.read(builds.unfinished)
        for build_id, why in unreadable.items():
            remains.problems.append(f"build {build_id} can't be read and is left alone: {why}")
        known = {build.id: build for build in unfinished}
        now = self._clock.seconds()
        for found in await self._store.read(builds.live_runs):
            build = known.pop(found.build_id, None)
            if build is None:
                continue
            request = build.request
            state = leasing.Running(
                timeout=request.timeout,
                tries=build.attempts,
                max_attempts=request.max_attempts,
                cancelled=Result.CANCELLED if build.cancel_requested else None,
                reason="cancelled before the restart" if build.cancel_requested else "",
            )
            if found.status is RunStatus.RUNNING:
                state = evolve(
                    state,
                    lease=found.lease,
                    session=found.session_id,
                    # The agent could not renew while nobody listened: it gets a whole session's time to come back.
                    expires=now + max(self._dispatcher.lease_seconds, self._dispatcher.sessions.timeout),
                    ends_by=max(now, (found.started_at or now) + request.timeout),
                )
            self._dispatcher.add(found.run_id, build, found.worker, found.attempt, state)
        for build in known.values():
            if build.cancel_requested:
                await self._end_cancelled(build.id)
            else:
                self._queue.put(build if build.state is BuildState.QUEUED else evolve(build, state=BuildState.QUEUED))

    async def _end_cancelled(self, build_id: int) -> None:
        now = self._clock.seconds()
        await self._store.write(lambda conn: builds.end(conn, build_id, Result.CANCELLED, "cancelled before the restart", now))

    def _session(self, row: sessions.SessionRow) -> None:
        if row.worker in self._roster:
            self._dispatcher.sessions.recovered(row)

    # --- workers -------------------------------------------------------------------------------------------------------------

    async def _workers(self, posts: Iterable[Lifecycle], remains: Remains) -> None:
        await DeferredList([Deferred.fromCoroutine(self._worker(post, remains)) for post in posts], consumeErrors=True)
        for run in self._dispatcher.live():
            self._settle_run(run.id, self._roster.get(run.worker))

    async def _worker(self, post: Lifecycle, remains: Remains) -> None:
        if isinstance(post.state, NotSubstantiated):
            await post.resumed(None)
            return
        found: bool | None = None
        try:
            found = await self._found(post, remains.live.get(post.name))
        except Exception as error:
            log.failure("{worker}: its plugin could not say what exists", worker=post.name)
            remains.problems.append(f"worker {post.name}: its plugin could not say whether its instance is there: {error}")
        await post.resumed(found)

    async def _found(self, post: Lifecycle, live: attempts.LiveAttempt | None) -> bool | None:
        """Whether the instance of the worker's attempt is there; None if the plugin can't tell."""
        plugin = post.plugin
        plugin.enrolment = self._identity.enrolment(post.attempt)
        if isinstance(post.state, Substantiating) or not plugin.supports("resume_instance"):
            return None
        handle = live.handle if live is not None and live.attempt == post.attempt else None
        if handle is None:
            if not plugin.supports("list_instances"):
                return None
            mine = [i for i in await self._listed(plugin) if i.attempt == post.attempt]
            if not mine:
                return False
            handle = mine[0].handle
            await self._store.write(lambda conn: attempts.set_handle(conn, post.attempt, handle))
        return results.resume_result(plugin, await self._limited(plugin.resume_instance, handle))

    def _settle_run(self, run_id: int, post: Post | None) -> None:
        """A run and its worker must agree; what only one of them knows is put right."""
        run = self._dispatcher.get(run_id)
        if run is None:
            return
        if not isinstance(post, Lifecycle):
            if run.state.session is None:
                self._dispatcher.abandon(run, "the controller was restarted before an agent had it")
            return
        match post.state:
            case Substantiated(builds=held) if run.key in held:
                if run.state.session is None:
                    self._dispatcher.offer_when_attached(run)
            case SubstantiatingStarting(waiters=waiters) | Substantiating(waiters=waiters) if run.key in waiters:
                pass
            case InsubstantiatingSubstantiating(waiters=waiters) if run.key in waiters:
                pass
            case _:
                self._dispatcher.abandon(run, "the controller was restarted before its worker had it")
        if isinstance(post.state, Substantiated):
            for key in post.state.builds:
                if self._dispatcher.get(int(key)) is None:
                    post.apply(ev.BuildFinished(key))

    # --- instances that nobody expects ---------------------------------------------------------------------------------------

    async def _condemn_strays(self, remains: Remains) -> None:
        """What the providers have of ours that no worker's state accounts for."""
        for scope, plugin in self._scopes().items():
            try:
                listed = await self._listed(plugin)
            except Exception as error:
                remains.problems.append(f"{scope}: its instances could not be listed, so strays would not be seen: {error}")
                continue
            for instance in listed:
                if not self._is_accounted_for(instance.attempt):
                    await self._condemn(instance)

    def _scopes(self) -> dict[str, AbstractLatentWorker]:
        """One plugin for each place that is to be listed; plugins that share a place say so by the same `list_scope`."""
        scopes: dict[str, AbstractLatentWorker] = {}
        for post in self._roster.latent():
            if post.plugin.supports("list_instances"):
                scopes.setdefault(f"{type(post.plugin).__name__} {post.plugin.list_scope()}", post.plugin)
        return scopes

    def _is_accounted_for(self, attempt: Attempt) -> bool:
        post = self._roster.get(attempt.worker)
        return isinstance(post, Lifecycle) and post.attempt == attempt and not isinstance(post.state, NotSubstantiated)

    async def _condemn(self, instance: ListedInstance) -> None:
        now = self._clock.seconds()
        log.warn("{attempt}: an instance that nobody expects is destroyed", attempt=instance.attempt)
        why = "it was found after a restart and no worker accounts for it"

        def write(conn: Connection) -> None:
            attempts.condemn(conn, instance.attempt, why, now)
            attempts.set_handle(conn, instance.attempt, instance.handle)

        await self._store.write(write)

    async def _listed(self, plugin: AbstractLatentWorker) -> list[ListedInstance]:
        listed = results.listed(plugin, await self._limited(plugin.list_instances))
        return [instance for instance in listed if instance.controller_id == self._identity.controller_id]

    def _limited(self, hook: Callable[..., object], *args: object) -> Deferred[object]:
        return maybeDeferred(hooks.call, hook, *args).addTimeout(ANSWER_TIMEOUT, self._clock)  # type: ignore[arg-type]
