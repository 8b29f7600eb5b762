"""Spot requests: those that RunInstances makes by itself, which moto does not, and those that are never fulfilled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any
from xml.sax.saxutils import escape

from latent.testing.ec2.answers import Answer, Refused, Request, result
from latent.testing.ec2.launching import Launch
from latent.testing.ec2.region import Region


class SpotMarket:
    """``request_class``: moto's, which launches an instance when it is made."""

    def __init__(self, request_class: Any) -> None:
        self._class = request_class

    def check_offer(self, region: Region, launch: Launch) -> None:
        """`Refused` for less than the instance costs."""
        offer = launch.document.get("InstanceMarketOptions", {}).get("SpotOptions", {}).get("MaxPrice")
        zone = launch.zone or region.zone_of(launch.subnet) or min(region.zones)
        price = region.room.prices.of(launch.instance_type, zone)
        if offer and float(offer) < price:
            raise Refused(
                "SpotMaxPriceTooLow",
                f"Your Spot request price of {offer} is lower than the minimum required Spot request fulfillment price of "
                f"{price}.",
            )

    def history(self, region: Region, request: Request, now: float) -> Answer:
        """What instances cost now, as DescribeSpotPriceHistory has it: one row for each type and zone."""
        document = request.document
        filters = {one["Name"]: one.get("Value", []) for one in document.get("Filter", [])}
        kinds = document.get("InstanceType") or filters.get("instance-type") or ["m1.small"]
        products = document.get("ProductDescription") or filters.get("product-description") or ["Linux/UNIX"]
        zones = (
            [document["AvailabilityZone"]] if "AvailabilityZone" in document else filters.get("availability-zone", region.zones)
        )
        moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        rows = [
            f"<item><instanceType>{escape(kind)}</instanceType><productDescription>{escape(product)}</productDescription>"
            f"<spotPrice>{region.room.prices.of(kind, zone):.6f}</spotPrice><timestamp>{moment}</timestamp>"
            f"<availabilityZone>{escape(zone)}</availabilityZone></item>"
            for kind in kinds
            for product in products
            for zone in zones
        ]
        return result(request.action, f"<spotPriceHistorySet>{''.join(rows)}</spotPriceHistorySet><nextToken/>")

    def record(self, region: Region, instances: Sequence[Any], launch: Launch) -> None:
        """Make the requests that stand behind spot instances which RunInstances has launched."""
        from_options = launch.document.get("InstanceMarketOptions", {}).get("SpotOptions", {})
        tags = {
            one["ResourceType"]: {tag["Key"]: tag.get("Value", "") for tag in one.get("Tag", [])}
            for one in launch.document.get("TagSpecification", [])
        }
        for instance in instances:
            request = self._make(
                region,
                partial(_given, instance),
                price=from_options.get("MaxPrice"),
                image_id=instance.image_id,
                kind=from_options.get("SpotInstanceType", "one-time"),
                key_name=instance.key_name,
                instance_type=instance.instance_type,
                subnet_id=instance.subnet_id,
                tags={"spot-instances-request": tags.get("spot-instances-request", {})},
            )
            instance.spot_instance_request_id = request.id

    def never(self, region: Region, why: str = "capacity-not-available") -> Callable[..., list[Any]]:
        """In place of moto's method: requests that stay open."""

        def request_spot_instances(**asked: Any) -> list[Any]:
            made = []
            for _ in range(asked["count"] or 1):
                request = self._make(
                    region,
                    partial(_given, SimpleNamespace(id=None)),
                    price=asked["price"],
                    image_id=asked["image_id"],
                    kind=asked["spot_instance_type"],
                    key_name=asked["key_name"],
                    instance_type=asked["instance_type"],
                    subnet_id=asked["subnet_id"],
                    tags=asked["tags"],
                )
                request.state, request._status_code = "open", why
                request.status_message = f"Your Spot request can't be fulfilled: {why}."
                made.append(request)
            return made

        return request_spot_instances

    def _make(self, region: Region, launch: Callable[[], Any], *, kind: str, tags: Any, **given: Any) -> Any:
        made: Any = type("Request", (self._class,), {"launch_instance": staticmethod(launch)})
        from moto.ec2.utils import random_spot_request_id

        identity = random_spot_request_id()
        request = made(
            region.backend,
            identity,
            spot_instance_type=kind,
            valid_from=None,
            valid_until=None,
            launch_group=None,
            availability_zone_group=None,
            security_groups=[],
            user_data=None,
            placement=None,
            kernel_id=None,
            ramdisk_id=None,
            monitoring_enabled=False,
            tags=tags or {},
            spot_fleet_id=None,
            instance_interruption_behaviour=None,
            **given,
        )
        region.backend.spot_instance_requests[identity] = request
        return request


def _given(instance: Any) -> Any:
    return instance
