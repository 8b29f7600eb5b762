"""One instance of the Remote Workers API: its bots, their sessions and leases. For the gRPC service, and for Python callers."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from functools import partial
from typing import Any, ClassVar
from uuid import uuid4

from twisted.internet.defer import CancelledError, TimeoutError
from twisted.logger import Logger

from latent.controller.sessions import Session
from latent.errors import EnrolmentRefused
from latent.gateways.bots import enrolment, translate
from latent.gateways.bots.bot import Bot, digest
from latent.gateways.bots.calls import METADATA_KEY, PROTOCOL, SERVICE
from latent.gateways.bots.desk import Desk
from latent.gateways.bots.errors import (
    BotSessionClosedError,
    BotSessionMismatchError,
    DuplicateBotSessionError,
    InvalidArgumentError,
    LeaseLostError,
    RetriableError,
)
from latent.gateways.bots.patience import KEEP_ALIVE, SHORTEST_POLL, due_in, poll_seconds
from latent.gateways.rpc.bridge import Parked, carried_out
from latent.gateways.rpc.server import STOPPING
from latent.model import JSON, LeaseState
from latent.wire import bots_pb2 as pb

log = Logger()

Metadata = list[tuple[str, bytes]]

BETWEEN_POLLS = 5.0
"""Seconds after a call for work in which the bot counts as one that still asks: it is about to call again."""

PULSE = 5.0
"""Seconds between two notes that a bot whose call waits here is alive."""

KEPT = 1000
"""How many sessions that are over are remembered, to say why they are."""


class BotsInterface:
    """``job_assignment_interval``: seconds that a call which may not wait for work gives the planner at most.

    ``keep_alive``: seconds after which a bot that has nothing to do, and says nothing, is gone.
    """

    SERVICE_NAME: ClassVar[str] = SERVICE

    create_bot_session_ignored_exceptions: ClassVar[tuple[type[Exception], ...]] = (RetriableError,)
    """What the service does not count as an exception: nothing is wrong, the bot is to call again."""

    update_bot_session_ignored_exceptions: ClassVar[tuple[type[Exception], ...]] = (RetriableError,)

    def __init__(self, scheduler: Desk, *, job_assignment_interval: float = 1.0, keep_alive: float = KEEP_ALIVE) -> None:
        self.job_assignment_interval = job_assignment_interval
        self.keep_alive = keep_alive
        self._desk = scheduler
        self._instance_name: str | None = None
        self._bots: dict[str, Bot] = {}
        self._recovered: dict[str, Session] = {}
        self._closed: OrderedDict[str, str] = OrderedDict()
        self._arriving: set[str] = set()
        self._pulse: Any = None
        self._started = self._stopped = False

    @property
    def instance_name(self) -> str:
        return self._instance_name or ""

    def set_instance_name(self, instance_name: str) -> None:
        """Raises AssertionError when it has one."""
        if self._instance_name is not None:
            raise AssertionError(f"the instance is called {self._instance_name!r} already")
        self._instance_name = instance_name

    def start(self) -> None:
        """The service is there, and so are the sessions that were open before a restart."""
        if self._started:
            return
        self._started = True
        for session in self._desk.sessions:
            if session.protocol == PROTOCOL and session.info.get("instance") == self.instance_name:
                name = str(session.info.get("name"))
                self._recovered[name] = session
                session.patience = max(self.keep_alive, self._desk.sessions.timeout)
                session.when_closed().addCallback(partial(self._gone, name))
        self._beat()

    def _gone(self, name: str, reason: str) -> None:
        self._recovered.pop(name, None)

    def stop(self) -> None:
        """Calls that wait here are answered; sessions stay open for the next controller."""
        self._stopped = True
        if self._pulse is not None:
            self._pulse.cancel()
            self._pulse = None
        for bot in self._bots.values():
            if bot.poll is not None:
                bot.poll.release(_stopping())

    def count_bots(self) -> int:
        """How many sessions are open."""
        return len(self._bots) + len(self._recovered)

    def count_bots_by_status(self, status: int) -> int:
        """``status``: a number of BotStatus. Those that have not been heard since a restart count as UNSPECIFIED."""
        unheard = len(self._recovered) if status == pb.BOT_STATUS_UNSPECIFIED else 0
        return sum(1 for bot in self._bots.values() if bot.status == status) + unheard

    # --- the two calls -------------------------------------------------------------------------------------------------------

    async def create_bot_session(self, bot_session: pb.BotSession, context: Any, deadline: float | None = None) -> pb.BotSession:
        """A new session for a bot, which gets its name; the one that the bot had is closed. ``deadline``: seconds left.

        Raises InvalidArgumentError, DuplicateBotSessionError, EnrolmentRefused, RetriableError.
        """
        if not bot_session.bot_id:
            raise InvalidArgumentError("a bot session without a bot_id")
        self._check_running()
        claimed = enrolment.claim(bot_session.bot_id, context)
        worker = await carried_out(enrolment.worker_of(self._desk, claimed))
        if worker in self._arriving:
            raise DuplicateBotSessionError(f"another bot of worker {worker} is being given a session just now")
        self._arriving.add(worker)
        try:
            bot = await carried_out(self._admit(bot_session, worker, claimed.secret))
        finally:
            self._arriving.discard(worker)
        bot.status = bot_session.status
        await self._assign(bot, deadline)
        return self._answer(bot, bot_session)[0]

    async def update_bot_session(
        self, bot_session: pb.BotSession, context: Any, deadline: float | None = None
    ) -> tuple[pb.BotSession, Metadata]:
        """The bot says how it and its leases are; it is told what is new. The metadata is for the end of the answer.

        Raises BotSessionMismatchError, BotSessionClosedError, DuplicateBotSessionError, LeaseLostError, RetriableError.
        """
        self._check_running()
        bot = self._bot(bot_session)
        bot.turn = turn = bot.turn + 1
        if bot.poll is not None:
            bot.poll.release(_superseded())
        bot.status = bot_session.status
        self._desk.sessions.touch(bot.session)
        try:
            if not self._desk.beats(bot, bot_session.leases):
                if bot.status == pb.OK:
                    bot.session.asks_until = math.inf  # what takes the place of a lease that ends now can be looked for at once
                await carried_out(self._desk.synchronise(bot, bot_session.leases))
        except LeaseLostError as error:
            await carried_out(self._desk.sessions.close(bot.session, f"its bot and the controller disagree: {error}"))
            raise
        except BaseException:
            bot.session.asks_until = 0.0
            raise
        if bot.turn != turn:
            # What it said is done; only the newest call is for asking.
            raise _superseded()
        if bot.status == pb.BOT_TERMINATING:
            await carried_out(self._terminate(bot))
        await self._assign(bot, deadline)
        return self._answer(bot, bot_session)

    def _check_running(self) -> None:
        if self._stopped:
            raise _stopping()

    # --- sessions ------------------------------------------------------------------------------------------------------------

    async def _admit(self, bot_session: pb.BotSession, worker: str, secret: str) -> Bot:
        desk, name = self._desk, f"{self.instance_name}/{uuid4()}"
        self._check_instance(worker)
        labels = translate.properties(bot_session.worker)
        capacity = translate.capacity(bot_session.worker)
        session = await desk.sessions.enrol(secret, PROTOCOL, worker=worker)
        bot = Bot(session, name, digest(bot_session.bot_id))
        info: dict[str, JSON] = {
            "protocol": PROTOCOL,
            "version": bot_session.version,
            "instance": self.instance_name,
            "name": digest(name),
            "bot": bot.id_hash,
            "keep_alive": self.keep_alive,
        }
        session.asks_until = 0.0
        session.patience = self.keep_alive
        self._take_in(bot)
        await desk.sessions.attach(session, capacity=capacity, labels=labels, info=info)
        return bot

    def _check_instance(self, worker: str) -> None:
        """A worker belongs to one instance, which its declaration says: its builds are nobody else's business."""
        post = self._desk.roster.get(worker)
        declared = "" if post is None else post.plugin.labels.get("instance", "")
        if post is not None and declared != self.instance_name:
            raise BotSessionMismatchError(
                f"worker {worker} belongs to instance {declared!r}, its bot came to {self.instance_name!r}; give the bot that "
                "instance's name, or the worker the label 'instance'"
            )

    def _take_in(self, bot: Bot) -> None:
        self._bots[bot.name] = bot
        bot.session.when_closed().addCallback(lambda reason: self._forget(bot, reason))

    def _forget(self, bot: Bot, reason: str) -> None:
        self._bots.pop(bot.name, None)
        self._closed[bot.name] = reason
        if len(self._closed) > KEPT:
            self._closed.popitem(last=False)
        if bot.poll is not None:
            bot.poll.release(BotSessionClosedError(f"the session is closed: {reason}"))

    def _bot(self, message: pb.BotSession) -> Bot:
        """The bot whose session it is. Nothing is changed for one that is not: a stale bot does its successor no harm."""
        bot = self._bots.get(message.name) or self._adopted(message.name)
        if bot is None:
            reason = self._closed.get(message.name)
            if reason is not None:
                raise BotSessionClosedError(f"the session is closed: {reason}")
            raise BotSessionClosedError(f"instance {self.instance_name!r} has no session of this name")
        if not bot.is_called(message.bot_id):
            raise BotSessionMismatchError("the session is another bot's: its bot_id is not this one")
        return bot

    def _adopted(self, name: str) -> Bot | None:
        """A bot that had its session before the controller was restarted."""
        session = self._recovered.pop(digest(name), None)
        if session is None or session.closed:
            return None
        bot = Bot(session, name, str(session.info.get("bot")))
        self._desk.remember(bot)
        self._take_in(bot)
        return bot

    async def _terminate(self, bot: Bot) -> None:
        """It ends what it has, and gets nothing more."""
        if bot.leases:
            await self._desk.sessions.leave(bot.session, "its bot is terminating")
        else:
            await self._desk.sessions.close(bot.session, "its bot has terminated", ended=True)

    # --- new leases ----------------------------------------------------------------------------------------------------------

    async def _assign(self, bot: Bot, deadline: float | None) -> None:
        """Ask for work. Waits for some if the bot has the time; when its call is cancelled meanwhile, nothing is taken."""
        session = bot.session
        if bot.status != pb.OK or bot.free <= 0 or session.closed or session.leaving:
            session.asks_until = 0.0
            return
        seconds = poll_seconds(deadline, self.keep_alive)
        session.asks_until = math.inf
        self._desk.dispatcher.asks(session, bot.free)
        asked = self._desk.dispatcher.next_lease(session)
        # At once, not when its call is awake again: a client that hangs up in between is given it with its next call.
        asked.addCallback(partial(self._desk.took, bot))
        if not asked.called:
            self._desk.dispatcher.poke()
            if seconds < SHORTEST_POLL or self._desk.has_news(bot):
                seconds = max(0.0, min(seconds, self.job_assignment_interval))
                self._desk.when_planned().addCallback(lambda _: asked.cancel())
            asked.addTimeout(seconds, self._desk.clock)  # type: ignore[arg-type]  # it needs callLater and no more
        watched = self._desk.when_cancelled(bot) if bot.leases and not asked.called else []
        for cancelled in watched:
            cancelled.addBoth(lambda _: asked.cancel())
        bot.poll = parked = Parked(asked)
        try:
            await parked
            self._desk.take_at_once(bot)
        except (TimeoutError, CancelledError):
            pass
        except EnrolmentRefused as error:
            if session.closed:
                raise BotSessionClosedError(f"the session is closed: {session.close_reason}") from None
            raise _stopping() from error
        finally:
            if bot.poll is parked:
                bot.poll = None
                session.asks_until = self._desk.clock.seconds() + BETWEEN_POLLS if bot.free > 0 else 0.0
            for cancelled in watched:
                cancelled.cancel()

    def _beat(self) -> None:
        """A bot whose call waits is connected, and so it lives. If its machine is said to be gone, it is to call again."""
        self._pulse = self._desk.clock.callLater(PULSE, self._beat)
        for bot in list(self._bots.values()):
            if bot.poll is None:
                continue
            if bot.session.suspected:
                bot.poll.release(TimeoutError())
            else:
                self._desk.renew(bot)

    # --- the answer ----------------------------------------------------------------------------------------------------------

    def _answer(self, bot: Bot, message: pb.BotSession) -> tuple[pb.BotSession, Metadata]:
        desk, session = self._desk, bot.session
        message.name = bot.name
        reported = {lease.id: lease for lease in message.leases}
        leases: list[pb.Lease] = []
        metadata: Metadata = []
        for run_id, mine in bot.leases.items():
            state = desk.standing(session, run_id)
            if mine.cancelled or state is LeaseState.CANCELLED:
                state = LeaseState.CANCELLED
                mine.cancelled = mine.told = True
            if state is None:
                continue
            known = reported.get(mine.id) if state is LeaseState.ACTIVE else None
            leases.append(known or translate.lease(mine.lease, state))
            metadata.append((METADATA_KEY, mine.metadata(state)))
        if len(leases) != len(reported) or any(lease.id not in reported or reported[lease.id] is not lease for lease in leases):
            del message.leases[:]
            message.leases.extend(leases)
        busy = bool(message.leases)
        # With a lease it is missed as soon as any other agent.
        session.patience = None if busy else self.keep_alive
        lapses = min(desk.dispatcher.lease_seconds, desk.sessions.timeout) if busy else None
        # What the bot reads against its own clock is told by this machine's: Note [A clock that is set] in controller/clock.py.
        translate.stamp(message, time.time() + due_in(self.keep_alive, lapses))
        return message, metadata


def _superseded() -> DuplicateBotSessionError:
    return DuplicateBotSessionError("the bot has made another call since")


def _stopping() -> RetriableError:
    return RetriableError(STOPPING)
