"""A build whose agent is not heard any more is nobody else's before its first try is known to be over."""

from __future__ import annotations

from pathlib import Path

from latent.controller.fences import DROPPED
from latent.model import BuildState, Result
from latent.testing import BareLatentWorker, ControllerHarness, SteppedAgent
from tests.controller.kit import controller, made_controls, obliging

TIMES = {"reattach_timeout": 100, "check_instance_interval": 10_000}


def fallen_silent(harness: ControllerHarness) -> tuple[int, SteppedAgent]:
    """A build on "a" whose agent is not heard until its session is closed; "b" could have it."""
    build = harness.submit()
    agent = harness.agent("a").attach()
    agent.take()
    agent.begin()
    harness.advance(63)
    assert harness.state(build) is BuildState.QUEUED
    return build, agent


def test_it_waits_for_the_end_of_the_instance(tmp_path: Path) -> None:
    """Its agent may be frozen: only when the stop is confirmed does another worker get the build. `latent why` says so."""
    with controller(tmp_path, a := obliging("a", **TIMES), b := obliging("b")) as harness:
        made_controls(a).auto_stop = None
        build, _ = fallen_silent(harness)
        assert "it may still be running on a#1, and waits for the end of that" in harness.why(build)
        harness.advance(101)
        assert a.controls.stopping
        assert not b.controls.starts
        a.controls.stop_answers()
        harness.advance(0)
        assert len(a.controls.starts) + len(b.controls.starts) == 2
        assert "may still be running" not in harness.why(build)


def test_others_do_not_wait_for_it(tmp_path: Path) -> None:
    """Builds that came later go on."""
    with controller(tmp_path, obliging("a", **TIMES), obliging("b")) as harness:
        build, _ = fallen_silent(harness)
        later = harness.submit()
        harness.agent("b").attach().work()
        assert harness.result(later) is Result.SUCCESS
        assert harness.state(build) is BuildState.QUEUED


def test_it_goes_on_at_once_where_its_agent_asks_for_work(tmp_path: Path) -> None:
    """Who comes back and has nothing to do has ended what it lost."""
    with controller(tmp_path, a := obliging("a", **TIMES), obliging("b")) as harness:
        build, agent = fallen_silent(harness)
        agent.come_back()
        harness.advance(DROPPED / 2)
        assert harness.state(build) is BuildState.QUEUED
        asking = agent.ask()
        harness.advance(2)
        assert asking.called
        assert harness.state(build) is BuildState.STARTING
        assert len(a.controls.starts) == 1


def test_an_agent_that_is_heard_again_and_asks_for_nothing_has_its_time(tmp_path: Path) -> None:
    """It may take several builds at once, so that its asking says nothing of the one that it lost."""
    with controller(tmp_path, obliging("a", **TIMES), obliging("b")) as harness:
        build, agent = fallen_silent(harness)
        agent.come_back()
        harness.advance(DROPPED / 2)
        agent.come_back()
        harness.advance(DROPPED / 2 + 5)
        assert harness.state(build) is BuildState.STARTING


def test_a_stop_that_fails_is_no_end(tmp_path: Path) -> None:
    """The reaper's is: when the provider has confirmed that the instance is gone."""
    with controller(tmp_path, a := obliging("a", **TIMES), b := obliging("b")) as harness:
        made_controls(a).auto_stop = RuntimeError("the API is away")
        made_controls(a).instead["destroy_instance"] = _fails
        build, _ = fallen_silent(harness)
        harness.advance(150)
        assert harness.health("attempt a#1")
        assert not b.controls.starts
        assert harness.state(build) is BuildState.QUEUED
        a.controls.instead.clear()
        harness.advance(700)
        assert not harness.health("attempt a#1")
        assert len(a.controls.starts) + len(b.controls.starts) >= 2
        a.controls.auto_stop = True


def test_where_nobody_can_ever_tell_it_does_not_wait_for_ever(tmp_path: Path) -> None:
    """A plugin that can't destroy its instances, once its stop has failed."""
    bare = BareLatentWorker("a", controls=made_controls(obliging("a")), **TIMES)
    with ControllerHarness(tmp_path, [bare, b := obliging("b")]) as harness:
        bare.controls.auto_stop = RuntimeError("the API is away")
        build, _ = fallen_silent(harness)
        harness.advance(150)
        assert harness.state(build) is BuildState.STARTING
        assert len(bare.controls.starts) + len(b.controls.starts) == 2
        bare.controls.auto_stop = True


def test_the_next_controller_knows(tmp_path: Path) -> None:
    """It follows from what is on disk."""
    with controller(tmp_path, a := obliging("a", **TIMES), b := obliging("b")) as harness:
        build, _ = fallen_silent(harness)
        harness.restart()
        harness.advance(20)
        assert not b.controls.starts
        assert "it may still be running on a#1" in harness.why(build)
        harness.advance(200)
        assert len(a.controls.starts) + len(b.controls.starts) == 2
        harness.restart()
        harness.advance(5)
        assert "may still be running" not in harness.why(build)


def test_an_agent_that_says_that_it_leaves_has_ended_its_build(tmp_path: Path) -> None:
    """There is nothing to wait for."""
    with controller(tmp_path, obliging("a", **TIMES), obliging("b")) as harness:
        build = harness.submit()
        agent = harness.agent("a").attach()
        agent.take()
        agent.begin()
        agent.leave()
        assert harness.state(build) is BuildState.STARTING


def _fails() -> None:
    raise RuntimeError("still away")
