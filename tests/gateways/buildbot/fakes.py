"""A link without a network and a controller without a store; and the means to drive them."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from latent.errors import EnrolmentRefused, NotYourRun
from latent.model import Lease, Step


@define(eq=False, slots=False)
class FakeLink:
    """``commands``: (name, args, receiver) as they were started. Calls are answered at once unless ``silent``."""

    protocol: str = "fake"
    address: str = "fake:1"
    received: int = 0
    why_lost: str = ""
    silent: bool = False
    description: dict = field(factory=lambda: {"basedir": "/agent", "system": "posix"})
    commands: list = field(factory=list)
    calls: list = field(factory=list)
    paused: bool = False
    on_lost: object = lambda reason: None
    waiting: list = field(factory=list)

    async def describe(self):
        return self.description

    async def prepare(self, slots):
        self.calls.append(("prepare", slots))

    async def end(self, command_ids):
        self.calls.append(("end", *command_ids))

    def ping(self):
        self.calls.append(("ping",))
        return self._answer()

    def start(self, slot, command_id, name, args, receiver):
        self.commands.append((name, args, receiver))
        return self._answer()

    def interrupt(self, slot, command_id, why):
        self.calls.append(("interrupt", why))
        return self._answer()

    def shut_down(self):
        self.calls.append(("shut_down",))
        return self._answer()

    def pause(self, paused):
        self.paused = paused

    def drop(self, reason):
        if not self.why_lost:
            self.why_lost = reason
            for _, _, receiver in self.commands:
                receiver.lost(reason)
            waiting, self.waiting = self.waiting, []
            for waiter in waiting:
                waiter.errback(ConnectionError(reason))
            self.on_lost(reason)

    def _answer(self):
        if self.silent:
            waiter = Deferred()
            self.waiting.append(waiter)
            return waiter
        self.received += 1
        return succeed(None)

    # --- the test's side ---

    def names(self):
        return [name for name, _, _ in self.commands]

    def end_command(self, rc=0, error="", **updates):
        """The last command ends."""
        receiver = self.commands[-1][2]
        for key, value in updates.items():
            receiver.updated(key, value)
        if rc is not None:
            receiver.updated("rc", rc)
        receiver.completed(error)


@define(eq=False)
class FakeSession:
    id: int
    worker: str
    attempt: int | None = 1
    closed: bool = False
    reason: str = ""
    earlier: tuple = ()
    closing: list = field(factory=list)

    def when_closed(self):
        waiter = Deferred()
        self.closing.append(waiter)
        return waiter


class FakeController:
    """Sessions, dispatcher and workers in one."""

    def __init__(self):
        self.passwords = {"w": "secret"}
        self.slots = 1
        self.opened = []
        self.attached = []
        self.refuse = ""
        self.touched = 0
        self.leases = []
        self.parked = []
        self.active = []
        self.renewed = []
        self.steps = []
        self.lines = []
        self.outcomes = []
        self.cancels = {}
        self.lost_runs = set()
        self.log_error = None

    # workers
    def password(self, name):
        return self.passwords.get(name)

    def capacity(self, name):
        return self.slots

    # sessions
    async def enrol(self, token, protocol, session_id=None, *, worker=None):
        if self.refuse == "enrol":
            raise EnrolmentRefused("stale")
        assert token == self.passwords[worker]
        session = FakeSession(len(self.opened) + 1, worker)
        self.opened.append(session)
        return session

    async def attach(self, session, *, capacity, labels, info):
        if self.refuse == "attach":
            raise EnrolmentRefused("stale")
        self.attached.append((session, capacity, info))

    def touch(self, session):
        self.touched += 1

    async def close(self, session, reason, *, ended=False):
        if not session.closed:
            session.closed, session.reason = True, reason
            for waiter in session.closing:
                waiter.callback(reason)
            for parked in self.parked:
                parked.errback(EnrolmentRefused(reason))
            self.parked = []

    # dispatcher
    def next_lease(self, session):
        if self.leases:
            return succeed(self.leases.pop(0))
        parked = Deferred(lambda d: self.parked.remove(d))
        self.parked.append(parked)
        return parked

    def give(self, *steps, run_id=1, timeout=3600.0):
        made = tuple(Step(name=f"s{n}", command=s) if isinstance(s, str) else s for n, s in enumerate(steps))
        lease = Lease(
            run_id=run_id,
            build_id=run_id,
            worker="w",
            steps=tuple((f"{run_id}.{n}", step) for n, step in enumerate(made)),
            properties={},
            timeout=timeout,
            labels={},
            builder="b",
        )
        if self.parked:
            self.parked.pop(0).callback(lease)
        else:
            self.leases.append(lease)

    def _known(self, run_id):
        if run_id in self.lost_runs:
            raise NotYourRun(f"run {run_id} is over")

    async def activate(self, session, run_id, at):
        self._known(run_id)
        self.active.append(run_id)

    def renew(self, session, run_id):
        self._known(run_id)
        self.renewed.append(run_id)

    async def step_changed(self, session, run_id, state):
        self._known(run_id)
        self.steps.append(state)

    async def logged(self, session, run_id, lines):
        if self.log_error is not None:
            raise self.log_error
        self.lines.extend(lines)

    async def finished(self, session, run_id, outcome, at):
        self._known(run_id)
        self.outcomes.append(outcome)

    def cancelled(self, session, run_id):
        return self.cancels.setdefault(run_id, Deferred())

    def statuses(self):
        return [(state.name, state.status.value) for state in self.steps]
