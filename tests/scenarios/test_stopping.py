"""Instances that stop: when they are idle, when their build is not wanted any more, when the controller shuts down."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from latent.errors import LatentWorkerFailedToSubstantiate
from latent.model import BuildState, Result, RunStatus
from latent.testing import ControllerHarness, SteppedAgent
from tests.controller.kit import NEVER, controller, insubstantiate, obliging, worker


def shut_down(harness: ControllerHarness) -> Deferred[None]:
    """What `latent stop --fast` does; fires when all is down."""
    return Deferred.fromCoroutine(harness.controller.stop(fast=True))


def test_a_shutdown_waits_for_the_stop_that_runs(tmp_path: Path) -> None:
    """The controller stops while stop_instance runs: it waits for the answer. (11)"""
    with controller(tmp_path, w := obliging(build_wait_timeout=1)) as harness:
        w.controls.auto_stop = None
        harness.submit()
        harness.agent("w").attach().work()
        harness.advance(1)
        down = shut_down(harness)
        assert not down.called
        w.controls.stop_answers()
        assert down.called
        assert harness.worker_state("w") == "SHUT_DOWN"


@pytest.mark.parametrize("what", ["the start fails", "the agent never comes", "the agent comes"])
def test_a_shutdown_waits_for_the_start_that_runs_and_then_stops(tmp_path: Path, what: str) -> None:
    """The controller stops while start_instance runs: it waits for its answer, and then for stop_instance. (12)"""
    with controller(tmp_path, w := worker()) as harness:
        build = harness.submit()
        agent = harness.agent("w")
        if what == "the agent comes":
            w.controls.instance_appears()
            agent.attach()
        down = shut_down(harness)
        assert not down.called
        assert not w.controls.stops
        w.controls.start_answers(LatentWorkerFailedToSubstantiate("no") if what == "the start fails" else True)
        assert w.controls.stopping
        assert w.controls.stops[-1].fast
        assert not down.called
        w.controls.stop_answers()
        assert down.called
        assert harness.state(build) is BuildState.QUEUED


def test_a_shutdown_without_haste_lets_builds_end(tmp_path: Path) -> None:
    """No build is interrupted by `latent stop`; instances are stopped when the last has ended."""
    with controller(tmp_path, w := obliging()) as harness:
        build = harness.submit()
        waiting = harness.submit()
        agent = harness.agent("w").attach()
        agent.take()
        agent.begin()
        down = Deferred.fromCoroutine(harness.controller.stop())
        assert not w.controls.stops
        agent.finish()
        assert down.called
        assert harness.result(build) is Result.SUCCESS
        assert harness.state(waiting) is BuildState.QUEUED
        assert len(w.controls.stops) == 1


def test_cancelling_the_build_gives_the_start_up_and_stops_the_instance(tmp_path: Path) -> None:
    """The build that the instance is for is cancelled: once the start has answered, the instance is stopped. (13)"""
    with controller(tmp_path, w := worker()) as harness:
        build = harness.submit()
        harness.cancel(build)
        assert harness.result(build) is Result.CANCELLED
        w.controls.start_answers()
        assert w.controls.stopping
        w.controls.stop_answers()
        assert harness.worker_state("w") == "NOT_SUBSTANTIATED"


@pytest.mark.parametrize(
    ("retry", "result", "starts"), [(False, Result.CANCELLED, 1), (True, None, 2)], ids=["for good (30)", "with retry (31)"]
)
def test_a_build_cancelled_while_it_waits_for_its_instance(
    tmp_path: Path, retry: bool, result: Result | None, starts: int
) -> None:
    """It ends as cancelled (30), or is tried again if that was asked for (31); either way the start is given up."""
    with controller(tmp_path, w := obliging()) as harness:
        build = harness.submit()
        harness.cancel(build, "somebody pressed the button", retry=retry)
        assert harness.result(build) is result
        assert harness.runs(build)[0].run.status is RunStatus.INTERRUPTED
        assert "somebody pressed the button" in harness.runs(build)[0].run.error_msg
        assert len(w.controls.stops) == 1
        assert len(w.controls.starts) == starts
        if retry:
            harness.agent("w").attach().work()
            assert harness.result(build) is Result.SUCCESS


def test_a_stop_that_fails_does_not_keep_the_next_build_waiting(tmp_path: Path) -> None:
    """stop_instance raises: the next build gets a new instance, and the one before is destroyed. (29)"""
    with controller(tmp_path, w := obliging(build_wait_timeout=1)) as harness:
        w.controls.auto_stop = RuntimeError("the API is away")
        harness.submit()
        harness.agent("w").attach().work()
        harness.advance(1)
        w.controls.auto_stop = True
        build = harness.submit()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
        assert w.controls.destroyed == [1]


def test_an_instance_that_waits_for_ever_is_stopped_at_shutdown(tmp_path: Path) -> None:
    """With a negative build_wait_timeout an idle instance stays, until the controller shuts down. (28)"""
    with controller(tmp_path, w := obliging(build_wait_timeout=NEVER)) as harness:
        harness.submit()
        harness.agent("w").attach().work()
        harness.advance(0)
        assert harness.worker_state("w") == "SUBSTANTIATED"
        assert not w.controls.stops
        assert shut_down(harness).called
        assert len(w.controls.stops) == 1


def test_an_instance_goes_at_once_or_after_its_time(tmp_path: Path) -> None:
    """build_wait_timeout 0 stops after the last build; above 0 that many seconds after it."""
    with controller(
        tmp_path, soon := obliging("soon", build_wait_timeout=0), late := obliging("late", build_wait_timeout=5)
    ) as harness:
        for name in ("soon", "late"):
            harness.submit(workers=[name])
            harness.agent(name).attach().work()
        assert len(soon.controls.stops) == 1
        harness.advance(4)
        assert not late.controls.stops
        harness.advance(1)
        assert len(late.controls.stops) == 1


def test_a_second_build_stops_the_idle_timer(tmp_path: Path) -> None:
    """An instance that builds is not stopped, however long ago its idle time began."""
    with controller(tmp_path, w := obliging(build_wait_timeout=5)) as harness:
        harness.submit()
        agent = harness.agent("w").attach()
        agent.work()
        harness.advance(4)
        harness.submit()
        agent.take()
        agent.begin()
        harness.advance(10)
        assert not w.controls.stops
        agent.finish()
        harness.advance(4)
        assert not w.controls.stops
        harness.advance(1)
        assert len(w.controls.stops) == 1


@pytest.mark.parametrize("when", ["during the start", "before it attached", "during the build", "during the stop"])
def test_a_new_configuration_during_an_attempt_changes_nothing_of_it(tmp_path: Path, when: str) -> None:
    """The password stays the same while an instance is up, and the instance is stopped in order. (14)"""
    controls = (w := worker(build_wait_timeout=1)).arguments[1]["controls"]
    with controller(tmp_path, w) as harness:
        build = harness.submit()
        before = w.getRandomPass()
        agent: SteppedAgent | None = None
        if when != "during the start":
            controls.start_answers()
        if when in ("during the build", "during the stop"):
            agent = harness.agent("w").attach()
            agent.take()
            agent.begin()
        if when == "during the stop":
            insubstantiate(harness)
        harness.reconfigure([worker(controls=controls, build_wait_timeout=2)])
        assert w.getRandomPass() == before
        if when == "during the start":
            controls.start_answers()
        if when == "during the stop":
            controls.stop_answers()
            harness.advance(0)  # the build was begun: only now nobody has it any more
            controls.start_answers()
            agent = None
        if agent is None:
            agent = harness.agent("w").attach()
            agent.take()
            agent.begin()
        agent.finish()
        assert harness.result(build) is Result.SUCCESS
        harness.advance(1)
        assert not controls.stopping
        harness.advance(1)
        assert controls.stopping
        controls.stop_answers()
        assert harness.worker_state("w") == "NOT_SUBSTANTIATED"
