"""Instances that start, fail to start, and are started again."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from latent.config.settings import Limits
from latent.errors import EnrolmentRefused, LatentWorkerCannotSubstantiate, LatentWorkerFailedToSubstantiate
from latent.model import BuildState, Result
from tests.controller.kit import controller, insubstantiate, obliging, substantiate, worker


def test_two_workers_start_in_parallel(tmp_path: Path) -> None:
    """Two builds for two workers: both instances are starting at the same time. (1)"""
    with controller(tmp_path, one := worker("one"), two := worker("two")) as harness:
        first, second = harness.submit(workers=["one"]), harness.submit(workers=["two"])
        assert one.controls.starting
        assert two.controls.starting
        one.controls.start_answers()
        two.controls.start_answers()
        harness.agent("two").attach().work()
        harness.agent("one").attach().work()
        assert harness.result(first) is harness.result(second) is Result.SUCCESS


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(False, "answered False", id="false"),
        pytest.param(LatentWorkerFailedToSubstantiate("no capacity"), "no capacity", id="failed"),
        pytest.param(KeyError(), "KeyError", id="any error"),
    ],
)
def test_a_build_whose_start_failed_is_queued_again(tmp_path: Path, answer: object, reason: str) -> None:
    """start_instance answers False (2) or raises (3): the build is tried again, and what was begun is stopped."""
    with controller(tmp_path, w := worker()) as harness:
        w.controls.auto_stop = True
        build = harness.submit()
        w.controls.start_answers(answer)
        harness.advance(0)
        assert harness.state(build) is BuildState.QUEUED
        assert reason in harness.status("w").reason
        assert [call.attempt for call in w.controls.stops] == [1]
        harness.advance(10)
        w.controls.start_answers()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
        assert len(harness.runs(build)) == 2


def test_a_build_that_can_not_be_substantiated_ends_as_an_exception(tmp_path: Path) -> None:
    """LatentWorkerCannotSubstantiate ends the build with the plugin's words, and the worker is not blamed. (4)"""
    with controller(tmp_path, w := worker()) as harness:
        w.controls.auto_stop = True
        build = harness.submit()
        w.controls.start_answers(LatentWorkerCannotSubstantiate("there is no image called trustee"))
        harness.advance(0)
        assert harness.result(build) is Result.EXCEPTION
        assert "there is no image called trustee" in harness.why(build)
        harness.submit()
        assert w.controls.starting
        assert len(w.controls.starts) == 2


def test_only_the_build_that_the_instance_was_for_is_at_fault(tmp_path: Path) -> None:
    """LatentWorkerCannotSubstantiate ends the build whose properties were asked for; one that joined the start is tried again."""
    with controller(tmp_path, w := worker(max_builds=2)) as harness:
        w.controls.auto_stop = True
        bad, good = harness.submit(), harness.submit()
        w.controls.start_answers(LatentWorkerCannotSubstantiate("no such image"))
        harness.advance(0)
        assert harness.result(bad) is Result.EXCEPTION
        assert w.controls.builds == [bad, good]


def test_a_worker_accepts_builds_again_10_and_then_20_seconds_after_a_failure(tmp_path: Path) -> None:
    """The first failure is forgiven after 10 s, the next after 20 s. (5)"""
    with controller(tmp_path, w := worker()) as harness:
        w.controls.auto_stop = True
        harness.submit()
        for starts, wait in ((1, 10), (2, 20)):
            w.controls.start_answers(False)
            harness.advance(wait - 1)
            assert len(w.controls.starts) == starts
            harness.advance(1)
            assert len(w.controls.starts) == starts + 1


def test_one_start_serves_two_builds(tmp_path: Path) -> None:
    """Builds of two builders that want the same worker at the same time get one instance. (6)"""
    with controller(tmp_path, w := worker(max_builds=2)) as harness:
        builds = [harness.submit(), harness.submit()]
        assert len(w.controls.starts) == 1
        w.controls.start_answers()
        agent = harness.agent("w").attach(capacity=2)
        for _ in builds:
            agent.work()
        assert [harness.result(build) for build in builds] == [Result.SUCCESS] * 2
        assert len(w.controls.starts) == 1


def test_an_old_agent_that_detaches_during_the_next_start_changes_nothing(tmp_path: Path) -> None:
    """The agent of the instance before lets go only while the next one starts: the build of that one succeeds. (7)

    With us its session ends when its instance is stopped; what it does after that is refused.
    """
    with controller(tmp_path, w := obliging(build_wait_timeout=1)) as harness:
        harness.submit()
        old = harness.agent("w").attach()
        old.work()
        harness.advance(1)
        assert old.closed
        w.controls.auto_start = None
        build = harness.submit()
        assert w.controls.starting
        old.leave()
        with pytest.raises(EnrolmentRefused):
            old.come_back()
        w.controls.start_answers()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS


def test_a_build_asked_for_during_a_stop_runs_after_it(tmp_path: Path) -> None:
    """A request during stop_instance waits for the stop and gets the next instance. (8)"""
    with controller(tmp_path, w := obliging(build_wait_timeout=1)) as harness:
        w.controls.auto_stop = None
        harness.submit()
        harness.agent("w").attach().work()
        harness.advance(1)
        assert w.controls.stopping
        build = harness.submit()
        assert harness.worker_state("w") == "INSUBSTANTIATING_SUBSTANTIATING"
        assert len(w.controls.starts) == 1
        w.controls.stop_answers()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS


def test_a_build_that_is_scheduled_only_when_the_stop_is_over_runs_too(tmp_path: Path) -> None:
    """The same, but the scheduler looks at the request only after the stop has answered. (9)"""
    with controller(tmp_path, w := obliging(build_wait_timeout=1)) as harness:
        w.controls.auto_stop = None
        harness.submit()
        harness.agent("w").attach().work()
        harness.advance(1)
        harness.scheduling = False
        build = harness.submit()
        w.controls.stop_answers()
        assert harness.worker_state("w") == "NOT_SUBSTANTIATED"
        harness.scheduling = True
        harness.advance(0)
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS


def test_insubstantiating_during_a_start_retries_the_build_after_a_full_cycle(tmp_path: Path) -> None:
    """The start that runs is waited for and stopped before the build's next instance is started. (10)"""
    with controller(tmp_path, w := worker()) as harness:
        build = harness.submit()
        insubstantiate(harness)
        assert harness.worker_state("w") == "INSUBSTANTIATING_SUBSTANTIATING"
        assert len(w.controls.starts) == 1
        w.controls.start_answers()
        assert w.controls.stopping
        assert len(w.controls.starts) == 1
        w.controls.stop_answers()
        assert len(w.controls.starts) == 2
        w.controls.start_answers()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS


def test_a_start_that_waits_for_a_stop_can_be_given_up(tmp_path: Path) -> None:
    """Insubstantiating a worker whose build waits for a stop retries the build, once the stop is over. (15)"""
    with controller(tmp_path, w := obliging(build_wait_timeout=1)) as harness:
        w.controls.auto_stop = None
        harness.submit()
        harness.agent("w").attach().work()
        harness.advance(1)
        build = harness.submit()
        assert harness.worker_state("w") == "INSUBSTANTIATING_SUBSTANTIATING"
        insubstantiate(harness)
        assert len(harness.runs(build)) == 2
        w.controls.stop_answers()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
        assert len(w.controls.starts) == 2


def test_an_instance_can_be_had_without_a_build(tmp_path: Path) -> None:
    """A worker can be substantiated for nobody; without builds it goes when it has been idle for long enough. (34)"""
    with controller(tmp_path, w := obliging(build_wait_timeout=30)) as harness:
        substantiate(harness)
        assert w.controls.builds == [None]
        harness.agent("w").attach()
        assert harness.worker_state("w") == "SUBSTANTIATED"
        harness.advance(30)
        assert harness.worker_state("w") == "NOT_SUBSTANTIATED"


@pytest.mark.parametrize("attached", [True, False], ids=["after it attached", "while it starts"])
def test_a_build_that_comes_later_gets_the_instance_that_is_there(tmp_path: Path, attached: bool) -> None:
    """An instance that was started for nobody serves the next build. (35)"""
    with controller(tmp_path, w := obliging()) as harness:
        substantiate(harness)
        agent = harness.agent("w")
        if attached:
            agent.attach()
        build = harness.submit()
        if not attached:
            agent.attach()
        agent.work()
        assert harness.result(build) is Result.SUCCESS
        assert len(w.controls.starts) == 1


@pytest.mark.parametrize("limits", [Limits(max_instances=1), Limits(max_starting=1)], ids=["instances", "starting"])
def test_a_claim_that_is_on_its_way_to_the_disk_counts(tmp_path: Path, limits: Limits) -> None:
    """A build that comes while another's claim is being written starts no instance beyond the limit."""
    disk = 0.1
    with controller(tmp_path, obliging("a"), obliging("b"), disk_seconds=disk, limits=limits) as harness:
        for _ in range(2):
            Deferred.fromCoroutine(harness.controller.submit(harness.request()))
            harness.advance(disk / 2)
        harness.advance(2)
        assert [harness.worker_state(name) for name in "ab"] == ["SUBSTANTIATING_STARTING", "NOT_SUBSTANTIATED"]
        assert "the limit max_" in harness.why(2)


def test_an_agent_may_attach_before_start_instance_answers(tmp_path: Path) -> None:
    """The build runs as soon as its agent is there, whatever start_instance still does. (promise 6)"""
    with controller(tmp_path, w := worker()) as harness:
        build = harness.submit()
        w.controls.instance_appears()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
        assert w.controls.starting
        w.controls.start_answers()
        assert harness.worker_state("w") == "SUBSTANTIATED"
