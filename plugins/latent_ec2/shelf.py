"""What all workers of a region share beside its calls: where there was no room, which image is the newest, what spot costs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred

from latent.errors import LatentWorkerCapacityError, LatentWorkerConfigurationError
from latent.worker import Shared
from latent_ec2.choices import Choice, Memory
from latent_ec2.recipe import Recipe
from latent_ec2.region import Region

IMAGES_KEPT = 300.0
PRICES_KEPT = 300.0
"""Seconds for which an answer of EC2 is good enough."""

HISTORY = timedelta(hours=1)
"""How much of the spot market's past makes its price."""


class Shelf:
    """Made by `Shelf.of`, and kept by whoever uses it."""

    _shelves: ClassVar[WeakValueDictionary[int, Shelf]] = WeakValueDictionary()

    def __init__(self, region: Region, clock: Any) -> None:
        self.memory = Memory()
        self._region = region
        self._clock = clock
        self._images: dict[Any, _Kept] = {}
        self._prices: dict[Any, _Kept] = {}

    @classmethod
    def of(cls, region: Region, clock: Any) -> Shelf:
        found = cls._shelves.get(id(region))
        if found is None:
            found = cls._shelves[id(region)] = cls(region, clock)
        return found

    def now(self) -> float:
        return float(self._clock.seconds())

    async def image(self, recipe: Recipe) -> str | None:
        """The AMI to start; None where the launch template has it. LatentWorkerConfigurationError if there is none."""
        if recipe.ami is not None or not (recipe.valid_ami_owners or recipe.valid_ami_location_regex):
            return recipe.ami
        key = recipe.valid_ami_owners, recipe.valid_ami_location_regex
        kept = self._images.setdefault(key, _Kept(lambda: self._find_image(*key), IMAGES_KEPT, self.now))
        found: str = await kept.get()
        return found

    async def _find_image(self, owners: tuple[str, ...], location: str | None) -> str:
        named = {"Owners": list(owners)} if owners else {}
        images = await pages(self._region.call, "describe_images", "Images", **named)
        best = newest(images, location)
        if best is None:
            whose = f" of {', '.join(owners)}" if owners else ""
            at = f" whose location matches {location!r}" if location else ""
            raise LatentWorkerConfigurationError(f"there is no image{whose}{at}; correct valid_ami_owners and its companion")
        return best

    async def price(self, recipe: Recipe, choice: Choice) -> float | None:
        """The most to offer for a spot instance, dollars an hour; None: what it costs on demand.

        LatentWorkerCapacityError when the market asks for more than ``max_spot_price``.
        """
        if choice.market != "spot" or recipe.price_multiplier is None or choice.type is None:
            return recipe.max_spot_price
        key = choice.type, choice.zone, recipe.product_description
        kept = self._prices.setdefault(key, _Kept(lambda: self._average(*key), PRICES_KEPT, self.now))
        average: float | None = await kept.get()
        if average is None:
            return recipe.max_spot_price
        offer = average * recipe.price_multiplier
        if recipe.max_spot_price is not None and offer > recipe.max_spot_price:
            raise LatentWorkerCapacityError(
                f"{choice} costs {average:.4f} $ an hour, and {offer:.4f} $ with price_multiplier; max_spot_price is "
                f"{recipe.max_spot_price:.4f} $"
            )
        return offer

    async def _average(self, kind: str, zone: str | None, product: str) -> float | None:
        place = {"AvailabilityZone": zone} if zone else {}
        rows = await pages(
            self._region.call,
            "describe_spot_price_history",
            "SpotPriceHistory",
            InstanceTypes=[kind],
            ProductDescriptions=[product],
            StartTime=datetime.now(UTC) - HISTORY,
            **place,
        )
        prices = [float(row["SpotPrice"]) for row in rows]
        return sum(prices) / len(prices) if prices else None


class _Kept:
    """An answer that is good for a while; who wants it meanwhile shares one question."""

    def __init__(self, ask: Any, seconds: float, now: Any) -> None:
        self._seconds, self._now = seconds, now
        self._until = 0.0
        self._answer: Any = None
        self._asked = Shared(lambda: Deferred.fromCoroutine(self._ask(ask)))

    async def _ask(self, ask: Any) -> Any:
        if self._now() >= self._until:  # who waited for the question before this one has an answer by now
            self._answer = await ask()
            self._until = self._now() + self._seconds
        return self._answer

    async def get(self) -> Any:
        return self._answer if self._now() < self._until else await self._asked.get()


def newest(images: list[dict[str, Any]], location: str | None) -> str | None:
    """The id of the last image by its location; by the expression's first group, if it has one: as numbers where all are some."""
    pattern = re.compile(location or "")
    found = []
    for image in images:
        match = pattern.match(str(image.get("ImageLocation", "")))
        if match is not None and image.get("State", "available") == "available":
            group = (match.group(1) or "") if pattern.groups else ""
            found.append((group, match.string, str(image["ImageId"])))
    if not found:
        return None
    if all(group.isascii() and group.isdigit() for group, _, _ in found):
        return max((int(group), where, image) for group, where, image in found)[2]
    return max(found)[2]


async def pages(call: Any, operation: str, key: str, **parameters: Any) -> list[dict[str, Any]]:
    """All rows of a paginated answer."""
    rows: list[dict[str, Any]] = []
    token: str | None = None
    while True:
        answer = await call(operation, **parameters, **({"NextToken": token} if token else {}))
        rows += answer.get(key, ())
        token = answer.get("NextToken")
        if not token:
            return rows
