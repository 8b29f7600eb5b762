"""Controllers with EC2 workers, killed around their starts and stops (`latent.killpoints`), at the test cloud."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve

from tests.killpoints.harness import judge, run_all, wanted
from tests.killpoints.scenarios import STARTS_AND_STOPS, points_of
from tests.killpoints.site import Outcome

if TYPE_CHECKING:
    from latent.testing.ec2 import Cloud


QUICK = {
    "latent_ec2.watched:PACES": ((3600.0, 0.2),),
    "latent_ec2.poll:APART": 0.05,
    "latent_ec2.batches:FIRST_PACE": 0.1,
    "latent_ec2.batches:LAST_PACE": 0.3,
}
"""Instances of the test cloud come and go in no time."""


class Instances:
    """`tests.killpoints.providers.Provider`. What there was is what the cloud still tells of."""

    def __init__(self, cloud: Cloud, directory: Path) -> None:
        self._cloud = cloud

    def declared(self, name: str, **keywords: Any) -> str:
        cloud = self._cloud
        given = {
            "instance_type": "m5.large",
            "ami": cloud.image,
            "region": cloud.region,
            "endpoint_url": cloud.endpoint_url,
            "identifier": cloud.key_id,
            "secret_identifier": cloud.secret,
            "session_token": cloud.session_token or None,
            **keywords,
        }
        told = ", ".join(f"{keyword}={value!r}" for keyword, value in given.items() if value is not None)
        return f"type('Killed', (workers.Obedient, worker.EC2LatentWorker), {{}})({name!r}, {told})"

    def births(self) -> Counter[str]:
        from tests.ec2.site import CONTROLLER, whose

        return Counter(whose(one) for one in self._cloud.instances() if CONTROLLER in one.tags)

    def left(self) -> list[str]:
        return [f"{one.id}, {one.state}" for one in self._cloud.instances() if one.is_up or one.running]

    def doubled(self) -> list[str]:
        return [f"{attempt} had {count} instances" for attempt, count in self.births().items() if count > 1]

    def beside(self) -> list[str]:
        return []  # nobody counts them

    def plant(self, controller_id: str, worker: str, number: int) -> None:
        raise AssertionError("no scenario of these needs it")

    def close(self) -> None:
        self._cloud.reset()


Outcomes = dict[str, list[Outcome]]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, whole_cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    whole_cloud.reset()
    scenario = evolve(STARTS_AND_STOPS, constants={**STARTS_AND_STOPS.constants, **QUICK})
    directory = tmp_path_factory.mktemp("killpoints")
    return run_all([scenario], directory, partial(Instances, whole_cloud), wanted(request), modules=["latent_ec2"])


@pytest.mark.parametrize("point", points_of(STARTS_AND_STOPS))
def test_killed(outcomes: Outcomes, point: str) -> None:
    """Killed there and started again, it leaves no instance, starts none twice, and each build ends as it should and ran once."""
    judge(point, outcomes)
