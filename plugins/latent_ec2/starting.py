"""Starts: wishes of one shape become one RunInstances, which is never done twice and of which nothing is left behind.

Note [What a launch goes through]
    gathered: wishes of one shape come together, for a moment, and for as long as the budget has no turn. kept: every member has
    the launch's document on disk. One that fails or is cancelled here is left out, and the others keep a new document: what
    nobody was asked for leaves nothing. sent: RunInstances is asked for until EC2 answers, always with the same ClientToken and
    parameters. answered: an instance is its member's by AmiLaunchIndex; one whose member has been cancelled is terminated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.errors import LatentWorkerConfigurationError, LatentWorkerFailedToSubstantiate
from latent.model import JSON, Attempt
from latent_ec2 import asking
from latent_ec2.batches import Batch, Moment
from latent_ec2.calls import Answer, Calls, Trial
from latent_ec2.faults import OtherParameters
from latent_ec2.instances import Instance, parse
from latent_ec2.launches import Launch, Wish, compose, split
from latent_ec2.members import Member, fail, nothing
from latent_ec2.poll import SETTLES, Poller

log = Logger()

PATIENCE = 300.0
"""Seconds for which a launch that nobody answers is repeated."""

AGAIN = 5.0
"""Seconds before it is looked again for what a launch made."""


@define(eq=False)
class _Gathering:
    moment: Moment
    members: list[Member] = field(factory=list)
    turn: Deferred[float] | None = None


@define(eq=False)
class Sent:
    """A launch that EC2 is asked for. ``made``: what it answered with, index -> id. ``over``: it is not asked any more."""

    launch: Launch
    members: Sequence[Member]
    trial: Trial = field(factory=Trial)
    task: Deferred[None] | None = None
    made: dict[int, str] | None = None
    over: bool = False


class Starts:
    """``sent``: launches by token, until EC2 can be relied on to know what they made."""

    def __init__(self, calls: Calls, poller: Poller, late: Callable[[str], None], clock: Any, wall: Callable[[], float]) -> None:
        """``late`` terminates an instance that nobody wants. ``wall``: POSIX seconds."""
        self.sent: dict[str, Sent] = {}
        self._calls = calls
        self._poller = poller
        self._late = late
        self._clock = clock
        self._wall = wall
        self._waiting: dict[tuple[str, Attempt], Member] = {}
        self._gatherings: dict[tuple[str, str], _Gathering] = {}
        self._finding: Batch[str, list[Instance]] = Batch(clock, self._find_all)

    def __len__(self) -> int:
        """Attempts that wait for an instance."""
        return len(self._waiting)

    def find(self, token: str) -> Deferred[list[Instance]]:
        """What the launch of a ClientToken made."""
        return self._finding.add(token)

    def launch(self, wish: Wish) -> Deferred[Instance]:
        member = self.member(wish)
        self.gather(member)
        return member.answer

    def member(self, wish: Wish) -> Member:
        """LatentWorkerFailedToSubstantiate for an attempt that waits already: it can't have two instances."""
        key = (wish.controller_id, wish.member)
        if key in self._waiting:
            raise LatentWorkerFailedToSubstantiate(f"{wish.member} is being launched already")

        def settled(result: Any) -> Any:
            del self._waiting[key]
            member.tell_others(result)
            return result

        member = self._waiting[key] = Member(wish, Deferred(lambda _: self._cancelled(member)))
        member.answer.addBoth(settled)
        return member

    def repeated(self, wish: Wish) -> Deferred[Instance] | None:
        """What an attempt that waits already is answered with, for one more who wants it; None if it does not wait."""
        member = self._waiting.get((wish.controller_id, wish.member))
        if member is None:
            return None
        member.others.append(Deferred())
        return member.others[-1]

    def _cancelled(self, member: Member) -> None:
        member.wanted = False
        for key, gathering in list(self._gatherings.items()):
            if member in gathering.members:
                gathering.members.remove(member)
                if not gathering.members:
                    del self._gatherings[key]
                    gathering.moment.stop()
                    if gathering.turn is not None:
                        gathering.turn.cancel()
        for sent in self.sent.values():
            if member in sent.members and not any(one.waits for one in sent.members):
                sent.trial.given_up = True
                if sent.task is not None and not sent.trial.calling:
                    sent.task.cancel()

    # --- gathered ------------------------------------------------------------------------------------------------------------

    def gather(self, member: Member) -> None:
        key = (member.wish.controller_id, member.wish.shape)
        gathering = self._gatherings.get(key)
        if gathering is None:
            moment = Moment(self._clock, lambda: self._gathered(key))
            gathering = self._gatherings[key] = _Gathering(moment)
        gathering.members.append(member)
        if gathering.turn is None:
            gathering.moment.touch()

    def _gathered(self, key: tuple[str, str]) -> None:
        """Until the budget has a turn for it, more may come along."""
        gathering = self._gatherings[key]

        def go(turn: float) -> None:
            del self._gatherings[key]
            self._go(gathering.members, turn)

        def failed(failure: Failure) -> None:
            if not failure.check(CancelledError):
                self.unforeseen(failure, gathering.members)

        gathering.turn = self._calls.gate.requests.take()
        gathering.turn.addCallback(go).addErrback(failed)

    def _go(self, members: Sequence[Member], turn: float) -> None:
        by_wish = {id(member.wish): member for member in members}
        launches, misfits = split([member.wish for member in members])
        for wish, why in misfits:
            fail([by_wish[id(wish)]], LatentWorkerConfigurationError(f"{wish.member}: {why}; make it smaller"))
        for n, wishes in enumerate(launches):
            some = [by_wish[id(wish)] for wish in wishes]
            task = Deferred.fromCoroutine(self._start(some, turn if n == 0 else None))
            task.addErrback(self.unforeseen, some)

    def unforeseen(self, failure: Failure, members: Sequence[Member]) -> None:
        log.failure("{label}: a launch failed", failure, label=self._calls.account.label)
        fail(members, LatentWorkerFailedToSubstantiate(f"the launch failed: {failure.getErrorMessage()}"))

    # --- kept ----------------------------------------------------------------------------------------------------------------

    async def _start(self, members: Sequence[Member], turn: float | None) -> None:
        while members := [member for member in members if member.waits]:
            launch = compose([member.wish for member in members], self._wall())
            if await self._keep(launch, members):
                await self.send(launch, members, turn)
                return

    async def _keep(self, launch: Launch, members: Sequence[Member]) -> bool:
        """Whether all have kept it, and still want it."""
        documents = [launch.document(self._calls.account, index) for index in range(len(members))]
        keeping = [_kept(member, document) for member, document in zip(members, documents, strict=True)]
        for (_, result), member in zip(await DeferredList(keeping, consumeErrors=True), members, strict=True):
            if isinstance(result, Failure) and result.value is not None:
                fail([member], result.value)
        return all(member.waits for member in members)

    # --- sent ----------------------------------------------------------------------------------------------------------------

    async def send(self, launch: Launch, members: Sequence[Member], turn: float | None = None) -> None:
        """``members`` in the launch's order; each gets its instance or an error."""
        self._forget()
        sent = self.sent[launch.token] = Sent(launch, members)
        sent.task = Deferred.fromCoroutine(self._run(sent, turn))
        await sent.task.addBoth(self._over, sent)

    async def _run(self, sent: Sent, turn: float | None) -> None:
        parameters = sent.launch.parameters(sent.members[0].wish.user_data)
        await self._calls.gate.instances.take(len(sent.members))
        try:
            answer = await self._calls.ask(
                "run_instances",
                parameters,
                adopt=lambda late: self._answered(sent, late),
                patience=PATIENCE,
                turn=turn,
                trial=sent.trial,
            )
        except OtherParameters as error:
            await self._made_before(sent, error)
        else:
            self._answered(sent, answer)

    def _over(self, result: Failure | None, sent: Sent) -> None:
        sent.over, sent.task = True, None
        if isinstance(result, Failure) and result.value is not None:
            fail(sent.members, result.value)

    def _answered(self, sent: Sent, answer: Answer) -> None:
        self._arrived(sent, [parse(one) for one in answer.get("Instances", ())])

    def _arrived(self, sent: Sent, instances: Sequence[Instance]) -> None:
        self._poller.launched(instances)
        by_index = {instance.index: instance for instance in instances}
        sent.made = {index: instance.id for index, instance in by_index.items()}
        for index, member in enumerate(sent.members):
            instance = by_index.get(index)
            if instance is None or instance.gone:
                fail([member], nothing(sent.launch, instance, len(instances)))
            elif member.waits:
                member.answer.callback(instance)
            elif not member.wanted:
                self._late(instance.id)
        for instance in instances:
            if instance.index >= len(sent.members) or by_index[instance.index] is not instance:
                self._late(instance.id)

    async def _made_before(self, sent: Sent, error: Exception) -> None:
        """EC2 has had a launch of this token: another process's, whose user data was other than ours is now."""
        sent.trial.doubt = True
        for _ in range(int(SETTLES / AGAIN)):
            if found := await self.find(sent.launch.token):
                self._arrived(sent, found)
                return
            await self._calls.pause(AGAIN)
        raise error

    def _forget(self) -> None:
        """What EC2 knows by now is found by asking it."""
        now = self._clock.seconds()
        self.sent = {
            token: sent for token, sent in self.sent.items() if not sent.over or now - (sent.trial.sent or 0.0) < SETTLES
        }

    async def _find_all(self, tokens: list[str]) -> dict[str, list[Instance] | Exception]:
        return {**await asking.launched(self._calls, tokens)}


def _kept(member: Member, document: JSON) -> Deferred[None]:
    async def keep() -> None:
        await member.wish.keep(document)

    return Deferred.fromCoroutine(keep())
