"""What agents are given, what they say of it, and when a build is tried again."""

from __future__ import annotations

from pathlib import Path

import pytest

from latent.errors import NotYourRun
from latent.model import Outcome, Result, StepState, StepStatus
from latent.testing import answer
from latent.worker.base import Worker
from tests.controller.kit import attached, building, controller, obliging, worker

# --- getting work -----------------------------------------------------------------------------------------------------------


def test_an_agent_that_asks_early_is_answered_when_there_is_work(tmp_path: Path) -> None:
    """The call waits; the lease says all that the agent needs."""
    with controller(tmp_path, Worker("w", "secret")) as harness:
        agent = harness.plain_agent("secret").attach()
        asking = agent.ask()
        assert not asking.called
        build = harness.submit(properties={"branch": "main"}, labels={"worker": "w"}, timeout=60)
        lease = answer(asking)
        assert (lease.build_id, lease.worker, lease.timeout, lease.builder) == (build, "w", 60, "test")
        assert lease.properties == {"branch": "main"}
        assert lease.labels == {"worker": "w"}
        assert [(uuid, step.command) for uuid, step in lease.steps] == [(f"{lease.run_id}.0", "true")]
        agent.take()
        agent.begin()
        agent.finish()


def test_a_call_that_is_cancelled_takes_nothing(tmp_path: Path) -> None:
    """Its client hung up: the lease goes to the next call."""
    with controller(tmp_path, Worker("w", "secret")) as harness:
        agent = harness.plain_agent("secret").attach()
        agent.ask().cancel()
        build = harness.submit()
        agent.work()
        assert harness.result(build) is Result.SUCCESS
        assert len(harness.runs(build)) == 1


def test_a_lease_whose_answer_was_lost_is_given_again(tmp_path: Path) -> None:
    """The agent asks again without having begun: it did not get the answer."""
    with controller(tmp_path, obliging()) as harness:
        build, agent = attached(harness)
        first = agent.take()
        assert agent.take() == first
        agent.begin()
        assert not agent.ask().called
        agent.finish()
        assert harness.result(build) is Result.SUCCESS


def test_a_build_that_was_meant_for_one_attempt_may_be_carried_out_by_the_next(tmp_path: Path) -> None:
    """The start that it was to join fails while its claim is on its way to the disk: the next attempt's agent may have it."""
    with controller(tmp_path, w := worker(max_builds=2), disk_seconds=0.5) as harness:
        harness.submit()
        harness.advance(2)
        build = harness.submit()
        w.controls.start_answers(False)
        harness.advance(2)
        w.controls.stop_answers()
        harness.advance(2)
        assert w.controls.builds == [1, build]
        w.controls.start_answers()
        harness.agent("w").attach().work()
        assert harness.result(build) is Result.SUCCESS
        assert len(harness.runs(build)) == 1


def test_an_agent_with_room_for_two_is_given_two_different_leases(tmp_path: Path) -> None:
    """There a second call is not taken for a repetition."""
    with controller(tmp_path, obliging(max_builds=2)) as harness:
        builds = [harness.submit(), harness.submit()]
        agent = harness.agent("w").attach(capacity=2)
        agent.take()
        agent.take()
        assert agent.leases == builds


# --- whose run it is --------------------------------------------------------------------------------------------------------


def test_nobody_but_the_holder_may_speak_of_a_run(tmp_path: Path) -> None:
    """Another worker's agent is refused everything, and the run goes on."""
    with controller(tmp_path, obliging("a"), obliging("b")) as harness:
        build, mine = building(harness, "a")
        _, other = building(harness, "b")
        dispatcher, run_id = harness.controller.dispatcher, mine.lease.run_id
        foreign = harness.controller.sessions.get(other.session_id)
        now = harness.clock.seconds()
        step = StepState(uuid=f"{run_id}.0", status=StepStatus.SUCCESS)
        with pytest.raises(NotYourRun):
            answer(dispatcher.activate(foreign, run_id, now))
        with pytest.raises(NotYourRun):
            dispatcher.renew(foreign, run_id)
        with pytest.raises(NotYourRun):
            answer(dispatcher.step_changed(foreign, run_id, step))
        with pytest.raises(NotYourRun):
            answer(dispatcher.logged(foreign, run_id, []))
        with pytest.raises(NotYourRun):
            answer(dispatcher.finished(foreign, run_id, Outcome(result=Result.FAILURE), now))
        with pytest.raises(NotYourRun):
            answer(dispatcher.cancelled(foreign, run_id))
        mine.finish()
        assert harness.result(build) is Result.SUCCESS


def test_a_run_that_never_was_is_nobodys(tmp_path: Path) -> None:
    """All is refused but Wait, which answers that there is nothing to wait for."""
    with controller(tmp_path, obliging()) as harness:
        _, agent = building(harness)
        session, dispatcher = harness.controller.sessions.get(agent.session_id), harness.controller.dispatcher
        with pytest.raises(NotYourRun):
            dispatcher.renew(session, 99)
        with pytest.raises(NotYourRun):
            answer(dispatcher.finished(session, 99, Outcome(result=Result.SUCCESS), 0.0))
        assert answer(dispatcher.cancelled(session, 99)) is False
        assert dispatcher.run_of_step(session, "99.0") == 99
        assert dispatcher.run_of_step(session, "nonsense") is None
        agent.finish()


def test_an_agent_whose_lease_lapsed_is_refused_what_it_still_says(tmp_path: Path) -> None:
    """Its build is with another agent by then."""
    with controller(tmp_path, obliging("a"), limits=None) as harness:
        build, agent = building(harness, "a")
        session = harness.controller.sessions.get(agent.session_id)
        for _ in range(4):
            harness.advance(20)
            harness.controller.sessions.touch(session)
        assert harness.runs(build)[0].run.error_code == "lease_expired"
        with pytest.raises(NotYourRun):
            agent.renew()
        with pytest.raises(NotYourRun, match="no longer"):
            agent.finish(Result.FAILURE)
        assert harness.result(build) is None, "what the run was that lapsed does not count"


def test_beginning_and_finishing_twice_is_the_same_as_once(tmp_path: Path) -> None:
    """An agent that did not hear the answer says it again."""
    with controller(tmp_path, obliging()) as harness:
        build, agent = building(harness)
        agent.begin()
        assert harness.build(build).attempts == 1
        agent.finish()
        agent.finish(Result.FAILURE)
        assert harness.result(build) is Result.SUCCESS


def test_steps_are_kept_in_the_order_in_which_they_were_reported(tmp_path: Path) -> None:
    """Each with the last that was said of it."""
    with controller(tmp_path, obliging()) as harness:
        build, agent = building(harness)
        session, run_id = harness.controller.sessions.get(agent.session_id), agent.lease.run_id
        for status in (StepStatus.RUNNING, StepStatus.FAILURE):
            step = StepState(uuid=f"{run_id}.0", name="step", status=status, exit_code=3)
            answer(harness.controller.dispatcher.step_changed(session, run_id, step))
        agent.finish(Result.FAILURE, exit_code=3)
        assert harness.result(build) is Result.FAILURE
        run = harness.runs(build)[0]
        assert [(step.name, step.status, step.exit_code) for step in run.steps] == [("step", StepStatus.FAILURE, 3)]
        assert run.run.exit_code == 3


# --- retries ----------------------------------------------------------------------------------------------------------------


def test_a_build_whose_agents_fail_is_tried_max_attempts_times(tmp_path: Path) -> None:
    """Then it ends as an exception; what a build itself does wrong is not tried again at all."""
    with controller(tmp_path, obliging()) as harness:
        build = harness.submit(max_attempts=3)
        for attempt in range(3):
            assert harness.result(build) is None
            agent = harness.agent("w").attach()
            agent.take()
            agent.begin()
            assert harness.build(build).attempts == attempt + 1
            agent.leave("its host was switched off")
        assert harness.result(build) is Result.EXCEPTION
        assert "its host was switched off (tried 3 times)" in harness.why(build)
        failing = harness.submit()
        harness.agent("w").attach().work(Result.FAILURE)
        assert harness.result(failing) is Result.FAILURE
        assert len(harness.runs(failing)) == 1


def test_a_build_that_comes_back_goes_before_those_that_wait(tmp_path: Path) -> None:
    """It is older than they are."""
    with controller(tmp_path, w := obliging()) as harness:
        first, agent = building(harness)
        second = harness.submit()
        agent.leave()
        assert w.controls.builds == [first, first]
        agent = harness.agent("w").attach()
        agent.work()
        agent.work()
        assert agent.leases == [first, second]


def test_a_build_that_no_agent_can_begin_ends_as_an_exception(tmp_path: Path) -> None:
    """What is too big for an agent is too big for all: it is not offered for ever."""
    with controller(tmp_path, obliging()) as harness:
        build, agent = attached(harness)
        agent.take()
        agent.finish(Result.EXCEPTION, error="the build's steps take 5000000 bytes")
        assert harness.result(build) is Result.EXCEPTION
        assert "5000000 bytes" in harness.why(build)


def test_an_agent_that_gives_its_build_back_does_not_get_it_again_at_once(tmp_path: Path) -> None:
    """Nothing of that counts as a try, so the worker backs off instead."""
    with controller(tmp_path, obliging("a"), b := obliging("b")) as harness:
        _, agent = attached(harness, "a")
        agent.take()
        harness.submit(workers=["b"])
        agent.finish(Result.CANCELLED, error="the agent is shutting down")
        assert "the agent is shutting down" in harness.status("a").reason
        assert b.controls.starts
