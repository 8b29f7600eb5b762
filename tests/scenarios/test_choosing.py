"""Which worker a build gets: compatible ones, those with room, those that are not left alone for a while."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latent.model import BuildState, Result
from latent.testing import ControllableLatentWorker, ControllerHarness, Controls
from latent.worker.properties import Properties
from tests.controller.kit import NEVER, controller, obliging, worker


class ImageWorker(ControllableLatentWorker):
    """Its instance is of the image that the build which it was started for wanted."""

    builds_may_be_incompatible = True

    def isCompatibleWithBuild(self, build_props: Properties) -> Any:
        started_for = self.controls.starts[-1].build if self.controls.starts else None
        return started_for is not None and started_for.getProperty("image") == build_props.getProperty("image")


def image_worker(name: str = "w", **kwargs: Any) -> ImageWorker:
    controls = Controls()
    controls.auto_start = controls.auto_stop = True
    return ImageWorker(name, controls=controls, **kwargs)


def wants(harness: ControllerHarness, image: str) -> int:
    return harness.submit(properties={"image": image})


def test_an_instance_of_the_wrong_kind_is_started_again_as_the_right_one(tmp_path: Path) -> None:
    """With build_wait_timeout 0 an instance that won't do for the next build goes, and the next is made for it. (32)"""
    with controller(tmp_path, w := image_worker(build_wait_timeout=0)) as harness:
        wants(harness, "old")
        agent = harness.agent("w").attach()
        build = wants(harness, "new")
        agent.work()
        assert w.controls.builds == [1, build]
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS


@pytest.mark.parametrize("timeout", [600, NEVER])
def test_an_idle_instance_of_the_wrong_kind_makes_no_build_wait(tmp_path: Path, timeout: int) -> None:
    """An idle instance that won't do is replaced at once if nothing else can serve the build. (33)

    The reference waits until the idle timer stops it, which with a negative build_wait_timeout is never.
    """
    with controller(tmp_path, w := image_worker(build_wait_timeout=timeout)) as harness:
        wants(harness, "old")
        harness.agent("w").attach().work()
        build = wants(harness, "new")
        assert w.controls.builds == [1, build]
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS


def test_an_idle_instance_of_the_wrong_kind_is_not_chosen_where_another_worker_serves(tmp_path: Path) -> None:
    """The build gets a worker without an instance, and the idle one stays for who can use it. (52)"""
    with controller(tmp_path, one := image_worker("one"), two := image_worker("two")) as harness:
        wants(harness, "old")
        harness.agent("one").attach().work()
        build = wants(harness, "new")
        assert two.controls.builds == [build]
        assert not one.controls.stops
        again = wants(harness, "old")
        assert harness.live_run(again).worker == "one"


def test_a_worker_takes_as_many_builds_as_max_builds_says(tmp_path: Path) -> None:
    """Three builds for a worker with max_builds=2: the third waits for one of the others to end. (46)"""
    with controller(tmp_path, w := obliging(max_builds=2)) as harness:
        builds = [harness.submit() for _ in range(3)]
        agent = harness.agent("w").attach(capacity=2)
        agent.take()
        agent.begin()
        assert [harness.state(build) for build in builds] == [BuildState.RUNNING, BuildState.STARTING, BuildState.QUEUED]
        assert "busy" in harness.why(builds[2])
        agent.finish()
        agent.work()
        agent.work()
        assert [harness.result(build) for build in builds] == [Result.SUCCESS] * 3
        assert len(w.controls.starts) == 1


def test_an_agent_gets_no_more_builds_than_it_says_it_can_take(tmp_path: Path) -> None:
    """max_builds allows two, the agent's capacity is one: the second build goes elsewhere."""
    with controller(tmp_path, obliging("one", max_builds=2), two := obliging("two")) as harness:
        harness.submit(workers=["one"])
        harness.agent("one").attach(capacity=1)
        build = harness.submit()
        assert two.controls.builds == [build]


def test_a_changed_declaration_holds_from_the_next_build_on(tmp_path: Path) -> None:
    """A worker that is reconfigured while it is idle serves on; what its instance is made from, only the next one has. (47)"""
    controls = Controls()
    controls.auto_start = controls.auto_stop = True
    with controller(tmp_path, w := worker(controls=controls)) as harness:
        harness.submit()
        agent = harness.agent("w").attach()
        agent.work()
        harness.reconfigure([worker(controls=controls, build_wait_timeout=5, max_builds=2)])
        build = harness.submit()
        agent.work()
        assert harness.result(build) is Result.SUCCESS
        assert len(controls.starts) == 1
        harness.advance(5)
        assert len(controls.stops) == 1
        assert harness.post("w").plugin is w


# --- back-off ---------------------------------------------------------------------------------------------------------------


def backs_off_for(harness: ControllerHarness) -> float:
    """Fail one more start of the only worker, and say for how long it is left alone."""
    controls = harness.post("w").plugin.controls  # type: ignore[attr-defined]  # it is a ControllableLatentWorker
    starts = len(controls.starts)
    build = harness.submit()
    assert len(controls.starts) == starts + 1
    harness.advance(0)
    harness.cancel(build)
    until = harness.status("w").quarantined_until
    assert until is not None
    seconds = until - harness.clock.seconds()
    harness.advance(seconds)
    return seconds


def test_the_back_off_doubles_from_10_seconds_to_an_hour(tmp_path: Path) -> None:
    """10, 20, ... 2560, and then 3600 s each time. (48)"""
    with controller(tmp_path, w := obliging()) as harness:
        w.controls.auto_start = False
        assert [backs_off_for(harness) for _ in range(11)] == [10 * 2**n for n in range(9)] + [3600, 3600]


def test_a_good_build_ends_the_doubling(tmp_path: Path) -> None:
    """After a build that its agent carried out, the next failure costs 10 s again. (49)"""
    with controller(tmp_path, w := obliging(build_wait_timeout=0)) as harness:
        w.controls.auto_start = False
        assert [backs_off_for(harness), backs_off_for(harness)] == [10, 20]
        w.controls.auto_start = True
        harness.submit()
        harness.agent("w").attach().work(Result.FAILURE)
        w.controls.auto_start = False
        assert backs_off_for(harness) == 10


def test_a_failure_during_the_back_off_does_not_extend_it(tmp_path: Path) -> None:
    """Two builds fail together: the worker is left alone for 10 s, and the next failure costs 20 s. (50)"""
    with controller(tmp_path, w := worker(max_builds=2)) as harness:
        w.controls.auto_stop = True
        harness.submit()
        w.controls.start_answers(False)
        harness.post("w").blame("and then this")
        assert harness.status("w").quarantined_until == harness.clock.seconds() + 10
        harness.advance(10)
        w.controls.start_answers(False)
        assert harness.status("w").quarantined_until == harness.clock.seconds() + 20


def test_unpausing_ends_the_back_off_but_not_the_doubling(tmp_path: Path) -> None:
    """An operator takes the worker back: it is used at once, and its next failure costs 20 s. (51)"""
    with controller(tmp_path, w := obliging()) as harness:
        w.controls.auto_start = False
        build = harness.submit()
        assert len(w.controls.starts) == 1
        harness.controller.pause("w", True)
        harness.advance(20)
        assert len(w.controls.starts) == 1
        assert harness.status("w").paused
        harness.cancel(build)
        harness.controller.pause("w", False)
        assert backs_off_for(harness) == 20


def test_unpausing_ends_a_back_off_at_once(tmp_path: Path) -> None:
    """The worker is not waited for until its back-off would have ended."""
    with controller(tmp_path, w := obliging()) as harness:
        w.controls.auto_start = False
        harness.submit()
        w.controls.auto_start = True
        harness.controller.pause("w", False)
        harness.advance(0)
        assert len(w.controls.starts) == 2


def test_a_paused_worker_takes_no_builds_and_ends_those_that_it_has(tmp_path: Path) -> None:
    """Pausing interrupts nothing."""
    with controller(tmp_path, obliging()) as harness:
        first = harness.submit()
        agent = harness.agent("w").attach()
        agent.take()
        agent.begin()
        harness.controller.pause("w", True)
        second = harness.submit()
        agent.finish()
        assert harness.result(first) is Result.SUCCESS
        assert harness.state(second) is BuildState.QUEUED
        assert "paused" in harness.why(second)
        harness.controller.pause("w", False)
        agent.work()
        assert harness.result(second) is Result.SUCCESS
