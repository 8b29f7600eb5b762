"""The same with workers of the in-memory cloud, which is a process of its own and outlives its controllers."""

from __future__ import annotations

import pytest

from latent.killpoints import POINTS
from latent.testing.cloud.remote import CloudProcess
from tests.killpoints.harness import judge, run_all, wanted
from tests.killpoints.providers import InCloud
from tests.killpoints.scenarios import ALL
from tests.killpoints.site import Outcome

Outcomes = dict[str, list[Outcome]]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    directory = tmp_path_factory.mktemp("killpoints")
    with CloudProcess(directory / "cloud") as cloud:
        return run_all(ALL, directory, lambda place: InCloud(cloud, place.name), wanted(request))


@pytest.mark.parametrize("point", POINTS)
def test_killed(outcomes: Outcomes, point: str) -> None:
    """Killed there and started again, it leaks nothing, starts nothing twice, and each build ends as it should and ran once."""
    judge(point, outcomes)
