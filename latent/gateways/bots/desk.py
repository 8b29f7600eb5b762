"""What the gateway needs of the controller, and the changes of leases that it makes there."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from latent.controller.clock import Clock
from latent.controller.dispatcher import Dispatcher
from latent.controller.holding import held, standing
from latent.controller.roster import Roster
from latent.controller.sessions import Session, Sessions
from latent.errors import NotYourRun
from latent.gateways.bots import translate
from latent.gateways.bots.bot import Bot, Held
from latent.gateways.bots.errors import LeaseLostError
from latent.gateways.bots.sync import Verdict, verdict
from latent.model import Lease, LeaseState, Outcome, Result
from latent.store.database import Store
from latent.wire import bots_pb2 as pb

log = Logger()


@frozen(kw_only=True)
class Desk:
    """``when_planned`` fires when all builds that wait now have been looked at, and those that are to go to a worker have."""

    sessions: Sessions
    dispatcher: Dispatcher
    roster: Roster
    store: Store
    clock: Clock
    when_planned: Callable[[], Deferred[None]]

    # --- what the bot and the controller say of its leases ------------------------------------------------------------------

    def remember(self, bot: Bot) -> None:
        """What the bot was given before a restart."""
        for lease in held(self.dispatcher, bot.session):
            bot.leases[lease.run_id] = Held(lease)

    def standing(self, session: Session, run_id: int) -> LeaseState | None:
        return standing(self.dispatcher, session, run_id)

    async def synchronise(self, bot: Bot, reported: Iterable[pb.Lease]) -> None:
        """Carry out what the bot says of its leases; one call after the other. Raises LeaseLostError, InvalidArgumentError."""
        await bot.calls.acquire()
        try:
            judged = self._judge(bot, reported)
            for message, mine, what in judged:
                await self._settle(bot, message, mine, what)
        except NotYourRun as error:
            raise LeaseLostError(str(error)) from None
        finally:
            bot.calls.release()

    def beats(self, bot: Bot, reported: Iterable[pb.Lease]) -> bool:
        """Carry it out if nothing changes: the bot goes on with what it has. False when there is more to it."""
        if bot.calls.locked:
            return False
        judged = self._judge(bot, reported)
        if any(what not in (Verdict.HEARTBEAT, Verdict.SENT) for _, _, what in judged):
            return False
        for _, mine, what in judged:
            if what is Verdict.HEARTBEAT:
                mine.begins = False
                self.dispatcher.renew(bot.session, mine.lease.run_id)
        return True

    def _judge(self, bot: Bot, reported: Iterable[pb.Lease]) -> list[tuple[pb.Lease | None, Held, Verdict]]:
        """A verdict for each lease that one of the two has. Nothing is changed before all are there. Raises LeaseLostError."""
        judged: list[tuple[pb.Lease | None, Held, Verdict]] = []
        seen: set[int] = set()
        for message in reported:
            run_id = translate.run_id(message.id)
            if run_id in seen:
                raise LeaseLostError(f"lease {message.id} is reported twice")
            if run_id in bot.freed and message.state == pb.CANCELLED:
                continue
            mine = self._mine(bot, run_id)
            ours = None if mine is None else self._ours(bot, mine)
            what = verdict(message.state, ours, told=mine is not None and mine.told)
            if what is Verdict.LOST:
                raise LeaseLostError(_disagreement(message.id, message.state, ours))
            if mine is None or run_id is None:
                continue  # over for both
            seen.add(run_id)
            judged.append((message, mine, what))
        for run_id, mine in bot.leases.items():
            if run_id in seen:
                continue
            ours = self._ours(bot, mine)
            what = verdict(None, ours, told=mine.told)
            if ours is not None and what is Verdict.LOST:
                raise LeaseLostError(f"lease {run_id} was the bot's, and it does not have it any more")
            judged.append((None, mine, Verdict.FREED if ours is None else what))
        return judged

    def _mine(self, bot: Bot, run_id: int | None) -> Held | None:
        if run_id is None:
            return None
        mine = bot.leases.get(run_id)
        if mine is None and self.standing(bot.session, run_id) is not None:
            # It was given before a restart, and nobody here remembers; its run does.
            run = self.dispatcher.get(run_id)
            assert run is not None
            mine = bot.leases[run_id] = Held(run.lease())
        return mine

    def _ours(self, bot: Bot, mine: Held) -> LeaseState | None:
        if mine.cancelled:
            return LeaseState.CANCELLED
        return self.standing(bot.session, mine.lease.run_id)

    async def _settle(self, bot: Bot, message: pb.Lease | None, mine: Held, what: Verdict) -> None:
        """Everything that is remembered is changed before or in the same turn as the answer of the store: a bot may hang up."""
        run_id, session = mine.lease.run_id, bot.session
        match what:
            case Verdict.ACKNOWLEDGED:
                mine.begins = True
                await self.dispatcher.activate(session, run_id, self.clock.seconds())
            case Verdict.HEARTBEAT:
                mine.begins = False
                self.dispatcher.renew(session, run_id)
            case Verdict.FINISHED:
                assert message is not None
                await self._finish(session, run_id, translate.outcome(message))
                bot.leases.pop(run_id, None)
            case Verdict.TOLD:
                mine.cancelled = mine.told = True
                if message is not None and message.state == pb.COMPLETED:
                    await self.give_back(session, run_id)
            case Verdict.FREED | Verdict.IGNORED:
                bot.freed.append(run_id)
                await self.give_back(session, run_id)
                bot.leases.pop(run_id, None)
            case Verdict.SENT | Verdict.LOST:
                pass

    async def _finish(self, session: Session, run_id: int, outcome: Outcome) -> None:
        now = self.clock.seconds()
        if self.standing(session, run_id) is LeaseState.PENDING:
            # It began and ended between two calls; only what has begun counts as a try.
            await self.dispatcher.activate(session, run_id, now)
        await self.dispatcher.finished(session, run_id, outcome, now)

    async def give_back(self, session: Session, run_id: int) -> None:
        """The end of a lease that was cancelled, if it has not come yet."""
        if self.standing(session, run_id) is not None:
            outcome = Outcome(result=Result.CANCELLED, error="its bot gave it back")
            await self.dispatcher.finished(session, run_id, outcome, self.clock.seconds())

    def renew(self, bot: Bot) -> None:
        """The bot lives and has what it has."""
        self.sessions.touch(bot.session)
        for mine in bot.leases.values():
            if self.standing(bot.session, mine.lease.run_id) is LeaseState.ACTIVE:
                self.dispatcher.renew(bot.session, mine.lease.run_id)

    # --- new leases ----------------------------------------------------------------------------------------------------------

    def take_at_once(self, bot: Bot) -> None:
        """Whatever else is there for the bot."""
        while bot.free > 0:
            waiting = self.dispatcher.next_lease(bot.session)
            if not waiting.called:
                waiting.addErrback(lambda _: None)
                waiting.cancel()
                return
            waiting.addCallback(lambda lease: self.took(bot, lease))

    def took(self, bot: Bot, lease: Lease) -> None:
        if self.standing(bot.session, lease.run_id) is LeaseState.CANCELLED:
            Deferred.fromCoroutine(self.give_back(bot.session, lease.run_id)).addErrback(
                lambda f: log.failure("run {run} could not be ended", failure=f, run=lease.run_id)
            )
        else:
            bot.leases[lease.run_id] = Held(lease)

    def has_news(self, bot: Bot) -> bool:
        """Whether the bot has to be told of a lease without delay. Stock bots work on one only once this call has ended, too."""
        return any(mine.begins or self._ours(bot, mine) is not LeaseState.ACTIVE for mine in bot.leases.values())

    def when_cancelled(self, bot: Bot) -> list[Deferred[bool]]:
        """One for each lease that the bot works on; fires when it is to end, or is over."""
        session = bot.session
        return [maybeDeferred(self.dispatcher.cancelled, session, run_id) for run_id in bot.leases]


def _disagreement(lease_id: str, theirs: int, ours: LeaseState | None) -> str:
    known = "is not the bot's" if ours is None else f"is {ours.value}"
    said = pb.LeaseState.Name(theirs) if theirs in pb.LeaseState.values() else str(theirs)
    return f"lease {lease_id[:40]!r} {known} here, and the bot says {said}"
