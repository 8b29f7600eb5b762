"""What one instance is made from: the options that a build may decide, rendered and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from latent.errors import ConfigError
from latent.worker.properties import holds_renderable
from latent_ec2 import options

RENDERED = (
    "instance_type",
    "ami",
    "valid_ami_owners",
    "valid_ami_location_regex",
    "elastic_ip",
    "user_data",
    "keypair_name",
    "security_name",
    "spot_instance",
    "max_spot_price",
    "volumes",
    "placement",
    "price_multiplier",
    "tags",
    "product_description",
    "subnet_id",
    "security_group_ids",
    "instance_profile_name",
    "block_device_map",
    "launch_template",
)
"""The options that may be renderables, in the order of `Recipe`'s fields."""


@frozen(eq=False)
class Made:
    """What an instance was made from, as far as it is persisted: enough to tell whether another recipe makes the same."""

    fingerprint: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Made | Recipe) and self.fingerprint == other.fingerprint

    __hash__ = None  # type: ignore[assignment]


@frozen(eq=False, kw_only=True)
class Recipe:
    """Two are equal when an instance of the one will do for the other."""

    instance_type: tuple[str, ...]
    ami: str | None
    valid_ami_owners: tuple[str, ...]
    valid_ami_location_regex: str | None
    elastic_ip: str | bool | None
    user_data: str | None
    keypair_name: str | None
    security_name: str | None
    spot_instance: bool
    max_spot_price: float | None
    volumes: tuple[tuple[str, str], ...]
    placement: tuple[str, ...]
    price_multiplier: float | None
    tags: Mapping[str, str]
    product_description: str
    subnet_id: tuple[str, ...]
    security_group_ids: tuple[str, ...]
    instance_profile_name: str | None
    block_device_map: tuple[Mapping[str, Any], ...]
    launch_template: Mapping[str, str] | None

    @property
    def fingerprint(self) -> str:
        made_from = {name: getattr(self, name) for name in RENDERED}
        return hashlib.sha256(json.dumps(made_from, sort_keys=True, default=repr).encode()).hexdigest()[:32]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Made | Recipe) and self.fingerprint == other.fingerprint

    __hash__ = None  # type: ignore[assignment]


def recipe(values: Mapping[str, Any], region: str | None) -> Recipe:
    """From the rendered options, by name. ConfigError with all that is wrong."""
    errors: list[str] = []
    checked: dict[str, Any] = {}
    for name in RENDERED:
        try:
            checked[name] = check(name, values[name], region)
        except ConfigError as error:
            errors.extend(error.errors)
    errors += conflicts({**values, **checked})
    if errors:
        raise ConfigError(errors)
    return Recipe(**checked)


def check(name: str, value: Any, region: str | None) -> Any:
    """One option's value as it is used; ConfigError."""
    if name == "placement":
        return options.placement(value, region)
    return getattr(options, name)(value)


def conflicts(values: Mapping[str, Any]) -> list[str]:
    """Which options exclude or need each other. Of what is yet to be rendered, only the build will know."""

    def given(*names: str) -> bool:
        return any(values[name] not in (None, (), [], "", False) for name in names)

    def surely(*names: str) -> bool:
        return any(given(name) and not holds_renderable(values[name]) for name in names)

    errors = []
    if surely("ami") and surely("valid_ami_owners", "valid_ami_location_regex"):
        errors.append("ami, and valid_ami_owners or valid_ami_location_regex, exclude each other; take one of them out")
    if not given("ami", "valid_ami_owners", "valid_ami_location_regex", "launch_template"):
        errors.append("nothing says which image; write ami='ami-...', valid_ami_owners, or a launch_template that has one")
    if not given("instance_type", "launch_template"):
        errors.append("no instance_type is given; write instance_type='m7i.large', or a launch_template that has one")
    if surely("security_name") and surely("subnet_id", "security_group_ids"):
        errors.append(
            "security_name is for the default VPC and excludes subnet_id and security_group_ids; name the group by its id"
            " in security_group_ids"
        )
    if surely("placement") and isinstance(values["subnet_id"], list | tuple) and len(values["subnet_id"]) > 1:
        errors.append("each subnet_id is in one zone already; take placement out")
    if surely("placement") and any(isinstance(zone, str) and len(zone) == 1 for zone in values["placement"]):
        errors.append("placement is the letter of a zone, and nothing says of which region; write region, too")
    return errors
