"""The harness itself: a controller with a defect that only a crash brings to light does not pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.killpoints import rounds, site
from tests.killpoints.harness import run_all
from tests.killpoints.providers import Processes
from tests.killpoints.scenarios import Scenario, group

STARTS_AGAIN = """
from latent.controller.recovery import Recovery
from latent.worker import instances
async def unknown(self, post):
    return None
Recovery._found = unknown
instances.find = lambda marker, directory: None
"""

LOSES_BUILDS = """
from latent.store import builds
builds.unfinished = lambda conn: ([], {})
"""

LEAVES_INSTANCES = """
async def nothing(self, fast=False):
    return None
workers.Obedient.stop_instance = nothing
"""

FORGETS_RUNS = """
from latent.controller.recovery import Recovery
back = Recovery.builds_and_sessions
async def forgetful(self):
    await back(self)
    for run in self._dispatcher.live():
        self._dispatcher.abandon(run, "it is forgotten")
Recovery.builds_and_sessions = forgetful
"""


@pytest.mark.parametrize(
    ("defect", "point", "error"),
    [
        (STARTS_AGAIN, "lifecycle.start.answered", "it took 2 instances: planted#1, planted#2"),
        (LOSES_BUILDS, "service.submit.written", "never came: the end of build 1"),
        (LEAVES_INSTANCES, "lifecycle.start.before", "never came: the end of all instances"),
        (FORGETS_RUNS, "dispatcher.activate.written", "'attempts': 2"),
    ],
    ids=["starts again", "loses builds", "leaves instances", "forgets runs"],
)
def test_a_planted_defect_is_found(defect: str, point: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what was wrong after the death."""
    monkeypatch.setattr(site, "PATIENCE", 8.0)
    scenario = Scenario(name="planted", config=lambda site: defect + rounds.one_worker(site), groups=(group(point),))
    (outcome,) = run_all([scenario], tmp_path, Processes)[point]
    assert error in outcome.error


def test_a_point_that_is_not_come_to_is_told(tmp_path: Path) -> None:
    """With the points that its last controller came to."""
    scenario = Scenario(name="never", groups=(group("sessions.leave.before"),))
    (outcome,) = run_all([scenario], tmp_path, Processes)["sessions.leave.before"]
    assert "no controller came to it 1 times" in outcome.error
    assert "lifecycle.start.called" in outcome.error


def test_a_round_that_takes_more_instances_than_it_may_is_told(tmp_path: Path) -> None:
    """Which attempts they were of."""
    scenario = Scenario(name="many", round=rounds.whole_life, groups=(group("lifecycle.start.called"),), instances=0)
    (outcome,) = run_all([scenario], tmp_path, Processes)["lifecycle.start.called"]
    assert outcome.error == "it took 1 instances: many#1"
