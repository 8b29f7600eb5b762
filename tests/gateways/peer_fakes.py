"""Sessions and a dispatcher as the gateway's contract has them, in memory; and the means to drive and inspect them.

`World` survives a gateway: to restart the controller, stop the gateway and start another on the same world.
"""

import asyncio
import functools
import time
from collections import deque

import pytest_twisted
from attrs import define, field
from twisted.internet.defer import Deferred, succeed

import latent.wire  # noqa: F401  (before grpc)
from latent.errors import EnrolmentRefused, NotYourRun
from latent.gateways.peer import PeerGateway
from latent.model import Lease, Recollection, Step, StepStatus

SECRET = b"0123456789abcdef0123456789abcdef"


class Clock:
    """Real timers, and a wall clock that can be put forward."""

    def __init__(self):
        self.ahead = 0.0

    def seconds(self):
        return time.time() + self.ahead

    def callLater(self, delay, call, *args, **kwargs):
        from twisted.internet import reactor  # pytest-twisted has installed it by now

        return reactor.callLater(delay, call, *args, **kwargs)


@define(eq=False)
class FakeSession:
    id: int
    worker: str
    attempt: int | None
    protocol: str
    token: str
    capacity: int = 1
    labels: dict = field(factory=dict)
    info: dict = field(factory=dict)
    attached: bool = False
    closed: bool = False
    reason: str = ""
    touched: int = 0


@define(eq=False)
class FakeRun:
    lease: Lease
    session: FakeSession | None = None
    activations: int = 0
    renewals: int = 0
    steps: dict = field(factory=dict)
    changes: list = field(factory=list)
    lines: list = field(factory=list)
    outcomes: list = field(factory=list)
    cancel_asked: bool = False
    lost: bool = False
    waiting: list = field(factory=list)
    over: Deferred = field(factory=Deferred)

    def texts(self, stream="stdout"):
        return [line.text for line in self.lines if line.stream == stream]

    def statuses(self, name):
        return [state.status for state in self.changes if state.name == name]


class World:
    """Both fakes, and the inspector's side of them."""

    def __init__(self):
        self.sessions = {}
        self.tokens = {"one-time": ("w", 1), "two": ("w", 2)}
        self.passwords = {"plain-password": "p", "shared": ""}
        self.used = set()
        self.queue = deque()
        self.parked = []
        self.runs = {}
        self.attach_refused = ""
        self.failure = None
        self.logging = None
        self.clock = Clock()
        self.changed = asyncio.Event()

    # --- driving

    def submit(self, *commands, timeout=3600.0, builder="b", labels=None, **step):
        number = len(self.runs) + 1
        steps = tuple(
            (f"uuid-{number}-{index}", command if isinstance(command, Step) else Step(name=f"s{index}", command=command, **step))
            for index, command in enumerate(commands)
        )
        lease = Lease(
            run_id=number,
            build_id=100 + number,
            worker="w",
            steps=steps,
            properties={},
            timeout=timeout,
            labels=labels or {},
            builder=builder,
        )
        run = self.runs[number] = FakeRun(lease)
        self.queue.append(run)
        self.serve()
        return run

    def serve(self):
        while self.queue and self.parked:
            session, deferred = self.parked.pop(0)
            run = self.queue.popleft()
            run.session = session
            deferred.callback(run.lease)
        self.changed.set()

    def cancel(self, run):
        run.cancel_asked = True
        waiting, run.waiting = run.waiting, []
        for deferred in waiting:
            deferred.callback(True)

    def lose(self, run):
        """The run was given to somebody else."""
        run.lost = True
        waiting, run.waiting = run.waiting, []
        for deferred in waiting:
            deferred.errback(NotYourRun("its lease expired"))

    async def until(self, condition, timeout=20.0):
        """Wait until ``condition()`` holds; it is looked at whenever something changes here."""
        async with asyncio.timeout(timeout):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def note(self):
        self.changed.set()
        if self.failure is not None:
            raise self.failure

    # --- Sessions

    async def enrol(self, token, protocol, session_id=None):
        self.note()
        known = self.sessions.get(session_id)
        if known is not None and not known.closed and known.token == token:
            return known
        if token in self.passwords:
            identity = (self.passwords[token], None)
        elif token in self.tokens and token not in self.used:
            identity = self.tokens[token]
            self.used.add(token)
        else:
            raise EnrolmentRefused("this token is unknown or was used")
        session = FakeSession(len(self.sessions) + 1, *identity, protocol, token)
        self.sessions[session.id] = session
        return session

    def get(self, session_id):
        session = self.sessions.get(session_id)
        if session is None or session.closed:
            raise EnrolmentRefused(f"session {session_id} is closed")
        return session

    async def attach(self, session, *, capacity, labels, info):
        self.note()
        if self.attach_refused:
            raise EnrolmentRefused(self.attach_refused)
        session.capacity, session.labels, session.info = capacity, dict(labels), dict(info)
        session.attached = True

    def touch(self, session):
        session.touched += 1
        self.changed.set()

    async def resume(self, session_id):
        raise EnrolmentRefused(f"session {session_id} is closed")

    async def name(self, session, worker):
        if worker != "p":
            raise EnrolmentRefused(f"{worker!r} is no plain worker's name")
        session.worker = worker

    async def leave(self, session, reason):
        if not any(run.session is session and not run.outcomes and not run.lost for run in self.runs.values()):
            await self.close(session, reason)
        session.reason = reason

    async def close(self, session, reason, *, ended=False):
        session.closed, session.reason = True, reason
        for entry in [e for e in self.parked if e[0] is session]:
            self.parked.remove(entry)
            entry[1].errback(EnrolmentRefused(reason))
        self.changed.set()

    # --- Dispatcher

    def next_lease(self, session):
        for run in self.runs.values():
            if run.session is session and not run.activations and not run.outcomes and not run.lost:
                return succeed(run.lease)
        deferred = Deferred(lambda d: self.parked.remove(entry))
        entry = (session, deferred)
        self.parked.append(entry)
        self.serve()
        return deferred

    def mine(self, session, run_id):
        run = self.runs.get(run_id)
        if run is None or run.session is not session or run.lost:
            raise NotYourRun(f"run {run_id} is not yours")
        return run

    async def activate(self, session, run_id, at):
        self.note()
        run = self.mine(session, run_id)
        if run.outcomes:
            raise NotYourRun(f"run {run_id} is over")
        run.activations += 1

    def renew(self, session, run_id):
        self.note()
        self.mine(session, run_id).renewals += 1

    async def recall(self, session, run_id):
        run = self.mine(session, run_id)
        lines = {}
        for line in run.lines:
            lines[line.step_uuid] = max(line.line + 1, lines.get(line.step_uuid, 0))
        return Recollection(lease=None if run.outcomes else run.lease, steps=tuple(run.steps.values()), lines=lines)

    async def step_changed(self, session, run_id, state):
        self.note()
        run = self.mine(session, run_id)
        run.steps[state.uuid] = state
        run.changes.append(state)

    async def logged(self, session, run_id, lines):
        self.note()
        if self.logging is not None:
            await self.logging
        self.mine(session, run_id).lines.extend(lines)

    async def finished(self, session, run_id, outcome, at):
        self.note()
        run = self.mine(session, run_id)
        run.outcomes.append(outcome)
        waiting, run.waiting = run.waiting, []
        for deferred in waiting:
            deferred.callback(False)
        if len(run.outcomes) == 1:
            run.over.callback(outcome)

    def cancelled(self, session, run_id):
        if run_id not in self.runs:
            return succeed(False)
        run = self.mine(session, run_id)
        if run.cancel_asked or run.outcomes:
            return succeed(run.cancel_asked and not run.outcomes)
        deferred = Deferred(lambda d: run.waiting.remove(d))
        run.waiting.append(deferred)
        self.changed.set()
        return deferred

    def run_of_step(self, session, step_uuid):
        for run in self.runs.values():
            if run.session is session and any(uuid == step_uuid for uuid, _ in run.lease.steps):
                return run.lease.run_id
        return None

    def gateway(self, **options):
        return PeerGateway(self, self, secret=SECRET, clock=self.clock, **options)


def on_loop(test):
    """An asyncio test in Twisted's asyncio reactor."""

    @functools.wraps(test)
    async def wrapper(*args, **kwargs):
        await Deferred.fromFuture(asyncio.ensure_future(asyncio.wait_for(test(*args, **kwargs), 60)))

    return pytest_twisted.ensureDeferred(wrapper)


async def twisted(coroutine):
    """A Twisted coroutine or Deferred awaited from asyncio."""
    deferred = coroutine if isinstance(coroutine, Deferred) else Deferred.fromCoroutine(coroutine)
    return await deferred.asFuture(asyncio.get_running_loop())


def killed(run):
    return [state.name for state in run.changes if state.status is StepStatus.KILLED]
