"""The controller as a whole: what the command line starts, and what the HTTP API and Python callers ask."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.config.builder import Builder
from latent.config.settings import Config
from latent.controller import recovery
from latent.controller.asking import ask
from latent.controller.clock import Clock
from latent.controller.dispatcher import Dispatcher
from latent.controller.failures import explained
from latent.controller.gauges import Gauges
from latent.controller.health import HealthItem, health
from latent.controller.identity import Identity, token_hash
from latent.controller.lifecycle import Lifecycle
from latent.controller.machine_health import machine_items
from latent.controller.machines import Machines
from latent.controller.plain import PlainWorker
from latent.controller.queue import BuildQueue
from latent.controller.reaper import Reaper
from latent.controller.reconfiguration import SET_UP_TIMEOUT, Reconfiguration
from latent.controller.records import Records
from latent.controller.recovery import Recovery, Remains
from latent.controller.roster import Post, Roster
from latent.controller.scan import Scanner, add_gauges
from latent.controller.scheduler import Scheduler
from latent.controller.sessions import Sessions
from latent.controller.views import BuildDetails, WorkerStatus
from latent.core.planning import Limits
from latent.errors import ControllerStopping, NotFound
from latent.killpoints import here, passing
from latent.model import JSON, Build, BuildRequest, BuildState, LogLine, Payload, Result
from latent.store import attempts, journal
from latent.store import builds as rows
from latent.store.database import Store
from latent.store.machines import journal_name
from latent.worker.base import AbstractLatentWorker, AbstractWorker

log = Logger()

DAY = 86400.0
LOG_CHUNK = 1 << 20
"""Bytes of a log that one answer has at most; whoever wants more asks from where it ended."""


class Controller:
    """``state_dir``: where plugins may keep what belongs to their instances. ``jitter``: a number from -1 to 1 for each back-off.

    ``reactor`` is for the plugins; the controller itself tells time by ``clock`` alone.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        *,
        reactor: Any,
        clock: Clock,
        state_dir: Path,
        jitter: Callable[[], float],
    ) -> None:
        self.config = config
        self.store = store
        self.identity = Identity(store.controller_id, store.secret)
        self.roster = Roster()
        self.queue = BuildQueue()
        self.dispatcher = Dispatcher(
            store,
            clock,
            self.roster,
            self.queue,
            lease_seconds=config.limits.lease_seconds,
            session_timeout=config.limits.session_timeout,
        )
        if config.peer.token is not None:
            self.dispatcher.sessions.shared = token_hash(config.peer.token)
        self.scheduler = Scheduler(store, clock, self.roster, self.queue, self.dispatcher, _limits(config))
        self.reaper = Reaper(store, clock, self.roster, self.identity)
        self.leaks = Scanner(store, clock, self.roster, self.identity, self.reaper, config.reaper)
        self.records = Records(store, clock, self.roster, self)
        self.machines = Machines(store, clock, self.roster, reactor=reactor, state_dir=state_dir)
        self.problems: list[str] = []
        self.gauges = Gauges()
        add_gauges(self.gauges, self.leaks, self.reaper)
        self.more_health: list[Callable[[], Sequence[HealthItem]]] = [lambda: machine_items(self.machines, clock.seconds())]
        self.started = False
        self._recovered: Deferred[None] = succeed(None)
        self._reactor = reactor
        self._clock = clock
        self._state_dir = state_dir
        self._jitter = jitter
        self._reconfiguration = Reconfiguration(self, clock)
        self._housekeeping = LoopingCall(self._prune)
        self._housekeeping.clock = clock  # type: ignore[assignment]
        self._stopping = False
        self.dispatcher.poke = self.scheduler.poke
        self.dispatcher.condemned = self.reaper.condemned
        self.dispatcher.fences.cases = self.reaper.cases
        self.reaper.confirmed = self.dispatcher.fences.changed
        self.dispatcher.worker_changed = self._worker_changed
        self.dispatcher.machine_wanted = self.machines.wanted
        self.gauges.add("latent_machines", "Latent machines, by state.", self.machines.counts)

    def _worker_changed(self, worker: str) -> None:
        self._reconfiguration.worker_changed(worker)
        self.machines.worker_changed(worker)

    @property
    def sessions(self) -> Sessions:
        return self.dispatcher.sessions

    # --- its life ------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what the controller before this one left, then work. Gateways listen already, and are opened after this.

        Builds, runs and sessions are back when this answers. Workers come back one by one as their plugins answer, and get builds
        from then on.
        """
        remains = await recovery.read_remains(self.store)
        self.problems = remains.problems
        for worker in self.config.workers.values():
            await self._enlist(worker, remains)
        recovery.report_undeclared(self.roster, remains)
        recover = self._recovery(remains)
        await recover.builds_and_sessions()
        self.problems += await self.machines.start(self.config.machines)
        if self._stopping:
            self.machines.stop()
            return
        here("service.started")
        self.started = True
        self._housekeeping.start(DAY / 24, now=True)
        self.scheduler.start()
        self._recovered = Deferred.fromCoroutine(self._recover(recover))
        self._recovered.addErrback(self._not_recovered)

    def _not_recovered(self, failure: Failure) -> None:
        if not (self._stopping and failure.check(CancelledError)):  # a fast stop cuts it short
            log.failure("the recovery failed", failure)

    async def _recover(self, recover: Recovery) -> None:
        await DeferredList([Deferred.fromCoroutine(self._set_up(post, recover)) for post in self.roster], consumeErrors=True)
        if self._stopping:
            return
        here("service.recovered")
        self.reaper.take(await self.store.read(attempts.condemned))
        self.leaks.begin(recover.listings())
        for problem in self.problems:
            log.warn("{problem}", problem=problem)

    def _recovery(self, remains: Remains) -> Recovery:
        return Recovery(self.store, self._clock, self.roster, self.queue, self.dispatcher, self.identity, remains)

    async def add_workers(self, plugins: Collection[AbstractWorker]) -> None:
        """Take workers in while the controller runs: with what is known of them, if they were declared before."""
        if not plugins:
            return
        remains = evolve(await recovery.read_remains(self.store), problems=self.problems)
        recover = self._recovery(remains)
        posts = [await self._enlist(plugin, remains) for plugin in plugins]
        await DeferredList([Deferred.fromCoroutine(self._set_up(post, recover)) for post in posts], consumeErrors=True)
        self.reaper.take(await self.store.read(attempts.condemned))

    async def _enlist(self, plugin: AbstractWorker, remains: Remains) -> Post:
        """Take the plugin into the roster. It serves nothing until it is set up."""
        quarantine = recovery.quarantine_of(plugin, remains)
        plugin.reactor = self._reactor
        plugin.state_dir = self._state_dir
        post: Post
        if isinstance(plugin, AbstractLatentWorker):
            post = Lifecycle(
                plugin,
                await recovery.state_of(plugin, remains, self.store),
                quarantine,
                store=self.store,
                clock=self._clock,
                identity=self.identity,
                listener=self.dispatcher,
                jitter=self._jitter,
            )
        else:
            post = PlainWorker(
                plugin,
                quarantine,
                store=self.store,
                clock=self._clock,
                drop_session=self.dispatcher.sessions.drop,
                changed=self.dispatcher.changed,
                jitter=self._jitter,
            )
        self.roster.add(post)
        return post

    async def take_stock(self) -> None:
        """Know the workers and what they have, and begin nothing: for who looks at a controller that does not run."""
        self.reaper.idle = True
        remains = await recovery.read_remains(self.store)
        for worker in self.config.workers.values():
            post = await self._enlist(worker, remains)
            await self._set_up(post, None)
        self.reaper.take(await self.store.read(attempts.condemned))

    async def _set_up(self, post: Post, recover: Recovery | None) -> None:
        """Set the plugin up and bring its worker back. One that can't be set up is there too, and says why it serves nothing."""
        args, kwargs = post.plugin.arguments
        here("service.setup.before")
        try:
            await ask(self._clock, SET_UP_TIMEOUT, post.plugin.reconfigService, *args, **kwargs)
            here("service.setup.answered")
        except Exception as error:
            log.failure("{worker}: reconfigService failed", worker=post.name)
            post.unusable = f"reconfigService failed: {explained(error)}"
        if recover is None:
            post.setting_up = False
            return
        if isinstance(post, Lifecycle):
            await recover.worker(post)
        post.setting_up = False
        self.dispatcher.changed(post.name)

    async def stop(self, fast: bool = False) -> None:
        """No new builds; unless ``fast``, those that run may end; then every instance is stopped. Instances first, store last."""
        self._stopping = True
        here("service.stop.before")
        if not self.started:
            return
        self.scheduler.stop()
        if fast:
            self._recovered.cancel()
        else:
            await self._drained()
        await self._recovered
        here("service.stop.drained")
        self.leaks.stop()
        self.reaper.stop()
        await DeferredList([post.shut_down(fast) for post in self.roster.latent()], consumeErrors=True)
        await self.machines.shut_down(fast)
        here("service.stop.stopped")
        if self._housekeeping.running:
            self._housekeeping.stop()
        self.dispatcher.stop()
        self._reconfiguration.stop()

    async def _drained(self) -> None:
        """Wait for the builds that an agent has; those that only wait for an instance go back to the queue with it."""
        while running := [run for run in self.dispatcher.live() if run.state.session is not None]:
            await self.dispatcher.when_over(running[0])

    async def hurry(self) -> None:
        """`stop` was asked for and somebody is out of patience: what still runs is interrupted and queued again."""
        for run in self.dispatcher.live():
            self.dispatcher.interrupted(run.worker, (run.key,), "the controller is shutting down")
        self.machines.hurry()
        await DeferredList([post.shut_down(True) for post in self.roster.latent()], consumeErrors=True)

    def _prune(self) -> None:
        self.records.reconcile()
        if self.config.journal_days is not None:
            before = self._clock.seconds() - self.config.journal_days * DAY
            here("service.prune.before")
            self.store.write(lambda conn: journal.prune(conn, before)).addCallbacks(
                passing("service.prune.written"), lambda f: log.failure("the journal could not be pruned", f)
            )

    # --- builds --------------------------------------------------------------------------------------------------------------

    def builders(self) -> Mapping[str, Builder]:
        return self.config.builders

    async def request_for(
        self,
        builder: str,
        properties: Mapping[str, JSON],
        labels: Mapping[str, str],
        *,
        priority: int | None = None,
        timeout: float | None = None,
    ) -> BuildRequest:
        """What the template asks for with these properties. Raises NotFound, ConfigError."""
        template = self.config.builders.get(builder)
        if template is None:
            known = ", ".join(sorted(self.config.builders)) or "none is declared"
            raise NotFound(f"no builder is called {builder!r} (known: {known})")
        return await template.request(properties, labels, priority=priority, timeout=timeout)

    async def submit(self, request: BuildRequest) -> Build:
        """The build is on disk when this answers. Raises ControllerStopping."""
        self.check_open()
        now = self._clock.seconds()
        here("service.submit.before")
        build = await self.store.write(lambda conn: rows.insert(conn, request, now))
        here("service.submit.written")
        self.accept(build)
        return build

    def check_open(self) -> None:
        """Raises ControllerStopping when the controller takes no builds."""
        if self._stopping:
            raise ControllerStopping("the controller is stopping and takes no new builds; submit again when it is back")

    def accept(self, build: Build) -> None:
        """A build that is on disk and that nobody has."""
        self.queue.put(build)
        self.scheduler.poke()

    def when_planned(self) -> Deferred[None]:
        """Fires when what waits now has been planned, and what could be given to workers is."""
        return self.scheduler.when_planned()

    async def reprioritise(self, build_id: int, priority: int) -> Build:
        """Higher goes first. A build that has gone to a worker is where it wanted to be; should it come back, the priority holds.

        Raises NotFound.
        """
        build = await self.store.write(lambda conn: rows.set_priority(conn, build_id, priority))
        here("service.priority.written")
        if (waiting := self.queue.take(build_id)) is not None:
            self.queue.put(evolve(waiting, request=build.request))
            self.scheduler.poke()
        elif (run := self.dispatcher.run_of_build(build_id)) is not None:
            run.build = evolve(run.build, request=build.request)
        return build

    async def cancel(self, build_id: int, reason: str, *, retry: bool = False) -> Build:
        """End a build, wherever it is. ``retry``: end only its present run and try again. Idempotent; raises NotFound."""
        build = await self.store.read(lambda conn: rows.get(conn, build_id))
        if build.state is BuildState.FINISHED:
            return build
        here("service.cancel.before")
        if not retry:
            now = self._clock.seconds()
            await self.store.write(lambda conn: rows.request_cancel(conn, build_id, now))
            here("service.cancel.written")
        run = self.dispatcher.run_of_build(build_id)
        if run is not None:
            self.dispatcher.cancel(run, Result.CANCELLED, reason, requeue=retry)
        elif self.scheduler.claiming(build_id) is not None:
            if not retry:
                self.scheduler.cancel_claim(build_id, reason)
        elif not retry and (waiting := self.queue.take(build_id)) is not None:
            await self._end_queued(waiting, reason)
        return await self.store.read(lambda conn: rows.get(conn, build_id))

    async def _end_queued(self, build: Build, reason: str) -> None:
        now = self._clock.seconds()
        await self.store.write(lambda conn: rows.end(conn, build.id, Result.CANCELLED, reason, now))
        here("service.cancel.ended")
        self.dispatcher.fences.forget(build.id)
        ended = evolve(build, state=BuildState.FINISHED, result=Result.CANCELLED, reason=reason, ended_at=now)
        self.queue.finished(ended)

    async def build(self, build_id: int) -> BuildDetails:
        """Raises NotFound."""
        build = await self.store.read(lambda conn: rows.get(conn, build_id))
        runs = await self.store.read(lambda conn: rows.runs_of(conn, build_id))
        return BuildDetails(build=build, runs=runs, why=self._why(build))

    def _why(self, build: Build) -> str:
        if build.state is BuildState.FINISHED:
            return build.reason or (build.result.value if build.result else "")
        if (run := self.dispatcher.run_of_build(build.id)) is not None:
            post = self.roster.get(run.worker)
            machine = self.machines.where(run.worker)
            where = f" ({run.worker} is {post.state_name}{', ' if machine else ''}{machine})" if post else ""
            return f"{run.build.reason or f'runs on {run.worker}'}{where}"
        if (claimed := self.scheduler.claiming(build.id)) is not None:
            return claimed.reason
        before = f" (before: {build.reason})" if build.reason else ""
        return f"queued: {self.dispatcher.fences.why(build.id) or self.queue.why(build)}{before}"

    async def builds(
        self, *, states: Collection[BuildState] | None = None, builder: str | None = None, limit: int = 50
    ) -> list[Build]:
        """Newest first."""
        return await self.store.read(lambda conn: rows.list_builds(conn, states=states, builder=builder, limit=limit))

    def when_finished(self, build_id: int) -> Deferred[Build]:
        """Fires when the build is over, at once if it is. Cancellable. Fails with NotFound."""
        waiter = self.queue.when_finished(build_id)

        def looked(build: Build) -> None:
            if build.state is BuildState.FINISHED:
                self.queue.finished(build)

        def failed(failure: Failure) -> None:
            self.queue.unknown(build_id, failure)

        self.store.read(lambda conn: rows.get(conn, build_id)).addCallbacks(looked, failed)
        return waiter

    async def answer(self, build_id: int) -> tuple[int, Payload] | None:
        """What a bot answered to the build's payload, and in which run; None when there is no answer. Raises NotFound."""
        return await self.store.read(lambda conn: rows.answer_of(conn, build_id))

    # --- logs ----------------------------------------------------------------------------------------------------------------

    async def log(self, build_id: int, run_id: int | None, offset: int) -> tuple[list[LogLine], int, bool]:
        """Lines of a run (None: the build's last) from ``offset``; the next offset; whether the run is over. Raises NotFound."""
        runs = await self.store.read(lambda conn: rows.runs_of(conn, build_id))
        if not runs:
            build = await self.store.read(lambda conn: rows.get(conn, build_id))
            return [], 0, build.state is BuildState.FINISHED
        chosen = runs[-1] if run_id is None else next((found for found in runs if int(found.run.id) == run_id), None)
        if chosen is None:
            raise NotFound(f"build {build_id} has no run {run_id} (it has {', '.join(found.run.id for found in runs)})")
        over = chosen.run.status.is_terminal
        number = int(chosen.run.id)
        lines, following = await self.store.read(lambda _: self.store.logs.read(number, offset, LOG_CHUNK))
        return lines, following, over

    def when_logged(self, run_id: int) -> Deferred[None]:
        """Fires at the run's next log line or at its end; at once if it is over. Cancellable."""
        if self.dispatcher.get(run_id) is None:
            return succeed(None)
        return self.dispatcher.when_logged(run_id)

    # --- workers -------------------------------------------------------------------------------------------------------------

    def workers(self) -> list[WorkerStatus]:
        return [self._status(post) for post in self.roster]

    def _status(self, post: Post) -> WorkerStatus:
        session = self.dispatcher.sessions.of_worker(post.name)
        until = post.quarantine.until
        return WorkerStatus(
            name=post.name,
            kind=type(post.plugin).__name__,
            latent=isinstance(post, Lifecycle),
            state=post.state_name,
            attempt=post.state.attempt if isinstance(post, Lifecycle) else 0,
            since=post.since,
            builds=[run.build.id for run in self.dispatcher.runs_of(post.name)],
            session=None
            if session is None
            else {"id": session.id, "protocol": session.protocol, "last_seen": session.last_seen, "info": session.info},
            quarantined_until=until if until > self._clock.seconds() else None,
            paused=post.quarantine.paused,
            reason=post.why_closed(),
            labels={name: sorted(values) for name, values in post.plugin.offer().items()},
            machine=post.plugin.machine_name or "",
        )

    def pause(self, worker: str, paused: bool) -> Deferred[None]:
        """Stop giving it builds, or start again; taking it back also ends its back-off. Fires when that is on disk.

        Raises NotFound.
        """
        return self._post(worker).pause(paused)

    def _post(self, worker: str) -> Post:
        post = self.roster.get(worker)
        if post is None:
            raise NotFound(f"no worker is called {worker!r} (known: {', '.join(p.name for p in self.roster)})")
        return post

    def health(self) -> list[HealthItem]:
        return health(
            self.store,
            self.roster,
            self.dispatcher,
            self.reaper,
            self.leaks.last,
            problems=self.problems,
            trouble=self.scheduler.compatibility.trouble,
            now=self._clock.seconds(),
        ) + [item for more in self.more_health for item in more()]

    async def history(self, worker: str, limit: int = 100) -> Sequence[journal.JournalEntry]:
        """The worker's, or latent machine's, journal, oldest first, the last ``limit`` entries. Raises NotFound."""
        name = journal_name(worker) if worker not in self.roster and self.machines.get(worker) else worker
        entries = await self.store.read(lambda conn: journal.history(conn, name, limit))
        if not entries and name == worker:
            self._post(worker)
        return entries

    async def reconfigure(self, config: Config) -> list[str]:
        """Apply a new configuration; what did not change is not touched. What was done, a line each."""
        return await self._reconfiguration.apply(config)

    def apply_limits(self, config: Config) -> None:
        self.scheduler.limits = _limits(config)
        self.leaks.configure(config.reaper)
        self.dispatcher.lease_seconds = config.limits.lease_seconds
        self.dispatcher.sessions.timeout = config.limits.session_timeout
        self.config = config


def _limits(config: Config) -> Limits:
    return Limits(max_instances=config.limits.max_instances, max_starting=config.limits.max_starting)
