"""The runs that are not over: who holds their leases, what agents say of them, and what becomes of them.

Every gateway speaks to agents through `Dispatcher` and `latent.controller.sessions.Sessions` alone. The rules are those of
`latent.core.leasing`; this is their shell: a change of a run, its lease and its build is one transaction, and whoever waits is
answered when it is on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from latent.controller.aftermath import Aftermath, drained, lost_run
from latent.controller.clock import Alarm, Clock
from latent.controller.fences import Fences
from latent.controller.lifecycle import Lifecycle
from latent.controller.live import LiveRun
from latent.controller.queue import BuildQueue
from latent.controller.roster import Roster
from latent.controller.sessions import Session, Sessions
from latent.core import events as ev
from latent.core import leasing
from latent.errors import NotYourRun, ProtocolError, StoreError
from latent.killpoints import here
from latent.model import (
    Attempt,
    Build,
    BuildState,
    Lease,
    LeaseState,
    LogLine,
    Outcome,
    Recollection,
    Result,
    StepState,
    StepStatus,
)
from latent.store import builds as rows
from latent.store.database import Store
from latent.worker.build import WorkerBuild
from latent.worker.properties import Properties

log = Logger()


class Dispatcher:
    """``lease_seconds``: how long a lease holds without being renewed. ``poke`` is called when a new plan may be worth making."""

    def __init__(
        self, store: Store, clock: Clock, roster: Roster, queue: BuildQueue, *, lease_seconds: float, session_timeout: float
    ) -> None:
        self.sessions = Sessions(store, clock, roster, self, timeout=session_timeout)
        self.lease_seconds = lease_seconds
        self.poke: Callable[[], None] = lambda: None
        self.condemned: Callable[[Attempt], None] = lambda attempt: None
        self.machine_wanted: Callable[[Attempt], None] = lambda attempt: None
        self.worker_changed: Callable[[str], None] = lambda worker: None
        self.absent: dict[str, str] = {}
        self._store = store
        self._clock = clock
        self._roster = roster
        self._queue = queue
        self._runs: dict[int, LiveRun] = {}
        self._of_worker: dict[str, set[int]] = {}
        self._of_build: dict[int, LiveRun] = {}
        self.aftermath = Aftermath(store, clock)
        self.fences = Fences(store, clock, roster, lambda: self.poke())
        self._log_watchers: dict[int, list[Deferred[None]]] = {}

    # --- what the planner and the service ask --------------------------------------------------------------------------------

    def load_of(self, worker: str) -> int:
        """How many runs the worker has."""
        return len(self._of_worker.get(worker, ()))

    def runs_of(self, worker: str) -> list[LiveRun]:
        return [self._runs[run] for run in sorted(self._of_worker.get(worker, ()))]

    def run_of_build(self, build_id: int) -> LiveRun | None:
        return self._of_build.get(build_id)

    def get(self, run_id: int) -> LiveRun | None:
        return self._runs.get(run_id)

    def when_over(self, run: LiveRun) -> Deferred[None]:
        """Fires when the end of the run is on disk."""
        waiter: Deferred[None] = Deferred(run.over.remove)
        run.over.append(waiter)
        return waiter

    def live(self) -> list[LiveRun]:
        return list(self._runs.values())

    def add(self, run_id: int, build: Build, worker: str, attempt: int, state: leasing.Running | None = None) -> LiveRun:
        """A run that was just claimed, or (with ``state``) one that a restart found alive."""
        request = build.request
        fresh = leasing.Running(timeout=request.timeout, tries=build.attempts, max_attempts=request.max_attempts)
        run = LiveRun(run_id, build, worker, attempt, state or fresh, Alarm(self._clock, lambda: self._tick(run)))
        self._runs[run_id] = run
        self._of_worker.setdefault(worker, set()).add(run_id)
        self._of_build[build.id] = run
        run.alarm.set(leasing.due(run.state))
        return run

    def offer(self, run: LiveRun) -> None:
        """The worker's instance is there: put the lease before its session."""
        session = self.sessions.of_worker(run.worker)
        if session is None or session.leaving:
            self._change(run, leasing.SessionLost("its agent went away before it was given the build"))
            return
        here("dispatcher.offer.before")
        # What the claim took to be the attempt may have gone before its instance was there.
        run.attempt = session.attempt or 0
        self._change(run, leasing.Offered(session.id, self.lease_seconds))
        session.offered.append(run.id)
        self._serve(session)

    def offer_when_attached(self, run: LiveRun) -> None:
        """After a restart: the session that is to have the run may not have shown itself yet, and has as long as any to do so."""
        session = next((s for s in self.sessions if s.worker == run.worker and s.attempt == run.attempt), None)
        if session is None:
            self._change(run, leasing.SessionLost("its agent was gone after a restart"))
            return
        here("dispatcher.offer.before")
        self._change(run, leasing.Offered(session.id, max(self.lease_seconds, self.sessions.timeout)))
        session.offered.append(run.id)
        self._serve(session)

    def cancel(self, run: LiveRun, result: Result, reason: str, *, requeue: bool = False) -> None:
        self._change(run, leasing.CancelAsked(result, reason, requeue))

    def abandon(self, run: LiveRun, reason: str) -> None:
        """A run whose worker lost it in a restart: its build is queued again."""
        self._change(run, leasing.NotReady(None, reason))

    # --- `latent.controller.lifecycle.Listener` ------------------------------------------------------------------------------

    def build_for(self, build: str | None) -> WorkerBuild | None:
        run = self._runs.get(int(build)) if build else None
        if run is None:
            return None
        request = run.build.request
        properties = Properties()
        for name, value in request.properties.items():
            properties.setProperty(name, value, "Build")
        return WorkerBuild(run.build.id, request.builder, properties, partial(self._note, run.id))

    def _note(self, run_id: int, text: str) -> None:
        """A line of a plugin's in a build's log, before the agent's own. Nothing depends on it: a full disk only loses it."""
        if run_id not in self._runs:
            return
        try:
            self._store.logs.append(run_id, [LogLine(step_uuid="", line=0, time=0.0, stream="header", text=text)])
        except StoreError as error:
            log.warn("run {run}: {error}", run=run_id, error=error)
        self._log_grew(run_id)

    def _log_grew(self, run_id: int) -> None:
        for watcher in self._log_watchers.pop(run_id, []):
            watcher.callback(None)

    def ready(self, worker: str, builds: tuple[str, ...]) -> None:
        self.absent.pop(worker, None)
        for key in builds:
            if (run := self._runs.get(int(key))) is not None:
                self.offer(run)

    def unready(self, worker: str, builds: tuple[str, ...], failure: ev.Failure) -> None:
        result = Result.EXCEPTION if failure.fault is ev.Fault.BUILD else None
        for key in builds:
            if (run := self._runs.get(int(key))) is not None:
                self._change(run, leasing.NotReady(result, f"worker {worker}: {failure.message}"))

    def interrupted(self, worker: str, builds: tuple[str, ...], reason: str) -> None:
        for key in builds:
            if (run := self._runs.get(int(key))) is not None:
                self._change(run, leasing.SessionLost(f"worker {worker}: {reason}"))

    def drop_session(self, worker: str, session: str, reason: str) -> None:
        self.sessions.drop(worker, session, reason)

    def suspect(self, worker: str, session: str, why: str) -> None:
        self.sessions.suspect(session, why)

    def missing(self, attempt: Attempt) -> None:
        post = self._roster.get(attempt.worker)
        who = ", ".join(post.plugin.notify_on_missing) if post else ""
        self.absent[attempt.worker] = f"the agent of attempt {attempt.number} never attached" + (f" (tell {who})" if who else "")
        log.error("{worker}: {message}", worker=attempt.worker, message=self.absent[attempt.worker])

    def changed(self, worker: str) -> None:
        self.worker_changed(worker)
        self.fences.changed()
        self.poke()

    # --- what sessions say ---------------------------------------------------------------------------------------------------

    def session_lost(self, session: Session, reason: str) -> None:
        for run in self.runs_of(session.worker):
            if run.state.session == session.id:
                self._change(run, leasing.SessionLost(reason, ended=session.ended))
                self._blame_if_not_begun(run, reason)
        if session.silent:
            self.fences.silent(Attempt(session.worker, session.attempt or 0))

    def session_leaves(self, session: Session, reason: str) -> bool:
        """What it has not begun is given back, what runs goes on; whether anything runs."""
        for run in self.runs_of(session.worker):
            if run.state.session == session.id and run.state.lease is LeaseState.PENDING:
                self._change(run, leasing.SessionLost(reason))
        return self.is_busy(session)

    def is_busy(self, session: Session) -> bool:
        """Whether it has a run."""
        return any(run.state.session == session.id for run in self.runs_of(session.worker))

    def next_lease(self, session: Session) -> Deferred[Lease]:
        """A lease for the session, when there is one. Cancelling takes nothing. Fails with ProtocolError once its agent leaves.

        A session that runs one build at a time and asks again without having begun did not get the answer: it is given again.
        """
        self.sessions.touch(session)
        if session.leaving:
            return fail(ProtocolError(f"session {session.id} takes no more builds: {session.leaving}"))
        if session.capacity == 1:
            for run in self.runs_of(session.worker):
                if run.state.session == session.id and run.delivered and run.state.lease is LeaseState.PENDING:
                    return succeed(run.lease())
        parked: Deferred[Lease] = Deferred(session.parked.remove)
        session.parked.append(parked)
        self.asks(session, len(session.parked))
        self._serve(session)
        return parked

    def asks(self, session: Session, free: int) -> None:
        """Its agent asks for ``free`` leases more than it has."""
        self.fences.asks(session, free + sum(run.taken for run in self.runs_of(session.worker)))

    def _serve(self, session: Session) -> None:
        while session.offered and session.parked:
            run = self._runs.get(session.offered.popleft())
            if run is None or run.state.session != session.id or run.state.lease is not LeaseState.PENDING:
                continue
            here("dispatcher.lease.before")
            run.delivered = True
            session.parked.popleft().callback(run.lease())

    async def activate(self, session: Session, run_id: int, at: float) -> None:
        """The agent took the lease and has begun. Raises NotYourRun; idempotent."""
        run = self._owned(session, run_id)
        now = self._clock.seconds()
        if run.state.lease is LeaseState.ACTIVE:
            self.renew(session, run_id)
            return
        here("dispatcher.activate.before")
        self._change(run, leasing.Activated(session.id, self.lease_seconds))
        run.build = evolve(
            run.build,
            state=BuildState.RUNNING,
            attempts=run.build.attempts + 1,
            started_at=run.build.started_at or now,
            reason=f"runs on {run.worker}",
        )
        await self._store.write(lambda conn: rows.activate(conn, run_id, session.id, now))
        here("dispatcher.activate.written")

    def renew(self, session: Session, run_id: int) -> None:
        """The agent still has it. Raises NotYourRun."""
        run = self._owned(session, run_id)
        self._change(run, leasing.Renewed(self.lease_seconds))

    async def recall(self, session: Session, run_id: int) -> Recollection:
        """What is known of a run that was handed out before the caller was there. Raises NotYourRun."""
        await self._known(session, run_id)
        steps = await self._store.read(lambda conn: rows.steps(conn, run_id))
        lines = await self._store.read(lambda _: self._store.logs.next_lines(run_id))
        here("dispatcher.recall.answered")
        run = self._runs.get(run_id)
        return Recollection(lease=None if run is None else run.lease(), steps=tuple(steps), lines=lines)

    async def step_changed(self, session: Session, run_id: int, state: StepState) -> None:
        """Raises NotYourRun. Of a run that is over only the ends of its steps are taken."""
        await self._known(session, run_id)
        if run_id not in self._runs and state.status is StepStatus.RUNNING:
            raise NotYourRun(f"run {run_id} is over: no step of it can begin")
        here("dispatcher.step.before")
        await self._store.write(lambda conn: rows.set_step(conn, run_id, state))
        here("dispatcher.step.written")

    async def logged(self, session: Session, run_id: int, lines: Sequence[LogLine]) -> None:
        """Append log lines. Raises NotYourRun, StoreError (disk full: the agent is to send them again)."""
        await self._known(session, run_id)
        self._store.logs.append(run_id, lines)
        self._log_grew(run_id)

    async def finished(self, session: Session, run_id: int, outcome: Outcome, at: float) -> None:
        """The agent says how it ended. Raises NotYourRun; idempotent."""
        if run_id not in self._runs:
            await self._known(session, run_id)
            await self.aftermath.cancelled(session, run_id)  # what was lost is not its agent's to end
            await self._store.write(lambda conn: None)  # said again, perhaps while the first is on its way to the disk
            return
        run = self._owned(session, run_id)
        here("dispatcher.finish.before")
        written = self._change(run, leasing.Finished(outcome))
        self._blame_if_not_begun(run, outcome.error or "its agent gave the build back")
        await written

    def cancelled(self, session: Session, run_id: int) -> Deferred[bool]:
        """True once a cancellation is asked for, False once the run is over or if nobody knows it.

        Raises NotYourRun (in the Deferred) when another session holds it, or when this one has lost it or loses it now: its agent
        is to stop, though nobody cancelled.
        """
        self.sessions.touch(session)
        run = self._runs.get(run_id)
        if run is None:
            return self.aftermath.cancelled(session, run_id)
        try:
            self._owned(session, run_id)
        except NotYourRun as error:
            return fail(error)
        if run.state.cancelled is not None:
            return succeed(True)
        waiter: Deferred[bool] = Deferred(run.watchers.remove)
        run.watchers.append(waiter)
        return waiter

    def run_of_step(self, session: Session, step_uuid: str) -> int | None:
        """Which run of the session a step belongs to."""
        number, dot, _ = step_uuid.partition(".")
        return int(number) if dot and number.isdecimal() else None

    def _owned(self, session: Session, run_id: int) -> LiveRun:
        self.sessions.touch(session)
        run = self._runs.get(run_id)
        if run is None:
            raise NotYourRun(f"run {run_id} is over, or never was")
        mine = run.worker == session.worker and run.attempt == (session.attempt or 0)
        if not mine or run.state.session not in (None, session.id):
            raise NotYourRun(f"run {run_id} belongs to another session")
        return run

    async def _known(self, session: Session, run_id: int) -> None:
        """The session has the run, or had it until a little while ago. Raises NotYourRun."""
        if run_id in self._runs:
            self._owned(session, run_id)
            return
        self.sessions.touch(session)
        if not await self.aftermath.belonged(session, run_id):
            raise NotYourRun(f"run {run_id} is over, or never was this session's")

    # --- the machine's shell -------------------------------------------------------------------------------------------------

    def _change(self, run: LiveRun, event: leasing.Event) -> Deferred[None]:
        """Apply an event; fires when what follows of it is on disk."""
        if run.id not in self._runs:
            return succeed(None)
        before = run.state
        after = leasing.step(before, event, self._clock.seconds())
        if isinstance(after, leasing.Over):
            return self._end(run, after, event)
        run.state = after
        run.alarm.set(leasing.due(after))
        if after.cancelled is not None and before.cancelled is None:
            here("dispatcher.cancel.before")
            run.build = evolve(run.build, reason=f"being stopped: {after.reason}", cancel_requested=True)
            for watcher in drained(run.watchers):
                watcher.callback(True)
        return succeed(None)

    def _tick(self, run: LiveRun) -> None:
        self._change(run, leasing.Tick())
        self._blame_if_not_begun(run, "its agent did not take a lease in time")

    def _blame_if_not_begun(self, run: LiveRun, reason: str) -> None:
        """A run that comes back before it has begun counts as no try of its build: so that it does not come back for ever, and at
        once, its worker backs off."""
        post = self._roster.get(run.worker)
        tried_again = run.end is not None and run.end.result is None and run.state.cancelled is None
        if tried_again and run.state.lease is LeaseState.PENDING and post is not None:
            post.blame(reason)

    def _end(self, run: LiveRun, over: leasing.Over, event: leasing.Event) -> Deferred[None]:
        now = self._clock.seconds()
        run.end = over
        run.alarm.set(None)
        del self._runs[run.id]
        del self._of_build[run.build.id]
        self._of_worker[run.worker].discard(run.id)
        cancelled = run.state.cancelled is not None
        lost = "" if cancelled or isinstance(event, leasing.Finished) else over.reason
        self.aftermath.add(run.id, run.state.session, run.worker, lost)
        result = over.result
        if result is None and run.build.cancel_requested and not run.state.requeue:
            result = Result.CANCELLED
        state = BuildState.FINISHED if result else BuildState.QUEUED
        written = self._store.write(
            lambda conn: rows.finish(
                conn,
                run.id,
                status=over.status,
                exit_code=over.exit_code,
                error_code=over.error_code,
                error_msg=over.error_msg,
                at=now,
                lease=over.lease,
                build_state=state,
                build_result=result,
                reason=over.reason,
                answer=over.answer,
            )
        )
        build = evolve(run.build, state=state, result=result, reason=over.reason, ended_at=now if result else None)
        if result is None:
            if leasing.may_go_on(run.state, event):
                self.fences.hold(build.id, Attempt(run.worker, run.attempt))
            self._queue.put(evolve(build, cancel_requested=False))
        self._tell_worker(run, over, event)
        here("dispatcher.end.queued")

        def on_disk(_: object) -> None:
            here("dispatcher.end.written")
            for watcher in drained(run.watchers):
                if lost:
                    watcher.errback(lost_run(run.id, lost))
                else:
                    watcher.callback(cancelled)
            for waiter in (*self._log_watchers.pop(run.id, []), *run.over):
                waiter.callback(None)
            if result is not None:
                self._queue.finished(build)

        self.poke()
        return written.addCallback(on_disk)

    def _tell_worker(self, run: LiveRun, over: leasing.Over, event: leasing.Event) -> None:
        post = self._roster.get(run.worker)
        if post is not None and over.lease is LeaseState.COMPLETED:
            post.good_build()
        if not isinstance(post, Lifecycle):
            self.worker_changed(run.worker)
        elif not isinstance(event, leasing.NotReady):
            post.apply(ev.BuildFinished(run.key) if run.state.session is not None else ev.GiveUp(run.key))

    # --- logs ----------------------------------------------------------------------------------------------------------------

    def when_logged(self, run_id: int) -> Deferred[None]:
        """Fires at the next log line of a run, or at its end. Cancellable."""
        watchers = self._log_watchers.setdefault(run_id, [])
        watcher: Deferred[None] = Deferred(watchers.remove)
        watchers.append(watcher)
        return watcher

    def stop(self) -> None:
        self.aftermath.stop()
        self.fences.stop()
        for run in self._runs.values():
            run.alarm.set(None)
        self.sessions.stop()
