"""Who waits for an instance of a launch, and what is told to them when they get none."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from latent.errors import LatentWorkerCapacityError, LatentWorkerFailedToSubstantiate
from latent_ec2.instances import Instance
from latent_ec2.launches import Launch, Wish


@define(eq=False)
class Member:
    """``wanted`` until it was cancelled. ``others``: who was told to wait for the same."""

    wish: Wish
    answer: Deferred[Instance]
    wanted: bool = True
    others: list[Deferred[Instance]] = field(factory=list)

    @property
    def waits(self) -> bool:
        return self.wanted and not self.answer.called

    def tell_others(self, result: Instance | Failure) -> None:
        for other in self.others:
            if other.called:
                continue
            if isinstance(result, Failure):
                other.errback(result)
            else:
                other.callback(result)


def fail(members: Iterable[Member], error: BaseException) -> None:
    """Tell it to all who still wait."""
    for member in members:
        if member.waits:
            member.answer.errback(error)


def nothing(launch: Launch, instance: Instance | None, made: int) -> Exception:
    """Why a member has no instance although EC2 has answered. ``made``: how many there are."""
    if instance is not None:
        why = ": ".join(part for part in instance.reason if part) or "EC2 gives no reason"
        return LatentWorkerFailedToSubstantiate(f"{instance.id} is {instance.state}: {why}")
    return LatentWorkerCapacityError(f"EC2 had room for {made} of {len(launch.members)} instances just now")
