"""What goes with an instance: volumes and addresses; and what of these is left when their instance is gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import frozen
from twisted.internet.task import deferLater

from latent.errors import LatentWorkerConfigurationError, LatentWorkerFailedToSubstantiate
from latent.model import Attempt
from latent_ec2.faults import WrongState, code_of
from latent_ec2.instances import ATTEMPT, CONTROLLER, PROTECT, WORKER, Instance, members_of
from latent_ec2.region import Region
from latent_ec2.request import KEEP
from latent_ec2.shelf import pages

VOLUME_TRIES = 12
VOLUME_PAUSE = 5.0
"""A volume that the instance before has not quite let go is asked for so many times, so many seconds apart."""

YOUNG = 60.0
"""Seconds for which nothing counts as left behind: it may not have been attached yet."""

SECOND_LOOK = 5.0
"""Seconds after which what seems to be left behind is looked at once more."""


async def attach_volumes(region: Region, clock: Any, instance: Instance, volumes: Sequence[tuple[str, str]]) -> None:
    """Attach those that it does not have yet. Raises what EC2 says of one that can't be."""
    there = set(instance.volumes.values())
    for volume, device in volumes:
        for left in reversed(range(VOLUME_TRIES)):
            if volume in there:
                break
            try:
                await region.call("attach_volume", VolumeId=volume, InstanceId=instance.id, Device=device)
                there.add(volume)
            except (LatentWorkerConfigurationError, WrongState) as error:
                if left == 0 or not (isinstance(error, WrongState) or code_of(error) == "VolumeInUse"):
                    raise
                await deferLater(clock, VOLUME_PAUSE)


async def associate(region: Region, instance: Instance, address: str | bool, tags: Mapping[str, str]) -> str:
    """Give the instance an address: that one, or one of its own, which is tagged. Answers the address."""
    if address is True:
        specification = [{"ResourceType": "elastic-ip", "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}]
        made = await region.call("allocate_address", Domain="vpc", TagSpecifications=specification)
        allocation, ip = made["AllocationId"], made["PublicIp"]
    else:
        key = "AllocationIds" if str(address).startswith("eipalloc-") else "PublicIps"
        (found,) = (await region.call("describe_addresses", **{key: [address]}))["Addresses"]
        allocation, ip = found.get("AllocationId"), found["PublicIp"]
    where = {"AllocationId": allocation} if allocation else {"PublicIp": ip}
    await region.call("associate_address", InstanceId=instance.id, AllowReassociation=True, **where)
    return str(ip)


async def release_addresses(region: Region, controller_id: str, attempt: Attempt) -> None:
    """Give up the addresses that were made for an attempt. Idempotent."""
    ours = {CONTROLLER: controller_id, WORKER: attempt.worker, ATTEMPT: str(attempt.number)}
    filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in ours.items()]
    for address in (await region.call("describe_addresses", Filters=filters))["Addresses"]:
        if address.get("AssociationId"):
            await _unless_gone(region, "disassociate_address", AssociationId=address["AssociationId"])
        await release_address(region, address["AllocationId"])


async def release_address(region: Region, allocation: str) -> None:
    await _unless_gone(region, "release_address", AllocationId=allocation)


async def delete_volume(region: Region, volume: str) -> None:
    await _unless_gone(region, "delete_volume", VolumeId=volume)


async def _unless_gone(region: Region, operation: str, **parameters: Any) -> None:
    try:
        await region.call(operation, **parameters)
    except LatentWorkerFailedToSubstantiate as error:
        if not code_of(error).endswith(("NotFound", "NotFoundException")):
            raise


@frozen
class Leftover:
    """``volume`` or ``address``: the id of what its instance has left behind."""

    controller_id: str
    attempt: Attempt
    volume: str | None = None
    address: str | None = None


async def leftovers(region: Region, clock: Any) -> list[Leftover]:
    """Volumes and addresses of ours, any controller's, that belong to no instance: not young, and seen so twice."""
    first = await _free(region)
    if not first:
        return []
    await deferLater(clock, SECOND_LOOK)
    again = set(await _free(region))
    return [one for one in first if one in again]


async def _free(region: Region) -> list[Leftover]:
    tagged = [{"Name": "tag-key", "Values": [CONTROLLER]}]
    available = {"Name": "status", "Values": ["available"]}
    volumes = await pages(region.call, "describe_volumes", "Volumes", Filters=[*tagged, available])
    addresses = (await region.call("describe_addresses", Filters=tagged))["Addresses"]
    found = []
    for row in volumes:
        tags = _tags(row)
        if KEEP not in tags and PROTECT not in tags and not row.get("Attachments") and _age(row.get("CreateTime")) > YOUNG:
            found += _leftover(tags, volume=str(row["VolumeId"]))
    for row in addresses:
        tags = _tags(row)
        if PROTECT not in tags and not row.get("AssociationId") and row.get("AllocationId"):
            found += _leftover(tags, address=str(row["AllocationId"]))
    return found


def _leftover(tags: Mapping[str, str], **what: str) -> list[Leftover]:
    """A volume of a launch says only whose instances it may have been: the first stands for all, as it is free in any case."""
    members = list(members_of(tags))
    return [Leftover(tags[CONTROLLER], members[0], **what)] if members else []


def _tags(row: Mapping[str, Any]) -> dict[str, str]:
    return {str(tag["Key"]): str(tag.get("Value", "")) for tag in row.get("Tags", ())}


def _age(created: Any) -> float:
    return (datetime.now(UTC) - created).total_seconds() if isinstance(created, datetime) else 0.0
