"""The machine's important cells, each as a transcript: what it is told, what it does about it."""

from __future__ import annotations

import pytest
from attrs import evolve

from latent.core.events import (
    Accept,
    Attached,
    BuildFinished,
    BuildStarted,
    CancelCall,
    Checked,
    CheckInstance,
    Condemn,
    Detached,
    DropSession,
    Event,
    Fault,
    GiveUp,
    Insubstantiate,
    Interrupt,
    MachineFailed,
    MachineStarted,
    NotifyMissing,
    Ready,
    Reconfigured,
    Refuse,
    Shutdown,
    Started,
    StartFailed,
    StartInstance,
    StartMachine,
    StopFailed,
    StopInstance,
    Stopped,
    Substantiate,
    Unready,
)
from latent.core.states import NotSubstantiated, ShutDown, Substantiated, SubstantiatingStarting, Timer, deadlines
from latent.core.substantiation import CANCEL_GRACE, step
from tests.core.life import BACK_OFF, NO_CAPACITY, NO_SUCH_IMAGE, POLICY, building, cold, idle, starting, unready


def test_a_build_from_start_to_stop() -> None:
    """Started for a build, attached, idle for its time, stopped."""
    life = cold()
    assert life.tell(Substantiate("a")) == [StartInstance(1, "a")]
    assert life.tell(Started(1)) == []
    assert life.tell(Attached(1, "s")) == [Accept("s"), Ready(("a",))]
    life.now = 5
    assert life.tell(BuildFinished("a")) == []
    assert deadlines(life.state)[Timer.IDLE] == 605
    life.tell(Checked(1, True))
    assert DropSession("s", "") in life.wait(600)
    assert life.tell(Stopped(1)) == []
    assert life.state == NotSubstantiated(policy=POLICY, attempt=1)


def test_the_next_attempt_has_the_next_number() -> None:
    """A number is never used twice."""
    life = starting("a")
    life.tell(StartFailed(1, NO_CAPACITY), Stopped(1))
    assert life.tell(Substantiate("a")) == [StartInstance(2, "a")]


def test_builds_join_the_start_that_is_under_way() -> None:
    """One start serves all that wait for it, in the order in which they came."""
    life = starting("a")
    assert life.tell(Substantiate("b")) == []
    assert life.tell(Attached(1, "s")) == [Accept("s"), Ready(("a", "b"))]


def test_an_agent_may_attach_before_the_start_has_answered() -> None:
    """It gets its build at once; the answer that comes later begins the checks."""
    life = starting("a")
    assert life.tell(Attached(1, "s")) == [Accept("s"), Ready(("a",))]
    assert Timer.CHECK not in deadlines(life.state)
    assert life.tell(Started(1)) == []
    assert life.wait(10) == [CheckInstance(1)]


@pytest.mark.parametrize("attempt", [0, 2, 7])
def test_a_stale_agent_is_refused(attempt: int) -> None:
    """Only the attempt that is expected attaches, be it starting or up."""
    assert starting("a").tell(Attached(attempt, "x")) == [Refuse("x", "")]
    assert building("a").tell(Attached(attempt, "x")) == [Refuse("x", "")]


def test_nobody_attaches_where_no_instance_is_expected() -> None:
    """Neither before a start, nor during a stop, nor after a shutdown."""
    for life in (cold(), starting("a"), building("a")):
        life.tell(Shutdown())
        assert life.tell(Attached(1, "s")) == [Refuse("s", "")]


def test_a_failed_start_is_stopped_once() -> None:
    """The instance may have been made all the same. The build is retried, the worker backs off."""
    life = starting("a")
    assert life.tell(StartFailed(1, NO_CAPACITY)) == [unready(Fault.INFRASTRUCTURE, "a"), BACK_OFF, StopInstance(1, False)]
    assert life.tell(Stopped(1)) == []
    assert life.name == "NOT_SUBSTANTIATED"


def test_only_the_build_that_the_instance_is_for_can_be_at_fault() -> None:
    """The others that waited are retried, and the worker is not blamed."""
    life = starting("a", "b")
    assert life.tell(StartFailed(1, NO_SUCH_IMAGE)) == [
        unready(Fault.BUILD, "a"),
        unready(Fault.NOBODY, "b"),
        StopInstance(1, False),
    ]


def test_a_failed_stop_goes_to_the_reaper() -> None:
    """And the worker goes on."""
    life = idle()
    life.tell(Insubstantiate("enough"))
    assert life.tell(StopFailed(1, "no permission")) == [Condemn(1, "")]
    assert life.tell(Substantiate("b")) == [StartInstance(2, "b")]


def test_a_hung_start_releases_its_build_and_is_cancelled() -> None:
    """The build moves on at the deadline; the call gets its grace, then the attempt goes to the reaper and is stopped."""
    life = starting("a")
    assert life.wait(900) == [unready(Fault.INFRASTRUCTURE, "a"), BACK_OFF, CancelCall(1, Timer.START)]
    assert life.wait(CANCEL_GRACE) == [Condemn(1, ""), StopInstance(1, False)]
    assert life.tell(Stopped(1)) == []
    assert life.name == "NOT_SUBSTANTIATED"


@pytest.mark.parametrize("late", [Started(1), StartFailed(1, NO_CAPACITY)], ids=["succeeded", "failed"])
def test_what_a_call_answers_after_it_was_given_up_is_condemned(late: Event) -> None:
    """Also a failure: the cloud may have made the instance all the same. Whatever the worker does by then, it goes on with it."""
    for then in ([], [Stopped(1)], [Stopped(1), Substantiate("b")], [Stopped(1), Substantiate("b"), Attached(2, "s")]):
        life = starting("a")
        life.wait(900 + CANCEL_GRACE)
        life.tell(*then)
        before = life.state
        assert life.tell(late) == [Condemn(1, "")]
        assert life.state == before


def test_a_start_that_ends_when_it_is_cancelled_is_stopped_in_the_usual_way() -> None:
    """Nothing is condemned."""
    life = starting("a")
    life.wait(900)
    assert life.tell(StartFailed(1, NO_CAPACITY)) == [StopInstance(1, False)]


def test_a_hung_stop_is_cancelled_then_condemned() -> None:
    """The build that came meanwhile gets its start then."""
    life = idle()
    life.tell(Insubstantiate("enough"), Substantiate("b"))
    assert life.wait(300) == [CancelCall(1, Timer.STOP)]
    assert life.wait(CANCEL_GRACE) == [Condemn(1, ""), StartInstance(2, "b")]


def test_a_missing_agent_is_reported() -> None:
    """The build is retried, whoever wants to know is told, the instance is stopped."""
    life = starting("a", check_instance_interval=5000)
    life.tell(Started(1))
    assert life.wait(1200) == [unready(Fault.INFRASTRUCTURE, "a"), BACK_OFF, StopInstance(1, False), NotifyMissing(1)]


def test_a_bad_check_before_the_agent_attaches_ends_the_start() -> None:
    """Its message reaches the build."""
    life = starting("a")
    life.tell(Started(1))
    assert life.wait(10) == [CheckInstance(1)]
    _, actions = step(life.state, Checked(1, False, "the container exited with 137"), life.now)
    failure = next(action.failure for action in actions if isinstance(action, Unready))
    assert "the container exited with 137" in failure.message
    assert StopInstance(1, False) in actions


def test_a_bad_check_of_an_attached_instance_lets_its_builds_end() -> None:
    """An agent that is there is better evidence; but it gets no more builds."""
    life = building("a")
    assert life.tell(Checked(1, False, "unhealthy")) == []
    assert life.tell(BuildStarted("b")) == [unready(Fault.NOBODY, "b")]
    assert life.tell(BuildFinished("a")) == [DropSession("s", ""), StopInstance(1, False)]


def test_a_bad_check_while_the_agent_is_away_ends_the_instance() -> None:
    """Nothing speaks for it any more."""
    life = building("a")
    life.tell(Detached("s"))
    assert life.tell(Checked(1, False, "gone")) == [Interrupt(("a",), ""), StopInstance(1, False)]


def test_an_agent_that_drops_its_connection_may_come_back() -> None:
    """Its build goes on; the provider is asked about the instance at once."""
    life = building("a")
    assert life.tell(Detached("s")) == []
    assert life.wait(0) == [CheckInstance(1)]
    assert life.tell(Attached(1, "t")) == [Accept("t")]
    assert life.tell(BuildFinished("a")) == []


def test_an_agent_that_stays_away_loses_its_build() -> None:
    """After reattach_timeout."""
    life = building("a", check_instance_interval=5000)
    life.tell(Detached("s"))
    life.wait(0)
    assert life.wait(60) == [Interrupt(("a",), ""), StopInstance(1, False)]


def test_a_second_connection_of_the_same_agent_replaces_the_first() -> None:
    """Its old one may be half dead."""
    assert building("a").tell(Attached(1, "t")) == [DropSession("s", ""), Accept("t")]


def test_an_idle_instance_without_its_agent_is_not_waited_for() -> None:
    """A build that comes starts another one."""
    life = idle()
    life.tell(Detached("s"))
    assert life.tell(Substantiate("b")) == [StopInstance(1, False)]
    assert life.tell(Stopped(1)) == [StartInstance(2, "b")]


@pytest.mark.parametrize("wait", [0, -1])
def test_how_long_an_idle_instance_stays(wait: float) -> None:
    """0 stops at once, below 0 never."""
    life = building("a", build_wait_timeout=wait)
    went = life.tell(BuildFinished("a"))
    assert went == ([DropSession("s", ""), StopInstance(1, False)] if wait == 0 else [])
    assert Timer.IDLE not in deadlines(life.state)


def test_an_idle_instance_takes_the_next_build() -> None:
    """And its idle timer stops."""
    life = idle()
    assert life.tell(Substantiate("b")) == [Ready(("b",))]
    assert Timer.IDLE not in deadlines(life.state)


def test_an_idle_instance_that_will_not_do_is_replaced() -> None:
    """It need not wait out its idle timer."""
    life = idle()
    assert life.tell(Substantiate("b", replace=True)) == [DropSession("s", ""), StopInstance(1, False)]
    assert life.tell(Stopped(1)) == [StartInstance(2, "b")]


def test_an_instance_that_is_wanted_by_others_is_not_replaced() -> None:
    """Neither one that builds nor one that is on its way; the build goes elsewhere."""
    for life in (building("a"), starting("a")):
        assert life.tell(Substantiate("b", replace=True)) == [unready(Fault.NOBODY, "b")]


def test_a_build_that_is_given_up_takes_its_start_with_it() -> None:
    """The start is waited for, then stopped. Another build keeps it."""
    life = starting("a", "b")
    assert life.tell(GiveUp("a")) == []
    assert life.tell(GiveUp("b")) == []
    assert life.name == "INSUBSTANTIATING"
    assert life.tell(Started(1)) == [StopInstance(1, False)]


def test_giving_up_another_build_changes_nothing() -> None:
    """An instance that is started to be warm stays wanted."""
    life = starting()
    assert life.tell(GiveUp("a")) == []
    assert life.name == "SUBSTANTIATING_STARTING"


def test_a_request_during_a_stop_is_served_after_it() -> None:
    """Start and stop never overlap."""
    life = idle()
    life.tell(Insubstantiate("enough"))
    assert life.tell(Substantiate("b")) == []
    assert life.tell(Stopped(1)) == [StartInstance(2, "b")]


def test_requested_told_to_go_and_requested_again_during_a_stop() -> None:
    """The first build is told, the second one served; what was cancelled does not start."""
    life = idle()
    life.tell(Insubstantiate("enough"), Substantiate("b"))
    assert life.tell(Insubstantiate("enough")) == [unready(Fault.NOBODY, "b")]
    assert life.name == "INSUBSTANTIATING"
    life.tell(Substantiate("c"))
    assert life.tell(Stopped(1)) == [StartInstance(2, "c")]


def test_a_stop_that_was_to_be_fast_stays_fast() -> None:
    """Also when a build comes before the start that it waits for has ended."""
    life = starting("a")
    life.tell(Insubstantiate("now", fast=True), Substantiate("b"))
    assert life.tell(Started(1)) == [StopInstance(1, True)]


def test_an_order_to_go_interrupts_builds() -> None:
    """They are told before the agent is."""
    assert building("a", "b").tell(Insubstantiate("enough", fast=True)) == [
        Interrupt(("a", "b"), ""),
        DropSession("s", ""),
        StopInstance(1, True),
    ]


def test_an_outdated_instance_goes_after_its_builds() -> None:
    """One that is idle goes at once; one whose agent blinks is waited for as long as any."""
    assert idle().tell(Reconfigured(POLICY, outdated=True)) == [DropSession("s", ""), StopInstance(1, False)]
    life = building("a")
    assert life.tell(Reconfigured(POLICY, outdated=True)) == []
    assert life.tell(Substantiate("b")) == [unready(Fault.NOBODY, "b")]
    assert life.tell(Detached("s"), Attached(1, "t")) == [Accept("t")]
    assert life.tell(BuildFinished("a")) == [DropSession("t", ""), StopInstance(1, False)]


def test_a_new_idle_time_holds_for_an_idle_instance() -> None:
    """From now on; 0 stops it at once."""
    life = idle()
    life.now = 50
    life.tell(Reconfigured(evolve(POLICY, build_wait_timeout=10)))
    assert deadlines(life.state)[Timer.IDLE] == 60
    assert StopInstance(1, False) in life.tell(Reconfigured(evolve(POLICY, build_wait_timeout=0)))


def test_a_start_that_hangs_though_its_agent_builds_is_given_up_at_the_end() -> None:
    """Its builds end, no more are taken, and what the start may yet make is condemned before the stop."""
    life = starting("a", check_instance_interval=5000)
    life.tell(Attached(1, "s"))
    assert life.wait(900) == [CancelCall(1, Timer.START)]
    assert life.wait(5000) == []
    assert life.tell(BuildStarted("b")) == [unready(Fault.NOBODY, "b")]
    assert life.tell(BuildFinished("a")) == [DropSession("s", "")]
    assert life.wait(0) == [Condemn(1, ""), StopInstance(1, False)]


def test_a_shutdown_waits_for_the_start_then_stops() -> None:
    """And fast reaches the stop. Builds that wait are told; those that come are refused."""
    life = starting("a")
    assert life.tell(Shutdown(fast=True)) == [unready(Fault.NOBODY, "a")]
    assert life.tell(Substantiate("b")) == [unready(Fault.NOBODY, "b")]
    assert life.tell(Started(1)) == [StopInstance(1, True)]
    assert life.tell(Stopped(1)) == []
    assert life.state == ShutDown(policy=POLICY, attempt=1)


def test_a_machine_is_started_first() -> None:
    """The instance follows when it is up; a machine that does not start needs no stop."""
    life = cold(has_machine=True)
    assert life.tell(Substantiate("a")) == [StartMachine(1)]
    assert life.tell(MachineStarted(1)) == [StartInstance(1, "a")]
    life = starting("a", has_machine=True)
    assert life.tell(MachineFailed(1, NO_CAPACITY)) == [unready(Fault.INFRASTRUCTURE, "a"), BACK_OFF]
    assert life.name == "NOT_SUBSTANTIATED"


def test_a_machine_that_is_up_too_late_starts_nothing() -> None:
    """What was wanted is looked at again."""
    life = starting("a", has_machine=True)
    life.tell(GiveUp("a"))
    assert life.tell(MachineStarted(1)) == []
    assert life.name == "NOT_SUBSTANTIATED"


def test_states_say_which_deadlines_are_armed() -> None:
    """So that the shell needs one alarm, and a restart loses none."""
    assert deadlines(starting("a").state) == {Timer.MISSING: 1200, Timer.START: 900}
    assert deadlines(building("a").state) == {Timer.CHECK: 10}
    assert isinstance(starting("a").state, SubstantiatingStarting)
    assert isinstance(idle().state, Substantiated)
