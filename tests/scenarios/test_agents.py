"""Agents that do not come, go away, or come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from latent.errors import EnrolmentRefused
from latent.model import BuildState, Result, RunStatus
from tests.controller.kit import NEVER, controller, insubstantiate, obliging


def test_an_agent_that_never_comes_is_given_up_after_missing_timeout(tmp_path: Path) -> None:
    """Nobody attaches in missing_timeout: the build is tried again, health says whom to tell. (16)"""
    with controller(tmp_path, w := obliging(missing_timeout=30, notify_on_missing=["ops@example.org"])) as harness:
        build = harness.submit()
        harness.advance(30)
        assert harness.state(build) is BuildState.QUEUED
        assert "did not attach in 30 s" in harness.build(build).reason
        assert any("ops@example.org" in item.message for item in harness.health("worker w"))
        harness.advance(10)
        assert len(w.controls.starts) == 2
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
        assert not harness.health()


@pytest.mark.parametrize("verdict", [(False, "its host is gone"), RuntimeError("its host is gone")], ids=["not good", "raises"])
def test_an_instance_that_is_not_good_before_its_agent_came_is_given_up(tmp_path: Path, verdict: object) -> None:
    """check_instance says no, or raises, while the agent is waited for: the build is tried again, its user is told why. (17)"""
    with controller(tmp_path, w := obliging(check_instance_interval=10)) as harness:
        build = harness.submit()
        w.controls.good = verdict
        harness.advance(10)
        assert "its host is gone" in harness.runs(build)[0].run.error_msg
        w.controls.good = (True, "")
        harness.advance(10)
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
        assert len(w.controls.starts) == 2


def test_a_connection_cut_before_the_build_began_backs_the_worker_off(tmp_path: Path) -> None:
    """The connection is cut before the agent took its build: retry, back-off, a new start, success. (18)"""
    with controller(tmp_path, w := obliging()) as harness:
        build = harness.submit()
        agent = harness.agent("w").attach()
        agent.leave("its connection was cut")
        assert harness.state(build) is BuildState.QUEUED
        assert "its connection was cut" in harness.status("w").reason
        harness.advance(10)
        assert len(w.controls.starts) == 2
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS


def test_an_agent_whose_attaching_fails_is_waited_for_no_longer_than_missing_timeout(tmp_path: Path) -> None:
    """The agent enrols, and its connection is cut before it could say what it is: the build is tried again. (19)"""
    with controller(tmp_path, w := obliging(missing_timeout=30)) as harness:
        build = harness.submit()
        harness.agent("w").enrol().leave("its connection was cut")
        assert harness.state(build) is BuildState.STARTING
        harness.advance(40)
        assert len(w.controls.starts) == 2
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS


def test_an_agent_that_does_not_take_its_build_loses_it(tmp_path: Path) -> None:
    """An agent that attached but does not answer: its lease lapses, the build is tried elsewhere, the worker backs off. (20)

    The reference pings the agent before it builds; with us, to take the lease is the answer.
    """
    with controller(tmp_path, obliging("deaf"), obliging("good")) as harness:
        deaf = harness.submit(workers=["deaf"])
        harness.agent("deaf").attach()
        either = harness.submit()
        harness.agent("good").attach().work()
        assert harness.result(either) is Result.SUCCESS
        for _ in range(12):
            harness.advance(5)
            harness.controller.sessions.touch(harness.controller.sessions.get(1))
        assert harness.state(deaf) is BuildState.QUEUED
        assert "did not take" in harness.status("deaf").reason


def test_an_agent_that_closes_its_connection_while_building_is_replaced(tmp_path: Path) -> None:
    """The build is tried again, and the next instance succeeds. (21)"""
    with controller(tmp_path, w := obliging()) as harness:
        build = harness.submit()
        agent = harness.agent("w").attach()
        agent.take()
        agent.begin()
        agent.leave("its connection was closed")
        assert harness.runs(build)[0].run.status is RunStatus.INTERRUPTED
        assert len(w.controls.starts) == 2
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
        assert harness.build(build).attempts == 2


@pytest.mark.parametrize("timeout", [NEVER, 600])
def test_an_agent_may_drop_its_connection_and_return(tmp_path: Path, timeout: int) -> None:
    """An idle agent that comes back in time serves the next build; nothing was stopped or started. (22)

    The reference allows that with a negative build_wait_timeout only; with us an agent has reattach_timeout to come back.
    """
    with controller(tmp_path, w := obliging(build_wait_timeout=timeout, reattach_timeout=60)) as harness:
        harness.submit()
        agent = harness.agent("w").attach()
        agent.work()
        agent.leave()
        assert harness.worker_state("w") == "SUBSTANTIATED"
        harness.advance(59)
        agent.come_back()
        build = harness.submit()
        agent.work()
        assert harness.result(build) is Result.SUCCESS
        harness.advance(60)
        assert len(w.controls.starts) == 1


def test_an_agent_that_falls_silent_while_building_is_noticed(tmp_path: Path) -> None:
    """Nothing is heard of it, and nobody closed its connection: after session_timeout its build is tried again. (23)"""
    with controller(tmp_path, w := obliging()) as harness:
        build = harness.submit()
        agent = harness.agent("w").attach()
        agent.take()
        agent.begin()
        harness.advance(62)
        assert harness.runs(build)[0].run.status is RunStatus.INTERRUPTED
        assert len(w.controls.starts) == 2
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS


def test_a_connection_lost_during_the_stop_does_no_harm(tmp_path: Path) -> None:
    """The agent goes away while its instance is stopped: the worker is as good as before. (24)"""
    with controller(tmp_path, w := obliging(build_wait_timeout=1)) as harness:
        w.controls.auto_stop = None
        harness.submit()
        agent = harness.agent("w").attach()
        agent.work()
        harness.advance(1)
        agent.leave("its connection was cut")
        w.controls.stop_answers()
        assert harness.worker_state("w") == "NOT_SUBSTANTIATED"
        build = harness.submit()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS


def test_a_connection_lost_during_the_stop_does_not_lose_the_build_that_waits(tmp_path: Path) -> None:
    """The same, with a build that waits for the stop: it gets the next instance. (25)"""
    with controller(tmp_path, w := obliging(build_wait_timeout=1)) as harness:
        w.controls.auto_stop = None
        harness.submit()
        agent = harness.agent("w").attach()
        agent.work()
        harness.advance(1)
        build = harness.submit()
        agent.leave("its connection was cut")
        assert harness.state(build) is BuildState.STARTING
        w.controls.stop_answers()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS


def test_an_agent_that_comes_back_during_the_stop_does_not_disturb_it(tmp_path: Path) -> None:
    """It is refused, and the stop goes on. (26)"""
    with controller(tmp_path, w := obliging(build_wait_timeout=NEVER)) as harness:
        w.controls.auto_stop = None
        harness.submit()
        agent = harness.agent("w").attach()
        agent.work()
        insubstantiate(harness)
        with pytest.raises(EnrolmentRefused, match="being stopped"):
            agent.come_back()
        assert harness.worker_state("w") == "INSUBSTANTIATING"
        w.controls.stop_answers()
        assert harness.worker_state("w") == "NOT_SUBSTANTIATED"


def test_the_agent_of_a_stopped_instance_is_no_agent_of_the_next(tmp_path: Path) -> None:
    """The instance is stopped and another one started while the old agent still runs: only the new one gets builds. (27)

    With the reference the old one is simply the worker's agent again; with us it belongs to an attempt that is over.
    """
    with controller(tmp_path, obliging(build_wait_timeout=0)) as harness:
        harness.submit()
        old = harness.agent("w").attach()
        old.work()
        build = harness.submit()
        with pytest.raises(EnrolmentRefused):
            old.come_back()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
        assert old.leases == [1]


def test_only_one_session_of_an_attempt_is_opened(tmp_path: Path) -> None:
    """A second agent with the same token is refused, and the first goes on. (With the reference, the first is cut off.)"""
    with controller(tmp_path, obliging()) as harness:
        build = harness.submit()
        agent = harness.agent("w").attach()
        with pytest.raises(EnrolmentRefused, match="used already"):
            harness.agent("w").attach()
        agent.work()
        assert harness.result(build) is Result.SUCCESS
