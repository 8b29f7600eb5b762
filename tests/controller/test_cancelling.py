"""How a run ends that somebody cancels, or that takes too long."""

from __future__ import annotations

from pathlib import Path

import pytest

from latent.config.settings import Limits
from latent.core.leasing import CANCEL_GRACE
from latent.errors import NotFound, NotYourRun
from latent.model import BuildState, Result, RunStatus
from latent.testing import answer
from tests.controller.kit import attached, building, controller, obliging

# --- cancelling -------------------------------------------------------------------------------------------------------------


def test_a_queued_build_is_cancelled_at_once(tmp_path: Path) -> None:
    """It never has a run."""
    with controller(tmp_path) as harness:
        build = harness.submit()
        waiting = harness.controller.when_finished(build)
        harness.cancel(build, "not wanted")
        assert harness.result(build) is Result.CANCELLED
        assert harness.why(build) == "not wanted"
        assert answer(waiting).result is Result.CANCELLED
        assert not harness.runs(build)


def test_a_lease_that_was_not_yet_taken_is_cancelled_with_its_agent(tmp_path: Path) -> None:
    """The agent learns it when it waits for cancellations; one that never does loses it after a minute."""
    with controller(tmp_path, obliging()) as harness:
        build, agent = attached(harness)
        agent.take()
        harness.cancel(build)
        assert harness.state(build) is BuildState.STARTING
        assert "being stopped: not wanted" in harness.why(build)
        assert answer(agent.watch()) is True
        agent.begin()
        harness.advance(CANCEL_GRACE)
        assert harness.result(build) is Result.CANCELLED
        with pytest.raises(NotYourRun):
            agent.renew()


@pytest.mark.parametrize("says", [Result.CANCELLED, Result.SUCCESS, Result.FAILURE])
def test_a_running_build_is_cancelled_by_its_agent(tmp_path: Path, says: Result) -> None:
    """The agent is told, and what it says at the end counts: it may have been done before it heard."""
    with controller(tmp_path, obliging()) as harness:
        build, agent = building(harness)
        watching = agent.watch()
        assert not watching.called
        harness.cancel(build)
        assert answer(watching) is True
        agent.finish(says)
        assert harness.result(build) is says


def test_an_agent_that_does_not_end_a_cancelled_build_loses_it(tmp_path: Path) -> None:
    """After a minute, also if it goes on renewing its lease."""
    with controller(tmp_path, obliging()) as harness:
        build, agent = building(harness)
        harness.cancel(build)
        harness.advance(CANCEL_GRACE - 1)
        agent.renew()
        assert harness.state(build) is BuildState.RUNNING
        harness.advance(1)
        assert harness.result(build) is Result.CANCELLED


def test_a_cancelled_build_whose_agent_is_lost_is_not_tried_again(tmp_path: Path) -> None:
    """It was to end anyway."""
    with controller(tmp_path, obliging()) as harness:
        build, agent = building(harness)
        harness.cancel(build)
        agent.leave()
        assert harness.result(build) is Result.CANCELLED


def test_cancelling_with_retry_ends_the_run_and_not_the_build(tmp_path: Path) -> None:
    """The present run is ended by its agent, and the build is tried again."""
    with controller(tmp_path, obliging()) as harness:
        build, agent = building(harness)
        harness.cancel(build, "once more, please", retry=True)
        assert answer(agent.watch()) is True
        agent.finish(Result.CANCELLED)
        assert harness.result(build) is None
        agent.work()
        assert harness.result(build) is Result.SUCCESS
        assert [run.run.status for run in harness.runs(build)] == [RunStatus.INTERRUPTED, RunStatus.COMPLETED]


def test_cancelling_for_good_overrules_a_retry(tmp_path: Path) -> None:
    """Somebody wanted it tried again, and then somebody did not want it at all."""
    with controller(tmp_path, obliging()) as harness:
        build, agent = building(harness)
        harness.cancel(build, retry=True)
        harness.cancel(build)
        agent.finish(Result.CANCELLED)
        assert harness.result(build) is Result.CANCELLED


def test_cancelling_what_is_finished_changes_nothing_and_what_never_was_is_not_found(tmp_path: Path) -> None:
    """`cancel` is idempotent."""
    with controller(tmp_path, obliging()) as harness:
        build, agent = building(harness)
        agent.finish()
        harness.cancel(build)
        harness.cancel(build, retry=True)
        assert harness.result(build) is Result.SUCCESS
        with pytest.raises(NotFound):
            harness.cancel(99)


def test_a_retry_of_a_build_that_waits_is_nothing_new(tmp_path: Path) -> None:
    """It has no run that could be ended."""
    with controller(tmp_path) as harness:
        build = harness.submit()
        harness.cancel(build, retry=True)
        assert harness.state(build) is BuildState.QUEUED
        assert not harness.build(build).cancel_requested


# --- time -------------------------------------------------------------------------------------------------------------------


def test_a_build_that_takes_too_long_ends_as_timed_out(tmp_path: Path) -> None:
    """Its agent is told at the timeout, and has a minute to end it."""
    with controller(tmp_path, obliging()) as harness:
        build = harness.submit(timeout=100)
        agent = harness.agent("w").attach()
        agent.take()
        agent.begin()
        watching = agent.watch()
        for _ in range(5):
            harness.advance(20)
            agent.renew()
        assert answer(watching) is True
        agent.finish(Result.CANCELLED)
        assert harness.result(build) is Result.TIMEOUT
        assert "longer than 100 s" in harness.why(build)
        assert harness.runs(build)[0].run.status is RunStatus.TIMEOUT


def test_the_time_of_a_build_begins_when_its_agent_begins(tmp_path: Path) -> None:
    """Waiting for an instance costs it nothing."""
    with controller(tmp_path, obliging()) as harness:
        build = harness.submit(timeout=50)
        harness.advance(100)
        agent = harness.agent("w").attach()
        agent.take()
        agent.begin()
        harness.advance(49)
        agent.finish()
        assert harness.result(build) is Result.SUCCESS


def test_an_agent_that_waits_for_a_cancellation_is_told_when_the_run_is_over(tmp_path: Path) -> None:
    """False: nobody cancelled it. A call that was given up before is not answered."""
    with controller(tmp_path, obliging()) as harness:
        _, agent = building(harness)
        waiting, given_up = agent.watch(), agent.watch()
        given_up.addErrback(lambda _: None)
        given_up.cancel()
        agent.finish()
        assert answer(waiting) is False
        assert answer(agent.watch()) is False


def test_an_agent_that_waits_for_a_cancellation_is_told_when_it_loses_the_run(tmp_path: Path) -> None:
    """That is no cancellation and no end: the call fails, however late it comes, also after a restart."""
    with controller(tmp_path, obliging(), limits=Limits(session_timeout=600)) as harness:
        build, agent = building(harness)
        waiting = agent.watch()
        harness.advance(61)
        for asked in (waiting, agent.watch()):
            with pytest.raises(NotYourRun, match="its lease expired"):
                answer(asked)
        assert harness.state(build) is BuildState.QUEUED
        harness.restart()
        agent.come_back()
        with pytest.raises(NotYourRun, match="its lease expired"):
            answer(agent.watch())
