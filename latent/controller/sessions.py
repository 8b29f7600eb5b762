"""The agents that are attached, whatever protocol they speak: who they are, when they were last heard, and their end."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Protocol

from attrs import define, field
from sqlalchemy import Connection
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.controller.clock import Alarm, Clock
from latent.controller.identity import token_hash
from latent.controller.lifecycle import Lifecycle
from latent.controller.plain import PlainWorker
from latent.controller.roster import Post, Roster
from latent.core import events as ev
from latent.core.matching import AGENT, BOT
from latent.errors import EnrolmentRefused, ProtocolError
from latent.killpoints import here
from latent.model import JSON, Lease
from latent.store import attempts
from latent.store import sessions as rows
from latent.store.database import Store

log = Logger()


BOTS = "bots"
"""The protocol of bots, which take payloads in place of steps."""

SUSPICION = 15.0
"""Seconds that an agent has to show that it lives once its instance is said not to be good: agents speak every 10 s."""

EARLIER = 8
"""How many of the sessions before it a session knows that was opened by a worker's name."""

LEAVING = "leaving"
"""In a session's info: why it takes no more builds."""

LINGER = 3.0
"""Seconds that a session outlives its last run when its agent leaves: log lines may come a second after the end."""

HEARTBEATS = {"peer": 10.0, BOTS: 10.0}
"""Seconds between two signs of life of an agent, for protocols whose gateways do not look after that themselves. A bot's while it
has a lease."""

MISSED = 3
"""How many of them an agent may miss."""

LOST_KEPT = 10_000
"""How many sessions are remembered that were closed because their agents were not heard."""

SWEEP = 2.0
"""Seconds between two looks at who has fallen silent; less where the time they have is short."""


@define(eq=False)
class Session:
    """An attached agent. ``attempt`` None: a plain worker's. ``last_seen``: POSIX seconds of its last sign of life.

    ``worker`` "": one whose agent has not said yet which worker's it is. ``leaving``: why it takes no more builds; it is closed
    when those that it has are over, at ``leaves_at``.

    ``suspected``: why it may be gone; without a sign of life by ``suspected_until`` it is. ``earlier``: rows of those before it
    that the same token opened, newest first; ``replaced``: those that are closed when it attaches. ``offered``: runs put before
    it that it has not fetched; ``parked``: its calls that wait for one.

    ``returning``: a restart has interrupted it, and its agent has not been heard since.

    ``silent``: it is closed because it was not heard; ``ended``: its agent has ended what it ran, and has said so.

    ``labels``: a text or a list of texts for each name. ``patience``: seconds that it may be silent, None for as long as any.
    ``asks_until``: until when it counts as one that takes builds; bots only do while they ask.
    """

    id: int
    worker: str
    attempt: int | None
    protocol: str
    last_seen: float
    token_hash: str = field(default="", repr=False)
    capacity: int = 1
    labels: dict[str, JSON] = field(factory=dict)
    info: dict[str, JSON] = field(factory=dict)
    suspected: str = ""
    suspected_until: float = 0.0
    leaving: str = ""
    leaves_at: float | None = None
    patience: float | None = None
    asks_until: float = math.inf
    attached: bool = False
    returning: bool = False
    closed: bool = False
    silent: bool = False
    ended: bool = False
    close_reason: str = ""
    earlier: tuple[rows.SessionRow, ...] = ()
    replaced: list[Session] = field(factory=list)
    offered: deque[int] = field(factory=deque)
    parked: deque[Deferred[Lease]] = field(factory=deque)
    _closing: list[Deferred[str]] = field(factory=list)

    @property
    def key(self) -> str:
        """How the worker's machine knows it."""
        return str(self.id)

    def when_closed(self) -> Deferred[str]:
        """Fires with the reason."""
        if self.closed:
            return succeed(self.close_reason)
        waiter: Deferred[str] = Deferred(self._closing.remove)
        self._closing.append(waiter)
        return waiter


class Losses(Protocol):
    """Who is told that a session is gone, or goes once it has nothing to do."""

    def session_lost(self, session: Session, reason: str) -> None: ...

    def session_leaves(self, session: Session, reason: str) -> bool: ...

    def is_busy(self, session: Session) -> bool: ...


class Sessions:
    """``timeout``: seconds of silence after which a session is closed. ``shared``: the hash of a token with which any plain
    worker's agent may come; which worker's it is it says afterwards (`name`)."""

    def __init__(self, store: Store, clock: Clock, roster: Roster, losses: Losses, *, timeout: float) -> None:
        self.timeout = timeout
        self._store = store
        self._clock = clock
        self._roster = roster
        self._losses = losses
        self._open: dict[int, Session] = {}
        self._attached: dict[str, Session] = {}
        self._sweeper = Alarm(clock, self._sweep)
        self.shared: str | None = None
        self._lost_lately: OrderedDict[int, Session] = OrderedDict()

    def patience(self, session: Session) -> float:
        """Seconds of silence after which its agent is missed: three heartbeats, or half of ``timeout`` where somebody has made
        that longer. After a restart it is all of it: agents try to come back only now and then."""
        if session.patience is not None:
            return session.patience
        beat = HEARTBEATS.get(session.protocol)
        if beat is None or session.returning:
            return self.timeout
        return min(self.timeout, max(MISSED * beat, self.timeout / 2))

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._open.values()))

    # --- enrolment -----------------------------------------------------------------------------------------------------------

    async def enrol(self, token: str, protocol: str, session_id: int | None = None, *, worker: str | None = None) -> Session:
        """Open a session for whoever holds ``token``.

        An attempt's token works once; after that it is good only together with the id of the session that it opened, which is how
        an agent that lost its connection comes back. A plain worker's token is its password. The number of a session that is not
        this token's counts as none: agents keep theirs in a file, and the file may have come with the image.

        ``worker``: for protocols whose agents know no session ids; they say which worker's they are instead. The token has to be
        that worker's, and while its attempt is up it opens another session each time, for the protocol that used it first. The
        worker's sessions before it are closed once it attaches: what such an agent ran ended with its connection.

        Raises EnrolmentRefused.
        """
        if worker is not None:
            return await self._enrol_named(token, protocol, worker)
        hashed = token_hash(token)
        now = self._clock.seconds()
        if session_id is not None and (known := await self._same_again(hashed, session_id)) is not None:
            return known
        plain = self._roster.by_password(hashed)
        shared = plain is None and hashed == self.shared

        def open_it(conn: Connection) -> tuple[int, str, int | None]:
            before = None if session_id is None else rows.session_opened_by(conn, session_id, hashed)
            if plain is not None:
                worker, number = plain, None
            elif shared:
                worker, number = "" if before is None else before.worker, None
            elif before is not None and before.attempt is not None:
                worker, number = before.worker, before.attempt
                attempts.use_token(conn, hashed, now, again=True)
            else:
                attempt = attempts.use_token(conn, hashed, now)
                worker, number = attempt.worker, attempt.number
            new = rows.open_session(conn, worker=worker, attempt=number, protocol=protocol, token_hash=hashed, at=now)
            return new, worker, number

        here("sessions.enrol.before")
        new_id, owner, number = await self._store.write(open_it)
        here("sessions.enrol.written")
        session = Session(new_id, owner, number, protocol, now, token_hash=hashed)
        self._admit(session)
        return session

    async def _enrol_named(self, token: str, protocol: str, worker: str) -> Session:
        hashed = token_hash(token)
        now = self._clock.seconds()
        post = self._roster.get(worker)

        def open_it(conn: Connection) -> tuple[int, int | None, tuple[rows.SessionRow, ...]]:
            number = None
            earlier = tuple(rows.sessions_by_token(conn, hashed, EARLIER))
            if isinstance(post, Lifecycle):
                again = bool(earlier) and earlier[0].protocol == protocol
                attempt = attempts.use_token(conn, hashed, now, again=again)
                if attempt.worker != worker:
                    raise EnrolmentRefused(f"the token is not one of worker {worker}")
                number = attempt.number
            elif post is None or post.plugin.password is None or token_hash(post.plugin.password) != hashed:
                raise EnrolmentRefused(f"worker {worker} is not declared, or has another password")
            opened = rows.open_session(conn, worker=worker, attempt=number, protocol=protocol, token_hash=hashed, at=now)
            return opened, number, earlier

        here("sessions.enrol.before")
        new_id, number, earlier = await self._store.write(open_it)
        here("sessions.enrol.written")
        replaced = [known for known in self if known.worker == worker]
        session = Session(new_id, worker, number, protocol, now, token_hash=hashed, earlier=earlier, replaced=replaced)
        self._admit(session)
        return session

    async def _close_replaced(self, session: Session) -> None:
        replaced, session.replaced = session.replaced, []
        for known in replaced:
            await self.close(known, "its agent came back on another connection: what it ran had ended with the old one")

    async def _same_again(self, hashed: str, session_id: int) -> Session | None:
        if session_id not in self._open and session_id not in self._lost_lately:
            return None
        if await self._store.read(lambda conn: rows.session_opened_by(conn, session_id, hashed)) is None:
            return None
        known = self._open.get(session_id)
        if known is None:
            with suppress(EnrolmentRefused):
                known = await self.resume(session_id)
        if known is not None:
            self.touch(known)
        return known

    async def resume(self, session_id: int) -> Session:
        """A session whose agent could not be heard, and now is: it is open again, with nothing to do.

        Raises EnrolmentRefused, also when another agent has taken its place.
        """
        lost = self._lost_lately.pop(session_id, None)
        if lost is None or any(known.worker == lost.worker for known in self) or not self._still_good(lost):
            raise EnrolmentRefused(f"session {session_id} is closed or was never open: enrol again")
        session = Session(lost.id, lost.worker, lost.attempt, lost.protocol, self._clock.seconds(), token_hash=lost.token_hash)
        session.capacity, session.labels, session.info = lost.capacity, lost.labels, lost.info
        self._admit(session)
        await self._store.write(lambda conn: rows.reopen_session(conn, session_id))
        here("sessions.resume.written")
        log.info("session {id} of {worker} is heard again", id=session_id, worker=lost.worker)
        return session

    def _still_good(self, session: Session) -> bool:
        """A plain worker may have another password by now. An attempt's worker knows whether that is over."""
        plain = session.attempt is None
        return not plain or session.token_hash == self.shared or self._roster.by_password(session.token_hash) == session.worker

    async def name(self, session: Session, worker: str) -> None:
        """Whose agent it is that came with the shared token. Raises EnrolmentRefused when that is no plain worker; idempotent."""
        if session.worker == worker:
            return
        if session.worker:
            raise EnrolmentRefused(f"session {session.id} is an agent of worker {session.worker}")
        if not isinstance(self._roster.get(worker), PlainWorker):
            raise EnrolmentRefused(f"{worker!r} is no plain worker's name; the agent's host name says which worker's it is")
        session.worker = worker
        here("sessions.name.before")
        await self._store.write(lambda conn: rows.name_session(conn, session.id, worker))
        here("sessions.name.written")

    def recovered(self, row: rows.SessionRow) -> None:
        """A session that was open when the controller died: its agent has ``timeout`` seconds to show that it lives."""
        session = Session(row.id, row.worker, row.attempt, row.protocol, self._clock.seconds(), token_hash=row.token_hash)
        session.capacity, session.labels, session.info = row.capacity, dict(row.labels), dict(row.info)
        session.leaving = str(session.info.get(LEAVING, ""))
        session.returning = True
        self._admit(session)

    def _admit(self, session: Session) -> None:
        self._open[session.id] = session
        if not self._sweeper.armed:  # else it would be put off by each that comes
            self._sweeper.set(self._clock.seconds() + self._sweep_interval())

    # --- while it is open ----------------------------------------------------------------------------------------------------

    def get(self, session_id: int) -> Session:
        """Raises EnrolmentRefused when it is unknown or closed."""
        session = self._open.get(session_id)
        if session is None:
            raise EnrolmentRefused(f"session {session_id} is closed or was never open: enrol again")
        return session

    def find(self, key: str) -> Session | None:
        return self._open.get(int(key))

    def of_worker(self, worker: str) -> Session | None:
        """The attached session of a worker."""
        return self._attached.get(worker)

    def touch(self, session: Session) -> None:
        """Any sign of life. The first one after a restart attaches the session again."""
        session.last_seen = self._clock.seconds()
        session.suspected = ""
        session.returning = False
        if not session.attached and session.info and not session.closed:
            self._attach(session).addErrback(self._attach_failed, session)

    def suspect(self, key: str, why: str) -> None:
        """Its instance is said not to be good: its agent is to show soon that it lives. Said again, it gets no more time."""
        session = self.find(key)
        if session is not None and not session.suspected:
            session.suspected = why
            session.suspected_until = self._clock.seconds() + SUSPICION

    async def attach(self, session: Session, *, capacity: int, labels: Mapping[str, JSON], info: Mapping[str, JSON]) -> None:
        """The agent has said what it can do: to its worker it is attached from now on. Raises EnrolmentRefused; idempotent."""
        session.last_seen = self._clock.seconds()
        session.capacity = max(1, capacity)
        session.labels = dict(labels)
        # A session without info counts as one that never attached (`touch`).
        session.info = dict(info) or {"protocol": session.protocol}
        here("sessions.attach.before")
        await self._store.write(
            lambda conn: rows.update_session(
                conn, session.id, capacity=session.capacity, labels=session.labels, info=session.info
            )
        )
        here("sessions.attach.written")
        if session.closed:
            raise EnrolmentRefused(f"session {session.id} is closed: {session.close_reason}")
        if session.attached:
            return
        try:
            await self._attach(session)
        except EnrolmentRefused as error:
            await self.close(session, str(error))
            raise
        # Only now: their builds are queued again, and the worker that has an agent is to be seen to have one.
        await self._close_replaced(session)

    def _attach(self, session: Session) -> Deferred[None]:
        session.attached = True
        worker = self._roster.get(session.worker)
        if why := _wrong_agent(session, worker):
            return fail(EnrolmentRefused(why))
        if isinstance(worker, Lifecycle) and session.attempt is not None:
            return worker.attach(session.attempt, session.key, partial(self._accepted, session))
        if isinstance(worker, PlainWorker) and session.attempt is None:
            return worker.attach(session.key, partial(self._accepted, session))
        refused: Deferred[None] = Deferred()
        refused.errback(EnrolmentRefused(f"worker {session.worker} is no longer declared as it was"))
        return refused

    def _accepted(self, session: Session) -> None:
        # Not before: one that is refused must not be taken for the worker's. Not after: builds wait for it.
        if not session.closed:
            self._attached[session.worker] = session

    def _attach_failed(self, failure: Failure, session: Session) -> None:
        Deferred.fromCoroutine(self.close(session, str(failure.value))).addErrback(
            lambda f: log.failure("session {id} could not be closed", failure=f, id=session.id)
        )

    # --- its end -------------------------------------------------------------------------------------------------------------

    async def leave(self, session: Session, reason: str) -> None:
        """It takes no more builds, and is closed when those that it has are over: at once if there are none. Idempotent."""
        if session.closed or session.leaving:
            return
        session.leaving = reason
        while session.parked:
            session.parked.popleft().errback(ProtocolError(f"session {session.id} takes no more builds: {reason}"))
        if not self._losses.session_leaves(session, reason):
            await self.close(session, reason)
            return
        session.info = {**session.info, LEAVING: reason}
        here("sessions.leave.before")
        await self._store.write(
            lambda conn: rows.update_session(
                conn, session.id, capacity=session.capacity, labels=session.labels, info=session.info
            )
        )
        here("sessions.leave.written")

    async def close(self, session: Session, reason: str, *, ended: bool = False) -> None:
        """The session is over, for whatever reason; its runs are interrupted. Idempotent.

        ``ended``: its agent has ended them, and says so; else they may go on where nobody hears of them.
        """
        if session.closed:
            return
        session.closed = True
        session.ended = ended
        session.close_reason = reason
        self._open.pop(session.id, None)
        if self._attached.get(session.worker) is session:
            del self._attached[session.worker]
        now = self._clock.seconds()
        here("sessions.close.before")
        written = self._store.write(lambda conn: rows.close_session(conn, session.id, reason, now))
        while session.parked:
            session.parked.popleft().errback(EnrolmentRefused(f"session {session.id} is closed: {reason}"))
        self._losses.session_lost(session, reason)
        worker = self._roster.get(session.worker)
        if isinstance(worker, Lifecycle):
            worker.apply(ev.Detached(session.key))
        elif worker is not None:
            worker.detach(session.key)
        waiting, session._closing = session._closing, []
        for waiter in waiting:
            waiter.callback(reason)
        here("sessions.close.queued")
        await written
        here("sessions.close.written")
        await self._close_replaced(session)

    def drop(self, worker: str, key: str, reason: str) -> None:
        """The worker's instance is going: its session with it."""
        session = self.find(key)
        if session is not None and session.worker == worker:
            Deferred.fromCoroutine(self.close(session, reason)).addErrback(
                lambda f: log.failure("session {id} could not be closed", failure=f, id=key)
            )

    def _sweep(self) -> None:
        now = self._clock.seconds()
        for session in list(self._open.values()):
            if session.suspected and now >= session.suspected_until:
                self._lost(session, f"its agent is gone: {session.suspected}")
            elif now - session.last_seen >= (patience := self.patience(session)):
                self._lost(session, f"its agent was silent for {patience:g} s")
            elif session.leaving and not self._losses.is_busy(session):
                if session.leaves_at is None:
                    session.leaves_at = now + LINGER
                elif now >= session.leaves_at:
                    self.drop(session.worker, session.key, session.leaving)
        if self._open:
            self._sweeper.set(now + self._sweep_interval())

    def _sweep_interval(self) -> float:
        return min(SWEEP, self.timeout / 10)

    def _lost(self, session: Session, why: str) -> None:
        log.warn("session {id} of {worker} is lost: {why}", id=session.id, worker=session.worker, why=why)
        if not session.leaving:
            self._lost_lately[session.id] = session
            if len(self._lost_lately) > LOST_KEPT:
                self._lost_lately.popitem(last=False)
        session.silent = True
        self.drop(session.worker, session.key, why)

    def stop(self) -> None:
        """The controller stops: sessions stay open in the store for the next one; calls that wait here are let go."""
        self._sweeper.set(None)
        for session in self._open.values():
            while session.parked:
                session.parked.popleft().errback(EnrolmentRefused("the controller is stopping"))


def _wrong_agent(session: Session, worker: Post | None) -> str:
    """Why the worker's builds are not for this kind of agent; "" if they are."""
    if worker is None:
        return ""
    declared, bot = worker.plugin.labels.get(AGENT) == BOT, session.protocol == BOTS
    if declared and not bot:
        return f"worker {worker.name} is declared to have a bot, and this agent speaks {session.protocol}"
    if bot and not declared and isinstance(worker, Lifecycle):
        return f"worker {worker.name} is not declared to have a bot; give it labels={{{AGENT!r}: {BOT!r}}}"
    return ""
