"""How many instances there is room for: capacity of types, zones and markets, and the account's quota."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, frozen

from latent.testing.ec2.answers import Refused

_QUOTA = {
    "InstanceLimitExceeded": "You have requested more instances ({asked}) than your current instance limit of {most} allows "
    "for the specified instance type.",
    "VcpuLimitExceeded": "You have requested more vCPU capacity than your current vCPU limit of {most} allows for the instance "
    "bucket that the specified instance type belongs to.",
    "MaxSpotInstanceCountExceeded": "Max spot instance count exceeded",
}
USUAL_PRICE = 0.04
SPOT_QUOTA = "MaxSpotInstanceCountExceeded"


@frozen
class Wanted:
    """What a launch asks for. ``market``: "spot" or "on-demand"."""

    least: int
    most: int
    instance_type: str
    zone: str
    subnet: str
    market: str


@define
class Shortage:
    """Room for ``left`` more of what fits; ``times``: how many launches it refuses before it is over, None for ever."""

    left: int
    times: int | None
    code: str
    instance_type: str | None
    zone: str | None
    subnet: str | None
    market: str | None

    def fits(self, wanted: Wanted) -> bool:
        pairs = (
            (self.instance_type, wanted.instance_type),
            (self.zone, wanted.zone),
            (self.subnet, wanted.subnet),
            (self.market, wanted.market),
        )
        return self.times != 0 and all(mine is None or mine == theirs for mine, theirs in pairs)


class Prices:
    """What spot instances cost, dollars an hour. What was said last counts."""

    def __init__(self) -> None:
        self._said: list[tuple[str | None, str | None, float]] = []

    def say(self, price: float, instance_type: str | None, zone: str | None) -> None:
        self._said.insert(0, (instance_type, zone, price))

    def of(self, instance_type: str, zone: str) -> float:
        fitting = (price for kind, place, price in self._said if kind in (None, instance_type) and place in (None, zone))
        return next(fitting, USUAL_PRICE)


class Room:
    def __init__(self) -> None:
        self.heal()

    def heal(self) -> None:
        self.shortages: list[Shortage] = []
        self.quotas: dict[str, int] = {}
        self.no_spot = False
        self.prices = Prices()

    def choose(self, choices: Sequence[Wanted], live: Mapping[str, int]) -> tuple[Wanted, int]:
        """In which of these (the same launch in several zones) how many may be launched; taken from what is left.

        ``live``: how many instances there are that count for the quota, by market. `Refused` if there is no room.
        """
        self._check_quota(choices[0], live)
        by_quota = min(choices[0].most, *(most - _counted(code, live) for code, most in self._quotas_of(choices[0])), 10**9)
        found = max(choices, key=lambda wanted: self._left_for(wanted))
        count = min(by_quota, self._left_for(found))
        if count < found.least:
            self._refuse(found)
        for shortage in self.shortages:
            if shortage.fits(found):
                shortage.left -= count
        return found, count

    def _quotas_of(self, wanted: Wanted) -> list[tuple[str, int]]:
        return [(code, most) for code, most in self.quotas.items() if code != SPOT_QUOTA or wanted.market == "spot"]

    def _check_quota(self, wanted: Wanted, live: Mapping[str, int]) -> None:
        for code, most in self._quotas_of(wanted):
            asked = _counted(code, live) + wanted.least
            if asked > most:
                raise Refused(code, _QUOTA.get(code, "You have reached a limit of {most}").format(asked=asked, most=most), 400)

    def _left_for(self, wanted: Wanted) -> int:
        if self.no_spot and wanted.market == "spot":
            return 0
        return min([shortage.left for shortage in self.shortages if shortage.fits(wanted)] + [wanted.most])

    def _refuse(self, wanted: Wanted) -> None:
        code = "InsufficientInstanceCapacity"
        for shortage in self.shortages:
            if shortage.fits(wanted) and shortage.left < wanted.least:
                code = shortage.code
                if shortage.times is not None:
                    shortage.times -= 1
                break
        if wanted.market == "spot" and code == "InsufficientInstanceCapacity":
            raise Refused(code, "There is no Spot capacity available that matches your request.", 500)
        raise Refused(
            code,
            f"We currently do not have sufficient {wanted.instance_type} capacity in the Availability Zone you requested "
            f"({wanted.zone}). Our system will be working on provisioning additional capacity.",
            500,
        )


def _counted(code: str, live: Mapping[str, int]) -> int:
    return live.get("spot", 0) if code == SPOT_QUOTA else sum(live.values())
