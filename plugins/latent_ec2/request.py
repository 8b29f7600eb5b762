"""From a recipe and a choice to the parameters of RunInstances, and to the shape that launches are put together by."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from latent_ec2.choices import Choice
from latent_ec2.options import StopMode
from latent_ec2.recipe import Recipe

RECIPE = "latent:recipe"
"""A tag: what the instance was made from, so that one that was stopped is started again only for what it will do for."""

KEEP = "latent:keep"
"""A tag of volumes that outlive their instance by their declaration: they are the user's, and nobody takes them for orphans."""


def request(
    recipe: Recipe,
    choice: Choice,
    image: str | None,
    *,
    price: float | None,
    stop_mode: StopMode,
    metadata: Mapping[str, Any],
    name: str,
) -> dict[str, Any]:
    """All parameters but those that `latent_ec2.launches` adds. ``price``: dollars an hour for spot."""
    asked: dict[str, Any] = {"MetadataOptions": dict(metadata), "TagSpecifications": _tags(recipe, choice, name)}
    if recipe.launch_template is not None:
        asked["LaunchTemplate"] = dict(recipe.launch_template)
    if image is not None:
        asked["ImageId"] = image
    if choice.type is not None:
        asked["InstanceType"] = choice.type
    if recipe.keypair_name is not None:
        asked["KeyName"] = recipe.keypair_name
    if choice.subnet is not None:
        asked["SubnetId"] = choice.subnet
    if recipe.security_group_ids:
        asked["SecurityGroupIds"] = list(recipe.security_group_ids)
    if recipe.security_name is not None:
        asked["SecurityGroups"] = [recipe.security_name]
    if choice.zone is not None:
        asked["Placement"] = {"AvailabilityZone": choice.zone}
    if recipe.instance_profile_name is not None:
        key = "Arn" if recipe.instance_profile_name.startswith("arn:") else "Name"
        asked["IamInstanceProfile"] = {key: recipe.instance_profile_name}
    if recipe.block_device_map:
        asked["BlockDeviceMappings"] = [dict(device) for device in recipe.block_device_map]
    if choice.market == "spot":
        asked["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": _spot(price)}
    if stop_mode == "terminate":
        # An image that powers itself off, its agent being gone, is paid for no longer.
        asked["InstanceInitiatedShutdownBehavior"] = "terminate"
    if stop_mode == "hibernate":
        asked["HibernationOptions"] = {"Configured": True}
    return asked


def shape(asked: Mapping[str, Any], *more: Any) -> str:
    """Equal for what may be one launch."""
    return hashlib.sha256(json.dumps([asked, *more], sort_keys=True, default=str).encode()).hexdigest()


def console_name(worker: str) -> str:
    """The ``Name`` of the workers of a pool, as they may share a launch: "linux-*" for linux-17."""
    return re.sub(r"\d+", "*", worker)


def _spot(price: float | None) -> dict[str, Any]:
    # One-time: a request that can't be met now fails now, and none is left behind.
    asked: dict[str, Any] = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
    return asked if price is None else {**asked, "MaxPrice": f"{price:.4f}"}


def _tags(recipe: Recipe, choice: Choice, name: str) -> list[dict[str, Any]]:
    tags = {"Name": name, **recipe.tags}
    kept = [device for device in recipe.block_device_map if not device.get("Ebs", {}).get("DeleteOnTermination", True)]
    kinds: dict[str, dict[str, str]] = {
        "instance": {**tags, RECIPE: recipe.fingerprint},
        "volume": {**tags, KEEP: "1"} if kept else tags,
    }
    if choice.market == "spot":
        kinds["spot-instances-request"] = tags
    return [{"ResourceType": kind, "Tags": _listed(of)} for kind, of in kinds.items()]


def _listed(tags: Mapping[str, str]) -> Sequence[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
