"""Ten defects that the reference implementation has (`specs/latent-worker.md`), and that the shell must not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from latent import plugins
from latent.core import events as ev
from latent.core.states import NotSubstantiated, Policy, Substantiating
from latent.errors import EnrolmentRefused
from latent.model import BuildState, Result
from latent.worker.base import AbstractLatentWorker, AbstractWorker
from tests.controller.kit import NEVER, controller, insubstantiate, made_controls, obliging, substantiate, worker


def test_what_was_given_up_during_a_stop_is_not_started_after_it(tmp_path: Path) -> None:
    """Wanted, given up, wanted and given up again while stop_instance runs: nothing is started that nobody wants. (defect 1)"""
    with controller(tmp_path, w := obliging(build_wait_timeout=1)) as harness:
        w.controls.auto_stop = None
        harness.submit()
        harness.agent("w").attach().work()
        harness.advance(1)
        build = harness.submit()
        insubstantiate(harness)
        assert harness.worker_state("w") == "INSUBSTANTIATING_SUBSTANTIATING"
        harness.cancel(build)
        w.controls.stop_answers()
        harness.advance(0)
        assert harness.worker_state("w") == "NOT_SUBSTANTIATED"
        assert len(w.controls.starts) == 1


def test_an_instance_that_nobody_uses_has_an_idle_timer(tmp_path: Path) -> None:
    """However it came up, an instance without builds goes by itself. (defect 1)"""
    with controller(tmp_path, w := obliging(build_wait_timeout=1)) as harness:
        w.controls.auto_stop = None
        harness.submit()
        harness.agent("w").attach().work()
        harness.advance(1)
        substantiate(harness)
        insubstantiate(harness)
        substantiate(harness)
        w.controls.stop_answers()
        assert len(w.controls.starts) == 2
        harness.agent("w").attach()
        harness.advance(1)
        assert w.controls.stopping
        w.controls.stop_answers()


@pytest.mark.parametrize("deaf", [False, True], ids=["can be cancelled", "takes no notice"])
def test_a_hung_start_does_not_hold_the_next_build(tmp_path: Path, deaf: bool) -> None:
    """start_instance never answers: its build moves to another worker, and the worker serves again later. (defect 2)"""
    with controller(tmp_path, w := worker("hung", start_timeout=20), other := obliging("other")) as harness:
        w.controls.deaf = deaf
        w.controls.auto_stop = True
        blocker = harness.submit(workers=["other"])
        build = harness.submit()
        hung = w.controls.starts[0]
        harness.cancel(blocker)
        harness.advance(20)
        assert other.controls.builds == [blocker, build]
        harness.agent("other").attach().work()
        assert harness.result(build) is Result.SUCCESS
        harness.advance(60)
        w.controls.deaf = False
        again = harness.submit(workers=["hung"])
        assert w.controls.builds == [build, again]
        w.controls.start_answers()
        harness.agent("hung").attach().work()
        assert harness.result(again) is Result.SUCCESS
        if deaf:
            w.controls.instances.add(1)
            hung.answer.callback(True)
            harness.advance(0)
            assert w.controls.destroyed == [1], "what the late start made is destroyed"
            w.controls.overlapped = False  # with the call that was given up, and with no other


@pytest.mark.parametrize("timeout", [NEVER, 600])
def test_the_missing_timer_never_interrupts_a_build(tmp_path: Path, timeout: int) -> None:
    """An agent that was there already, or came back, may build for longer than missing_timeout. (defect 3)"""
    with controller(tmp_path, w := obliging(build_wait_timeout=timeout, missing_timeout=30)) as harness:
        harness.submit()
        agent = harness.agent("w").attach()
        agent.work()
        agent.leave()
        agent.come_back()
        build = harness.submit()
        agent.take()
        agent.begin()
        for _ in range(10):
            harness.advance(30)
            agent.renew()
        agent.finish()
        assert harness.result(build) is Result.SUCCESS
        assert len(w.controls.starts) == 1


def test_a_failed_stop_is_not_forgotten(tmp_path: Path) -> None:
    """stop_instance fails: the instance is destroyed, again and again until its provider confirms that it is gone. (defect 4)"""
    with controller(tmp_path, w := obliging(build_wait_timeout=0)) as harness:
        w.controls.auto_stop = RuntimeError("the API is away")
        w.controls.instead["destroy_instance"] = lambda: 1 / 0
        harness.submit()
        harness.agent("w").attach().work()
        harness.advance(10)
        assert w.controls.destroyed == [1, 1]
        assert "division by zero" in harness.health("attempt w#1")[0].message
        del w.controls.instead["destroy_instance"]
        harness.advance(20)
        assert not w.controls.instances
        assert not harness.health("attempt w#1")


def test_a_worker_that_was_paused_can_be_used_again(tmp_path: Path) -> None:
    """To ask a worker to take no more builds, gracefully, can be taken back. (defect 5)"""
    with controller(tmp_path, obliging()) as harness:
        harness.controller.pause("w", True)
        build = harness.submit()
        assert harness.state(build) is BuildState.QUEUED
        harness.controller.pause("w", False)
        harness.advance(0)
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS


@pytest.mark.parametrize("comes_back", [True, False])
def test_an_idle_agent_that_drops_its_connection_may_come_back_or_its_instance_goes(tmp_path: Path, comes_back: bool) -> None:
    """It is not refused while its instance is up, and an instance whose agent stays away does not linger. (defect 6)"""
    with controller(tmp_path, w := obliging(build_wait_timeout=600, reattach_timeout=60)) as harness:
        harness.submit()
        agent = harness.agent("w").attach()
        agent.work()
        agent.leave()
        if comes_back:
            agent.come_back()
        harness.advance(61)
        assert len(w.controls.stops) == (0 if comes_back else 1)


def test_a_stale_agent_is_refused_and_gets_no_build(tmp_path: Path) -> None:
    """The agent of an attempt that is over attaches neither to the next start nor takes its build. (defect 7)"""
    with controller(tmp_path, w := obliging(build_wait_timeout=0)) as harness:
        harness.submit()
        slow = harness.agent("w").enrol()
        insubstantiate(harness)
        assert len(w.controls.starts) == 2
        build = harness.live_run(1).build.id
        with pytest.raises(EnrolmentRefused, match="attempt 2 is expected"):
            slow.attach()
        agent = harness.agent("w").attach()
        assert agent.take().build_id == build
        agent.begin()
        agent.finish()
        assert not slow.leases


def test_a_stale_agent_does_not_displace_the_one_that_is_attached(tmp_path: Path) -> None:
    """It is refused when the next agent is there, too, and that one goes on taking builds. (defect 7)"""
    with controller(tmp_path, obliging()) as harness:
        harness.submit()
        slow = harness.agent("w").enrol()
        insubstantiate(harness)
        agent = harness.agent("w").attach()
        agent.work()
        with pytest.raises(EnrolmentRefused, match="attempt 2 is up"):
            slow.attach()
        build = harness.submit()
        agent.work()
        assert harness.result(build) is Result.SUCCESS
        assert len(harness.runs(build)) == 1


def test_the_missing_timer_of_a_start_that_was_given_up_is_given_up_too(tmp_path: Path) -> None:
    """A start is given up after 20 of its 30 s; the next one has 30 s of its own. (defect 8)"""
    with controller(tmp_path, w := obliging(missing_timeout=30)) as harness:
        harness.cancel(harness.submit())
        harness.advance(20)
        harness.cancel(harness.submit())
        build = harness.submit()
        harness.advance(29)
        assert harness.state(build) is BuildState.STARTING
        assert harness.worker_state("w") == "SUBSTANTIATING_STARTING"
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
        assert w.controls.builds == [1, 2, build]


def test_every_worker_class_that_is_offered_can_be_constructed() -> None:
    """A name, a password and what the class itself requires are enough, and make a worker with a policy. (defect 9)"""
    required = {
        "DockerLatentWorker": {"image": "debian:12"},
        "EC2LatentWorker": {"instance_type": "m7i.large", "ami": "ami-1", "region": "eu-west-1"},
    }
    offered = [getattr(plugins.worker, name) for name in dir(plugins.worker) if not name.startswith("_")]
    assert offered
    for cls in offered:
        made = cls("w", "secret", **required.get(cls.__name__, {}))
        assert isinstance(made, AbstractWorker)
        assert made.name == "w"
        assert not isinstance(made, AbstractLatentWorker) or made.policy().start_timeout > 0


def test_after_the_machine_has_started_it_is_looked_again_whether_the_instance_is_wanted(tmp_path: Path) -> None:
    """The build is given up while the worker's machine starts: start_instance is not called. (defect 10)"""
    with controller(tmp_path, w := obliging()) as harness:
        post = harness.post("w")
        policy = Policy(has_machine=True)
        post.state = Substantiating(policy=policy, attempt=1, waiters=("7",), missing_deadline=harness.clock.seconds() + 30)
        post.apply(ev.GiveUp("7"))
        post.apply(ev.MachineStarted(1))
        assert isinstance(post.state, NotSubstantiated)
        assert not made_controls(w).starts
