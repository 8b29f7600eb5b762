"""What EC2 says of an instance, and whose it is by its tags alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from attrs import evolve, field, frozen

from latent.model import Attempt

CONTROLLER = "latent:controller"
WORKER = "latent:worker"
ATTEMPT = "latent:attempt"
LAUNCH = "latent:launch"
WORKERS = "latent:workers"
EXPIRES = "latent:expires"
PROTECT = "latent:protect"
MEMBERS = "latent:members."
"""Tags. `WORKER` and `ATTEMPT` where a launch has one member; else the members in order, in tags `MEMBERS` 0, 1, ... `PROTECT`,
whatever its value, is an operator's: the reaper leaves such an instance alone."""

TAG_LENGTH = 256
"""Characters that a tag's value may have."""

State = Literal["pending", "running", "shutting-down", "terminated", "stopping", "stopped"]

GONE = frozenset({"shutting-down", "terminated"})


@frozen(kw_only=True)
class Instance:
    """One row of DescribeInstances.

    ``index``: AmiLaunchIndex, which member of its launch it is. ``launch``: the launch's ClientToken. ``reason``: code and
    message of the last change of its state. ``launched_at``: POSIX seconds. ``health``: "" while nobody knows, "ok",
    "initializing", or what is impaired. ``doc`` is everything that EC2 said.
    """

    id: str
    state: str
    index: int = 0
    launch: str = ""
    tags: Mapping[str, str] = field(factory=dict)
    type: str = ""
    image: str = ""
    zone: str = ""
    subnet: str = ""
    private_ip: str | None = None
    public_ip: str | None = None
    launched_at: float | None = None
    market: Literal["spot", "on-demand"] = "on-demand"
    spot_request: str | None = None
    reason: tuple[str, str] = ("", "")
    health: str = ""
    volumes: Mapping[str, str] = field(factory=dict)
    """Device name -> volume id."""
    doc: Mapping[str, Any] = field(factory=dict, repr=False, eq=False)

    @property
    def gone(self) -> bool:
        """Whether it is terminated, or about to be: it does not come back."""
        return self.state in GONE

    @property
    def controller_id(self) -> str | None:
        return self.tags.get(CONTROLLER)

    @property
    def expires(self) -> float | None:
        """POSIX seconds after which nobody wants it unless its controller says otherwise."""
        return number(self.tags.get(EXPIRES))

    @property
    def attempt(self) -> Attempt | None:
        """Whose it is; None if its tags do not say."""
        members = list(members_of(self.tags))
        return members[self.index] if self.index < len(members) else None

    def in_state(self, state: str, reason: tuple[str, str] | None = None) -> Instance:
        return evolve(self, state=state, reason=self.reason if reason is None else reason)


def parse(doc: Mapping[str, Any]) -> Instance:
    """An instance of RunInstances' or DescribeInstances' answer."""
    tags = {str(tag["Key"]): str(tag.get("Value", "")) for tag in doc.get("Tags", ())}
    reason = doc.get("StateReason") or {}
    volumes = {
        str(mapping["DeviceName"]): str(mapping["Ebs"]["VolumeId"])
        for mapping in doc.get("BlockDeviceMappings", ())
        if mapping.get("Ebs", {}).get("VolumeId")
    }
    return Instance(
        id=str(doc["InstanceId"]),
        state=str((doc.get("State") or {}).get("Name", "pending")),
        index=int(doc.get("AmiLaunchIndex") or 0),
        launch=str(doc.get("ClientToken") or tags.get(LAUNCH, "")),
        tags=tags,
        type=str(doc.get("InstanceType", "")),
        image=str(doc.get("ImageId", "")),
        zone=str((doc.get("Placement") or {}).get("AvailabilityZone", "")),
        subnet=str(doc.get("SubnetId") or ""),
        private_ip=doc.get("PrivateIpAddress") or None,
        public_ip=doc.get("PublicIpAddress") or None,
        launched_at=_posix(doc.get("LaunchTime")),
        market="spot" if doc.get("InstanceLifecycle") == "spot" else "on-demand",
        spot_request=doc.get("SpotInstanceRequestId") or None,
        reason=(str(reason.get("Code", "")), str(reason.get("Message", "") or doc.get("StateTransitionReason", ""))),
        volumes=volumes,
        doc=doc,
    )


def parse_all(answer: Mapping[str, Any]) -> list[Instance]:
    """The instances of an answer of DescribeInstances."""
    return [parse(doc) for reservation in answer.get("Reservations", ()) for doc in reservation.get("Instances", ())]


def member_tags(members: Sequence[Attempt]) -> dict[str, str]:
    """Whose the instances of a launch are, in tags that all of them share."""
    if len(members) == 1:
        return {WORKER: members[0].worker, ATTEMPT: str(members[0].number)}
    return {f"{MEMBERS}{n}": chunk for n, chunk in enumerate(_chunks(map(str, members)))}


def members_of(tags: Mapping[str, str]) -> Iterator[Attempt]:
    """The members of a launch, in order, from its tags; nothing when the tags are not ours or were changed."""
    if WORKER in tags:
        yield from _attempts([f"{tags[WORKER]}#{tags.get(ATTEMPT, '')}"])
        return
    texts: list[str] = []
    while (chunk := tags.get(f"{MEMBERS}{len(texts)}")) is not None:
        texts.append(chunk)
    yield from _attempts([one for chunk in texts for one in chunk.split(",")])


def attempt_of(text: str) -> Attempt | None:
    """The Attempt that writes itself like this."""
    worker, mark, digits = text.rpartition("#")
    if not worker or not mark or not (digits.isascii() and digits.isdigit()):
        return None
    return Attempt(worker, int(digits))


def number(text: str | None) -> float | None:
    """Of a tag's value; None if it is none."""
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _attempts(texts: Iterable[str]) -> list[Attempt]:
    """All, or none: with one that can't be read, the places of the others mean nothing."""
    found = [attempt_of(text) for text in texts]
    return [] if None in found else [one for one in found if one is not None]


def _chunks(texts: Iterable[str]) -> Iterator[str]:
    chunk = ""
    for text in texts:
        longer = f"{chunk},{text}" if chunk else text
        if len(longer) > TAG_LENGTH:
            yield chunk
            longer = text
        chunk = longer
    if chunk:
        yield chunk


def _posix(when: Any) -> float | None:
    return when.timestamp() if isinstance(when, datetime) else None
