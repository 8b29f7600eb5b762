"""A state is rebuilt from the store as it was, and the driver's heartbeats come when they were promised."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.task import Clock

from latent.errors import ControllerAway, EmptyWorkflowError, WorkflowError
from latent.swarm import Workflow
from latent.swarm import builder as builder_module
from latent.swarm.binding import bind
from latent.swarm.builder import SwarmBuilder
from latent.swarm.heart import Heart
from latent.swarm.state import SwarmState, SwarmTask
from latent.swarm.statuses import RunStatus, TaskStatus
from latent.swarm.values import Resume
from tests.swarm.fake import Controller
from tests.swarm.kit import answer

INTERVAL, BUFFER = 30.0, 1.5


def chain(tasks: int) -> Workflow:
    """Each task after the one before it."""
    workflow = Workflow("chain")
    array = workflow.array("link", "t", resources={"memory": 5})
    last = None
    for number in range(tasks):
        task = array.task(f"{number}", resources={"timeout": 60} if number % 2 else None)
        if last is not None:
            task.after(last)
        last = task
    return workflow


def stored(workflow: Workflow) -> tuple[Controller, int]:
    """A controller that has the workflow, and the id of its run."""
    controller = Controller(Clock())
    bound = answer(bind(controller, workflow))
    run = answer(controller.link(bound.workflow_id, "me")).run
    assert run is not None
    controller.calls.clear()
    return controller, run.id


def built(builder: SwarmBuilder) -> SwarmState:
    assert builder.state is not None
    return builder.state


def ready(state: SwarmState) -> list[SwarmTask]:
    return [task for array in state.arrays.values() for task in array.ready]


def shape(state: SwarmState) -> list[tuple[object, ...]]:
    """Everything that is in a state, in order."""
    return [
        (
            *(task.id, task.array.id, task.name, task.status, task.attempts, task.max_attempts, dict(task.resources), task.level),
            *(task.upstream, task.upstream_done, sorted(after.id for after in task.downstream)),
        )
        for task in sorted(state.tasks.values(), key=lambda task: task.id)
    ]


def test_before_a_build_there_is_nothing() -> None:
    """A set for every status all the same."""
    builder = SwarmBuilder(Controller(Clock()), 7, clock=Clock())
    assert (builder.state, builder.last_sync) == (None, None)
    assert builder.task_status_map == {letter: set() for letter in "GQIORDEAF"}
    assert (builder.workflow_run_id, builder.heartbeat_interval, builder.heartbeat_report_by_buffer) == (7, 30.0, 1.5)
    assert builder.initial_status == builder.status == "B"


@pytest.mark.parametrize("chunk", [1, 7, 500, 5000])
def test_a_chain_across_powers_of_ten_has_one_ready_task(chunk: int) -> None:
    """Ids are numbers: of 1,200 tasks in a row, in chunks of any size, exactly one can begin, and there are no twins."""
    controller, run_id = stored(chain(1200))
    builder = SwarmBuilder(controller, run_id, clock=controller.clock)
    answer(builder.build_from_workflow_id(1, chunk))
    state = built(builder)
    assert [task.id for task in ready(state)] == [1]
    assert list(state.tasks) == list(range(1, 1201))
    assert sum(len(tasks) for tasks in builder.task_status_map.values()) == 1200
    assert all(after is state.tasks[after.id] for task in state.tasks.values() for after in task.downstream)


def test_both_ways_lead_to_the_same_state() -> None:
    """Of the workflow in memory, without a heartbeat, or of the store, with one."""
    workflow = chain(30)
    other = workflow.array("other", "t", max_running=3).task("last", max_attempts=1)
    other.after(workflow.arrays[0], workflow.tasks[0])
    controller, run_id = stored(workflow)
    controller.clock.advance(100)
    memory = SwarmBuilder(controller, run_id, clock=controller.clock)
    answer(memory.build_from_workflow(workflow))
    assert controller.beats == []
    rows = SwarmBuilder(controller, run_id, clock=controller.clock)
    answer(rows.build_from_workflow_id(1))
    assert controller.beats == [(100.0, "B", 45.0)]
    assert shape(built(memory)) == shape(built(rows))
    for state in (built(memory), built(rows)):
        assert (state.workflow_id, state.name, state.max_running, state.fail_fast) == (1, "chain", 10_000, False)
        assert state.last_sync == memory.last_sync == 100.0
        assert state.counts[TaskStatus.REGISTERING] == 31
        assert [array.definition for array in state.arrays.values()] == [array.definition for array in workflow.arrays]
        assert len({id(task.resources) for task in state.tasks.values()}) == 3
    assert memory.task_status_map is built(memory).task_status_map


def test_only_what_is_not_done_is_rebuilt() -> None:
    """Edges from tasks that are done count as met, running tasks are running, and what is done is counted."""
    workflow = Workflow("w")
    array = workflow.array("a", "t")
    done, running, _, new = (array.task(name) for name in ("done", "running", "failed", "new"))
    new.after(done, running)
    controller, run_id = stored(workflow)
    for name, status, attempts in (("done", "D", 1), ("running", "R", 2), ("failed", "F", 3)):
        task = controller.get(f"a/{name}")
        task.status, task.attempts = TaskStatus(status), attempts
    builder = SwarmBuilder(controller, run_id, clock=controller.clock)
    answer(builder.build_from_workflow_id(1))
    state = built(builder)
    assert {letter: {task.name for task in tasks} for letter, tasks in builder.task_status_map.items() if tasks} == {
        "G": {"new"},
        "R": {"running"},
        "F": {"failed"},
    }
    waiting = state.tasks[4]
    assert (waiting.upstream, waiting.upstream_done) == (1, 0)
    assert (state.active, state.arrays[1].active, state.tasks[2].attempts) == (1, 1, 2)
    assert {status.value: count for status, count in state.counts.items() if count} == {"D": 1, "R": 1, "F": 1, "G": 1}
    state.move(state.tasks[2], TaskStatus.DONE)
    assert ready(state) == [waiting]


def test_nothing_to_drive_is_an_error() -> None:
    """A workflow that is not there, has no tasks, or was not bound."""
    controller = Controller(Clock())
    builder = SwarmBuilder(controller, 1, clock=controller.clock)
    with pytest.raises(WorkflowError, match="'w' is not in the store; bind it first"):
        answer(builder.build_from_workflow(Workflow("w")))
    empty = Workflow("w")
    definition = chain(1).definition()
    empty.bound = answer(controller.bind(definition))
    with pytest.raises(EmptyWorkflowError, match="'w' has no tasks"):
        answer(builder.build_from_workflow(empty))
    run = answer(controller.link(1, "me")).run
    assert run is not None
    with pytest.raises(EmptyWorkflowError, match=r"workflow 1 \(chain\) has no tasks"):
        answer(builder.build_from_workflow_id(1))
    with pytest.raises(EmptyWorkflowError, match="there is no workflow 2"):
        answer(builder.build_from_workflow_id(2))
    assert builder.state is None
    assert controller.clock.getDelayedCalls() == []


@pytest.mark.parametrize(("interval", "buffer"), [(0, 1.5), (-1, 1.5), (float("inf"), 1.5), (30, 0.9), (float("nan"), 2)])
def test_heartbeats_that_can_only_come_late_are_refused(interval: float, buffer: float) -> None:
    """A driver may not promise what it will not keep."""
    with pytest.raises(ValueError, match="a heartbeat every"):
        SwarmBuilder(Controller(Clock()), 1, interval, buffer, clock=Clock())


def test_a_chunk_has_a_task_at_least() -> None:
    """Chunks of none would never come to an end."""
    with pytest.raises(ValueError, match="edge_chunk_size is 0"):
        answer(SwarmBuilder(Controller(Clock()), 1, clock=Clock()).build_from_workflow_id(1, 0))


# --- heartbeats --------------------------------------------------------------------------------------------------------------


def promises_kept(controller: Controller) -> None:
    """No heartbeat came later than the one before had said."""
    for (time, _, increment), (later, _, _) in zip(controller.beats, controller.beats[1:], strict=False):
        assert increment == INTERVAL * BUFFER
        assert later <= time + increment, f"{later} after {time}"


@pytest.mark.parametrize("seconds", [0.1, 7.0, 29.0, 31.0, 44.0])
def test_heartbeats_are_in_time_however_slow_the_store_is(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat is due before a chunk: it goes first."""
    monkeypatch.setattr(builder_module, "TASK_CHUNK_SIZE", 100)
    controller, run_id = stored(chain(1000))

    def slow(name: str) -> None:
        if name in ("tasks", "downstream"):
            controller.clock.rightNow += seconds  # nothing that waits for the clock gets its turn

    controller.on_call = slow
    builder = SwarmBuilder(controller, run_id, clock=controller.clock)
    answer(builder.build_from_workflow_id(1, 100))
    promises_kept(controller)
    assert controller.beats[0][0] == 0.0
    assert len(controller.beats) >= 21 * seconds // (INTERVAL * BUFFER)
    assert controller.clock.getDelayedCalls() == []


def test_heartbeats_are_in_time_while_a_chunk_is_on_its_way() -> None:
    """A call that takes minutes does not keep the heart from beating."""
    controller, run_id = stored(chain(10))
    controller.on_call = lambda name: controller.clock.pump([5.0] * 40) if name in ("tasks", "downstream") else None
    answer(SwarmBuilder(controller, run_id, clock=controller.clock).build_from_workflow_id(1))
    promises_kept(controller)
    assert [time for time, _, _ in controller.beats[:4]] == [0.0, 30.0, 60.0, 90.0]
    assert controller.clock.getDelayedCalls() == []


@pytest.mark.parametrize("part", ["add", "link"])
def test_heartbeats_are_in_time_within_one_long_chunk(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tasks in one chunk, each of which takes its time: the clock is looked at on the way."""
    controller, run_id = stored(chain(4000))
    whole: Callable[..., None] = getattr(SwarmState, part)

    def slow(*args: object) -> None:
        controller.clock.rightNow += 0.014
        whole(*args)

    monkeypatch.setattr(SwarmState, part, slow)
    answer(SwarmBuilder(controller, run_id, clock=controller.clock).build_from_workflow_id(1, 10**6))
    promises_kept(controller)
    assert len(controller.beats) == 2


@pytest.mark.parametrize(("status", "kept"), [("R", "B"), ("S", "S"), ("E", "E"), ("T", "T"), ("C", "C"), ("H", "H")])
def test_the_status_that_a_heartbeat_is_answered_is_adopted(status: str, kept: str) -> None:
    """A built run is BOUND, unless it has ended meanwhile or is to end."""
    controller, run_id = stored(chain(3))

    async def heartbeat(run_id: int, told: RunStatus, increment: float) -> RunStatus:
        assert told == "B"
        return RunStatus(status)

    controller.heartbeat = heartbeat  # type: ignore[method-assign,assignment]
    builder = SwarmBuilder(controller, run_id, clock=controller.clock)
    answer(builder.build_from_workflow_id(1))
    assert builder.status == kept


def heart(controller: Controller, run_id: int) -> Heart:
    return Heart(controller, run_id, controller.clock, interval=INTERVAL, buffer=BUFFER, status=RunStatus.RUNNING)


def test_a_heartbeat_that_nobody_answers_is_soon_tried_again() -> None:
    """By itself, and without a word; asked for, it raises."""
    controller, run_id = stored(chain(3))
    beating = heart(controller, run_id)
    beating.start()
    controller.clock.advance(0)
    controller.away = True
    controller.clock.pump([1.0] * 40)
    with pytest.raises(ControllerAway):
        answer(beating.beat())
    controller.away = False
    controller.clock.pump([1.0] * 6)
    assert [time for time, _, _ in controller.beats] == [0.0, 45.0]
    beating.stop()
    assert controller.clock.getDelayedCalls() == []


def test_what_a_heartbeat_meets_by_itself_is_raised_for_who_asks_next() -> None:
    """An error that is not the controller's being away is nobody's to swallow."""
    controller, _ = stored(chain(3))
    beating = heart(controller, 99)
    beating.start()
    controller.clock.advance(0)
    beating.stop()
    with pytest.raises(Exception, match="there is no workflow run 99"):
        answer(beating.beat_if_due())


def test_a_run_that_has_ended_has_no_heartbeats() -> None:
    """And does not come to life again."""
    controller, run_id = stored(chain(3))
    beating = heart(controller, run_id)
    beating.hear(RunStatus.STOPPED)
    answer(beating.beat())
    assert controller.beats == []
    beating.hear(RunStatus.RUNNING)
    assert beating.status is RunStatus.STOPPED


def test_a_run_that_is_resumed_says_that_it_lives() -> None:
    """Until it has come to its end; only the controller knows that state by its name."""
    controller, run_id = stored(chain(3))
    answer(controller.link(1, "other", Resume.HOT))
    beating = heart(controller, run_id)
    answer(beating.beat())
    answer(beating.beat())
    assert [status.value for _, status, _ in controller.beats] == ["R", "R"]
    assert beating.status is RunStatus.HOT_RESUME
    assert beating.is_over
