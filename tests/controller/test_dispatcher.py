"""What agents are given, what they say of it, and what becomes of builds."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from latent.config.settings import Limits
from latent.controller.aftermath import LOG_GRACE
from latent.core.leasing import CANCEL_GRACE
from latent.errors import NotFound, NotYourRun, StoreError
from latent.model import BuildState, Outcome, Result, RunStatus, StepState, StepStatus
from latent.store.logs import LogFiles
from latent.testing import ControllerHarness, SteppedAgent, answer
from latent.worker.base import Worker
from tests.controller.kit import controller, obliging, worker


def attached(harness: ControllerHarness, name: str = "w") -> tuple[int, SteppedAgent]:
    """A build, and an agent that it is about to be given to."""
    build = harness.submit(workers=[name])
    return build, harness.agent(name).attach()


def building(harness: ControllerHarness, name: str = "w") -> tuple[int, SteppedAgent]:
    build, agent = attached(harness, name)
    agent.take()
    agent.begin()
    return build, agent


def keep_up(harness: ControllerHarness, seconds: float, *agents: SteppedAgent) -> None:
    """Time in which the agents show now and then that they live, and that they have what they have."""

    def show() -> None:
        for agent in agents:
            agent.come_back()
            with suppress(NotYourRun):
                agent.renew()

    show()
    while seconds > 0:
        harness.advance(min(seconds, 30))
        seconds -= 30
        show()


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


# --- logs and those who wait ------------------------------------------------------------------------------------------------


def test_log_lines_are_taken_until_five_minutes_after_the_end(tmp_path: Path) -> None:
    """From the agent that had the run, and from no other; also after a restart."""
    with controller(tmp_path, obliging("a"), obliging("b")) as harness:
        build, agent = building(harness, "a")
        _, other = building(harness, "b")
        agent.tell("one")
        agent.finish()
        keep_up(harness, LOG_GRACE / 2, agent, other)
        harness.restart()
        keep_up(harness, 0, agent, other)
        agent.tell("two")
        run_id = agent.lease.run_id
        lines, _, over = answer(harness.controller.log(build, None, 0))
        assert ([line.text for line in lines], over) == (["one", "two"], True)
        foreign = harness.controller.sessions.get(other.session_id)
        with pytest.raises(NotYourRun):
            answer(harness.controller.dispatcher.logged(foreign, run_id, []))
        keep_up(harness, LOG_GRACE / 2 + 1, agent, other)
        with pytest.raises(NotYourRun):
            agent.tell("three")


def test_logs_are_compressed_however_many_builds_end_meanwhile(tmp_path: Path) -> None:
    """The first is, five minutes after its end, though another ends every minute."""
    with controller(tmp_path, obliging()) as harness:
        _, agent = building(harness)
        agent.tell("one")
        run_id = agent.lease.run_id
        agent.finish()
        for _ in range(6):
            harness.advance(50)
            harness.submit()
            agent.work()
        harness.advance(1)
        assert harness.store.logs.path(run_id).suffix == ".gz"


def test_logs_are_compressed_when_a_crash_came_before(tmp_path: Path) -> None:
    """Five minutes after the start that finds them; the log of a build that still runs is left as it is."""
    with controller(tmp_path, obliging("a"), obliging("b")) as harness:
        _, agent = building(harness, "a")
        _, other = building(harness, "b")
        agent.tell("one")
        other.tell("one")
        agent.finish()
        harness.restart()
        keep_up(harness, LOG_GRACE + 1, agent, other)
        logs = harness.store.logs
        assert [logs.path(run).suffix for run in (agent.lease.run_id, other.lease.run_id)] == [".gz", ".jsonl"]


def test_logs_that_can_not_be_looked_at_hold_up_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The health says what is left undone."""

    def refuse(self: LogFiles) -> None:
        raise StoreError("the disk is on fire")

    monkeypatch.setattr(LogFiles, "left", refuse)
    with controller(tmp_path, obliging()) as harness:
        assert [item.message for item in harness.health()] == ["logs that a crash left are not compressed: the disk is on fire"]


def test_who_follows_a_log_is_woken_by_each_line_and_by_the_end(tmp_path: Path) -> None:
    """After the end there is nothing to wait for."""
    with controller(tmp_path, obliging()) as harness:
        build, agent = building(harness)
        run_id = agent.lease.run_id
        line, given_up = harness.controller.when_logged(run_id), harness.controller.when_logged(run_id)
        given_up.addErrback(lambda _: None)
        given_up.cancel()
        assert not line.called
        agent.tell("one")
        assert line.called
        end = harness.controller.when_logged(run_id)
        agent.finish()
        assert end.called
        assert harness.controller.when_logged(run_id).called
        assert harness.result(build) is Result.SUCCESS


def test_a_builds_waiters_are_told_when_its_end_is_on_disk(tmp_path: Path) -> None:
    """At once if it is over; a build that nobody knows is not found."""
    with controller(tmp_path, obliging()) as harness:
        build, agent = building(harness)
        early = harness.controller.when_finished(build)
        given_up = harness.controller.when_finished(build)
        given_up.addErrback(lambda _: None)
        given_up.cancel()
        on_disk: list[Result | None] = []
        early.addCallback(lambda _: on_disk.append(harness.result(build)))
        agent.finish()
        assert on_disk == [Result.SUCCESS]
        assert answer(harness.controller.when_finished(build)).result is Result.SUCCESS
        with pytest.raises(NotFound):
            answer(harness.controller.when_finished(99))


def test_a_finish_is_answered_only_when_it_is_on_disk_also_the_second_time(tmp_path: Path) -> None:
    """Else an agent would forget a build whose end a crash could still lose."""
    with controller(tmp_path, obliging()) as harness:
        _, agent = building(harness)
        write, held = harness.store.write, []

        def slow(op: object) -> Deferred[object]:
            answered: Deferred[object] = Deferred()
            held.append((op, answered))
            return answered

        harness.store.write = slow  # type: ignore[method-assign, assignment]
        session = harness.controller.sessions.get(agent.session_id)
        outcome = Outcome(result=Result.SUCCESS)
        said = [
            Deferred.fromCoroutine(harness.controller.dispatcher.finished(session, agent.lease.run_id, outcome, 0.0))
            for _ in range(2)
        ]
        assert not any(one.called for one in said)
        harness.store.write = write  # type: ignore[method-assign]
        for op, answered in held:
            write(op).chainDeferred(answered)
        assert all(one.called for one in said)
