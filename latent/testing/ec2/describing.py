"""DescribeInstances and DescribeInstanceStatus: the filters that moto lacks, and pages as AWS has them, of instances."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from fnmatch import fnmatchcase
from typing import Any

from latent.testing.ec2.answers import Refused, Request, encode_list
from latent.testing.ec2.lives import Life

MOST = 1000
LEAST = 5

OURS: Mapping[str, Callable[[Life], str]] = {
    "client-token": lambda life: str(life.instance.client_token or ""),
    "launch-index": lambda life: str(life.index),
    "launch-time": lambda life: life.instance.launch_time.replace(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    "instance-lifecycle": lambda life: "spot" if life.market == "spot" else "",
    "spot-instance-request-id": lambda life: str(getattr(life.instance, "spot_instance_request_id", "") or ""),
    "instance-status.status": lambda life: life.statuses["instance"] if life.state == "running" else "not-applicable",
    "system-status.status": lambda life: life.statuses["system"] if life.state == "running" else "not-applicable",
    "instance-state-name": lambda life: life.state,
    "instance-id": lambda life: life.id,
    "instance-type": lambda life: str(life.instance.instance_type),
    "image-id": lambda life: str(life.instance.image_id),
    "availability-zone": lambda life: life.zone,
    "subnet-id": lambda life: str(life.instance.subnet_id or ""),
}
"""The values of filters that are looked at here; moto knows some of them, but no wildcards in them. AWS knows them in all."""


class Page:
    """What of all instances is shown: those that pass, from where the last page ended, and so many."""

    def __init__(self, filters: Sequence[Mapping[str, Any]], after: int, most: int, lives: Mapping[str, Life]) -> None:
        self._filters, self._after, self._most, self._lives = filters, after, most, lives
        self.next_token: str | None = None

    def of_reservations(self, reservations: Sequence[Any]) -> list[Any]:
        """A reservation may go on on the next page."""
        shown = {one.id for one in self.of_instances([one for reservation in reservations for one in reservation.instances])}
        found = []
        for reservation in reservations:
            part = copy.copy(reservation)
            part.instances = [one for one in reservation.instances if one.id in shown]
            if part.instances:
                found.append(part)
        return found

    def of_instances(self, instances: Sequence[Any]) -> list[Any]:
        lives = sorted((self._lives[one.id] for one in instances if one.id in self._lives), key=lambda life: life.number)
        passing = [life for life in lives if life.number > self._after and all(_passes(life, one) for one in self._filters)]
        page = passing[: self._most]
        if len(passing) > len(page):
            self.next_token = base64.urlsafe_b64encode(f"after:{page[-1].number}".encode()).decode()
        return [life.instance for life in page]


def read(request: Request, lives: Mapping[str, Life]) -> tuple[Page, Request]:
    """The page that is asked for, and what is left to be asked of moto. `Refused` for what AWS does not take."""
    document = request.document
    ids, filters = document.get("InstanceId", []), document.get("Filter", [])
    if ids and "MaxResults" in document:
        raise Refused("InvalidParameterCombination", "The parameter instancesSet cannot be used with the parameter maxResults")
    most = str(document.get("MaxResults", MOST))
    if not most.isdigit() or not LEAST <= int(most) <= MOST:
        raise Refused("InvalidParameterValue", f"Value ( {most} ) for parameter maxResults is invalid. Expecting 5 to 1000.")
    mine = [one for one in filters if one.get("Name") in OURS]
    theirs = [one for one in filters if one.get("Name") not in OURS]
    if ids:
        mine.append({"Name": "instance-id", "Value": [str(one) for one in ids]})
    dropped = ("Filter.", "InstanceId.", "MaxResults", "NextToken")
    parameters = {name: value for name, value in request.parameters.items() if not name.startswith(dropped)}
    # moto counts reservations, and its own default is 100.
    parameters |= {**encode_list("Filter", theirs), "MaxResults": "1000000"}
    page = Page(mine, _after(document.get("NextToken")), MOST if ids else int(most), lives)
    return page, request.with_parameters(parameters)


def _after(token: str | None) -> int:
    if not token:
        return 0
    try:
        word, _, number = base64.urlsafe_b64decode(token.encode()).decode().partition(":")
        if word == "after":
            return int(number)
    except ValueError:
        pass
    raise Refused("InvalidParameterValue", f"Unable to parse pagination token {token}")


def _passes(life: Life, wanted: Mapping[str, Any]) -> bool:
    value = OURS[wanted["Name"]](life)
    return any(fnmatchcase(value, pattern.replace("[", "[[]")) for pattern in wanted.get("Value", []))
