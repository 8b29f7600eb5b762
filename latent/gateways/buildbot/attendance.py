"""One agent's attendance: from its login to the end of its connection.

A loop for each slot takes leases and has them carried out; a timer asks whether the agent lives. When the connection goes,
everything that waits for the agent fails with it, the loops end, and only then is the session closed.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError
from twisted.logger import Logger

from latent.controller.clock import Clock, Wait
from latent.errors import EnrolmentRefused
from latent.gateways.buildbot import translate
from latent.gateways.buildbot.command import ConnectionGone
from latent.gateways.buildbot.ports import Link, Session
from latent.gateways.buildbot.run import Desk, Run
from latent.gateways.buildbot.workspace import Workspace
from latent.gateways.ports import Dispatcher, Sessions
from latent.model import Lease

T = TypeVar("T")

log = Logger()

MISSED = 3
"""How many keepalive intervals in a row without any sign of life make an agent dead."""

ANSWER = 30.0
"""Seconds that an agent has to answer what it is asked at its login."""

FAREWELL = 5.0
"""Seconds that an agent has to say that it ends."""


@frozen(kw_only=True)
class Controller:
    """What of the controller all attendances need."""

    sessions: Sessions
    dispatcher: Dispatcher
    clock: Clock


class Attendance:
    """``interval``: seconds between two keepalives. ``left`` is called once, as soon as the agent is gone."""

    def __init__(
        self,
        session: Session,
        link: Link,
        controller: Controller,
        *,
        capacity: int,
        interval: float,
        left: Callable[[Attendance], None],
    ) -> None:
        self.session = session
        self.link = link
        self._sessions = controller.sessions
        self._dispatcher = controller.dispatcher
        self._clock = controller.clock
        self._capacity = capacity
        self._interval = interval
        self._left = left
        self._timer: Wait | None = None
        self._received = 0
        self._missed = 0
        self._runs: set[Run] = set()
        self._parked: set[Deferred[Lease]] = set()
        self._pausing: set[object] = set()
        self._loops: list[Deferred[None]] = []
        self._leaving = False
        self._said_farewell = False
        self._quiet = False
        self._over = False
        self._end: Deferred[None] | None = None
        link.on_lost = self._lost

    async def begin(self) -> None:
        """Learn what the agent is, and let it have builds. Raises EnrolmentRefused; when the agent is at fault, anything."""
        link = self.link
        description = await self._within(link.describe())
        place = translate.place(description)
        await self._within(link.prepare(self._capacity))
        earlier = [translate.command_id(old.id, slot) for old in self.session.earlier for slot in range(old.capacity)]
        await self._within(link.end(earlier))
        info = translate.info(description, link.protocol, link.address)
        await self._sessions.attach(self.session, capacity=self._capacity, labels={}, info=info)
        if link.why_lost:
            raise ConnectionGone(link.why_lost)
        self._timer = self._clock.callLater(self._interval, self._tick)
        self.session.when_closed().addCallback(self._session_closed)
        desk = Desk(
            session=self.session,
            link=link,
            dispatcher=self._dispatcher,
            clock=self._clock,
            place=place,
            pause=self._pause,
        )
        self._loops = [Deferred.fromCoroutine(self._serve(slot, desk)) for slot in range(self._capacity)]
        log.info("{peer}: the agent of {worker} attached", peer=link.address, worker=self.session.worker)

    async def answers(self, patience: float) -> bool:
        """Whether the agent shows within ``patience`` seconds that it lives."""
        before = self.link.received
        try:
            await self.link.ping().addTimeout(patience, self._clock)  # type: ignore[arg-type]  # callLater is all it needs
        except Exception as error:
            log.debug("{peer}: {error!r} in answer to a ping", peer=self.link.address, error=error)
        return not self.link.why_lost and self.link.received > before

    def shutting_down(self) -> None:
        """The agent asks to be let go: it ends what it does and gets nothing more."""
        self._leaving = True
        self._let_go()

    def leave(self) -> Deferred[None]:
        """The controller goes: close the connection and leave the session for the next controller. Fires when all is done."""
        self._quiet = True
        self.link.drop("the controller stopped")
        return self._end or Deferred.fromCoroutine(self._finish(""))

    # --- builds --------------------------------------------------------------------------------------------------------------

    async def _serve(self, slot: int, desk: Desk) -> None:
        workspace = Workspace(self.link, self._clock, slot, translate.command_id(self.session.id, slot), desk.place)
        try:
            while not self._over and not self._leaving:
                run = Run(await self._next_lease(), slot, desk, workspace)
                self._runs.add(run)
                try:
                    await run.execute()
                finally:
                    self._runs.discard(run)
        except (EnrolmentRefused, CancelledError, ConnectionGone) as error:
            # The session is closed, the controller stops, or the agent is gone: each is seen to elsewhere.
            log.debug("{peer}: no more builds in slot {slot}: {why}", peer=self.link.address, slot=slot, why=str(error))
        except Exception:
            log.failure("{peer}: a build could not be carried out", peer=self.link.address)
            self.link.drop("the controller could not go on with a build of its")
        self._let_go()

    async def _next_lease(self) -> Lease:
        parked = self._dispatcher.next_lease(self.session)
        self._parked.add(parked)
        try:
            return await parked
        finally:
            self._parked.discard(parked)

    def _let_go(self) -> None:
        if not self._leaving or self._said_farewell or self._over or self._runs:
            return
        self._said_farewell = True
        self._end_parked()
        gone = self.link.shut_down().addTimeout(FAREWELL, self._clock)  # type: ignore[arg-type]  # as above
        gone.addBoth(lambda _: self.link.drop("its agent shut down"))

    def _end_parked(self) -> None:
        for parked in list(self._parked):
            parked.cancel()

    # --- whether the agent lives ---------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = self._clock.callLater(self._interval, self._tick)
        received, self._received = self._received, self.link.received
        # While nothing is read, nothing can be heard.
        if self._received > received or self._pausing:
            self._missed = 0
            self._sessions.touch(self.session)
            for run in list(self._runs):
                run.renew()
        else:
            self._missed += 1
            if self._missed >= MISSED:
                self.link.drop(f"its agent was silent for {MISSED * self._interval:g} s")
                return
        self.link.ping().addErrback(lambda _: None)

    def _pause(self, who: object, paused: bool) -> None:
        if paused:
            self._pausing.add(who)
        else:
            self._pausing.discard(who)
        self.link.pause(bool(self._pausing))

    # --- its end -------------------------------------------------------------------------------------------------------------

    def _session_closed(self, reason: str) -> None:
        self.link.drop(reason)

    def _lost(self, reason: str) -> None:
        """The connection is gone, whoever ended it."""
        if self._over:
            return
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._end_parked()
        self._left(self)
        self._end = Deferred.fromCoroutine(self._finish(reason))

    async def _finish(self, reason: str) -> None:
        await DeferredList(self._loops)
        if not self._quiet and not self.session.closed:
            log.info(
                "{peer}: the agent of {worker} is gone: {why}", peer=self.link.address, worker=self.session.worker, why=reason
            )
            try:
                await self._sessions.close(self.session, f"the connection to its agent is gone: {reason}")
            except Exception:
                log.failure("session {id} could not be closed", id=self.session.id)

    async def _within(self, asked: Coroutine[Any, Any, T]) -> T:
        try:
            return await Deferred.fromCoroutine(asked).addTimeout(ANSWER, self._clock)  # type: ignore[arg-type]  # as above
        except TimeoutError:
            raise ConnectionGone(f"its agent did not answer in {ANSWER:g} s") from None
