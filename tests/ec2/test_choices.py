"""In which order an instance is looked for, and what is remembered of where there was no room."""

from __future__ import annotations

from typing import Any

import pytest

from latent_ec2.choices import REMEMBERED, Choice, Memory, choices
from latent_ec2.shelf import newest
from tests.ec2.test_options import a_recipe


def test_one_choice() -> None:
    """Without lists there is one."""
    assert choices(a_recipe(), fallback=False) == [Choice("m7i.large", None, None, "on-demand")]
    assert choices(a_recipe(instance_type=None, launch_template="t"), fallback=False) == [Choice(None, None, None, "on-demand")]


def test_order() -> None:
    """Types before places as they are written, and every spot choice before the first on demand."""
    made_from = a_recipe(instance_type=["a1.large", "b1.large"], subnet_id=["subnet-1", "subnet-2"], spot_instance=True)
    found = choices(made_from, fallback=True)
    assert [(one.type, one.subnet, one.market) for one in found] == [
        (kind, subnet, market)
        for market in ("spot", "on-demand")
        for kind in ("a1.large", "b1.large")
        for subnet in ("subnet-1", "subnet-2")
    ]
    assert {one.market for one in choices(made_from, fallback=False)} == {"spot"}


def test_zones() -> None:
    """A list of zones is tried in order, too."""
    found = choices(a_recipe(placement=["a", "b"]), fallback=False)
    assert [one.zone for one in found] == ["eu-west-1a", "eu-west-1b"]
    assert str(found[0]) == "m7i.large in eu-west-1a (on-demand)"


def test_memory() -> None:
    """What had no room is not asked for, for three minutes; another market or place is another thing."""
    memory = Memory()
    spot, demand = Choice("a1.large", "subnet-1", None, "spot"), Choice("a1.large", "subnet-1", None, "on-demand")
    assert memory.worth_asking(spot, 100.0)
    memory.had_no_room(spot, "InsufficientInstanceCapacity", 100.0)
    assert not memory.worth_asking(spot, 100.0 + REMEMBERED - 1)
    assert memory.worth_asking(spot, 100.0 + REMEMBERED)
    assert memory.worth_asking(demand, 101.0)
    assert memory.lines(101.0) == ["a1.large subnet-1 spot"]
    assert memory.lines(100.0 + REMEMBERED) == []
    assert memory.why(spot, 110.0) == ("a1.large in subnet-1 (spot): InsufficientInstanceCapacity (not asked for another 170 s)")


def image(number: int, location: str, **more: Any) -> dict[str, Any]:
    return {"ImageId": f"ami-{number}", "ImageLocation": location, "State": "available", **more}


@pytest.mark.parametrize(
    ("location", "best"),
    [
        (None, "ami-3"),
        (r"ci/linux-(\d+)", "ami-2"),
        (r"ci/(\w+)-\d+", "ami-1"),
        (r"ci/linux-9$", "ami-1"),
        (r"linux", None),
    ],
)
def test_images(location: str | None, best: str | None) -> None:
    """The last by its location wins; by the first group where there is one, as a number where all are numbers."""
    images = [
        image(1, "ci/linux-9"),
        image(2, "ci/linux-10"),
        image(3, "zz/other"),
        image(4, "ci/linux-11", State="pending"),
    ]
    assert newest(images, location) == best
