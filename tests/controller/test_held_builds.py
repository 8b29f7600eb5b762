"""A build that is held: what that costs, and what a restart or another configuration makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from latent.controller.fences import LAST_LOOK
from latent.model import Result
from latent.store.builds import PERHAPS_RUNNING
from latent.testing import BareLatentWorker, ControllerHarness
from latent.testing.harness import answer
from tests.controller.kit import controller, insubstantiate, made_controls, obliging
from tests.controller.silent import LONG, building, confirm, fails, fallen_silent, is_held, starts, stuck

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
        a.controls.instead["destroy_instance"] = fails
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
        a.controls.instead["destroy_instance"] = fails
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
