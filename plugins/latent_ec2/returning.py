"""Launches that a process before this one may have begun: what they made is found, or they are made now.

Note [What a crash leaves]
    Either all members have the launch's document, or the call was never made. So if all come back, the same call is made again:
    EC2 answers with the instances that there are, or makes them. If only some come back, the others may be launched anew, and
    the same call would make instances for them as well. So it is waited until an instance of the old call would be known to
    EC2; then there is none, and those who came back are launched anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from latent.model import JSON
from latent_ec2.batches import Batch
from latent_ec2.calls import Calls
from latent_ec2.instances import Instance
from latent_ec2.launches import Launch, Wish, from_document
from latent_ec2.members import Member, fail, nothing
from latent_ec2.poll import SETTLES, Poller
from latent_ec2.starting import AGAIN, Sent, Starts

GATHERED = 1.0
"""Seconds for which it is waited for the other members: recovery begins all of them at once."""


class Returns:
    def __init__(
        self,
        starts: Starts,
        poller: Poller,
        calls: Calls,
        late: Callable[[str], None],
        clock: Any,
        wall: Callable[[], float],
        settles: float = SETTLES,
    ) -> None:
        self._starts = starts
        self._poller = poller
        self._calls = calls
        self._late = late
        self._clock = clock
        self._wall = wall
        self._settles = settles
        self._made_at = wall()
        self._returned: dict[str, tuple[Launch, dict[int, Member]]] = {}
        self._batch: Batch[str, None] = Batch(clock, self._gathered, moment=GATHERED)

    def relaunch(self, document: JSON, wish: Wish) -> Deferred[Instance]:
        launch, index = from_document(document)
        repeated = self._starts.repeated(wish)
        if repeated is not None:  # by this very process: the launch is under way
            return repeated
        member = self._starts.member(wish)
        self._returned.setdefault(launch.token, (launch, {}))[1][index] = member
        self._batch.add(launch.token)
        return member.answer

    async def instance_of(self, document: JSON) -> str | None:
        """What the launch made for the member that has kept the document; None if there is nothing, and will be nothing."""
        if isinstance(document, dict) and document.get("instance"):
            return str(document["instance"])
        launch, index = from_document(document)
        while True:
            sent = self._starts.sent.get(launch.token)
            if sent is not None and sent.made is not None:
                return sent.made.get(index)
            if sent is not None and sent.over and not sent.trial.doubt:
                return None
            wait = self._unsettled(launch, sent)
            if sent is None or sent.over:
                found = {one.index: one for one in await self._starts.find(launch.token)}
                if index in found:
                    return None if found[index].gone else found[index].id
                if not wait:
                    return None
            await self._calls.pause(min(wait, AGAIN) or AGAIN)

    # --- coming back ---------------------------------------------------------------------------------------------------------

    async def _gathered(self, tokens: list[str]) -> dict[str, Exception | None]:
        for token in tokens:
            launch, members = self._returned.pop(token)
            task = Deferred.fromCoroutine(self._resume(launch, members))
            task.addErrback(self._starts.unforeseen, list(members.values()))
        return dict.fromkeys(tokens)

    async def _resume(self, launch: Launch, members: dict[int, Member]) -> None:
        everybody = set(range(len(launch.members)))
        try:
            found = await self._starts.find(launch.token)
            if not found and set(members) == everybody:
                await self._starts.send(launch, [members[index] for index in sorted(everybody)])
                return
            self._take(launch, members, found)
            while {one.index for one in found} < everybody and any(member.waits for member in members.values()):
                wait = self._unsettled(launch, self._starts.sent.get(launch.token))
                if not wait:
                    break
                await self._calls.pause(min(wait, AGAIN))
                found = await self._starts.find(launch.token)
                self._take(launch, members, found)
        except Exception as error:
            fail(members.values(), error)
            return
        for member in members.values():
            if member.waits and not found:
                self._starts.gather(member)
            else:
                fail([member], nothing(launch, None, len(found)))

    def _take(self, launch: Launch, members: dict[int, Member], found: Sequence[Instance]) -> None:
        self._poller.launched([one for one in found if one.state == "pending"])
        for instance in found:
            member = members.get(instance.index)
            if member is None:
                continue
            if instance.gone:
                fail([member], nothing(launch, instance, len(found)))
            elif member.waits:
                member.answer.callback(instance)
            elif not member.wanted:
                self._late(instance.id)

    def _unsettled(self, launch: Launch, sent: Sent | None) -> float:
        """Seconds until EC2 would know an instance of the launch for certain, were there one.

        A process before this one may have asked for it up to its end, so up to this one's beginning.
        """
        asked_at = max(launch.composed_at, self._made_at)
        if sent is not None and sent.trial.sent is not None:
            asked_at = max(asked_at, self._wall() - (self._clock.seconds() - sent.trial.sent))
        return max(0.0, asked_at + self._settles - self._wall())
