"""The questions that a region asks of EC2 on behalf of all: what there is, and how it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from latent_ec2.calls import PAGE, Calls
from latent_ec2.faults import NoSuchInstance
from latent_ec2.instances import CONTROLLER, Instance, parse_all

FILTERED = 200
"""Values that one filter may have."""

CHECKED = 100
"""Instances that DescribeInstanceStatus may be asked for by name."""

ALIVE = ("pending", "running", "stopping", "stopped")


async def described(calls: Calls, ids: Sequence[str], seen: Iterable[str] = ()) -> dict[str, Instance]:
    """By id; who is not there is unknown to EC2.

    A filter passes over what is not there, but has few values; asked for by name, one unknown instance fails the whole call.
    So names are used where there are many, for those that were ``seen`` before.
    """
    if len(ids) <= FILTERED:
        return await _filtered(calls, ids)
    known = set(seen)
    answers, faults = await calls.together(
        "describe_instances", [one for one in ids if one in known], lambda some: {"InstanceIds": some}
    )
    for error in faults.values():
        if not isinstance(error, NoSuchInstance):
            raise error
    found = {instance.id: instance for answer in answers for instance in parse_all(answer)}
    return {**found, **await _filtered(calls, [one for one in ids if one not in known])}


async def launched(calls: Calls, tokens: Sequence[str]) -> dict[str, list[Instance]]:
    """What the launches of these ClientTokens made, terminated instances included."""
    found: dict[str, list[Instance]] = {token: [] for token in tokens}
    for n in range(0, len(tokens), FILTERED):
        for instance in await _all(calls, {"client-token": list(tokens[n : n + FILTERED])}):
            found.setdefault(instance.launch, []).append(instance)
    return found


async def owned(calls: Calls, controller: str | None) -> list[Instance]:
    """What carries the tags of a controller (None: of any) and is not gone."""
    whose = {"tag-key": [CONTROLLER]} if controller is None else {f"tag:{CONTROLLER}": [controller]}
    return [one for one in await _all(calls, {**whose, "instance-state-name": list(ALIVE)}) if CONTROLLER in one.tags]


async def checked(calls: Calls, ids: Sequence[str]) -> dict[str, str]:
    """The health of running instances, as `Instance.health` says it."""
    answers: Sequence[Mapping[str, Any]]
    if len(ids) <= CHECKED:
        answers, _ = await calls.together("describe_instance_status", ids, lambda some: {"InstanceIds": some})
    else:
        answers = await calls.pages("describe_instance_status", {"MaxResults": PAGE})
    wanted = set(ids)
    found = {str(one["InstanceId"]): health(one) for answer in answers for one in answer.get("InstanceStatuses", ())}
    return {one: text for one, text in found.items() if one in wanted}


def health(status: Mapping[str, Any]) -> str:
    """Of one row of DescribeInstanceStatus."""
    told = []
    for subject, key in (("system", "SystemStatus"), ("instance", "InstanceStatus"), ("volume", "AttachedEbsStatus")):
        answer = status.get(key) or {}
        if answer.get("Status") == "impaired":
            which = [
                f"{one['Name']} {one['Status']}" for one in answer.get("Details", ()) if one.get("Status") not in ("passed", None)
            ]
            told.append(f"its {subject} status is impaired" + (f" ({', '.join(which)})" if which else ""))
    if told:
        return "; ".join(told)
    words = {str((status.get(key) or {}).get("Status", "ok")) for key in ("SystemStatus", "InstanceStatus")}
    return "ok" if words <= {"ok", "not-applicable"} else ", ".join(sorted(words - {"ok", "not-applicable"}))


async def _filtered(calls: Calls, ids: Sequence[str]) -> dict[str, Instance]:
    found: list[Instance] = []
    for n in range(0, len(ids), FILTERED):
        found += await _all(calls, {"instance-id": list(ids[n : n + FILTERED])})
    return {instance.id: instance for instance in found}


async def _all(calls: Calls, filters: Mapping[str, list[str]]) -> list[Instance]:
    asked = {"Filters": [{"Name": name, "Values": values} for name, values in filters.items()], "MaxResults": PAGE}
    return [instance for answer in await calls.pages("describe_instances", asked) for instance in parse_all(answer)]
