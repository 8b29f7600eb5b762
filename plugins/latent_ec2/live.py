"""What EC2 says of a declaration without starting anything, and what a region is like just now."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from attrs import evolve

from latent.errors import ConfigError, LatentError
from latent.worker import ProviderStatus, render
from latent_ec2.choices import choices
from latent_ec2.declared import DeclaredWorker
from latent_ec2.faults import CredentialsRefused, Unanswered, code_of
from latent_ec2.recipe import RENDERED, check, recipe
from latent_ec2.region import RegionStatus
from latent_ec2.request import request
from latent_ec2.shelf import Shelf

WOULD_SUCCEED = "DryRunOperation"
"""AWS's code for a dry run with which nothing is wrong."""


async def mistakes(worker: DeclaredWorker) -> list[str]:
    """Everything that EC2 knows to be wrong, each with AWS's code where there is one. What only a build decides is left out."""
    region = worker.region
    try:
        await region.call("describe_availability_zones")
    except LatentError as error:
        return [str(error)]  # who can't ask this can't ask anything
    rendered = await _rendered(worker)
    known = _checked(worker, rendered)
    found: list[str] = []
    for option, (operation, parameters) in _questions(known).items():
        try:
            answer = await region.call(operation, **parameters)
        except (CredentialsRefused, Unanswered) as error:
            return [*found, str(error)]
        except LatentError as error:
            found.append(f"{option}: {error}")
            continue
        rows = next((value for value in answer.values() if isinstance(value, list)), [])
        if not rows:
            found.append(f"{option}: EC2 knows no {known[option]!r} in {worker.account.region_name}; correct it")
    if found or set(known) != set(RENDERED):
        return found
    return await _dry_runs(worker, rendered)


async def _rendered(worker: DeclaredWorker) -> dict[str, Any]:
    """The options that can be had without a build."""
    rendered = {}
    for option in RENDERED:
        with contextlib.suppress(LatentError):
            rendered[option] = await render(worker.options[option], worker.properties)
    return rendered


def _checked(worker: DeclaredWorker, rendered: Mapping[str, Any]) -> dict[str, Any]:
    known = {}
    for option, value in rendered.items():
        with contextlib.suppress(ConfigError):
            known[option] = check(option, value, worker.account.region_name)
    return known


def _questions(known: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    asked: dict[str, tuple[str, dict[str, Any]]] = {}

    def ask(option: str, operation: str, key: str, many: bool = False) -> None:
        if value := known.get(option):
            asked[option] = operation, {key: list(value) if many else [value]}

    ask("instance_type", "describe_instance_types", "InstanceTypes", many=True)
    if not str(known.get("ami") or "").startswith("resolve:"):
        ask("ami", "describe_images", "ImageIds")
    ask("keypair_name", "describe_key_pairs", "KeyNames")
    ask("security_name", "describe_security_groups", "GroupNames")
    ask("security_group_ids", "describe_security_groups", "GroupIds", many=True)
    ask("subnet_id", "describe_subnets", "SubnetIds", many=True)
    ask("placement", "describe_availability_zones", "ZoneNames", many=True)
    if volumes := known.get("volumes"):
        asked["volumes"] = "describe_volumes", {"VolumeIds": [volume for volume, _ in volumes]}
    if isinstance(address := known.get("elastic_ip"), str):
        key = "AllocationIds" if address.startswith("eipalloc-") else "PublicIps"
        asked["elastic_ip"] = "describe_addresses", {key: [address]}
    if template := known.get("launch_template"):
        named = {key: value for key, value in template.items() if key != "Version"}
        asked["launch_template"] = "describe_launch_template_versions", {**named, "Versions": [template["Version"]]}
    return asked


async def _dry_runs(worker: DeclaredWorker, rendered: Mapping[str, Any]) -> list[str]:
    """One for each market: whether the account may start it as it is declared."""
    try:
        made_from = recipe(rendered, worker.account.region_name)
        image = await worker.shelf.image(made_from)
    except ConfigError as error:
        return list(error.errors)
    except LatentError as error:
        return [str(error)]
    found: list[str] = []
    markets = set()
    for choice in choices(made_from, worker.spot_fallback):
        if choice.market in markets:
            continue
        markets.add(choice.market)
        asked = request(
            made_from, choice, image, price=made_from.max_spot_price, stop_mode=worker.stop_mode,
            metadata=worker.metadata_options, name=worker.name,
        )  # fmt: skip
        try:
            await worker.region.call("run_instances", **asked, MinCount=1, MaxCount=1, DryRun=True)
        except LatentError as error:
            if code_of(error) != WOULD_SUCCEED:
                found.append(f"{choice}: {error}")
    return found


def status(known: RegionStatus, shelf: Shelf) -> ProviderStatus:
    """The region's budget: calls by kind, throttles, what waits; and where there is no room."""
    calls = ", ".join(f"{name} {number}" for name, number in sorted(known.calls.items(), key=lambda item: -item[1])) or "none"
    parts = [
        f"calls: {calls}",
        f"throttled {known.throttles} times" if known.throttles else "",
        f"{known.waiting} starts wait" if known.waiting else "",
        f"{known.queued} calls wait for the budget" if known.queued else "",
        f"{known.rate:.1f} calls a second are allowed now" if known.slowed_since is not None else "",
        f"no room: {', '.join(full)}" if (full := shelf.memory.lines(shelf.now())) else "",
    ]
    told = ProviderStatus(subject=known.label, message="; ".join(part for part in parts if part))
    if known.down:
        return evolve(told, ok=False, message=f"{known.down} ({told.message})", remedy="mend that; starts fail until then")
    return told
