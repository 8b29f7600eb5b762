"""What is asked of RunInstances for several attempts at once: pure, from wishes to parameters and documents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred

from latent.errors import PluginError
from latent.model import JSON, Attempt
from latent_ec2.account import Account
from latent_ec2.instances import CONTROLLER, EXPIRES, LAUNCH, TAG_LENGTH, WORKERS, attempt_of, member_tags

UserData = Callable[[Sequence[Attempt]], str]
"""The user data of a launch with these members, in this order; the same for the same members, always."""

Keep = Callable[[JSON], Deferred[None]]
"""Persists a member's document; fires when it is on disk."""

EXPIRY = 7200.0
"""Seconds that an instance lives after its controller was last heard of."""

MOST_MEMBERS = 200
MOST_TAGS = 40
MOST_USER_DATA = 16_384
"""What one launch may have: instances, tags, and bytes of user data. AWS's limit is 50 tags: some are left to the user."""


@frozen(kw_only=True)
class Wish:
    """One attempt wants an instance.

    ``request``: parameters of RunInstances that JSON can say, without MinCount, MaxCount, ClientToken and UserData; the launch's
    own tags are added. ``shape``: wishes of the same shape may become one launch, so it is a hash of all that makes launches
    differ. ``keep`` is called with the attempt's document before anything is asked for (and again if the launch has to be
    composed anew before it is sent). ``expiry``: see `EXPIRY`.
    """

    member: Attempt
    controller_id: str
    request: Mapping[str, Any]
    user_data: UserData = field(eq=False)
    shape: str
    keep: Keep = field(eq=False)
    expiry: float = EXPIRY


@frozen(kw_only=True)
class Launch:
    """One RunInstances: an instance is the member at its AmiLaunchIndex.

    ``token`` is the ClientToken: the same for the same members, in this order, and the same request. So what is asked for
    twice is launched once, and what differs is refused. ``expires`` and ``composed_at``: POSIX seconds.
    """

    token: str
    members: tuple[Attempt, ...]
    controller_id: str
    request: Mapping[str, Any]
    expires: float
    composed_at: float

    def parameters(self, user_data: UserData) -> dict[str, Any]:
        """For boto3's run_instances; a launch that had room for some of its members only is still one."""
        parameters: dict[str, Any] = {
            **self.request,
            "MinCount": 1,
            "MaxCount": len(self.members),
            "ClientToken": self.token,
            "TagSpecifications": _tag_specifications(self.request, self._tags()),
        }
        if text := user_data(self.members):
            parameters["UserData"] = text
        return parameters

    def _tags(self) -> dict[str, str]:
        return {
            CONTROLLER: self.controller_id,
            LAUNCH: self.token,
            WORKERS: hint(self.members),
            EXPIRES: f"{self.expires:.0f}",
            **member_tags(self.members),
        }

    def document(self, account: Account, index: int, instance: str | None = None) -> dict[str, Any]:
        """What a member keeps, to find or repeat the launch after a crash: no secret is in it."""
        return {
            "account": account.who,
            "region": account.region_name,
            "launch": self.token,
            "index": index,
            "members": [str(member) for member in self.members],
            "controller": self.controller_id,
            "request": dict(self.request),
            "expires": self.expires,
            "composed_at": self.composed_at,
            "instance": instance,
        }


def compose(wishes: Sequence[Wish], now: float) -> Launch:
    """The launch for wishes of one shape. ``now``: POSIX seconds."""
    members = tuple(wish.member for wish in wishes)
    first = wishes[0]
    what = json.dumps([first.controller_id, [str(member) for member in members], first.request], sort_keys=True)
    token = hashlib.sha256(what.encode()).hexdigest()
    expires = float(round(now + first.expiry))
    return Launch(
        token=token, members=members, controller_id=first.controller_id, request=first.request, expires=expires, composed_at=now
    )


def from_document(document: JSON) -> tuple[Launch, int]:
    """The launch that a member has kept, and the member's index in it. PluginError for what is no such document."""
    try:
        members = [attempt_of(text) for text in document["members"]]
        index = int(document["index"])
        if None in members or not 0 <= index < len(members):
            raise ValueError("its members can't be read")
        launch = Launch(
            token=str(document["launch"]),
            members=tuple(member for member in members if member is not None),
            controller_id=str(document["controller"]),
            request=dict(document["request"]),
            expires=float(document["expires"]),
            composed_at=float(document["composed_at"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PluginError(
            f"{document!r} is no handle of an EC2 launch ({error!r}); look for its tags in the EC2 console"
        ) from error
    return launch, index


def fits(members: Sequence[Attempt], request: Mapping[str, Any], user_data: UserData) -> str:
    """Why these can't be one launch; empty if they can."""
    if len(members) > MOST_MEMBERS:
        return f"{len(members)} instances, where {MOST_MEMBERS} are the most"
    own = len(member_tags(members)) + 4
    users = max((len(one["Tags"]) for one in request.get("TagSpecifications", ())), default=0)
    if own + users > MOST_TAGS:
        return f"{own + users} tags, where {MOST_TAGS} are the most"
    size = len(user_data(members).encode())
    if size > MOST_USER_DATA:
        return f"user data is {size} bytes, where EC2 takes {MOST_USER_DATA}"
    return ""


def split(wishes: Sequence[Wish]) -> tuple[list[list[Wish]], list[tuple[Wish, str]]]:
    """Launches that fit, of wishes of one shape, in their order; and those that do not fit even alone, with the reason."""
    why = fits([wish.member for wish in wishes], wishes[0].request, wishes[0].user_data)
    if not why:
        return [list(wishes)], []
    if len(wishes) == 1:
        return [], [(wishes[0], why)]
    half = (len(wishes) + 1) // 2
    one, other = split(wishes[:half]), split(wishes[half:])
    return one[0] + other[0], one[1] + other[1]


def hint(members: Sequence[Attempt]) -> str:
    """Names of workers for who looks at the console: as many as a tag has room for."""
    text = ""
    for n, member in enumerate(members):
        left = len(members) - n
        longer = f"{text}, {member.worker}" if text else member.worker
        if len(longer) + len(f" and {left} more") > TAG_LENGTH:
            return f"{text} and {left} more"
        text = longer
    return text


def _tag_specifications(request: Mapping[str, Any], ours: Mapping[str, str]) -> list[dict[str, Any]]:
    """The user's tags, and ours on top, for everything that the launch makes."""
    given = {
        one["ResourceType"]: {tag["Key"]: tag["Value"] for tag in one["Tags"]} for one in request.get("TagSpecifications", ())
    }
    spot = (request.get("InstanceMarketOptions") or {}).get("MarketType") == "spot"
    for kind in ("instance", "volume", *(["spot-instances-request"] if spot else [])):
        given[kind] = {**given.get(kind, {}), **ours}
    return [
        {"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
        for kind, tags in given.items()
    ]
