"""Controllers with process workers, killed at every point of `latent.killpoints`, as real processes."""

from __future__ import annotations

import pytest

from latent.killpoints import POINTS
from tests.killpoints.harness import judge, run_all, wanted
from tests.killpoints.providers import Processes
from tests.killpoints.scenarios import ALL
from tests.killpoints.site import Outcome

Outcomes = dict[str, list[Outcome]]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return run_all(ALL, tmp_path_factory.mktemp("killpoints"), Processes, wanted(request))


@pytest.mark.parametrize("point", POINTS)
def test_killed(outcomes: Outcomes, point: str) -> None:
    """Killed there and started again, it leaks nothing, starts nothing twice, and each build ends as it should and ran once."""
    judge(point, outcomes)
