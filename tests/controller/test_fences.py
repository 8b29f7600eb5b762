"""A build whose agent is not heard any more is nobody else's before its first try is known to be over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from latent.config.settings import Limits
from latent.controller.fences import AWAY, DROPPED, LAST_LOOK
from latent.core.leasing import CANCEL_GRACE
from latent.model import Attempt, BuildState, Result
from latent.store.builds import PERHAPS_RUNNING
from latent.testing import BareLatentWorker, ControllableLatentWorker, ControllerHarness, SteppedAgent
from latent.testing.harness import answer
from tests.controller.kit import controller, insubstantiate, made_controls, obliging

LONG = {"reattach_timeout": 10_000, "check_instance_interval": 10_000, "stop_timeout": 100}
RUNNING = "it may still be running on a#1, and waits for the end of that: "
ONE_AT_A_TIME = Limits(session_timeout=600)
"""Leases lapse after a minute, and sessions do not."""


def stuck(name: str = "a", **keywords: object) -> ControllableLatentWorker:
    """Its stops do not answer."""
    made = obliging(name, **{**LONG, **keywords})
    made_controls(made).auto_stop = None
    return made


def building(harness: ControllerHarness, *, capacity: int = 1) -> tuple[int, SteppedAgent]:
    """A build that runs on "a"; "b" could have it too."""
    build = harness.submit()
    agent = harness.agent("a").attach(capacity=capacity)
    agent.take()
    agent.begin()
    return build, agent


def fallen_silent(harness: ControllerHarness) -> tuple[int, SteppedAgent]:
    """Its agent is not heard until its session is closed."""
    build, agent = building(harness)
    harness.advance(63)
    assert harness.state(build) is BuildState.QUEUED
    return build, agent


def is_held(harness: ControllerHarness, build: int, why: str = "") -> bool:
    return harness.state(build) is BuildState.QUEUED and RUNNING + why in harness.why(build)


def starts(*workers: ControllableLatentWorker) -> int:
    return sum(len(worker.controls.starts) for worker in workers)


def confirm(worker: ControllableLatentWorker, harness: ControllerHarness) -> None:
    worker.controls.stop_answers()
    harness.advance(0)


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
        a.controls.instead["destroy_instance"] = _fails
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
        a.controls.instead["destroy_instance"] = _fails
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


# --- where nobody can tell --------------------------------------------------------------------------------------------------


def test_a_worker_that_is_no_longer_declared_is_waited_for(tmp_path: Path) -> None:
    """Its instance is stopped in order, and while that is not confirmed its build is held."""
    with controller(tmp_path, a := stuck(), b := obliging("b")) as harness:
        build, _ = fallen_silent(harness)
        harness.reconfigure([b])
        assert is_held(harness, build, "its instance is being stopped")
        confirm(a, harness)
        assert "a" not in harness.controller.roster
        assert starts(b) == 1


def test_one_whose_stop_has_failed_is_waited_for_when_it_is_gone_from_the_configuration(tmp_path: Path) -> None:
    """The reaper has its plugin."""
    with controller(tmp_path, a := obliging("a", **LONG), b := obliging("b")) as harness:
        a.controls.auto_stop = RuntimeError("the API is away")
        a.controls.instead["destroy_instance"] = _fails
        build, _ = fallen_silent(harness)
        harness.reconfigure([b])
        harness.advance(100)
        assert "a" not in harness.controller.roster
        assert is_held(harness, build, "its instance is to be destroyed")
        a.controls.instead.clear()
        harness.advance(700)
        assert starts(b) == 1


def test_one_that_is_not_declared_after_a_restart_says_what_to_do(tmp_path: Path) -> None:
    """Declared again, its instance is stopped, and the build goes on."""
    a, b = stuck(), obliging("b")
    with controller(tmp_path, a, b) as harness:
        build, _ = fallen_silent(harness)
        harness.restart([obliging("b", controls=b.controls)])
        harness.advance(1000)
        assert is_held(harness, build, "worker a is no longer declared; declare it again so that its instance can be stopped")
        assert not b.controls.starts
        a.controls.auto_stop = True
        harness.reconfigure([obliging("a", controls=a.controls, **LONG), obliging("b", controls=b.controls)])
        harness.advance(LAST_LOOK)
        assert not is_held(harness, build)


def test_a_plugin_that_can_not_destroy_leaves_it_to_the_operator(tmp_path: Path) -> None:
    """Its stop has failed, and nobody can say whether the instance is gone: the build waits, and can be cancelled."""
    bare = BareLatentWorker("a", controls=made_controls(obliging("a")), **LONG)
    with ControllerHarness(tmp_path, [bare, b := obliging("b")]) as harness:
        bare.controls.auto_stop = RuntimeError("the API is away")
        build, _ = fallen_silent(harness)
        harness.advance(5000)
        assert is_held(harness, build)
        assert "BareLatentWorker has no destroy_instance: make sure by hand that its instance is gone" in harness.why(build)
        assert starts(bare, b) == 1
        harness.cancel(build)
        assert harness.result(build) is Result.CANCELLED
        bare.controls.auto_stop = True


def test_a_plugin_that_can_not_destroy_and_whose_stop_succeeds_holds_nothing(tmp_path: Path) -> None:
    """Its stop is as good as any."""
    bare = BareLatentWorker("a", controls=made_controls(obliging("a")), **LONG)
    with ControllerHarness(tmp_path, [bare, b := obliging("b")]) as harness:
        fallen = fallen_silent_or_gone(harness)
        assert starts(bare, b) == 2
        assert not is_held(harness, fallen)


def fallen_silent_or_gone(harness: ControllerHarness) -> int:
    """As `fallen_silent`, where the stop answers at once."""
    build, _ = building(harness)
    harness.advance(63)
    return build


# --- what it costs ----------------------------------------------------------------------------------------------------------


def test_it_can_be_cancelled_at_once(tmp_path: Path) -> None:
    """Then nothing is held any more, and nobody looks."""
    with controller(tmp_path, a := stuck(), obliging("b")) as harness:
        build, _ = fallen_silent(harness)
        harness.cancel(build)
        assert harness.result(build) is Result.CANCELLED
        assert harness.controller.dispatcher.fences.held() == set()
        assert not looks(harness)
        confirm(a, harness)


def test_others_do_not_wait_for_it(tmp_path: Path) -> None:
    """Builds that came later, and want the same, go on."""
    with controller(tmp_path, a := stuck(), obliging("b")) as harness:
        build, _ = fallen_silent(harness)
        later = harness.submit()
        harness.agent("b").attach().work()
        assert harness.result(later) is Result.SUCCESS
        assert is_held(harness, build)
        confirm(a, harness)


def test_it_asks_for_no_instance(tmp_path: Path) -> None:
    """What nobody may have is no demand."""
    with controller(tmp_path, a := stuck(), *(others := [obliging(f"w{n}") for n in range(3)])) as harness:
        fallen_silent(harness)
        harness.advance(60)
        assert starts(a, *others) == 1
        confirm(a, harness)
        assert starts(a, *others) == 2


@pytest.mark.parametrize("days", [0.5])
def test_looks_become_rare(tmp_path: Path, days: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may take for ever costs next to nothing; and nobody looks when nothing is held."""
    with controller(tmp_path, a := stuck(stop_timeout=10 * 86400), obliging("b")) as harness:
        assert not looks(harness)
        building(harness)
        assert not looks(harness)
        harness.advance(63)
        fences = harness.controller.dispatcher.fences
        count = 0
        read = harness.store.read

        def counted(query):  # type: ignore[no-untyped-def]
            nonlocal count
            count += 1
            return read(query)

        monkeypatch.setattr(fences, "_store", type("Counting", (), {"read": staticmethod(counted)}))
        for _ in range(int(days * 86400 / LAST_LOOK)):
            harness.advance(LAST_LOOK)
        assert count <= days * 86400 / LAST_LOOK + 100
        confirm(a, harness)
        assert not looks(harness)


def test_a_look_that_fails_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush_logged_errors: Any) -> None:
    """A disk that can't be read says nothing of what runs."""
    with controller(tmp_path, a := stuck(), b := obliging("b")) as harness:
        build, _ = fallen_silent(harness)
        fences = harness.controller.dispatcher.fences
        failing: Deferred[None] = Deferred()
        with monkeypatch.context() as patched:
            patched.setattr(fences, "_store", type("Failing", (), {"read": staticmethod(lambda query: failing)}))
            confirm(a, harness)
            failing.errback(OSError("it can't be read"))
        assert len(flush_logged_errors(OSError)) == 1
        assert is_held(harness, build, "worker a does not know yet what became of it")
        harness.advance(LAST_LOOK)
        assert starts(a, b) == 2


def looks(harness: ControllerHarness) -> bool:
    """Whether the fences wait for a time to look."""
    return harness.controller.dispatcher.fences._alarm.armed


# --- restarts ---------------------------------------------------------------------------------------------------------------


def test_the_next_controller_knows(tmp_path: Path) -> None:
    """It follows from what is on disk: also the second time, and not when it is over."""
    with controller(tmp_path, a := stuck(), b := obliging("b")) as harness:
        a.controls.instead["destroy_instance"] = _fails
        build, _ = fallen_silent(harness)
        for _ in range(2):
            harness.restart()
            harness.advance(20)
            assert starts(a, b) == 1
            assert is_held(harness, build, "its instance is to be destroyed")
        a.controls.instead.clear()
        harness.advance(100)
        assert starts(a, b) == 2
        a.controls.auto_stop = True
        harness.restart()
        harness.advance(5)
        assert "may still be running" not in harness.why(build)


def test_an_agent_that_was_away_at_the_restart_has_its_workers_time_to_come_back(tmp_path: Path) -> None:
    """The controller was away, not the agent."""
    with controller(tmp_path, a := stuck(reattach_timeout=500), b := obliging("b")) as harness:
        build, agent = building(harness)
        agent.leave("its connection was cut", ended=False)
        harness.restart()
        harness.advance(400)
        assert is_held(harness, build)
        assert not a.controls.stopping
        harness.advance(101)
        assert a.controls.stopping
        confirm(a, harness)
        assert starts(a, b) == 2


def test_a_build_that_was_cancelled_is_not_held_by_the_next_controller(tmp_path: Path) -> None:
    """It is over."""
    with controller(tmp_path, a := stuck(), obliging("b")) as harness:
        build, _ = fallen_silent(harness)
        harness.cancel(build)
        harness.restart()
        assert harness.controller.dispatcher.fences.held() == set()
        a.controls.auto_stop = True
        if a.controls.stopping:
            confirm(a, harness)


def test_what_an_operator_lets_go_holds_its_builds_until_it_has_gone(tmp_path: Path) -> None:
    """Whoever wants the instance to go."""
    with controller(tmp_path, a := stuck(), b := obliging("b")) as harness:
        build, _ = building(harness)
        insubstantiate(harness, "a")
        assert is_held(harness, build, "its instance is being stopped")
        assert starts(a, b) == 1
        confirm(a, harness)
        assert starts(a, b) == 2


def test_which_builds_were_perhaps_running_is_found_by_the_index(tmp_path: Path) -> None:
    """However many builds there ever were."""
    with controller(tmp_path, obliging("b")) as harness:
        plan = harness.disk(lambda conn: [row[3] for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {PERHAPS_RUNNING}")])
        assert not [line for line in plan if line.startswith("SCAN") and "USING" not in line], plan
        answer(harness.controller.builds())


def _fails() -> None:
    raise RuntimeError("still away")
