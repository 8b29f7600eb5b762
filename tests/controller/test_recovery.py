"""A controller that is started on what another one left: nothing is lost, nothing runs twice, nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from latent.errors import EnrolmentRefused
from latent.model import BuildState, Result
from latent.testing import ControllerHarness
from latent.worker.base import Worker
from tests.controller.kit import building, controller, keeps_its_promises, obliging, sql, worker


def test_a_build_goes_on_over_a_restart(tmp_path: Path) -> None:
    """Its agent comes back to the same session, renews its lease and finishes; nothing is started anew."""
    with controller(tmp_path, w := obliging()) as harness:
        build, agent = building(harness)
        harness.restart()
        assert harness.worker_state("w") == "SUBSTANTIATED"
        assert harness.state(build) is BuildState.RUNNING
        assert w.controls.resumed == [1]
        agent.come_back()
        agent.renew()
        agent.finish()
        assert harness.result(build) is Result.SUCCESS
        assert len(harness.runs(build)) == 1
        assert harness.build(build).attempts == 1


def test_the_end_of_a_build_may_be_the_first_thing_that_is_heard_after_a_restart(tmp_path: Path) -> None:
    """An agent that finished while nobody was there tells it when it comes back."""
    with controller(tmp_path, obliging()) as harness:
        build, agent = building(harness)
        harness.restart()
        agent.come_back(attach=False)
        agent.finish()
        assert harness.result(build) is Result.SUCCESS
        harness.submit()
        agent.work()


@pytest.mark.parametrize("delivered", [True, False])
def test_a_lease_that_was_offered_is_offered_again(tmp_path: Path, delivered: bool) -> None:
    """Whether or not its agent got it: it has not begun."""
    with controller(tmp_path, obliging()) as harness:
        build = harness.submit()
        agent = harness.agent("w").attach()
        if delivered:
            agent.take()
        harness.restart()
        agent.come_back()
        agent.work()
        assert harness.result(build) is Result.SUCCESS
        assert len(harness.runs(build)) == 1


def test_an_agent_that_does_not_come_back_loses_its_build(tmp_path: Path) -> None:
    """It has a session's time for that."""
    with controller(tmp_path, w := obliging()) as harness:
        build, _ = building(harness)
        harness.restart()
        harness.advance(55)
        assert harness.state(build) is BuildState.RUNNING
        harness.advance(10)
        assert harness.live_run(build).worker == "w"
        assert len(w.controls.starts) == 2


@pytest.mark.parametrize("made", [True, False], ids=["the instance is there", "there is none"])
def test_a_start_that_was_cut_short_is_the_same_start_again(tmp_path: Path, made: bool) -> None:
    """What the first call made is found; else start_instance is called again, as the same attempt with the same token."""
    with controller(tmp_path, w := worker()) as harness:
        build = harness.submit()
        if made:
            w.controls.instance_appears()
        first = w.controls.starts[-1]
        harness.restart()
        assert [call.attempt for call in w.controls.starts] == ([1] if made else [1, 1])
        assert w.controls.starts[-1].token == first.token
        if not made:
            w.controls.start_answers()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
        assert len(harness.runs(build)) == 1
        del w.controls.starts[1:]  # the same start


def test_an_agent_that_is_waited_for_may_come_after_the_restart(tmp_path: Path) -> None:
    """The token that its instance was given is still good, and the time it has is what was left."""
    with controller(tmp_path, w := obliging(missing_timeout=100)) as harness:
        build = harness.submit()
        agent = harness.agent("w")
        harness.advance(60)
        harness.restart()
        harness.advance(39)
        agent.come_back()
        agent.work()
        assert harness.result(build) is Result.SUCCESS
        assert len(w.controls.starts) == 1


def test_an_enrolment_whose_answer_was_lost_can_be_made_again(tmp_path: Path) -> None:
    """Its session never attached, so the token is as good as unused; after it attached, it is not."""
    with controller(tmp_path, obliging()) as harness:
        build = harness.submit()
        harness.agent("w").enrol()
        harness.restart()
        agent = harness.agent("w").attach()
        harness.restart()
        with pytest.raises(EnrolmentRefused, match="used already"):
            harness.agent("w").attach()
        agent.come_back()
        agent.work()
        assert harness.result(build) is Result.SUCCESS


def test_a_stop_that_was_cut_short_is_made_sure_of(tmp_path: Path) -> None:
    """The instance is still there: it is destroyed. It is gone: all is well."""
    for gone in (True, False):
        folder = tmp_path / str(gone)
        folder.mkdir()
        w = obliging(build_wait_timeout=0)
        controls = w.arguments[1]["controls"]
        with ControllerHarness(folder, [w]) as harness:
            controls.auto_stop = None
            building(harness)[1].finish()
            assert controls.stopping
            controls.auto_stop = True
            if gone:
                controls.instances.clear()
            harness.restart()
            assert harness.worker_state("w") == "NOT_SUBSTANTIATED"
            assert not controls.instances
            assert controls.destroyed == ([] if gone else [1])
            assert not harness.health()
            controls.starts.clear()
            harness.restart()
            assert controls.destroyed == ([] if gone else [1])


def test_an_instance_that_is_gone_after_the_restart_is_replaced(tmp_path: Path) -> None:
    """Its build is tried again at once, on the next attempt."""
    with controller(tmp_path, w := obliging()) as harness:
        build, agent = building(harness)
        w.controls.instance_vanishes()
        harness.restart()
        assert [call.attempt for call in w.controls.starts] == [1, 2]
        with pytest.raises(EnrolmentRefused):
            agent.come_back()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS


def test_an_idle_timer_goes_on_over_a_restart(tmp_path: Path) -> None:
    """An instance that had 20 s to wait has them still."""
    with controller(tmp_path, w := obliging(build_wait_timeout=50)) as harness:
        _, agent = building(harness)
        agent.finish()
        harness.advance(30)
        harness.restart()
        agent.come_back()
        harness.advance(19)
        assert not w.controls.stops
        harness.advance(1)
        assert len(w.controls.stops) == 1


def test_an_idle_instance_is_not_replaced_before_its_agent_could_come_back(tmp_path: Path) -> None:
    """It was the controller that was away: a new build waits for the agent, and for no longer than reattach_timeout."""
    with controller(tmp_path, w := obliging(build_wait_timeout=600, reattach_timeout=40)) as harness:
        _, agent = building(harness)
        agent.finish()
        harness.restart()
        build = harness.submit()
        assert harness.state(build) is BuildState.QUEUED
        agent.come_back()
        agent.work()
        assert harness.result(build) is Result.SUCCESS
        assert len(w.controls.starts) == 1
        harness.restart()
        build = harness.submit()
        harness.advance(39)
        assert len(w.controls.starts) == 1
        harness.advance(1)
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
        assert len(w.controls.starts) == 2


def test_a_back_off_and_a_pause_outlive_a_restart(tmp_path: Path) -> None:
    """With their reasons."""
    with controller(tmp_path, obliging("a"), b := obliging("b")) as harness:
        b.controls.auto_start = False
        harness.submit(workers=["b"])
        harness.controller.pause("a", True)
        harness.restart()
        assert harness.status("a").paused
        assert "answered False" in harness.status("b").reason
        harness.advance(10)
        assert len(b.controls.starts) == 2
        b.controls.auto_start = True


def test_queued_builds_are_still_queued_and_cancellations_still_wanted(tmp_path: Path) -> None:
    """Cancelled before the restart, while it ran: its agent is told after it."""
    with controller(tmp_path, obliging()) as harness:
        build, agent = building(harness)
        waiting = harness.submit()
        harness.cancel(build)
        harness.restart()
        assert harness.state(waiting) is BuildState.QUEUED
        agent.come_back()
        watching = agent.watch()
        assert watching.called
        agent.finish(Result.CANCELLED)
        assert harness.result(build) is Result.CANCELLED
        agent.work()
        assert harness.result(waiting) is Result.SUCCESS


def test_a_build_that_was_cancelled_without_anybody_hearing_it_is_never_offered(tmp_path: Path) -> None:
    """The crash came between the request and its effect, while the build waited for its instance."""
    with controller(tmp_path, obliging()) as harness:
        build = harness.submit()
        sql(harness, f"UPDATE builds SET cancel_requested_at = 1 WHERE id = {build}")
        harness.restart()
        assert harness.result(build) is Result.CANCELLED
        assert harness.worker_state("w") == "NOT_SUBSTANTIATED"


def test_a_run_of_a_worker_that_is_gone_waits_for_the_end_of_its_instance(tmp_path: Path) -> None:
    """The worker is no longer declared: its agent can't come back, and an operator is told of its instance, which may still run
    the build. When it is declared again its instance is stopped, and the build is tried elsewhere."""
    a, b = obliging("a"), obliging("b")
    with ControllerHarness(tmp_path, [a, b]) as harness:
        build = harness.submit()
        agent = harness.agent("a").attach()
        agent.take()
        agent.begin()
        harness.restart([obliging("b", controls=b.controls)])
        with pytest.raises(EnrolmentRefused):
            agent.come_back()
        harness.advance(61)
        assert "it may still be running on a#1" in harness.why(build)
        assert "worker a is no longer declared" in harness.health("controller")[0].message
        again = obliging("a", controls=a.controls)
        harness.restart([again, obliging("b", controls=b.controls)])
        harness.controller.pause("a", True)
        harness.advance(1000)
        harness.agent("b").attach().work()
        assert harness.result(build) is Result.SUCCESS


def test_a_worker_that_is_declared_again_is_taken_up_where_it_was(tmp_path: Path) -> None:
    """Its instance was up while nobody knew it: it is found, and goes when it has been idle for long enough."""
    a, b = obliging("a"), obliging("b")
    with ControllerHarness(tmp_path, [a, b]) as harness:
        harness.submit(workers=["a"])
        harness.agent("a").attach().work()
        harness.restart([obliging("b", controls=b.controls)])
        harness.reconfigure([obliging("a", controls=a.controls), obliging("b", controls=b.controls)])
        assert a.controls.resumed == [1]
        assert harness.worker_state("a") == "SUBSTANTIATED"
        harness.advance(700)
    keeps_its_promises(a.controls)


def test_a_plain_worker_keeps_its_build(tmp_path: Path) -> None:
    """Its agent comes back with its password and its session's id."""
    with controller(tmp_path, Worker("w", "secret")) as harness:
        agent = harness.plain_agent("secret").attach()
        build = harness.submit()
        agent.take()
        agent.begin()
        waiting = harness.submit()
        harness.restart()
        agent.come_back()
        agent.finish()
        agent.work()
        assert harness.result(build) is harness.result(waiting) is Result.SUCCESS
        assert len(harness.runs(build)) == 1
