"""Agents in the test's own process for the instances of a cloud in memory: by the cloud's clock, and without a gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from attrs import define
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.controller.clock import Clock
from latent.errors import EnrolmentRefused, NotYourRun
from latent.model import Lease, Outcome
from latent.testing.agent import HasDispatcher, InProcessAgent, Work, succeed_at_once
from latent.testing.cloud.values import Instance

log = Logger()

T = TypeVar("T")

HEARTBEAT = 10.0
"""Seconds between two signs of life."""


class Home(Protocol):
    """Where agents find their controller; None while there is none."""

    @property
    def at_home(self) -> HasDispatcher | None: ...


class InProcessAgents:
    """Makes the agents, for `Cloud.boots`. ``home``: whose they are. ``work``: what they do with a lease.

    An agent carries out one build after the other, keeps at what it does when its controller dies, and tells the next one.
    """

    def __init__(self, home: Home, clock: Clock, work: Work = succeed_at_once, heartbeat: float = HEARTBEAT) -> None:
        self.home = home
        self.clock = clock
        self.work = work
        self.heartbeat = heartbeat
        self.guests: list[InProcessGuest] = []

    def __call__(self, instance: Instance) -> InProcessGuest:
        return InProcessGuest(self, instance)

    def controller_changed(self) -> None:
        """There is another controller now, or none: nobody answers what the old one was asked."""
        for guest in list(self.guests):
            guest.reconnect()


@define
class _Job:
    """A lease and how far it is."""

    lease: Lease
    working: Deferred[Outcome] | None = None
    outcome: Outcome | None = None


class InProcessGuest:
    """The agent of one instance."""

    def __init__(self, agents: InProcessAgents, instance: Instance) -> None:
        self._agents = agents
        self._token = instance.environment["LATENT_TOKEN"]
        self._agent: InProcessAgent | None = None
        self._ended: Callable[[str], None] | None = None
        self._life: Deferred[None] | None = None
        self._job: _Job | None = None
        self._frozen = False
        self._beat = LoopingCall(self._show_life)
        self._beat.clock = agents.clock  # type: ignore[assignment]

    # --- as an instance's guest ----------------------------------------------------------------------------------------------

    def start(self, ended: Callable[[str], None]) -> None:
        self._ended = ended
        self._agents.guests.append(self)
        self._beat.start(self._agents.heartbeat, now=False)
        self.reconnect()

    def stop(self) -> Deferred[None]:
        """It dies without a word."""
        self._ended = None
        if self in self._agents.guests:
            self._agents.guests.remove(self)
        if self._beat.running:
            self._beat.stop()
        self._disconnect()
        if self._job is not None and self._job.working is not None:
            self._job.working.cancel()
        self._job = None
        return succeed(None)

    def freeze(self) -> None:
        self._frozen = True
        self._disconnect()

    def thaw(self) -> None:
        self._frozen = False
        self.reconnect()

    # --- its life ------------------------------------------------------------------------------------------------------------

    def reconnect(self) -> None:
        self._disconnect()
        home = self._agents.home.at_home
        if home is None or self._frozen or self._ended is None:
            return
        if self._agent is None:
            self._agent = InProcessAgent(home, self._token, self._agents.clock.seconds)
        self._agent.move_to(home)
        self._life = Deferred.fromCoroutine(self._live(self._agent))
        self._life.addErrback(self._failed)

    def _disconnect(self) -> None:
        life, self._life = self._life, None
        if life is not None:
            life.cancel()

    async def _live(self, agent: InProcessAgent) -> None:
        await agent.attach()
        while True:
            if self._job is None:
                self._job = _Job(await agent.take())
            try:
                await self._carry_out(agent, self._job)
            except NotYourRun:
                self._give_up(self._job)
            self._job = None

    async def _carry_out(self, agent: InProcessAgent, job: _Job) -> None:
        if job.outcome is None:
            await agent.begin(job.lease)
            if job.working is None:
                job.working = _coroutine(self._agents.work(job.lease))
                job.working.addCallback(self._worked, job)
            waiting: Deferred[Outcome] = Deferred()
            job.working.addCallbacks(_both(waiting.callback), lambda f: waiting.errback(f))
            job.outcome = await waiting
        await agent.finish(job.lease, job.outcome)

    def _worked(self, outcome: Outcome, job: _Job) -> Outcome:
        job.outcome = outcome
        return outcome

    def _give_up(self, job: _Job) -> None:
        if job.working is not None:
            job.working.cancel()

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        if not failure.check(EnrolmentRefused):
            log.failure("an agent in an instance failed", failure=failure)
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(f"its agent exited with code 3: {failure.value}")

    def _show_life(self) -> None:
        home = self._agents.home.at_home
        if self._frozen or home is None or self._agent is None or self._agent.session is None or self._agent.session.closed:
            return
        home.dispatcher.sessions.touch(self._agent.session)
        if self._job is not None and self._job.working is not None:
            try:
                self._agent.renew(self._job.lease)
            except NotYourRun:
                self._give_up(self._job)
                self._job = None
                self.reconnect()


def _coroutine(awaitable: Awaitable[Outcome]) -> Deferred[Outcome]:
    async def awaited() -> Outcome:
        return await awaitable

    return Deferred.fromCoroutine(awaited())


def _both(tell: Callable[[T], None]) -> Callable[[T], T]:
    def told(value: T) -> T:
        tell(value)
        return value

    return told
