"""Which types, places and markets an instance may be had from, in order; and which of them had no room a moment ago."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from attrs import frozen

from latent_ec2.recipe import Recipe

REMEMBERED = 180.0
"""Seconds for which a choice that had no room is not asked for."""

Market = Literal["spot", "on-demand"]


@frozen
class Choice:
    """``type``, ``subnet`` and ``zone`` are None where they are left to EC2 or a launch template."""

    type: str | None
    subnet: str | None
    zone: str | None
    market: Market

    @property
    def key(self) -> tuple[str, str, str]:
        """What has room or has none: the same for all workers of a region."""
        return self.type or "", self.subnet or self.zone or "", self.market

    def __str__(self) -> str:
        where = self.subnet or self.zone
        return f"{self.type or 'the type of the launch template'}{f' in {where}' if where else ''} ({self.market})"


def choices(recipe: Recipe, fallback: bool) -> list[Choice]:
    """All of a recipe, the best first: every type and place of the spot market before any on demand."""
    markets: tuple[Market, ...] = ("on-demand",)
    if recipe.spot_instance:
        markets = ("spot", "on-demand") if fallback else ("spot",)
    return [
        Choice(kind, subnet, zone, market) for market in markets for kind in recipe.instance_type or (None,)
        for subnet, zone in _places(recipe)
    ]  # fmt: skip


def _places(recipe: Recipe) -> Iterator[tuple[str | None, str | None]]:
    for subnet in recipe.subnet_id or (None,):
        for zone in recipe.placement or (None,):
            yield subnet, zone


class Memory:
    """What had no room, and until when that is believed. ``now`` is seconds of any clock."""

    def __init__(self, seconds: float = REMEMBERED) -> None:
        self._seconds = seconds
        self._until: dict[tuple[str, str, str], tuple[float, str]] = {}

    def had_no_room(self, choice: Choice, why: str, now: float) -> None:
        self._until = {key: kept for key, kept in self._until.items() if kept[0] > now}
        self._until[choice.key] = now + self._seconds, why

    def worth_asking(self, choice: Choice, now: float) -> bool:
        return self._until.get(choice.key, (now, ""))[0] <= now

    def why(self, choice: Choice, now: float) -> str:
        """Why it is not worth asking, and for how much longer."""
        until, why = self._until.get(choice.key, (now, ""))
        return f"{choice}: {why} (not asked for another {until - now:.0f} s)"

    def forgotten_in(self, choice: Choice, now: float) -> float:
        """Seconds after which it is worth asking again."""
        return max(0.0, self._until.get(choice.key, (now, ""))[0] - now)

    def lines(self, now: float) -> list[str]:
        """What is not asked for just now, for an operator."""
        return [" ".join(part for part in key if part) for key, (until, _) in sorted(self._until.items()) if until > now]
