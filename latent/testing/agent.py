"""Agents inside the controller's process: they speak to sessions and dispatcher directly, as a gateway does for a real one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred

from latent.controller.dispatcher import Dispatcher
from latent.controller.sessions import Session
from latent.errors import EnrolmentRefused, NotYourRun
from latent.model import JSON, Lease, LogLine, Outcome, Result

Work = Callable[[Lease], Awaitable[Outcome]]
"""What an agent does with a lease."""

PROTOCOL = "in-process"
INFO: Mapping[str, JSON] = {"agent": "latent.testing"}


class HasDispatcher(Protocol):
    @property
    def dispatcher(self) -> Dispatcher: ...


async def succeed_at_once(lease: Lease) -> Outcome:
    """A build that is done as soon as it is begun."""
    return Outcome(result=Result.SUCCESS, exit_code=0)


class InProcessAgent:
    """Enrols with ``token``, attaches, and carries out leases with ``work`` one after the other until its session ends.

    ``now`` gives POSIX seconds. Each part of its life is a method too, for tests that take it step by step.
    """

    def __init__(self, controller: HasDispatcher, token: str, now: Callable[[], float], work: Work = succeed_at_once) -> None:
        self.session: Session | None = None
        self.leases: list[Lease] = []
        self._dispatcher = controller.dispatcher
        self._token = token
        self._now = now
        self._work = work
        self._life: Deferred[None] | None = None

    def start(self) -> Deferred[None]:
        """Fires when its session has ended, however that was."""
        self._life = Deferred.fromCoroutine(self._live())
        return self._life

    def stop(self) -> None:
        """The agent dies without a word: nobody renews its lease or closes its session."""
        if self._life is not None:
            self._life.cancel()

    async def enrol(self) -> Session:
        """Open a session with the token or, where it had one, come back to that. Raises EnrolmentRefused."""
        known = None if self.session is None else self.session.id
        self.session = await self._dispatcher.sessions.enrol(self._token, PROTOCOL, known)
        return self.session

    async def attach(self, *, capacity: int = 1, labels: Mapping[str, str] | None = None) -> Session:
        """Enrol, and say what it can do. Raises EnrolmentRefused."""
        session = await self.enrol()
        await self._dispatcher.sessions.attach(session, capacity=capacity, labels=labels or {}, info=INFO)
        return session

    async def take(self) -> Lease:
        """The next lease, when there is one."""
        lease = await self._dispatcher.next_lease(self._attached())
        self.leases.append(lease)
        return lease

    async def begin(self, lease: Lease) -> None:
        """Raises NotYourRun."""
        await self._dispatcher.activate(self._attached(), lease.run_id, self._now())

    def renew(self, lease: Lease) -> None:
        """Raises NotYourRun."""
        self._dispatcher.renew(self._attached(), lease.run_id)

    async def tell(self, lease: Lease, *texts: str) -> None:
        """Output of the first step. Raises NotYourRun."""
        uuid = lease.steps[0][0]
        lines = [LogLine(step_uuid=uuid, line=n, time=0.0, stream="stdout", text=text) for n, text in enumerate(texts)]
        await self._dispatcher.logged(self._attached(), lease.run_id, lines)

    def cancelled(self, lease: Lease) -> Deferred[bool]:
        """Whether the run is to be ended: True when somebody asks for that, False when it is over."""
        return self._dispatcher.cancelled(self._attached(), lease.run_id)

    async def finish(self, lease: Lease, outcome: Outcome) -> None:
        """Raises NotYourRun."""
        await self._dispatcher.finished(self._attached(), lease.run_id, outcome, self._now())

    async def leave(self, reason: str = "its agent has left", *, ended: bool = True) -> None:
        """Close the session, as an agent does that ends in order and (``ended``) all that it runs before, or a gateway whose
        connection is cut."""
        await self._dispatcher.sessions.close(self._attached(), reason, ended=ended)

    def move_to(self, controller: HasDispatcher) -> None:
        """Speak to another controller from now on: the one that was started after a crash."""
        self._dispatcher = controller.dispatcher

    def _attached(self) -> Session:
        if self.session is None:
            raise EnrolmentRefused("the agent has not enrolled")
        return self.session

    async def _live(self) -> None:
        try:
            await self.attach()
            while True:
                lease = await self.take()
                await self.begin(lease)
                await self.finish(lease, await self._work(lease))
        except (EnrolmentRefused, NotYourRun, CancelledError):
            return
