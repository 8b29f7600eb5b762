"""One call leads from a workflow to its end, and from a driver that died to the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from latent.errors import ConfigError, ControllerAway, EmptyWorkflowError, NotFound, NotResumable
from latent.swarm import Workflow
from latent.swarm.requester import Requester
from latent.swarm.statuses import ACTIVE, TaskStatus, WorkflowStatus
from latent.swarm.values import Resume, Trouble
from tests.swarm.fake import Controller, Task
from tests.swarm.kit import Driver, answer


def diamond() -> Workflow:
    workflow = Workflow("diamond")
    array = workflow.array("a", "t")
    first, left, right, last = (array.task(name) for name in ("first", "left", "right", "last"))
    last.after(left.after(first), right.after(first))
    return workflow


@pytest.fixture
def controller() -> Controller:
    return Controller(Clock())


def finish(controller: Controller, driver: Driver) -> None:
    for _ in range(100):
        controller.end_all()
        driver.wait()
        if driver.is_over:
            return
    raise AssertionError("it does not end")


def test_the_fake_is_a_requester(controller: Controller) -> None:
    """What drivers are tested against has the calls that they make."""
    requester: Requester = controller
    assert answer(requester.workflows()) == []


def test_what_can_not_be_driven_is_refused(controller: Controller) -> None:
    """Mistakes, an id that is not there, a workflow that is done or driven by somebody."""
    with pytest.raises(ConfigError, match="has no tasks"):
        _ = Driver(controller, Workflow("w")).summary
    with pytest.raises(NotFound, match="no workflow 7"):
        _ = Driver(controller, 7).summary
    driver = Driver(controller, diamond(), driver="Ann")
    with pytest.raises(NotResumable, match="has had driver Ann"):
        _ = Driver(controller, diamond()).summary
    finish(controller, driver)
    with pytest.raises(NotResumable, match="nothing to resume"):
        _ = Driver(controller, 1, resume=Resume.HOT).summary
    answer(controller.bind(one_task().definition()))
    with pytest.raises(EmptyWorkflowError, match="has no tasks"):
        _ = Driver(controller, 2).summary


def one_task() -> Workflow:
    workflow = Workflow("one")
    workflow.array("a", "t").task("x")
    return workflow


def test_a_controller_that_is_away_from_the_start_is_not_waited_for(controller: Controller) -> None:
    """Whoever started it is still there to be told."""
    controller.away = True
    with pytest.raises(ControllerAway):
        _ = Driver(controller, diamond()).summary


def test_a_stored_workflow_is_driven_by_its_id(controller: Controller) -> None:
    """Its tasks are read back."""
    answer(controller.bind(diamond().definition()))
    answer(controller.add_tasks(1, 0, diamond().task_definitions()))
    driver = Driver(controller, 1)
    finish(controller, driver)
    assert driver.summary.status == "D"
    assert [id for id, _ in controller.queued] == [1, 2, 3, 4]


def test_a_controller_that_goes_away_while_tasks_are_read_is_waited_for(controller: Controller) -> None:
    """There is a run: it goes on."""
    answer(controller.bind(diamond().definition()))
    answer(controller.add_tasks(1, 0, diamond().task_definitions()))
    away = True

    def goes_away(name: str) -> None:
        if name == "downstream" and away:
            raise ControllerAway("gone")

    controller.on_call = goes_away
    driver = Driver(controller, 1)
    driver.wait(19)
    assert driver.heard.told == ["away: gone"] * 4
    away = False
    driver.wait(10)
    finish(controller, driver)
    assert driver.summary.status == "D"
    assert controller.clock.getDelayedCalls() == []


# --- resuming ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resume", list(Resume))
def test_a_workflow_whose_driver_died_is_resumed(controller: Controller, resume: Resume) -> None:
    """What is done is not done again; what runs is begun anew when resumed cold, and goes on when resumed hot."""
    dead = Driver(controller, diamond())
    controller.end_all()
    dead.wait()
    left, right = controller.building()
    controller.start(left)
    dead.wait()
    dead.die()
    driver = Driver(controller, diamond(), resume=resume, driver="Ben")
    [told] = driver.heard.told
    assert told.startswith("waits for driver process ")
    driver.wait(60)
    expected = [(1, 1), (2, 1), (3, 1), (2, 1), (3, 1)] if resume is Resume.COLD else [(1, 1), (2, 1), (3, 1), (3, 1)]
    assert controller.queued == expected
    assert controller.stored[1].runs[-1].driver == "Ben"
    assert driver.heard.state is not None
    assert driver.heard.state.counts[TaskStatus.DONE] == 1
    finish(controller, driver)
    assert controller.queued == [*expected, (4, 1)]
    assert driver.summary.run_id == 2
    assert driver.summary.counts[TaskStatus.DONE] == 4
    assert {task.status for task in (left, right)} == {TaskStatus.DONE}


def test_a_task_that_a_hot_resume_keeps_may_fail_later(controller: Controller) -> None:
    """Its attempts count on."""
    dead = Driver(controller, diamond())
    controller.start(controller.get("a/first"))
    dead.wait()
    dead.die()
    driver = Driver(controller, 1, resume=Resume.HOT)
    driver.wait(60)
    assert controller.queued == [(1, 1)]
    controller.end(controller.get("a/first"), Trouble.FAILURE, "exit code 1")
    driver.wait()
    assert controller.queued == [(1, 1), (1, 2)]
    finish(controller, driver)
    assert driver.summary.status == "D"


def test_two_that_resume_each_other_do_not_drive_both(controller: Controller) -> None:
    """The one that is resumed lets go, and says why."""
    first = Driver(controller, diamond(), driver="Ann")
    second = Driver(controller, 1, resume=Resume.HOT, driver="Ben")
    first.wait(10)
    assert first.summary.reason == "somebody else has resumed the workflow (hot)"
    finish(controller, second)
    assert second.summary.status == "D"


# --- letting go --------------------------------------------------------------------------------------------------------------


def test_a_driver_lets_go_and_what_runs_goes_on(controller: Controller) -> None:
    """Nothing is ended and nothing new queued; a hot resume takes up what runs."""
    driver = Driver(controller, diamond())
    controller.start(controller.get("a/first"))
    driver.wait()
    driver.control.detach()
    summary = driver.summary
    assert (summary.detached, summary.status, summary.run_id) == (True, "T", 1)
    assert summary.reason == "the driver let go; builds that go on: 1"
    assert controller.get("a/first").status == "R"
    assert controller.finished == []
    assert controller.clock.getDelayedCalls() == []
    after = Driver(controller, 1, resume=Resume.HOT)
    finish(controller, after)
    assert controller.queued == [(1, 1), (2, 1), (3, 1), (4, 1)]


def test_a_driver_lets_go_while_it_waits_for_another(controller: Controller) -> None:
    """It has no run to let go of."""
    Driver(controller, diamond()).die()
    second = Driver(controller, 1, resume=Resume.COLD)
    second.wait()
    second.control.detach()
    assert (second.summary.detached, second.summary.run_id, second.summary.workflow_id) == (True, None, 1)
    assert second.summary.reason == "the driver let go before it had queued a task"


def test_a_driver_lets_go_before_it_began(controller: Controller) -> None:
    """Whoever detached it was faster."""
    driver = Driver(controller, diamond())
    driver.control.detach()
    again = Driver(controller, 1, resume=Resume.HOT, control=driver.control)
    assert again.summary.detached
    assert controller.calls.count("link") == 1


def test_a_driver_lets_go_while_the_controller_is_away(controller: Controller) -> None:
    """It says that the controller does not know it; in time the controller will find out by itself."""
    driver = Driver(controller, diamond())
    controller.away = True
    driver.wait(10)
    driver.control.detach()
    assert driver.summary.reason == (
        "the driver let go; builds that go on: 1; the controller, which is away, does not know it yet"
    )
    assert controller.clock.getDelayedCalls() == []


def test_a_driver_lets_go_just_when_it_has_come_to_its_end(controller: Controller) -> None:
    """Asked to by whoever hears that the last task is done: the workflow is to be resumed, and then it is done."""
    driver = Driver(controller, one_task())
    driver.heard.changed = lambda state, changes: driver.control.detach() if state.is_done else None  # type: ignore[method-assign]
    controller.end_all()
    driver.wait()
    assert driver.summary.detached
    again = Driver(controller, 1, resume=Resume.HOT)
    again.wait()
    assert again.summary.status == "D"
    assert controller.queued == [(1, 1)]


def test_a_driver_lets_go_of_what_is_not_its_any_more(controller: Controller) -> None:
    """Then it is no detaching: the run had ended otherwise."""
    driver = Driver(controller, diamond())
    answer(controller.cancel(1, "no"))
    driver.control.detach()
    assert (driver.summary.detached, driver.summary.status) == (False, "S")


# --- anything ------------------------------------------------------------------------------------------------------------------


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    workflow = Workflow("any", max_running=draw(st.integers(1, 5)))
    arrays = [
        workflow.array(
            *(f"a{number}", "t"),
            max_running=draw(st.one_of(st.none(), st.integers(1, 3))),
            max_attempts=draw(st.integers(1, 3)),
            resources={"memory": 100},
            scale={"memory": 0.5},
            most={"memory": 150},
            fallbacks=[{"size": "big"}],
        )
        for number in range(draw(st.integers(1, 3)))
    ]
    for number in range(draw(st.integers(1, 10))):
        task = draw(st.sampled_from(arrays)).task(f"{number}")
        if number:
            task.after(draw(st.lists(st.sampled_from(workflow.tasks[:number]), max_size=2)))
    return workflow


@settings(max_examples=100)
@given(workflows(), st.data())
def test_any_course_of_events_comes_to_its_end(workflow: Workflow, data: st.DataObject) -> None:
    """Builds succeed, fail, want more; the controller goes away, answers are lost, drivers die and are resumed, cold and hot.

    No attempt is made before all that its task waits for is done, none beyond a limit and none twice in a run; and the workflow
    ends as its tasks do.
    """
    controller = Controller(Clock())
    upstream = {
        task.position + 1: {one.position + 1 for one in workflow.tasks if task.position in (one.downstream or ())}
        for task in workflow.tasks
    }
    made: Counter[tuple[int, int, int]] = Counter()

    def look(name: str) -> None:
        active = [task for task in controller.task.values() if task.status in ACTIVE]
        assert len(active) <= workflow.max_running
        for array, count in Counter(task.array for task in active).items():
            assert count <= (workflow.arrays[array - 1].definition.max_running or 10)
        for id, attempt in controller.queued[len(made) :]:
            made[len(controller.stored[1].runs), id, attempt] += 1
            assert all(controller.task[one].status is TaskStatus.DONE for one in upstream[id])

    controller.on_call = look
    driver = Driver(controller, workflow)
    for _ in range(data.draw(st.integers(0, 40))):
        if driver.is_over:
            break
        match data.draw(st.sampled_from(["end", "end", "fail", "start", "wait", "away", "lose", "die"])):
            case "end":
                pick(data, controller, controller.end)
            case "fail":
                trouble = data.draw(st.sampled_from([Trouble.FAILURE, Trouble.MEMORY, Trouble.INFRASTRUCTURE]))
                pick(data, controller, partial(controller.end, trouble=trouble, reason="failed"))
            case "start":
                pick(data, controller, controller.start)
            case "away":
                controller.away = not controller.away
            case "lose":
                lost = data.draw(st.sampled_from([controller.lost, controller.missed]))
                lost.add(data.draw(st.sampled_from(["queue", "settle", "sync", "heartbeat", "finish"])))
            case "die" if not controller.away and controller.stored[1].status is not WorkflowStatus.DONE:
                driver.die()
                driver = Driver(controller, 1, resume=data.draw(st.sampled_from(list(Resume))))
                driver.wait(50)
            case _:
                pass
        driver.wait(data.draw(st.sampled_from([0.5, 3, 20])))
    controller.away = False
    driver.wait(10)
    for _ in range(100):
        if driver.is_over:
            break
        controller.end_all()
        driver.wait(5)
    summary = driver.summary
    assert set(made.values()) <= {1}
    ends = {task.status.value for task in controller.task.values()}
    assert (summary.status, ends) == ("D", {"D"}) or (summary.status == "E" and "F" in ends and ends <= set("DFG"))
    assert controller.clock.getDelayedCalls() == []


def pick(data: st.DataObject, controller: Controller, does: Callable[[Task], None]) -> None:
    if building := controller.building():
        does(data.draw(st.sampled_from(building)))
