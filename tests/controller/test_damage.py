"""A controller that is started on rows that can't be read: what they say is lost, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from latent.errors import EnrolmentRefused
from latent.model import Result
from latent.testing import ControllerHarness
from tests.controller.kit import building, controller, obliging, sql


def test_a_worker_whose_row_is_damaged_starts_anew_and_stops_no_other(tmp_path: Path) -> None:
    """What its last attempt made is destroyed, its build tried again, no number used twice; the other notices nothing."""
    for number, damage in enumerate(("'{'", '\'{"state": "NO_SUCH"}\'', "'[]'", '\'{"state": "SUBSTANTIATED"}\'')):
        (folder := tmp_path / str(number)).mkdir()
        w, other = obliging(), obliging("other")
        with ControllerHarness(folder, [w, other]) as harness:
            build, agent = building(harness)
            kept, other_agent = building(harness, "other")
            sql(harness, f"UPDATE workers SET state = {damage} WHERE name = 'w'")
            harness.restart()
            assert "its state can't be read" in harness.health("controller")[0].message
            assert w.arguments[1]["controls"].destroyed == [1]
            other_agent.come_back()
            other_agent.finish()
            assert harness.result(kept) is Result.SUCCESS
            with pytest.raises(EnrolmentRefused):
                agent.come_back()
            assert harness.attempt("w") == 2
            harness.agent("w").attach().work()
            assert harness.result(build) is Result.SUCCESS


def test_a_damaged_row_of_a_worker_at_rest_does_not_use_a_number_again(tmp_path: Path) -> None:
    """All its attempts are over, and the next is a new one."""
    with controller(tmp_path, w := obliging(build_wait_timeout=0)) as harness:
        building(harness)[1].finish()
        sql(harness, "UPDATE workers SET state = 'x'")
        harness.restart()
        building(harness)[1].finish()
        assert [call.attempt for call in w.controls.starts] == [1, 2]


@pytest.mark.parametrize("doc", ["{}", '{"step": "x"}', '{"paused": 3}', '{"nonsense": 1}', "[]", "{"])
def test_a_damaged_back_off_is_no_back_off(tmp_path: Path, doc: str) -> None:
    """The worker serves."""
    with controller(tmp_path, w := obliging()) as harness:
        w.controls.auto_start = False
        harness.submit()
        w.controls.auto_start = True
        sql(harness, f"UPDATE workers SET quarantine = '{doc}'")
        harness.restart()
        assert len(w.controls.starts) == 2


def test_a_damaged_build_is_left_alone_and_does_not_keep_its_worker(tmp_path: Path) -> None:
    """Health names it; the worker that had it takes others."""
    with controller(tmp_path, obliging()) as harness:
        damaged, _ = building(harness)
        sql(harness, f"UPDATE builds SET request = 'x' WHERE id = {damaged}")
        harness.restart()
        assert f"build {damaged} can't be read" in harness.health("controller")[0].message
        build = harness.submit()
        harness.advance(61)
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
