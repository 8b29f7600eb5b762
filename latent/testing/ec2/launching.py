"""What RunInstances asks for, and whether AWS would take it. Nothing is launched here."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from latent.testing.ec2.answers import Refused
from latent.testing.ec2.room import Wanted

MOST_USER_DATA = 16_384
MOST_TAGS = 50
MOST_TOKEN = 64
TAGGABLE = ("instance", "volume", "spot-instances-request", "network-interface", "elastic-gpu")
_TAG_IN_METADATA = re.compile(r"[\w+\-=.,:@]+")


@frozen
class Launch:
    """A RunInstances call, with what its launch template adds. ``zone`` is "" where AWS may choose."""

    document: Mapping[str, Any]
    least: int
    most: int
    instance_type: str
    subnet: str
    zone: str
    market: str
    lasting: bool
    token: str

    def wanted(self, zone: str) -> Wanted:
        return Wanted(self.least, self.most, self.instance_type, zone, self.subnet, self.market)


def read(document: Mapping[str, Any], template: Mapping[str, Any]) -> Launch:
    """``template``: the data of the launch template, {} without. `Refused` for what AWS would not take, as far as it says so
    without a look at the account."""
    whole = {**template, **document}
    for name in ("MinCount", "MaxCount"):
        if name not in document:
            raise Refused("MissingParameter", f"The request must contain the parameter {name}")
    least, most = _number("minCount", document["MinCount"]), _number("maxCount", document["MaxCount"])
    if least > most:
        raise Refused("InvalidParameterValue", f"Min count ({least}) can't be greater than max count ({most})")
    token = str(document.get("ClientToken", ""))
    if len(token) > MOST_TOKEN:
        raise Refused("InvalidParameterValue", f"Value ({token}) for parameter clientToken is invalid. It is too long.")
    if "ImageId" not in whole:
        raise Refused("MissingParameter", "The request must contain the parameter ImageId")
    check_user_data(document.get("UserData"))
    _check_tags(document)
    market = whole.get("InstanceMarketOptions", {})
    interfaces = whole.get("NetworkInterfaces", []) or whole.get("NetworkInterface", [])
    subnet = whole.get("SubnetId") or next((one["SubnetId"] for one in interfaces if "SubnetId" in one), "")
    spot = market.get("SpotOptions", {})
    return Launch(
        document=whole,
        least=least,
        most=most,
        instance_type=whole.get("InstanceType", "m1.small"),
        subnet=str(subnet),
        zone=str(whole.get("Placement", {}).get("AvailabilityZone", "")),
        market="spot" if market.get("MarketType") == "spot" else "on-demand",
        lasting=spot.get("SpotInstanceType") == "persistent",
        token=token,
    )


def same(before: Mapping[str, str], now: Mapping[str, str]) -> bool:
    """Whether two calls of one ClientToken ask for the same."""
    return _asked(before) == _asked(now)


def _asked(parameters: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if name not in ("ClientToken", "DryRun")}


def mismatch() -> Refused:
    return Refused(
        "IdempotentParameterMismatch",
        "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
    )


def _number(name: str, text: object) -> int:
    if not str(text).isdigit() or int(str(text)) < 1:
        raise Refused("InvalidParameterValue", f"Value ({text}) for parameter {name} is invalid. It must be at least 1.")
    return int(str(text))


def check_user_data(encoded: str | None) -> None:
    if encoded is None:
        return
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused("InvalidParameterValue", "Invalid BASE64 encoding of user data.") from error
    if len(raw) > MOST_USER_DATA:
        raise Refused("InvalidParameterValue", f"User data is limited to {MOST_USER_DATA} bytes")


def _check_tags(document: Mapping[str, Any]) -> None:
    in_metadata = document.get("MetadataOptions", {}).get("InstanceMetadataTags") == "enabled"
    kinds: list[str] = []
    for specification in document.get("TagSpecification", []):
        kind = specification.get("ResourceType", "")
        if kind not in TAGGABLE:
            raise Refused("InvalidParameterValue", f"'{kind}' is not a valid taggable resource type for this operation.")
        if kind in kinds:
            raise Refused("InvalidParameterValue", f"The same resource type may not be specified more than once: {kind}")
        kinds.append(kind)
        check_tags(specification.get("Tag", []))
        for tag in specification.get("Tag", []):
            if in_metadata and kind == "instance" and not _TAG_IN_METADATA.fullmatch(tag["Key"]):
                raise Refused(
                    "InvalidParameterValue",
                    f"'{tag['Key']}' is not a valid tag key. Tag keys must match pattern ([0-9a-zA-Z\\-_+=,.@:]{{1,255}}), and "
                    "must not be a reserved name ('.', '..', '_index')",
                )


def check_tags(tags: Sequence[Mapping[str, str]]) -> None:
    """`Refused` for tags that AWS does not take."""
    if len(tags) > MOST_TAGS:
        raise Refused("TagLimitExceeded", "The maximum number of Tags for a resource has been reached.")
    keys = [tag.get("Key", "") for tag in tags]
    for key in keys:
        if not key or len(key) > 127:
            raise Refused("InvalidParameterValue", f"Tag key '{key}' must have 1 to 127 characters")
        if key.lower().startswith("aws:"):
            raise Refused("InvalidParameterValue", f"Tag keys starting with 'aws:' are reserved for internal use: {key}")
        if keys.count(key) > 1:
            raise Refused("InvalidParameterValue", f"Duplicate tag key '{key}' specified.")
    for tag in tags:
        if len(tag.get("Value", "")) > 255:
            raise Refused("InvalidParameterValue", f"Tag value exceeds the maximum length of 255 characters: {tag['Key']}")
