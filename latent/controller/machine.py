"""One latent machine: the shell around `latent.core.machines`.

As in `latent.controller.lifecycle`, event and new state go to the journal first, and the actions are performed once that is on
disk, in the order of the events. What the machine's workers do with it is read off their states whenever an event is stepped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, assert_never

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure as TwistedFailure

from latent.controller.clock import Alarm, Clock
from latent.controller.failures import failure_of
from latent.core import events as ev
from latent.core import machines as core
from latent.core.machines import MachineState, Stopped, Use, deadlines, step
from latent.errors import MachineError
from latent.killpoints import here
from latent.model import JSON, Attempt
from latent.store import machines as rows
from latent.store.database import Store
from latent.worker import hooks
from latent.worker.machine import AbstractLatentMachine

log = Logger()

IDLE = "its machine is stopped, nobody builds on it"


class MachineShell:
    """``use``: what its workers do with it. ``tell``: an event for a worker. ``changed``: its state is another, or it has acted.

    Nothing happens before `resumed` is called.
    """

    def __init__(
        self,
        plugin: AbstractLatentMachine,
        state: MachineState,
        *,
        store: Store,
        clock: Clock,
        use: Callable[[], Use],
        tell: Callable[[str, ev.Event], None],
        changed: Callable[[MachineShell], None],
    ) -> None:
        self.plugin = plugin
        self.name = plugin.name
        self.state = state
        self.since = clock.seconds()
        self.unusable = ""
        self.removed = False
        self.successor: AbstractLatentMachine | None = None
        """Who takes the place of ``plugin`` when no call of it runs."""
        self._store = store
        self._clock = clock
        self._use = use
        self._tell = tell
        self._changed = changed
        self._alarm = Alarm(clock, self._ring)
        self._inbox: deque[Callable[[], None]] = deque()
        self._busy = False
        self._resumed = False
        self._calls: dict[core.Due, Deferred[Any]] = {}
        self._at_rest: list[Deferred[None]] = []
        self._stopped = False

    @property
    def state_name(self) -> str:
        return core.NAMES[type(self.state)]

    def apply(self, event: core.MachineEvent) -> None:
        if self._resumed and not self._stopped:
            self._soon(partial(self._apply, event))

    def resumed(self) -> None:
        """The controller was started."""
        self._resumed = True
        self.apply(core.Recovered())

    def shut_down(self, fast: bool) -> Deferred[None]:
        """It is stopped, once no instance is on it. Fires when that is done, or has failed."""
        self.apply(core.Shutdown(fast))
        if not self._resumed or isinstance(self.state, Stopped):
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._at_rest.append(waiter)
        return waiter

    def stop(self) -> None:
        """Nothing more: what is left is taken up by the next controller."""
        self._stopped = True
        self._alarm.set(None)

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

    def _apply(self, event: core.MachineEvent) -> None:
        now = self._clock.seconds()
        before = self.state
        self.state, actions = step(before, event, self._use(), now)
        if type(before) is not type(self.state):
            self.since = now
        self._arm()
        perform = partial(self._soon, partial(self._perform, actions))
        if before == self.state and not actions:
            return
        entry = partial(rows.record, machine=self.name, at=now, event=type(event).__name__, detail=describe(event))
        state = self.state

        def written(_: object) -> None:
            here("machine.event.written")
            perform()

        here("machine.event.before")
        self._store.write(lambda conn: entry(conn, state=state)).addCallbacks(
            written,
            # Transient faults never come here: the store holds the write back until it succeeds.
            lambda f: log.failure("machine {machine}: {event} could not be journalled", f, machine=self.name, event=event),
        )

    def _arm(self) -> None:
        self._alarm.set(None if self._stopped else min(deadlines(self.state).values(), default=None))

    def _ring(self) -> None:
        now = self._clock.seconds()
        for due, at in sorted(deadlines(self.state).items(), key=lambda item: item[1]):
            if at <= now:
                self.apply(core.TimedOut(due))
        self._arm()

    # --- actions out ---------------------------------------------------------------------------------------------------------

    def _perform(self, actions: tuple[core.MachineAction, ...]) -> None:
        for action in actions:
            try:
                self._perform_one(action)
            except Exception:
                # One action that fails must not take the others with it.
                log.failure("machine {machine}: {action} could not be performed", machine=self.name, action=action)
        if isinstance(self.state, Stopped):
            resting, self._at_rest = self._at_rest, []
            for waiter in resting:
                waiter.callback(None)
        self._changed(self)

    def _perform_one(self, action: core.MachineAction) -> None:
        match action:
            case core.Start(number):
                self._start(number)
            case core.Stop(number):
                self._stop(number)
            case core.Cancel(hook):
                if (call := self._calls.get(hook)) is not None:
                    call.cancel()
            case core.TellUp(waiting):
                for attempt in waiting:
                    self._tell(attempt.worker, ev.MachineStarted(attempt.number))
            case core.TellDown(waiting, failure):
                for attempt in waiting:
                    self._tell(attempt.worker, ev.MachineFailed(attempt.number, failure))
            case core.Evict(workers):
                busy = self._use().busy
                for worker in workers:
                    if worker not in busy:
                        self._tell(worker, ev.Insubstantiate(IDLE))
            case _:
                assert_never(action)

    def _replace(self) -> None:
        if self.successor is not None and not self._calls:
            self.plugin, self.successor = self.successor, None

    # --- the plugin's hooks --------------------------------------------------------------------------------------------------

    def _usable(self, hook: Callable[[], Any]) -> Callable[[], Any]:
        """The hook, or what says why it can't be called."""

        def refuse() -> None:
            raise MachineError(self.unusable)

        return refuse if self.unusable else hook

    def _running(self, hook: core.Due, call: Deferred[Any]) -> Deferred[Any]:
        """Keep the call, so that it can be cancelled while it runs."""
        self._calls[hook] = call

        def over(result: Any) -> Any:
            if self._calls.get(hook) is call:
                del self._calls[hook]
            return result

        return call.addBoth(over)

    def _start(self, attempt: int) -> None:
        self._replace()
        log.info("machine {machine} is started", machine=self.name)
        here("machine.start.before")
        call = hooks.call(self._usable(self.plugin.start_machine)).addCallback(_accepted, "start_machine")
        here("machine.start.called")
        self._running(core.Due.START, call).addCallbacks(lambda _: self._started(attempt), partial(self._start_failed, attempt))

    def _started(self, attempt: int) -> None:
        here("machine.start.answered")
        self.apply(core.StartAnswered(attempt))

    def _start_failed(self, attempt: int, failure: TwistedFailure) -> None:
        log.warn("machine {machine}: start_machine failed: {error}", machine=self.name, error=failure.getErrorMessage())
        here("machine.start.failed")
        told = failure_of(failure)
        # Whatever its type, it is no fault of the builds.
        message = f"its machine {self.name} could not be started: {told.message}"
        self.apply(core.StartAnswered(attempt, ev.Failure(ev.Fault.INFRASTRUCTURE, message, told.kind)))

    def _stop(self, attempt: int) -> None:
        self._replace()
        log.info("machine {machine} is stopped", machine=self.name)
        here("machine.stop.before")
        call = hooks.call(self._usable(self.plugin.stop_machine)).addCallback(_accepted, "stop_machine")
        here("machine.stop.called")

        def answered(result: Any) -> None:
            if self._calls.get(core.Due.STOP) not in (None, call):
                return  # it had been given up, and another stop runs: the one that counts
            error = failure_of(result).message if isinstance(result, TwistedFailure) else None
            here("machine.stop.answered")
            if error is not None:
                here("machine.stop.failed")
                log.warn("machine {machine}: stop_machine failed: {error}", machine=self.name, error=error)
            self.apply(core.StopAnswered(attempt, error))

        self._running(core.Due.STOP, call).addBoth(answered)


def _accepted(answer: Any, hook: str) -> None:
    if answer is False:
        raise MachineError(f"{hook} answered False")


def describe(event: core.MachineEvent) -> JSON:
    """An event's fields as JSON, for the journal."""
    doc: dict[str, JSON] = {}
    for field in attrs.fields(type(event)):
        match getattr(event, field.name):
            case Attempt() as attempt:
                doc["worker"] = str(attempt)
            case ev.Failure(message=message, kind=kind):
                doc |= {"failure": message, "kind": kind}
            case core.Due() as due:
                doc[field.name] = due.value
            case bool() | int() | str() as value:
                doc[field.name] = value
            case _:
                # A policy is the declaration's and stands there.
                continue
    return doc
