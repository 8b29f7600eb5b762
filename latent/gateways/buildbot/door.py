"""Who may come in. One door for all listeners: an agent that is here over one protocol can't come a second time over another."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from latent.errors import EnrolmentRefused
from latent.gateways.buildbot.attendance import Attendance, Controller
from latent.gateways.buildbot.ports import Link, Workers

log = Logger()

PING_PATIENCE = 5.0
"""Seconds that an agent has to show that it lives when another one logs in in its name."""


class Door:
    def __init__(self, workers: Workers, controller: Controller) -> None:
        self._workers = workers
        self._controller = controller
        self._here: dict[str, Attendance] = {}
        self._arriving: set[str] = set()
        self._waiting: list[Deferred[None]] = []
        self._held = False
        self._stopping = False

    def hold(self) -> None:
        """Let agents wait until `open`: what they belong to is not there yet."""
        self._held = True

    def open(self) -> None:
        self._held = False
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    async def stop(self) -> None:
        """Nobody comes in any more, and all go."""
        self._stopping = True
        self.open()
        await DeferredList([attendance.leave() for attendance in list(self._here.values())], consumeErrors=True)

    async def admit(self, name: str, knows: Callable[[str], bool], link: Link, interval: float) -> Attendance:
        """``knows(password)``: whether the agent has shown that it knows it. Follow with `receive`. Raises EnrolmentRefused."""
        if self._held:
            waiter: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(waiter)
            await waiter
        password = self._workers.password(name)
        if password is None or not knows(password):
            raise EnrolmentRefused(f"there is no worker {name!r} with this password")
        if name in self._arriving:
            raise EnrolmentRefused(f"another agent logs in as {name} just now")
        self._arriving.add(name)
        try:
            await self._make_room(name)
            session = await self._controller.sessions.enrol(password, link.protocol, worker=name)
            if link.why_lost or self._stopping:
                await self._controller.sessions.close(session, link.why_lost or "the controller stopped")
                raise EnrolmentRefused("the controller is stopping" if self._stopping else "the connection was lost")
        finally:
            self._arriving.discard(name)
        attendance = Attendance(
            session,
            link,
            self._controller,
            capacity=self._workers.capacity(name),
            interval=interval,
            left=self._left,
        )
        self._here[name] = attendance
        return attendance

    async def receive(self, attendance: Attendance) -> None:
        """Raises EnrolmentRefused; the agent is not here then."""
        try:
            await attendance.begin()
        except Exception as error:
            if self._here.get(attendance.session.worker) is attendance:
                del self._here[attendance.session.worker]
            if not self._stopping:
                await self._controller.sessions.close(attendance.session, f"its agent could not be attached: {error}")
            raise EnrolmentRefused(str(error)) from error

    async def _make_room(self, name: str) -> None:
        before = self._here.get(name)
        if before is None:
            return
        if await before.answers(PING_PATIENCE):
            raise EnrolmentRefused(f"an agent of {name} is attached from {before.link.address}, and it answers")
        before.link.drop("its agent logged in again, and the connection before is dead")

    def _left(self, attendance: Attendance) -> None:
        if self._here.get(attendance.session.worker) is attendance:
            del self._here[attendance.session.worker]
