"""One latent worker: the shell around `latent.core.substantiation`.

`apply` takes an event, asks the machine what follows, appends event and new state to the journal, and performs the actions once
that is on disk. What the plugin answers comes back as further events.

Note [Order]. `step` runs at once, in the order in which events arrive; the store answers writes in the order in which they were
made; so actions are performed in the order of the events too, though several events may be on their way to the disk together.
An event that an action causes waits until the actions before it are done: nothing is re-entrant. And until the worker has been
told what a restart found (`resumed`), all other events wait: the state is not yet true.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, assert_never

import attrs
from sqlalchemy import Connection
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure as TwistedFailure

from latent.controller.asking import ask
from latent.controller.clock import Alarm, Clock
from latent.controller.failures import failure_of
from latent.controller.identity import Identity
from latent.controller.journalling import Entry, keep_handle
from latent.core import events as ev
from latent.core import quarantine as quarantining
from latent.core.quarantine import Quarantine
from latent.core.states import (
    NAMES,
    Insubstantiating,
    InsubstantiatingSubstantiating,
    NotSubstantiated,
    ShutDown,
    State,
    Substantiated,
    SubstantiatingStarting,
    Timer,
    deadlines,
)
from latent.core.substantiation import step
from latent.errors import EnrolmentRefused, PluginError
from latent.killpoints import here, passing
from latent.model import JSON, Attempt
from latent.store import journal
from latent.store.database import Store
from latent.worker import hooks, results
from latent.worker.base import AbstractLatentWorker
from latent.worker.build import WorkerBuild

log = Logger()

CHECK_TIMEOUT = 60.0
"""Seconds that check_instance has to answer; a check that hangs is a bad one."""


class Listener(Protocol):
    """Who is told what becomes of a worker's builds. ``builds`` are run ids, as strings."""

    def build_for(self, build: str | None) -> WorkerBuild | None: ...
    def ready(self, worker: str, builds: tuple[str, ...]) -> None: ...
    def unready(self, worker: str, builds: tuple[str, ...], failure: ev.Failure) -> None: ...
    def interrupted(self, worker: str, builds: tuple[str, ...], reason: str) -> None: ...
    def drop_session(self, worker: str, session: str, reason: str) -> None: ...
    def condemned(self, attempt: Attempt) -> None: ...
    def machine_wanted(self, attempt: Attempt) -> None: ...
    def missing(self, attempt: Attempt) -> None: ...
    def suspect(self, worker: str, session: str, why: str) -> None: ...
    def changed(self, worker: str) -> None: ...


class Lifecycle:
    """``jitter`` gives a number from -1 to 1 for each back-off. Nothing happens before `resumed` is called."""

    latent = True

    def __init__(
        self,
        plugin: AbstractLatentWorker,
        state: State,
        quarantine: Quarantine,
        *,
        store: Store,
        clock: Clock,
        identity: Identity,
        listener: Listener,
        jitter: Callable[[], float],
    ) -> None:
        self.plugin = plugin
        self.name = plugin.name
        self.state = state
        self.quarantine = quarantine
        self.since = clock.seconds()
        self.unhealthy = ""
        self.detail: tuple[str, ...] = ()
        self.removed = False
        self.setting_up = True
        self.unusable = ""
        self._agent_expected = False
        self._known = 0
        self.kept: JSON | None = None
        """The handle that the store had of the attempt when the controller was started."""
        self._store = store
        self._clock = clock
        self._identity = identity
        self._listener = listener
        self._jitter = jitter
        self._inbox: deque[Callable[[], None]] = deque()
        self._busy = False
        self._alarm = Alarm(clock, self._ring)
        self._held: list[Callable[[], None]] | None = []
        self._calls: dict[Timer, Deferred[Any]] = {}
        self._checking: Deferred[Any] | None = None
        self._check_again = False
        self._attaching: dict[str, Deferred[None]] = {}
        self._at_rest: list[Deferred[None]] = []
        plugin.when_instance_changed = self._instance_changed
        plugin.handle_keeper = self._keep
        plugin.instance_lives = self._lives

    @property
    def attempt(self) -> Attempt:
        return Attempt(self.name, self.state.attempt)

    @property
    def state_name(self) -> str:
        return NAMES[type(self.state)]

    @property
    def knows_instance(self) -> bool:
        """Whether the plugin can speak of the instance that is up or coming: its start was called, or it was resumed."""
        return self._known == self.state.attempt

    @property
    def is_to_begin(self) -> bool:
        """Whether start_instance is about to be called."""
        return isinstance(self.state, SubstantiatingStarting) and self.state.start is not None and not self.knows_instance

    # --- what the rest of the controller asks for ---------------------------------------------------------------------------

    def apply(self, event: ev.Event, also: Callable[[Connection], object] | None = None) -> Deferred[tuple[ev.Action, ...]]:
        """Feed an event. Fires with the actions once they are performed; ``also`` is written in the same transaction."""
        done: Deferred[tuple[ev.Action, ...]] = Deferred()
        work = partial(self._apply, event, also, done)
        if self._held is None:
            self._soon(work)
        else:
            self._held.append(work)
        return done

    def attach(self, attempt: int, session: str, accepted: Callable[[], None]) -> Deferred[None]:
        """The agent of ``attempt`` attaches; fails with EnrolmentRefused if that is not the one expected.

        ``accepted`` is called when it is, before its builds are told.
        """
        answer: Deferred[None] = Deferred()
        answer.addCallback(lambda _: self._accepted(accepted))
        self._attaching[session] = answer
        self.apply(ev.Attached(attempt, session))
        return answer

    def _accepted(self, accepted: Callable[[], None]) -> None:
        self._agent_expected = False
        accepted()

    def resumed(self, found: bool | None) -> Deferred[tuple[ev.Action, ...]]:
        """The controller was started; see `latent.core.events.Recovered`. What came before waits for this.

        The controller was away, not the agent: an instance that is there is not replaced before its agent had its time.
        """
        self._agent_expected = True
        if found:
            self._known = self.state.attempt
        held, self._held = self._held or [], None
        self.plugin.agent_attached = isinstance(self.state, Substantiated)
        done = self.apply(ev.Recovered(found))
        for work in held:
            self._soon(work)
        return done

    def when_at_rest(self) -> Deferred[None]:
        """Fires when there is no instance and none is on its way."""
        if isinstance(self.state, NotSubstantiated | ShutDown):
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._at_rest.append(waiter)
        return waiter

    def shut_down(self, fast: bool) -> Deferred[None]:
        """No instance from now on. Fires when the running start and stop have ended."""
        return self.apply(ev.Shutdown(fast)).addCallback(lambda _: self.when_at_rest())

    def good_build(self) -> None:
        if self.quarantine != (better := quarantining.good_build(self.quarantine)):
            self._set_quarantine(better)

    def blame(self, reason: str) -> None:
        """Its instance failed in a way that is not the build's fault: others are to have builds first, for a while."""
        self._set_quarantine(quarantining.failed(self.quarantine, reason, self._clock.seconds(), self._jitter()))

    def pause(self, paused: bool) -> Deferred[None]:
        """Fires when it is on disk."""
        change = quarantining.pause if paused else quarantining.unpause
        return self._set_quarantine(change(self.quarantine))

    def why_closed(self) -> str:
        """Why no new build may go to this worker; empty if one may."""
        if self.removed:
            return "no longer declared"
        if self.unusable:
            return self.unusable
        if self.setting_up:
            return "it is being set up"
        match self.state:
            case ShutDown():
                return "shut down"
            case Insubstantiating(then_shut_down=True):
                return "shutting down"
            case Insubstantiating(call=call) | InsubstantiatingSubstantiating(call=call) if call.cancelled:
                return f"its last {call.hook.value}_instance hangs"
            case Substantiated(retiring=reason) | SubstantiatingStarting(retiring=reason) if reason:
                return f"retiring: {reason}"
            case Substantiated(session=None, builds=builds) if builds or self._agent_expected:
                return "its agent is away"
            case _:
                return quarantining.why_closed(self.quarantine, self._clock.seconds())

    # --- events in -----------------------------------------------------------------------------------------------------------

    def _soon(self, work: Callable[[], None]) -> None:
        self._inbox.append(work)
        if self._busy:
            return
        self._busy = True
        try:
            while self._inbox:
                self._inbox.popleft()()
        finally:
            self._busy = False

    def _apply(self, event: ev.Event, also: Callable[[Connection], object] | None, done: Deferred[tuple[ev.Action, ...]]) -> None:
        now = self._clock.seconds()
        before = self.state
        self.state, actions = step(before, event, now)
        if type(before) is not type(self.state):
            self.since = now
        self._alarm.set(min(deadlines(self.state).values(), default=None))
        self._note_health(event)
        perform = partial(self._soon, partial(self._perform, actions, done))
        entry = Entry(self.name, now, event, before, self.state, actions, self._identity, also)
        if entry.is_noise:
            perform()
            return
        here("lifecycle.event.before")
        written = self._store.write(entry).addCallback(passing("lifecycle.event.written"))
        written.addCallbacks(lambda _: perform(), partial(self._not_written, event, done))

    def _note_health(self, event: ev.Event) -> None:
        """What the last check said of the instance; of one that is going, nobody wants to know any more."""
        if not isinstance(self.state, SubstantiatingStarting | Substantiated):
            self.unhealthy = ""
            if self._checking is not None:
                self._checking.cancel()
        elif isinstance(event, ev.Checked) and event.attempt == self.state.attempt:
            self.unhealthy = "" if event.good else event.message
            if self.unhealthy and isinstance(self.state, Substantiated) and self.state.session is not None:
                self._listener.suspect(self.name, self.state.session, event.message)

    def _not_written(self, event: ev.Event, done: Deferred[Any], failure: TwistedFailure) -> None:
        # Transient faults never come here: the store holds the write back until it succeeds.
        log.failure("{worker}: {event} could not be journalled", failure=failure, worker=self.name, event=event)
        done.errback(failure)
        done.addErrback(lambda _: None)

    def _ring(self) -> None:
        now = self._clock.seconds()
        for timer, at in sorted(deadlines(self.state).items(), key=lambda item: item[1]):
            if at <= now:
                self.apply(ev.TimedOut(timer))
        self._alarm.set(min(deadlines(self.state).values(), default=None))

    # --- actions out ---------------------------------------------------------------------------------------------------------

    def _perform(self, actions: tuple[ev.Action, ...], done: Deferred[tuple[ev.Action, ...]]) -> None:
        for action in actions:
            try:
                self._perform_one(action)
            except Exception:
                # One action that fails must not take the others with it.
                log.failure("{worker}: {action} could not be performed", worker=self.name, action=action)
        here("lifecycle.actions.done")
        if isinstance(self.state, NotSubstantiated | ShutDown):
            resting, self._at_rest = self._at_rest, []
            for waiter in resting:
                waiter.callback(None)
        self._listener.changed(self.name)
        done.callback(actions)

    def _perform_one(self, action: ev.Action) -> None:
        match action:
            case ev.StartMachine(attempt):
                self._listener.machine_wanted(Attempt(self.name, attempt))
            case ev.StartInstance(attempt, build, again):
                self._start(attempt, build, self.kept if again else None)
            case ev.StopInstance(attempt, fast):
                self._stop(attempt, fast)
            case ev.CancelCall(_, hook):
                if (call := self._calls.get(hook)) is not None:
                    call.cancel()
                    here("lifecycle.call.cancelled")
            case ev.CheckInstance(attempt):
                self._check(attempt)
            case ev.Accept(session):
                here("lifecycle.accept.before")
                self.plugin.agent_attached = True
                self._answer_attach(session, None)
            case ev.Refuse(session, reason):
                self._answer_attach(session, reason)
            case ev.DropSession(session, reason):
                self._listener.drop_session(self.name, session, reason)
            case ev.Ready(builds):
                self._listener.ready(self.name, builds)
            case ev.Unready(builds, failure):
                self._listener.unready(self.name, builds, failure)
            case ev.Interrupt(builds, reason):
                self._listener.interrupted(self.name, builds, reason)
            case ev.BackOff(failure):
                self.blame(failure.message)
            case ev.Condemn(attempt, reason):
                log.warn("{attempt} is condemned: {reason}", attempt=Attempt(self.name, attempt), reason=reason)
                here("lifecycle.condemn.written")
                self._listener.condemned(Attempt(self.name, attempt))
            case ev.NotifyMissing(attempt):
                self._listener.missing(Attempt(self.name, attempt))
            case _:
                assert_never(action)

    def _set_quarantine(self, quarantine: Quarantine) -> Deferred[None]:
        self.quarantine = quarantine
        doc = attrs.asdict(quarantine)
        here("lifecycle.backoff.before")
        saved = self._store.write(lambda conn: journal.save_quarantine(conn, self.name, doc)).addCallbacks(
            passing("lifecycle.backoff.written"),
            lambda f: log.failure("{worker}: its back-off could not be saved", failure=f, worker=self.name),
        )
        self._listener.changed(self.name)
        return saved

    def _answer_attach(self, session: str, refused: str | None) -> None:
        answer = self._attaching.pop(session, None)
        if answer is None:
            return
        if refused is None:
            answer.callback(None)
        else:
            answer.errback(EnrolmentRefused(f"worker {self.name}: {refused}"))

    # --- the plugin's hooks --------------------------------------------------------------------------------------------------

    def _running(self, hook: Timer, call: Deferred[Any]) -> Deferred[Any]:
        """Keep the call, so that it can be cancelled while it runs."""
        self._calls[hook] = call

        def over(result: Any) -> Any:
            if self._calls.get(hook) is call:
                del self._calls[hook]
            return result

        return call.addBoth(over)

    def _start(self, number: int, build: str | None, kept: JSON | None) -> None:
        attempt = Attempt(self.name, number)
        self.plugin.enrolment = self._identity.enrolment(attempt, kept)
        self.plugin.agent_attached = False
        self._known = number
        here("lifecycle.start.before")
        call = hooks.call(self.plugin.start_instance, self._listener.build_for(build))
        here("lifecycle.start.called")
        self._running(Timer.START, call.addCallback(self._handle, attempt)).addCallbacks(
            lambda handle: self._started(attempt, *handle), lambda f: self._start_failed(attempt, f)
        )

    def _handle(self, result: Any, attempt: Attempt) -> Deferred[tuple[JSON]] | tuple[JSON] | tuple[()]:
        """The handle, if the plugin has such a thing. It is part of the start: without it the instance can't be found again."""
        here("lifecycle.start.answered")
        self.detail = results.start_result(self.plugin, result)
        if not self.plugin.supports("instance_handle") or self._moved_on(attempt):
            return ()
        return hooks.call(self.plugin.instance_handle).addCallback(lambda handle: (results.handle(self.plugin, handle),))

    def _started(self, attempt: Attempt, *handle: JSON) -> None:
        """The handle goes to disk with the event: an instance that is known to have started can be found again."""
        here("lifecycle.handle.answered")
        keep = partial(keep_handle, attempt, handle[0]) if handle else None
        self.apply(ev.Started(attempt.number), keep)

    def _keep(self, attempt: Attempt, handle: JSON) -> Deferred[None]:
        try:
            checked = results.handle(self.plugin, handle, "keep_handle")
        except PluginError:
            return fail()
        here("lifecycle.keep.before")
        return self._store.write(partial(keep_handle, attempt, checked)).addCallback(passing("lifecycle.keep.written"))

    def _lives(self) -> bool:
        """Whether the instance's agent is heard, or waited for with a deadline: sessions that are silent are closed."""
        match self.state:
            case Substantiated(session=session):
                return session is not None
            case state:
                return isinstance(state, SubstantiatingStarting)

    def _moved_on(self, attempt: Attempt) -> bool:
        """Whether the plugin has begun a later attempt, so that what it says of its instance is not said of this one."""
        return self.plugin.enrolment is not None and self.plugin.enrolment.attempt != attempt

    def _start_failed(self, attempt: Attempt, failure: TwistedFailure) -> None:
        here("lifecycle.start.failed")
        log.warn("{attempt}: start_instance failed: {error}", attempt=attempt, error=failure.getErrorMessage())
        self.apply(ev.StartFailed(attempt.number, failure_of(failure)))

    def _stop(self, attempt: int, fast: bool) -> None:
        here("lifecycle.stop.before")
        call = hooks.call(self.plugin.stop_instance, fast)
        here("lifecycle.stop.called")
        self._running(Timer.STOP, call).addCallbacks(lambda _: self._stopped(attempt), lambda f: self._stop_failed(attempt, f))

    def _stopped(self, attempt: int) -> None:
        here("lifecycle.stop.answered")
        self.apply(ev.Stopped(attempt))

    def _stop_failed(self, attempt: int, failure: TwistedFailure) -> None:
        here("lifecycle.stop.failed")
        log.warn("{worker}#{attempt}: stop_instance failed: {error}", worker=self.name, attempt=attempt, error=failure.value)
        self.apply(ev.StopFailed(attempt, failure_of(failure).message))

    def _check(self, attempt: int) -> None:
        here("lifecycle.check.before")
        check = ask(self._clock, CHECK_TIMEOUT, self.plugin.check_instance)

        def answered(result: Any) -> None:
            here("lifecycle.check.answered")
            self._checking = None
            again, self._check_again = self._check_again, False
            good, message = (False, failure_of(result).message) if isinstance(result, TwistedFailure) else result
            self.apply(ev.Checked(attempt, good, message))
            if again:
                self._instance_changed()

        self._checking = check
        check.addCallback(lambda result: results.check_result(self.plugin, result)).addBoth(answered)

    def _instance_changed(self) -> None:
        """The plugin heard something: do not wait for the interval. Before a start is answered, the start itself has to tell."""
        if not isinstance(self.state, SubstantiatingStarting | Substantiated) or self.state.start is not None:
            return
        if self._checking is not None:
            self._check_again = True  # what is being asked may have been answered before it happened
        else:
            self._check(self.state.attempt)
