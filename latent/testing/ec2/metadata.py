"""The metadata service of an instance, version 2: a token first, then what the instance may know of itself."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from attrs import Factory, define, frozen

from latent.testing.ec2.backend import ACCOUNT
from latent.testing.ec2.lives import Life

LONGEST = 21_600
"""Seconds that a token may live."""

_TTL = "x-aws-ec2-metadata-token-ttl-seconds"
_TOKEN = "x-aws-ec2-metadata-token"  # noqa: S105  the name of a header


@frozen
class Page:
    """What is answered."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = Factory(dict)


@define
class Tokens:
    """Those that were given out, per instance, and until when they hold."""

    given: dict[tuple[str, str], float] = Factory(dict)

    def give(self, instance_id: str, until: float) -> str:
        token = secrets.token_urlsafe(40)
        self.given[instance_id, token] = until
        return token

    def holds(self, instance_id: str, token: str, now: float) -> bool:
        return self.given.get((instance_id, token), 0) > now


def answer(life: Life, tokens: Tokens, method: str, path: str, headers: Mapping[str, str], now: float) -> Page:
    """``path``: without what names the instance: ``/latest/meta-data/instance-id``. ``headers``: names in lower case."""
    options = life.instance.metadata_options
    if options.http_endpoint == "disabled" or life.ended:
        return Page(403, b"Forbidden")
    version, _, rest = path.strip("/").partition("/")
    if not version:
        return Page(200, b"latest")
    if rest == "api/token":
        return _new_token(life, tokens, method, headers, now)
    if method not in ("GET", "HEAD"):
        return Page(405, b"Method Not Allowed")
    token = headers.get(_TOKEN)
    if token is None and options.http_tokens == "required":
        return Page(401, b"Unauthorized")
    if token is not None and not tokens.holds(life.id, token, now):
        return Page(401, b"Unauthorized")
    found = _find(_tree(life), rest)
    return Page(404, b"Not Found") if found is None else Page(200, found)


def _new_token(life: Life, tokens: Tokens, method: str, headers: Mapping[str, str], now: float) -> Page:
    if method != "PUT":
        return Page(405, b"Method Not Allowed")
    if "x-forwarded-for" in headers:
        return Page(403, b"Forbidden")
    seconds = headers.get(_TTL, "")
    if not seconds.isdigit() or not 1 <= int(seconds) <= LONGEST:
        return Page(400, b"Bad Request")
    return Page(200, tokens.give(life.id, now + int(seconds)).encode(), {_TTL: seconds})


def _find(tree: Any, path: str) -> bytes | None:
    """A value, or what is in a folder, one a line, folders with a slash; None if there is no such thing."""
    steps = [step for step in path.split("/") if step]
    for step in steps:
        if not isinstance(tree, dict) or step not in tree:
            return None
        tree = tree[step]
    if isinstance(tree, dict):
        return "\n".join(name + "/" if isinstance(value, dict) else name for name, value in tree.items()).encode()
    return tree if isinstance(tree, bytes) else str(tree).encode()


def _tree(life: Life) -> dict[str, Any]:
    instance = life.instance
    reservation = next(
        (one.id for one in instance.ec2_backend.reservations.values() if any(each.id == life.id for each in one.instances)), ""
    )
    meta: dict[str, Any] = {
        "ami-id": instance.image_id,
        "ami-launch-index": life.index,
        "hostname": instance.private_dns_name,
        "instance-action": "none",
        "instance-id": life.id,
        "instance-life-cycle": life.market,
        "instance-type": instance.instance_type,
        "local-hostname": instance.private_dns_name,
        "local-ipv4": instance.private_ip,
        "mac": instance.nics[0].mac_address if instance.nics else "",
        "placement": {"availability-zone": life.zone, "region": life.region},
        "reservation-id": reservation,
        "security-groups": "\n".join(group.name for group in instance.security_groups),
        "services": {"domain": "amazonaws.com", "partition": "aws"},
    }
    if instance.public_ip:
        meta |= {"public-ipv4": instance.public_ip, "public-hostname": instance.public_dns_name}
    if instance.metadata_options.instance_metadata_tags == "enabled":
        meta["tags"] = {"instance": life.tags}
    if life.notice is not None:
        moment = datetime.fromtimestamp(life.notice, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        meta["spot"] = {
            "instance-action": json.dumps({"action": "terminate", "time": moment}),
            "termination-time": moment,
        }
        meta["events"] = {"recommendations": {"rebalance": json.dumps({"noticeTime": moment})}}
    latest: dict[str, Any] = {
        "meta-data": meta,
        "dynamic": {"instance-identity": {"document": json.dumps(identity(life), indent=2)}},
    }
    if life.user_data:
        latest["user-data"] = life.user_data
    return latest


def identity(life: Life) -> dict[str, Any]:
    """The instance identity document. It is not signed."""
    instance = life.instance
    launched = instance.launch_time.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "accountId": ACCOUNT,
        "architecture": instance.architecture,
        "availabilityZone": life.zone,
        "billingProducts": None,
        "imageId": instance.image_id,
        "instanceId": life.id,
        "instanceType": instance.instance_type,
        "kernelId": None,
        "pendingTime": launched,
        "privateIp": instance.private_ip,
        "ramdiskId": None,
        "region": life.region,
        "version": "2017-09-30",
    }
