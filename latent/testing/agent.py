"""An agent inside the controller's process: it speaks to sessions and dispatcher directly, as a gateway would for a real one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from latent.controller.dispatcher import Dispatcher
from latent.controller.sessions import Session
from latent.errors import EnrolmentRefused, NotYourRun
from latent.model import Lease, Outcome, Result

log = Logger()

Work = Callable[[Lease], Awaitable[Outcome]]
"""What an agent does with a lease."""


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

    async def attach(self) -> Session:
        """Raises EnrolmentRefused."""
        self.session = await self._dispatcher.sessions.enrol(self._token, "in-process")
        await self._dispatcher.sessions.attach(self.session, capacity=1, labels={}, info={"agent": "latent.testing"})
        return self.session

    async def _live(self) -> None:
        try:
            session = await self.attach()
            while True:
                lease = await self._dispatcher.next_lease(session)
                self.leases.append(lease)
                await self._dispatcher.activate(session, lease.run_id, self._now())
                outcome = await self._work(lease)
                await self._dispatcher.finished(session, lease.run_id, outcome, self._now())
        except (EnrolmentRefused, NotYourRun, CancelledError):
            return
