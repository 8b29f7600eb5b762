"""A build whose agent is not heard any more is nobody else's before its first try is known to be over."""

from __future__ import annotations

from pathlib import Path

from latent.controller.fences import AWAY, DROPPED
from latent.core.leasing import CANCEL_GRACE
from latent.model import Attempt, BuildState, Result
from latent.testing import ControllerHarness, SteppedAgent
from tests.controller.kit import controller, obliging
from tests.controller.silent import LONG, ONE_AT_A_TIME, building, confirm, fails, fallen_silent, is_held, starts, stuck

# --- when it goes on --------------------------------------------------------------------------------------------------------


def test_it_waits_until_the_stop_is_confirmed(tmp_path: Path) -> None:
    """Its agent may be frozen: its instance is stopped at once, and then another worker may have the build."""
    with controller(tmp_path, a := stuck(), b := obliging("b")) as harness:
        build, _ = fallen_silent(harness)
        assert a.controls.stopping
        assert is_held(harness, build, "its instance is being stopped; latent cancel gives it up at once")
        harness.advance(50)
        assert starts(a, b) == 1
        confirm(a, harness)
        assert starts(a, b) == 2
        assert "may still be running" not in harness.why(build)


def test_a_stop_that_never_answers_is_no_end(tmp_path: Path) -> None:
    """It is cancelled, and the reaper takes over: the build waits for it, and says what stands in the way."""
    with controller(tmp_path, a := stuck(), b := obliging("b")) as harness:
        a.controls.instead["destroy_instance"] = fails
        build, _ = fallen_silent(harness)
        harness.advance(200)
        assert harness.health("attempt a#1")
        assert starts(a, b) == 1
        why = "its instance is to be destroyed, and is not confirmed to be gone (RuntimeError: still away); see latent health"
        assert is_held(harness, build, why)
        a.controls.instead.clear()
        harness.advance(700)
        assert not harness.health("attempt a#1")
        assert starts(a, b) == 2
        a.controls.auto_stop = True


def test_a_stop_that_fails_is_no_end(tmp_path: Path) -> None:
    """Nor is it where the worker has a new instance by then, for a build that came later."""
    with controller(tmp_path, a := obliging("a", **LONG)) as harness:
        a.controls.auto_stop = RuntimeError("the API is away")
        a.controls.instead["destroy_instance"] = fails
        build, _ = fallen_silent(harness)
        later = harness.submit()
        harness.agent("a", 2).attach().work()
        assert harness.result(later) is Result.SUCCESS
        assert is_held(harness, build)
        a.controls.instead.clear()
        a.controls.auto_stop = True
        harness.advance(700)
        assert harness.state(build) is not BuildState.QUEUED


def test_an_instance_that_is_found_to_be_gone_holds_nothing(tmp_path: Path) -> None:
    """Its plugin says so, and its stop is confirmed, long before its agent would be waited for."""
    with controller(tmp_path, a := obliging("a", **{**LONG, "check_instance_interval": 10}), b := obliging("b")) as harness:
        build, agent = building(harness)
        a.controls.good = (False, "it has exited")
        agent.leave("its connection was cut", ended=False)
        harness.advance(1)
        assert starts(a, b) == 2
        assert harness.state(build) is BuildState.STARTING


def test_who_has_lost_its_connection_has_a_moment_to_come_back(tmp_path: Path) -> None:
    """It asks for work, so it has ended what it ran: the build goes on at once, and its instance stays."""
    with controller(tmp_path, a := stuck(), obliging("b")) as harness:
        build, agent = building(harness)
        agent.leave("its connection was cut", ended=False)
        harness.advance(AWAY / 2)
        assert is_held(harness, build, "its agent is not heard, and its instance is stopped if it does not come back")
        agent.come_back()
        assert is_held(harness, build, "its agent is heard, and is to ask for work or else its instance is stopped")
        asked = agent.ask()
        harness.advance(0)
        assert asked.called
        assert agent.leases == [build, build]
        assert not a.controls.stops
        agent.take()
        agent.begin()
        agent.finish()
        a.controls.auto_stop = True


def test_who_does_not_come_back_is_not_waited_for_as_long_as_it_may_be_away(tmp_path: Path) -> None:
    """A build waits for the end of its instance."""
    with controller(tmp_path, a := stuck(), b := obliging("b")) as harness:
        build, agent = building(harness)
        agent.leave("its connection was cut", ended=False)
        harness.advance(AWAY - 1)
        assert not a.controls.stopping
        harness.advance(2)
        assert a.controls.stopping
        assert is_held(harness, build)
        confirm(a, harness)
        assert starts(a, b) == 2


def test_an_agent_that_says_that_it_leaves_has_ended_its_build(tmp_path: Path) -> None:
    """There is nothing to wait for."""
    with controller(tmp_path, obliging("a", **LONG), obliging("b")) as harness:
        build, agent = building(harness)
        agent.leave()
        assert harness.state(build) is BuildState.STARTING


def test_an_agent_that_had_not_begun_holds_nothing(tmp_path: Path) -> None:
    """Nothing of the build runs before the controller has been told so."""
    with controller(tmp_path, obliging("a", **LONG), obliging("b")) as harness:
        build = harness.submit()
        agent = harness.agent("a").attach()
        agent.take()
        agent.leave("its connection was cut", ended=False)
        assert harness.state(build) is BuildState.STARTING


def test_a_plain_workers_build_is_not_held(tmp_path: Path) -> None:
    """Its machine is nobody's to stop, so nobody would ever know."""
    with controller(tmp_path, obliging("b")) as harness:
        build = harness.submit()
        harness.controller.dispatcher.fences.hold(build, Attempt("plain", 0))
        assert harness.controller.dispatcher.fences.held() == set()


# --- agents that are heard --------------------------------------------------------------------------------------------------


def lapsed(harness: ControllerHarness, *, capacity: int) -> tuple[int, SteppedAgent]:
    """A build whose lease lapsed, though its agent is heard."""
    build, agent = building(harness, capacity=capacity)
    harness.advance(61)
    assert is_held(harness, build)
    return build, agent


def test_one_that_ends_nothing_is_stopped(tmp_path: Path) -> None:
    """It has its time to end what it has lost, and to ask."""
    with controller(tmp_path, a := stuck(), b := obliging("b"), limits=ONE_AT_A_TIME) as harness:
        build, _ = lapsed(harness, capacity=1)
        harness.advance(DROPPED - 5)
        assert not a.controls.stopping
        harness.advance(10)
        assert a.controls.stopping
        assert is_held(harness, build)
        confirm(a, harness)
        assert starts(a, b) == 2


def test_one_of_several_slots_that_asks_says_nothing_of_the_others(tmp_path: Path) -> None:
    """Only when all that the agent can do at a time is accounted for, none of it can be the run that it has lost."""
    with controller(tmp_path, a := stuck(max_builds=3), obliging("b"), limits=ONE_AT_A_TIME) as harness:
        build, agent = lapsed(harness, capacity=3)
        asked = [agent.ask(), agent.ask()]
        harness.advance(2)
        assert is_held(harness, build)
        asked.append(agent.ask())
        harness.advance(2)
        assert not is_held(harness, build)
        assert [one.called for one in asked] == [True, False, False]
        for one in asked:
            one.cancel()
        assert not a.controls.stops
        a.controls.auto_stop = True


def test_the_runs_that_it_has_count_too(tmp_path: Path) -> None:
    """A slot that has another build can't have the lost one."""
    with controller(tmp_path, a := stuck(max_builds=2), limits=ONE_AT_A_TIME) as harness:
        build, agent = lapsed(harness, capacity=2)
        other = harness.submit()
        agent.take()
        agent.begin()
        assert agent.lease.build_id == other
        assert is_held(harness, build)
        asked = agent.ask()
        harness.advance(0)
        assert asked.called
        assert not is_held(harness, build)
        a.controls.auto_stop = True


def test_one_that_has_other_builds_gets_no_more_and_is_stopped_after_them(tmp_path: Path) -> None:
    """They did nothing wrong."""
    with controller(tmp_path, a := stuck(max_builds=3), b := obliging("b"), limits=ONE_AT_A_TIME) as harness:
        build, agent = lapsed(harness, capacity=3)
        other = harness.submit()
        agent.take()
        agent.begin()
        for _ in range(4):
            harness.advance(DROPPED / 3)
            agent.renew()
        assert "which it has lost" in harness.status("a").reason
        assert not a.controls.stopping
        agent.finish()
        assert harness.result(other) is Result.SUCCESS
        assert a.controls.stopping
        confirm(a, harness)
        assert starts(a, b) == 2
        assert not is_held(harness, build)


def test_one_that_ignores_a_cancellation_may_still_be_at_it(tmp_path: Path) -> None:
    """The build was to be tried again, and its agent said nothing in all the time that it had."""
    with controller(tmp_path, a := stuck(), b := obliging("b"), limits=ONE_AT_A_TIME) as harness:
        build, agent = building(harness)
        harness.answer(harness.controller.cancel(build, "once more", retry=True))
        for _ in range(4):
            harness.advance(CANCEL_GRACE / 4)
            agent.come_back()
            if harness.state(build) is not BuildState.QUEUED:
                agent.renew()
        assert is_held(harness, build)
        harness.restart()
        agent.come_back()
        assert is_held(harness, build)
        assert starts(a, b) == 1
        a.controls.auto_stop = True
