"""What the machine makes of what a crash cut short, when it is told what was found."""

from __future__ import annotations

import pytest
from attrs import evolve

from latent.core.events import (
    Accept,
    Action,
    Attached,
    BuildFinished,
    Condemn,
    DropSession,
    Fault,
    Insubstantiate,
    Interrupt,
    Recovered,
    Shutdown,
    StartInstance,
    StopInstance,
    Stopped,
    Substantiate,
)
from latent.core.states import ShutDown, Timer, deadlines
from tests.core.life import POLICY, Life, building, idle, starting, unready


@pytest.mark.parametrize(
    ("found", "then"),
    [
        (True, []),
        (False, [StartInstance(1, "a", again=True)]),
        (None, [Condemn(1, ""), unready(Fault.NOBODY, "a"), StopInstance(1, False)]),
    ],
)
def test_a_start_that_a_crash_cut_short(found: bool | None, then: list[Action]) -> None:
    """What it made is adopted; else it is repeated with the same token; a plugin that can't tell begins anew."""
    assert starting("a").tell(Recovered(found)) == then


@pytest.mark.parametrize(
    ("found", "then"), [(True, [Condemn(1, "")]), (False, []), (None, [StopInstance(1, False)])], ids=["there", "gone", "unknown"]
)
def test_a_stop_that_a_crash_cut_short(found: bool | None, then: list[Action]) -> None:
    """What is there is the reaper's; where nobody can tell, the stop is called again."""
    life = idle()
    life.tell(Insubstantiate("enough"))
    assert life.tell(Recovered(found)) == then


@pytest.mark.parametrize("found", [True, None])
def test_a_build_outlives_a_crash_of_the_controller(found: bool | None) -> None:
    """Its agent gets the time of any that is away."""
    life = building("a")
    assert life.tell(Recovered(found)) == []
    assert deadlines(life.state)[Timer.REATTACH] == 60
    assert life.tell(Attached(1, "t")) == [Accept("t")]
    assert life.tell(BuildFinished("a")) == []


def test_a_build_outlives_a_crash_while_its_start_had_not_answered() -> None:
    """The plugin never knew the instance, so it is condemned when its build is over; it retires."""
    for found in (False, None):
        life = starting("a")
        life.tell(Attached(1, "s"))
        assert life.tell(Recovered(found)) == []
        assert life.tell(Attached(1, "t")) == [Accept("t")]
        assert life.tell(BuildFinished("a")) == [DropSession("t", "")]
        assert life.wait(0) == [Condemn(1, ""), StopInstance(1, False)]


def test_an_instance_that_is_gone_after_a_crash_gives_its_builds_back() -> None:
    """They are interrupted, and the plugin may clean up."""
    assert building("a").tell(Recovered(False)) == [Interrupt(("a",), ""), StopInstance(1, False)]


def test_a_policy_that_changed_during_a_crash_holds() -> None:
    """An instance that was never to be idle for long gets its idle timer, and one that has one keeps it."""
    never = idle(build_wait_timeout=-1)
    never.state = evolve(never.state, policy=POLICY)
    never.tell(Recovered(True))
    assert deadlines(never.state)[Timer.IDLE] == 600
    life = idle()
    life.now = 100
    life.tell(Recovered(True))
    assert deadlines(life.state)[Timer.IDLE] == 600


def test_a_shutdown_ends_with_the_controller_that_was_told() -> None:
    """After a restart the worker serves again; a stop that was under way is finished first."""
    life = idle()
    life.tell(Shutdown())
    assert life.tell(Recovered(None)) == [StopInstance(1, False)]
    life.tell(Substantiate("b"))
    assert life.tell(Stopped(1)) == [StartInstance(2, "b")]
    shut = Life(ShutDown(policy=POLICY, attempt=3))
    shut.tell(Recovered(None))
    assert shut.tell(Substantiate("b")) == [StartInstance(4, "b")]
