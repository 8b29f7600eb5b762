"""One check for each option that a build may decide; ConfigError("what; remedy"). Each answers the value as it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from latent.errors import ConfigError
from latent.worker.words import shown

MOST_TAGS = 24
"""EC2 allows 50, some of which are ours."""

STOP_MODES = ("terminate", "stop", "hibernate")
ENROLMENTS = ("cloud-init", "script", None)

StopMode = Literal["terminate", "stop", "hibernate"]

_NAMED_ID = re.compile(r"[a-z]+-[0-9a-f]+")
_TYPE = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+")
_DEVICE = re.compile(r"[A-Za-z0-9/][A-Za-z0-9/._-]*")
_ZONE = re.compile(r"[a-z]{2}(-[a-z]+)+-\d+(-[a-z0-9-]+)?[a-z]")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d+")
_OWNERS = ("self", "amazon", "aws-marketplace")
_ADDRESS = re.compile(r"\d{1,3}(\.\d{1,3}){3}|eipalloc-[0-9a-f]+")


def instance_type(value: Any) -> tuple[str, ...]:
    """One, or a list that is tried in order; none where a launch template has it."""
    remedy = "write 'm7i.large', or a list of such that is tried in order"
    found = _texts("instance_type", value, remedy)
    for one in found:
        if not _TYPE.fullmatch(one):
            raise ConfigError(f"instance_type is {shown(one)}; {remedy}")
    return found


def ami(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and re.fullmatch(r"ami-[0-9a-z]+|resolve:ssm:\S+", value)):
        return value
    raise ConfigError(f"ami is {shown(value)}; write its id, 'ami-0123456789abcdef0' for example")


def valid_ami_owners(value: Any) -> tuple[str, ...]:
    """Account numbers, with or without their dashes, or the aliases that EC2 knows."""
    items = value if isinstance(value, list | tuple) else [] if value is None else [value]
    found = []
    for one in items:
        text = str(one) if isinstance(one, str | int) and not isinstance(one, bool) else ""
        digits = text.replace("-", "")
        if digits.isdigit() and len(digits) <= 12:
            found.append(digits.zfill(12))
        elif text in _OWNERS:
            found.append(text)
        else:
            raise ConfigError(f"valid_ami_owners has {shown(one)}; write an account number, or a list of them")
    return tuple(found)


def valid_ami_location_regex(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConfigError(f"valid_ami_location_regex is {shown(value)}; write a regular expression")
    try:
        re.compile(value)
    except re.error as error:
        raise ConfigError(
            f"valid_ami_location_regex is {shown(value)}, which is no regular expression: {error}; mend it"
        ) from None
    return value


def elastic_ip(value: Any) -> str | bool | None:
    """An address of the account's, or True: one of its own for each instance."""
    if value is None or value is False:
        return None
    if value is True or (isinstance(value, str) and _ADDRESS.fullmatch(value)):
        return value
    raise ConfigError(
        f"elastic_ip is {shown(value)}; write an address such as '203.0.113.7', 'eipalloc-ID', or True for a new one"
    )


def user_data(value: Any) -> str | None:
    """Text, or the file that has it. A file is read each time: a changed one counts from the next start on."""
    if isinstance(value, Path):
        try:
            return value.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"user_data: {value} can't be read ({why}); it is a file of UTF-8 text") from None
    if isinstance(value, bytes):
        try:
            return value.decode()
        except ValueError:
            raise ConfigError("user_data is bytes that are no UTF-8 text; write it as text") from None
    if value is None or isinstance(value, str):
        return value
    raise ConfigError(f"user_data is {shown(value)}; write the text itself, or pathlib.Path('FILE')")


def keypair_name(value: Any) -> str | None:
    return _text_or_none("keypair_name", value, "the name of a key pair in the region")


def security_name(value: Any) -> str | None:
    return _text_or_none("security_name", value, "the name of a security group in the default VPC")


def security_group_ids(value: Any) -> tuple[str, ...]:
    return _ids("security_group_ids", "sg", value)


def subnet_id(value: Any) -> tuple[str, ...]:
    """One, or a list that is tried in order."""
    return _ids("subnet_id", "subnet", value)


def placement(value: Any, region: str | None = None) -> tuple[str, ...]:
    """Zones. As in Buildbot, a letter is a zone of the region; a list is tried in order."""
    remedy = "write the letter of a zone, 'a', or its name, 'eu-west-1a', or a list of such"
    found = []
    for one in _texts("placement", value, remedy):
        if re.fullmatch(r"[a-z]", one) and region is not None:
            found.append(region + one)
        elif re.fullmatch(r"[a-z]", one) or _ZONE.fullmatch(one):
            found.append(one)
        else:
            raise ConfigError(f"placement is {shown(one)}; {remedy}")
    return tuple(found)


def region(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and _REGION.fullmatch(value)):
        return value
    raise ConfigError(f"region is {shown(value)}; write its code, 'eu-west-1' for example")


def spot_instance(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ConfigError(f"spot_instance is {shown(value)}; write True or False")


def max_spot_price(value: Any) -> float | None:
    """Dollars an hour; None: no more than the same on demand costs."""
    return _positive("max_spot_price", value, "dollars an hour, or None for what the type costs on demand")


def price_multiplier(value: Any) -> float | None:
    """Of the last hour's average price; None: only max_spot_price counts."""
    return _positive("price_multiplier", value, "a factor such as 1.2, or None to offer max_spot_price at once")


def product_description(value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise ConfigError(f"product_description is {shown(value)}; write 'Linux/UNIX', for example")


def volumes(value: Any) -> tuple[tuple[str, str], ...]:
    """Pairs of a volume's id and its device."""
    remedy = "write a list of pairs such as [('vol-0123456789abcdef0', '/dev/xvdf')]"
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise ConfigError(f"volumes is {shown(value)}; {remedy}")
    for pair in value:
        right = isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
        if not right or not re.fullmatch(r"vol-[0-9a-f]+", pair[0]) or not _DEVICE.fullmatch(pair[1]):
            raise ConfigError(f"volumes has {shown(pair)}; {remedy}")
    return tuple((one, device) for one, device in value)


def block_device_map(value: Any) -> tuple[Mapping[str, Any], ...]:
    """As boto3 takes it. A device's volume goes with the instance unless DeleteOnTermination says otherwise."""
    remedy = "write a list such as [{'DeviceName': '/dev/xvda', 'Ebs': {'VolumeSize': 50}}]"
    if value is None:
        return ()
    if isinstance(value, Mapping):  # Buildbot's older form: device -> what it is
        value = [{"DeviceName": device, **_old_device(what)} for device, what in value.items()]
    if not isinstance(value, list | tuple):
        raise ConfigError(f"block_device_map is {shown(value)}; {remedy}")
    found = []
    for one in value:
        if not isinstance(one, Mapping) or not isinstance(one.get("DeviceName"), str):
            raise ConfigError(f"block_device_map has {shown(one)}; {remedy}")
        device = dict(one)
        if "Ebs" in device:
            if not isinstance(device["Ebs"], Mapping):
                raise ConfigError(f"block_device_map: the Ebs of {one['DeviceName']} is {shown(device['Ebs'])}; {remedy}")
            device["Ebs"] = {"DeleteOnTermination": True, **device["Ebs"]}
        found.append(device)
    return tuple(found)


def _old_device(what: Any) -> Mapping[str, Any]:
    if not isinstance(what, Mapping):
        raise ConfigError(
            f"block_device_map has {shown(what)} for a device; write a dict such as {{'Ebs': {{'VolumeSize': 50}}}}"
        )
    return what


def tags(value: Any) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"tags is {shown(value)}; write a dict such as {{'team': 'ci'}}")
    found = {}
    for key, content in value.items():
        if not isinstance(key, str) or not 1 <= len(key) <= 128:
            raise ConfigError(f"tags has the key {shown(key)}; write a string of at most 128 characters")
        if key.startswith(("latent:", "aws:")):
            raise ConfigError(f"tags has the key {key!r}; names that begin with latent: and aws: are taken")
        text = str(content) if isinstance(content, int | float) else content
        if not isinstance(text, str) or len(text) > 256:
            raise ConfigError(f"tags: the value of {key!r} is {shown(content)}; write a string of at most 256 characters")
        found[key] = text
    if len(found) > MOST_TAGS:
        raise ConfigError(f"tags has {len(found)} tags; {MOST_TAGS} are the most, as latent adds its own")
    return found


def instance_profile_name(value: Any) -> str | None:
    return _text_or_none("instance_profile_name", value, "the name of an IAM instance profile, or its ARN")


def launch_template(value: Any) -> Mapping[str, str] | None:
    """Its id or name, 'NAME:VERSION', or the dict that boto3 takes."""
    remedy = "write its name or id, 'NAME:VERSION', or {'LaunchTemplateName': ..., 'Version': ...}"
    if value is None:
        return None
    if isinstance(value, str) and value.strip():
        name, _, version = value.partition(":")
        key = "LaunchTemplateId" if re.fullmatch(r"lt-[0-9a-f]+", name) else "LaunchTemplateName"
        return {key: name, "Version": version or "$Default"}
    if isinstance(value, Mapping):
        named = {"LaunchTemplateId", "LaunchTemplateName"} & set(value)
        if len(named) == 1 and set(value) <= named | {"Version"}:
            return {"Version": "$Default", **{key: str(content) for key, content in value.items()}}
    raise ConfigError(f"launch_template is {shown(value)}; {remedy}")


def metadata_options(value: Any) -> Mapping[str, Any]:
    """What boto3 takes as MetadataOptions, over ours: only sessions with a token (IMDSv2) are answered."""
    if value is None:
        value = {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"metadata_options is {shown(value)}; write a dict such as {{'HttpPutResponseHopLimit': 2}}")
    return {"HttpTokens": "required", "HttpEndpoint": "enabled", **value}


def _positive(name: str, value: Any, what: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ConfigError(f"{name} is {shown(value)}; write {what}")
    return number


def _text_or_none(name: str, value: Any, what: str) -> str | None:
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    raise ConfigError(f"{name} is {shown(value)}; write {what}")


def _texts(name: str, value: Any, remedy: str) -> tuple[str, ...]:
    if value is None:
        return ()
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not items or not all(isinstance(one, str) and one for one in items):
        raise ConfigError(f"{name} is {shown(value)}; {remedy}")
    return tuple(dict.fromkeys(items))


def _ids(name: str, prefix: str, value: Any) -> tuple[str, ...]:
    remedy = f"write '{prefix}-0123456789abcdef0', or a list of such"
    found = _texts(name, value, remedy)
    for one in found:
        if not one.startswith(f"{prefix}-") or not _NAMED_ID.fullmatch(one):
            raise ConfigError(f"{name} has {shown(one)}; {remedy}")
    return found
