"""Instances that are stopped instead of terminated, and started again for their worker's next attempt.

A stopped instance with our tags is a parked one: nothing else stops them. It belongs to its worker, not to an attempt, so it is
no stray; but past the time in its tag it is given up like any other. Such instances are launched one by one: their user data
are theirs alone, and can be changed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from twisted.logger import Logger

from latent.model import Attempt
from latent_ec2.instances import ATTEMPT, EXPIRES, WORKER, Instance
from latent_ec2.options import StopMode
from latent_ec2.region import Region
from latent_ec2.request import RECIPE

log = Logger()

ASLEEP = ("stopping", "stopped")


def is_parked(instance: Instance) -> bool:
    """Whether it waits for its worker's next attempt."""
    return instance.state in ASLEEP and not expired(instance)


def expired(instance: Instance) -> bool:
    return instance.expires is not None and instance.expires < time.time()


async def park(region: Region, instance: str, mode: StopMode, seconds: float) -> None:
    """Stop it, to be kept for so long. Fires when it is stopped."""
    await _tag(region, instance, {EXPIRES: f"{time.time() + seconds:.0f}"})
    await region.end(instance, mode)


async def wake(region: Region, instance: str, attempt: Attempt, user_data: str, seconds: float) -> Instance:
    """Start it again, for another attempt: its tags and its user data first."""
    tags = {WORKER: attempt.worker, ATTEMPT: str(attempt.number), EXPIRES: f"{time.time() + seconds:.0f}"}
    await _tag(region, instance, tags)
    await region.call("modify_instance_attribute", InstanceId=instance, UserData={"Value": user_data.encode()})
    return await region.restart(instance)


class Garage:
    """Where one worker's stopped instance is. Made anew, it has to look."""

    def __init__(self, worker: str, clock: Any) -> None:
        self._worker = worker
        self._clock = clock
        self._there: tuple[str, str] | None = None
        self._looked = False
        self._leaving: Any = None

    def put(self, region: Region, instance: str, fingerprint: str, seconds: float) -> None:
        """It is stopped, and given up when nobody has asked for it in that time."""
        self._there, self._looked = (instance, fingerprint), True
        self._leaving = self._clock.callLater(seconds, self._give_up, region)

    async def take(self, region: Region, controller_id: str, fingerprint: str) -> str | None:
        """An instance that was made from this, if there is one; any other is terminated."""
        there, self._there = self._there, None
        if self._leaving is not None and self._leaving.active():
            self._leaving.cancel()
        fits: list[str] = []
        others: list[str] = []
        if not self._looked:
            fits, others = await parked(region, controller_id, self._worker, fingerprint)
            self._looked = True
        elif there is not None:
            (fits if there[1] == fingerprint else others).append(there[0])
        for instance in (*others, *fits[1:]):
            end(region, instance)
        return fits[0] if fits else None

    def _give_up(self, region: Region) -> None:
        there, self._there = self._there, None
        if there is not None:
            end(region, there[0])


def end(region: Region, instance: str) -> None:
    """Terminate it; what goes wrong with that is made good when the instance's time is over."""
    region.end(instance).addErrback(
        lambda failure: log.warn("{id} could not be terminated: {why}", id=instance, why=failure.getErrorMessage())
    )


async def parked(region: Region, controller_id: str, worker: str, fingerprint: str) -> tuple[list[str], list[str]]:
    """What waits for the worker: instances of this recipe, and others, which will not do any more."""
    fits: list[str] = []
    others: list[str] = []
    for instance in await region.find(controller=controller_id):
        if instance.state in ASLEEP and instance.attempt is not None and instance.attempt.worker == worker:
            good = instance.tags.get(RECIPE) == fingerprint and not expired(instance)
            (fits if good else others).append(instance.id)
    return fits, others


async def _tag(region: Region, instance: str, tags: Mapping[str, str]) -> None:
    listed: list[dict[str, Any]] = [{"Key": key, "Value": value} for key, value in tags.items()]
    await region.call("create_tags", Resources=[instance], Tags=listed)
