"""A run is driven to its end, whatever becomes of its tasks, of the controller, and of the run itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import evolve
from twisted.internet.task import Clock

from latent.errors import ControllerAway, ControllerStopping, DistributorNotAlive
from latent.swarm import Workflow
from latent.swarm.listener import Failed
from latent.swarm.statuses import RunStatus, TaskStatus
from latent.swarm.values import Delta, Resume, TaskChange, Trouble
from tests.swarm.fake import Controller, Task
from tests.swarm.kit import Driver, advance, answer


@pytest.fixture
def controller() -> Controller:
    return Controller(Clock())


def row(*names: str, **keywords: object) -> Workflow:
    """Tasks of one array, each after the one before it."""
    workflow = Workflow("row", fail_fast=bool(keywords.pop("fail_fast", False)))
    array = workflow.array("a", "t", **keywords)  # type: ignore[arg-type]
    last = None
    for name in names:
        task = array.task(name)
        if last is not None:
            task.after(last)
        last = task
    return workflow


def side_by_side(*names: str, **keywords: object) -> Workflow:
    """Tasks of one array that do not wait for one another."""
    workflow = Workflow("wide", max_running=int(str(keywords.pop("most", 100))), fail_fast=bool(keywords.pop("fail_fast", False)))
    array = workflow.array("a", "t", **keywords)  # type: ignore[arg-type]
    for name in names:
        array.task(name)
    return workflow


def tell(controller: Controller, driver: Driver, *, until: Callable[[], bool], does: Callable[[Task], None]) -> None:
    """Every build is done with as told, until it is so."""
    for _ in range(100):
        if until():
            return
        for task in controller.building():
            does(task)
        driver.wait()
    raise AssertionError("it never was so")


def test_a_workflow_is_driven_to_its_end(controller: Controller) -> None:
    """Each task once, in the order of its edges; the run ends as DONE and nothing is left waiting."""
    driver = Driver(controller, row("1", "2", "3"))
    assert [status.value for _, status, _ in controller.beats] == ["R"]
    tell(controller, driver, until=lambda: driver.is_over, does=controller.end)
    assert controller.queued == [(1, 1), (2, 1), (3, 1)]
    assert controller.finished == [(1, "D", "")]
    summary = driver.summary
    assert (summary.workflow_id, summary.run_id, summary.status, summary.reason) == (1, 1, "D", "")
    assert summary.counts == {status: 3 if status == "D" else 0 for status in TaskStatus}
    assert 0 < summary.seconds <= controller.clock.seconds()
    assert controller.clock.getDelayedCalls() == []


def test_the_driver_follows_its_builds(controller: Controller) -> None:
    """Where each build is, whoever watches can see; a build that is queued again is no surprise."""
    driver = Driver(controller, row("1"))
    assert driver.heard.state is not None
    [task] = driver.heard.state.tasks.values()
    for status in "IORIRD":
        controller.get("a/1").status, controller.get("a/1").changed_at = TaskStatus(status), controller.clock.seconds()
        driver.wait()
        assert task.status == status
    assert driver.summary.status == "D"


def test_the_driver_asks_seldom_when_nothing_happens(controller: Controller) -> None:
    """And beats regularly."""
    driver = Driver(controller, row("1"))
    driver.wait(60)
    controller.calls.clear()
    driver.wait(300)
    assert 100 <= controller.calls.count("sync") <= 150
    assert controller.calls.count("heartbeat") == 10
    driver.die()


def test_all_tasks_are_asked_for_every_ten_minutes(controller: Controller) -> None:
    """So that nothing that was missed once stays missed."""
    driver = Driver(controller, row("1"))
    driver.wait(590)
    assert None not in controller.since
    driver.wait(20)
    assert controller.since.count(None) == 1
    controller.get("a/1").status = TaskStatus.DONE  # and no change is told
    driver.wait(580)
    assert controller.since.count(None) == 1
    driver.wait(20)
    assert driver.summary.status == "D"


# --- failures ----------------------------------------------------------------------------------------------------------------


def test_a_failed_task_is_tried_again_and_fails_for_good_at_last(controller: Controller) -> None:
    """What waits for it never begins, what does not goes on; the reasons are told."""
    workflow = row("1", "2", "3", max_attempts=2)
    workflow.arrays[0].task("apart")
    driver = Driver(controller, workflow)

    def fail_the_second(task: Task) -> None:
        controller.end(task, Trouble.FAILURE if task.definition.name == "2" else None, "exit code 1")

    tell(controller, driver, until=lambda: driver.is_over, does=fail_the_second)
    assert controller.queued == [(1, 1), (4, 1), (2, 1), (2, 2)]
    summary = driver.summary
    reason = "1 task failed: a/2 (build 4: exit code 1); 1 task behind that could not begin"
    assert (summary.status, summary.reason) == ("E", reason)
    assert summary.failed == (Failed(label="a/2", attempts=2, build_id=4, reason="exit code 1"),)
    assert controller.finished == [(1, "E", reason)]
    assert [(label, status) for label, status, _ in driver.heard.failures if label == "a/2"] == [("a/2", "G"), ("a/2", "F")]
    assert controller.get("a/2").status == "F"


def test_want_of_resources_gives_more_of_them_first_in_line(controller: Controller) -> None:
    """The store is told what was decided before the next attempt is queued; the one that was adjusted goes before all others."""
    workflow = side_by_side("1", "2", "3", most=1, resources={"memory": 10}, scale={"memory": 0.5})
    driver = Driver(controller, workflow)
    controller.end(controller.get("a/1"), Trouble.MEMORY, "killed")
    controller.calls.clear()
    driver.wait()
    assert [name for name in controller.calls if name != "sync"][:2] == ["settle", "queue"]
    assert controller.queued == [(1, 1), (1, 2)]
    assert [dict(batch.resources) for batch in controller.batches] == [{"memory": 10}, {"memory": 15}]
    controller.end(controller.get("a/1"), Trouble.FAILURE, "exit code 1")
    driver.wait()
    assert controller.queued == [(1, 1), (1, 2), (2, 1)]
    driver.die()


@pytest.mark.parametrize("trouble", [Trouble.CANCELLED, Trouble.REFUSED])
def test_fatal_trouble_is_not_tried_again(controller: Controller, trouble: Trouble) -> None:
    """Somebody cancelled the build, or no worker can ever do it."""
    driver = Driver(controller, row("1"))
    controller.end(controller.get("a/1"), trouble, "no")
    driver.wait()
    assert driver.summary.failed == (Failed(label="a/1", attempts=1, build_id=1, reason="no"),)


def test_what_the_controller_refuses_has_failed(controller: Controller) -> None:
    """No build is made of it; the others go on."""
    controller.refuses = lambda task: "builder 't' has no property 'x'" if task.definition.name == "1" else ""
    driver = Driver(controller, side_by_side("1", "2"))
    tell(controller, driver, until=lambda: driver.is_over, does=controller.end)
    assert controller.queued == [(2, 1)]
    assert driver.summary.reason == "1 task failed: a/1 (builder 't' has no property 'x')"


def test_many_failures_are_named_in_part(controller: Controller) -> None:
    """The rest is counted."""
    driver = Driver(controller, side_by_side(*"1234567", max_attempts=1))
    for task in controller.building():
        controller.end(task, Trouble.FAILURE)
    driver.wait()
    summary = driver.summary
    named = ", ".join(f"a/{number} (build {number}: no reason was given)" for number in range(1, 6))
    assert summary.reason == f"7 tasks failed: {named} and 2 more"
    assert len(summary.failed) == 7


def test_failing_fast_ends_all(controller: Controller) -> None:
    """The first task that fails for good ends the run, and the builds that are not over with it."""
    driver = Driver(controller, side_by_side("1", "2", fail_fast=True, max_attempts=2))
    controller.end(controller.get("a/1"), Trouble.FAILURE, "exit code 1")
    driver.wait()
    assert not driver.is_over
    controller.end(controller.get("a/1"), Trouble.FAILURE, "exit code 2")
    driver.wait()
    assert driver.summary.status == "E"
    assert driver.summary.reason == "1 task failed: a/1 (build 3: exit code 2); the workflow is to fail fast"
    assert controller.get("a/2").status == "E"


def test_a_run_has_its_time_and_no_more(controller: Controller) -> None:
    """After the timeout it ends as an error."""
    driver = Driver(controller, row("1"), timeout=100)
    driver.wait(98)
    assert not driver.is_over
    driver.wait(5)
    reason = "not done within 100 seconds, which is all the time that it was given"
    assert (driver.summary.status, driver.summary.reason) == ("E", reason)
    assert controller.finished == [(1, "E", reason)]


def test_without_a_distributor_there_is_no_driving(controller: Controller) -> None:
    """Whoever carries out the builds is gone: the run ends, and the driver says so."""
    alive = True

    async def later() -> bool:
        return alive

    driver = Driver(controller, row("1"), distributor_alive=later)
    driver.wait()
    assert not driver.is_over
    alive = False
    driver.wait()
    with pytest.raises(DistributorNotAlive, match="start it again, and resume workflow 1"):
        _ = driver.summary
    assert controller.finished == [(1, "E", "what carries out the builds is gone")]
    assert controller.clock.getDelayedCalls() == []


# --- a stored DAG that can't come to its end -----------------------------------------------------------------------------------


def test_a_wedged_workflow_is_found_and_named(controller: Controller) -> None:
    """A circle that got into the store by some other way ends the run instead of holding it for ever."""
    workflow = row("1", "2", "3")
    answer(controller.bind(workflow.definition()))
    workflow.tasks[0].after(workflow.tasks[2])
    answer(controller.add_tasks(1, 0, workflow.task_definitions()))
    driver = Driver(controller, 1)
    driver.wait()
    reason = "the workflow is wedged: 3 tasks wait for one another for ever: a/1 after a/3 after a/2 after a/1"
    assert (driver.summary.status, driver.summary.reason) == ("E", reason)


def test_a_task_that_nothing_will_carry_out_is_named(controller: Controller) -> None:
    """As when a driver of another make left it in a state that no driver leaves."""
    answer(controller.bind(row("1", "2").definition()))
    answer(controller.add_tasks(1, 0, row("1", "2").task_definitions()))
    controller.get("a/1").status = TaskStatus.ERROR_RECOVERABLE
    driver = Driver(controller, 1)
    driver.wait()
    assert driver.summary.reason == (
        "the workflow is wedged: 2 tasks wait for tasks that nothing will carry out: a/1 (for 0 of 0), a/2 (for 1 of 1)"
    )


# --- a controller that is away -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ControllerAway("gone"), ControllerStopping("gone")])
def test_a_controller_that_goes_away_for_minutes_is_waited_for(controller: Controller, error: Exception) -> None:
    """The driver keeps what it knows, says so, goes on when it is back, and has nothing done twice."""
    driver = Driver(controller, row("1", "2"))

    def away(name: str) -> None:
        raise error

    controller.on_call = away
    driver.wait(600)
    assert driver.heard.told == ["away: gone"] * len(driver.heard.told)
    assert len(driver.heard.told) > 50
    controller.end_all()
    controller.on_call = lambda name: None
    driver.wait(10)
    assert driver.heard.told[-1] == "back"
    tell(controller, driver, until=lambda: driver.is_over, does=controller.end)
    assert driver.summary.status == "D"
    assert controller.queued == [(1, 1), (2, 1)]


@pytest.mark.parametrize("call", ["queue", "settle", "sync", "heartbeat", "finish"])
@pytest.mark.parametrize("way", ["lost", "missed"])
def test_a_call_or_an_answer_that_is_lost_changes_nothing(controller: Controller, call: str, way: str) -> None:
    """The call is made again, and is the same call."""
    setattr(controller, way, {call})
    driver = Driver(controller, row("1", "2"))
    failed: list[Task] = []

    def fail_once(task: Task) -> None:
        if not failed:
            failed.append(task)
            controller.end(task, Trouble.FAILURE, "exit code 1")
        else:
            controller.end(task)

    driver.wait(10)
    tell(controller, driver, until=lambda: driver.is_over, does=fail_once)
    assert driver.summary.status == "D"
    assert controller.queued == [(1, 1), (1, 2), (2, 1)]
    assert not controller.lost | controller.missed
    assert [status for _, status, _ in controller.finished] == ["D"]


def test_what_was_decided_is_decided_once(controller: Controller) -> None:
    """A failure that is told again, as its verdict has not arrived, is not judged again."""
    whole = controller.sync
    controller.sync = lambda run_id, since: whole(run_id, None)  # type: ignore[method-assign]
    driver = Driver(controller, row("1", resources={"memory": 100}, scale={"memory": 0.5}, max_attempts=2))

    def away(name: str) -> None:
        if name == "settle":
            raise ControllerAway("gone")

    controller.end(controller.get("a/1"), Trouble.MEMORY, "killed")
    controller.on_call = away
    driver.wait(60)
    assert controller.calls.count("sync") > 5
    controller.on_call = lambda name: None
    driver.wait(10)
    assert [(dict(batch.resources), batch.tasks) for batch in controller.batches] == [
        ({"memory": 100}, ((1, 1),)),
        ({"memory": 150}, ((1, 2),)),
    ]
    assert len(driver.heard.failures) == 1
    driver.die()


def test_old_news_of_an_attempt_that_is_past_is_no_news(controller: Controller) -> None:
    """Another attempt is under way by then."""
    driver = Driver(controller, row("1"))
    controller.end(controller.get("a/1"), Trouble.FAILURE, "exit code 1")
    driver.wait()
    whole = controller.sync

    async def sync(run_id: int, since: float | None) -> Delta:
        old = TaskChange(1, TaskStatus.ERROR_RECOVERABLE, 1, 1, Trouble.FAILURE, "exit code 1")
        return evolve(await whole(run_id, since), changes=[old, TaskChange(99, TaskStatus.DONE, 1)])

    controller.sync = sync  # type: ignore[method-assign]
    driver.wait()
    assert controller.queued == [(1, 1), (1, 2)]
    assert len(driver.heard.failures) == 1
    driver.die()


def test_a_driver_that_was_given_up_ends(controller: Controller) -> None:
    """It was away for too long: the run is over, others may resume the workflow."""
    driver = Driver(controller, row("1"))
    away, controller.away = controller.away, True
    driver.wait(60)
    controller.away = away
    controller.reap()
    driver.wait(10)
    assert driver.summary.status == "E"
    assert controller.finished == []


# --- somebody else's word ------------------------------------------------------------------------------------------------------


def test_a_cancelled_workflow_ends_its_driver(controller: Controller) -> None:
    """Nothing is queued any more, and nothing told."""
    driver = Driver(controller, row("1", "2"))
    answer(controller.cancel(1, "not wanted"))
    driver.wait()
    assert driver.summary.status == "S"
    assert driver.summary.reason == "run 1 of workflow 1 is over (S)"
    assert controller.finished == []


@pytest.mark.parametrize("status", ["S", "T", "E"])
def test_a_heartbeat_answered_with_an_end_is_the_end(controller: Controller, status: str) -> None:
    """The controller knows it already."""
    driver = Driver(controller, row("1"))

    async def heartbeat(run_id: int, told: RunStatus, increment: float) -> RunStatus:
        return RunStatus(status)

    controller.heartbeat = heartbeat  # type: ignore[method-assign,assignment]
    driver.wait(35)
    assert driver.summary.status == status
    assert driver.summary.reason
    assert controller.finished == []


@pytest.mark.parametrize("resume", list(Resume))
def test_a_driver_whose_workflow_is_resumed_lets_go(controller: Controller, resume: Resume) -> None:
    """It queues nothing, decides nothing, and ends when the builds have that are to end: hot leaves those that run."""
    driver = Driver(controller, side_by_side(*"1234", most=3))
    one, two, three = controller.building()
    controller.start(one)
    driver.wait()
    linking = answer(controller.link(1, "other", resume))
    assert linking.waits_for.startswith("driver process ")
    if resume is Resume.COLD:  # what runs takes its time to end
        controller.start(one)
    assert {two.status, three.status} == {TaskStatus.ERROR_RECOVERABLE}
    driver.wait()
    assert driver.heard.told == [f"ending: somebody else resumes the workflow ({resume.value})"]
    if resume is Resume.COLD:
        assert not driver.is_over
        driver.wait(100)
        controller.end(one, Trouble.CANCELLED)
        driver.wait()
    assert driver.summary.status == "T"
    assert driver.summary.counts[TaskStatus.RUNNING] == (resume is Resume.HOT)
    assert driver.summary.counts[TaskStatus.ERROR_RECOVERABLE] == (2 if resume is Resume.HOT else 3)
    assert driver.summary.failed == ()
    assert len(controller.queued) == 3
    assert controller.finished == [(1, "T", f"somebody else has resumed the workflow ({resume.value})")]
    assert "settle" not in controller.calls
    advance(controller.clock, 100)
    run = answer(controller.link(1, "other", resume)).run
    assert run is not None
    assert run.id == 2
