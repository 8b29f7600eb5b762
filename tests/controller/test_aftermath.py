"""What comes after a run's last word: late lines of its log, the log itself, and those who wait for the end."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from latent.controller.aftermath import LOG_GRACE
from latent.errors import NotFound, NotYourRun, StoreError
from latent.model import Outcome, Result
from latent.store.logs import LogFiles
from latent.testing import ControllerHarness, SteppedAgent, answer
from tests.controller.kit import building, controller, obliging


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
