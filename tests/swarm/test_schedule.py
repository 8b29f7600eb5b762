"""Tasks are queued when they can be and within the limits, whatever happens to them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from latent.swarm.schedule import MOST_OF_A_BATCH, take
from latent.swarm.state import SwarmArray, SwarmState, SwarmTask
from latent.swarm.statuses import ACTIVE, TaskStatus
from latent.swarm.values import ArrayDefinition

G, Q, R, D, E, A, F = (TaskStatus(letter) for letter in "GQRDEAF")


def swarm(limits: Sequence[int | None] = (None,), *, most: int = 1000, priorities: Sequence[int | None] = ()) -> SwarmState:
    """Arrays 1, 2... with these limits."""
    arrays = [
        SwarmArray(number, ArrayDefinition(name=f"a{number}", template="t", max_running=limit, priority=priority))
        for number, (limit, priority) in enumerate(itertools.zip_longest(limits, priorities), 1)
    ]
    return SwarmState(1, "w", arrays, max_running=most, fail_fast=False)


def add(state: SwarmState, count: int, array: int = 1, memory: int = 1) -> list[SwarmTask]:
    first = len(state.tasks) + 1
    tasks = [
        SwarmTask(id, state.arrays[array], f"t{id}", G, 3, state.alike({"memory": memory})) for id in range(first, first + count)
    ]
    for task in tasks:
        state.add(task)
    return tasks


def queued(state: SwarmState) -> list[tuple[int, list[int]]]:
    return [(batch.array_id, [id for id, _ in batch.tasks]) for batch in take(state)]


def test_a_batch_is_of_one_array_and_of_one_kind() -> None:
    """Tasks with other resources, or on another fallback, go apart; each keeps its place among its like."""
    state = swarm([None, None])
    tasks = [*add(state, 2), *add(state, 1, memory=2), *add(state, 1), *add(state, 1, array=2)]
    tasks[1].level = 1
    state.line_up()
    batches = take(state)
    assert [(batch.array_id, batch.tasks, batch.resources, batch.level) for batch in batches] == [
        (1, ((1, 1), (4, 1)), {"memory": 1}, 0),
        (1, ((2, 1),), {"memory": 1}, 1),
        (1, ((3, 1),), {"memory": 2}, 0),
        (2, ((5, 1),), {"memory": 1}, 0),
    ]
    assert {task.status for task in tasks} == {Q}
    assert take(state) == []


def test_a_batch_has_five_hundred_tasks_at_most() -> None:
    """However many are ready."""
    state = swarm(most=10**6)
    add(state, 1201)
    state.line_up()
    assert [len(batch.tasks) for batch in take(state)] == [MOST_OF_A_BATCH, MOST_OF_A_BATCH, 201]


def test_the_limit_of_the_workflow_and_of_the_array_hold_together() -> None:
    """What runs counts towards both; what has ended makes room, and the next in line takes it."""
    state = swarm([2, None], most=3)
    tasks = [*add(state, 4), *add(state, 4, array=2)]
    state.line_up()
    assert queued(state) == [(1, [1, 2]), (2, [5])]
    state.move(tasks[0], R)
    assert queued(state) == []
    state.move(tasks[4], D)
    assert queued(state) == [(2, [6])]
    state.move(tasks[0], D)
    assert queued(state) == [(1, [3])]


def test_a_higher_priority_goes_first() -> None:
    """Where the workflow's limit does not let all go."""
    state = swarm([None, None, None], most=2, priorities=[None, 5, -1])
    for array in (1, 2, 3):
        add(state, 1, array=array)
    state.line_up()
    assert queued(state) == [(2, [2]), (1, [1])]


def test_a_task_whose_resources_were_adjusted_is_first_in_line() -> None:
    """One that is merely tried again is last."""
    state = swarm([1])
    tasks = add(state, 3)
    state.line_up()
    assert queued(state) == [(1, [1])]
    state.move(tasks[0], G)
    assert queued(state) == [(1, [2])]
    state.move(tasks[1], A)
    assert queued(state) == [(1, [2])]
    assert tasks[1].attempts == 2


def test_a_task_waits_until_all_before_it_are_done() -> None:
    """A failure before it keeps it back for ever; it is found behind that."""
    state = swarm()
    one, two, last, beyond = add(state, 4)
    state.link(one, [last.id])
    state.link(two, [last.id, 99])
    state.link(last, [beyond.id])
    state.line_up()
    assert queued(state) == [(1, [1, 2])]
    state.move(one, D)
    assert queued(state) == []
    assert (last.upstream, last.upstream_done) == (2, 1)
    state.move(two, F)
    assert not state.waits
    assert state.behind([two]) == {last, beyond}
    state.move(two, D)
    assert queued(state) == [(1, [3])]


def test_what_is_done_already_when_edges_are_linked_counts() -> None:
    """A state may be built while tasks end."""
    state = swarm()
    one, two = add(state, 2)
    state.move(one, D)
    state.link(one, [two.id])
    state.line_up()
    assert (two.upstream, two.upstream_done) == (1, 1)
    assert queued(state) == [(1, [2])]


def test_there_is_a_set_and_a_count_for_every_status() -> None:
    """Empty ones too."""
    state = swarm()
    add(state, 2)
    assert list(state.task_status_map) == list("GQIORDEAF")
    assert {status: len(tasks) for status, tasks in state.task_status_map.items()} == state.counts
    assert state.counts[G] == 2
    assert not state.is_done
    assert [repr(task) for task in state.tasks.values()] == ["<task 1 a1/t1 G>", "<task 2 a1/t2 G>"]
    assert repr(state.arrays[1]) == "<array 1 a1>"


@st.composite
def swarms(draw: st.DrawFn) -> SwarmState:
    """A DAG: edges lead from smaller to larger ids."""
    limits = draw(st.lists(st.one_of(st.none(), st.integers(1, 3)), min_size=1, max_size=3))
    state = swarm(limits, most=draw(st.integers(1, 6)))
    for array in draw(st.lists(st.integers(1, len(limits)), min_size=1, max_size=12)):
        add(state, 1, array=array, memory=draw(st.integers(1, 2)))
    for task in state.tasks.values():
        later = range(task.id + 1, len(state.tasks) + 1)
        state.link(task, draw(st.sets(st.sampled_from(later), max_size=3)) if later else ())
    state.line_up()
    return state


@given(swarms(), st.data())
def test_any_course_of_events_keeps_the_limits_and_ends(state: SwarmState, data: st.DataObject) -> None:
    """Tasks start, are done, fail, are tried again: none is queued before its time or beyond a limit, and none twice.

    All sets and counts agree with the tasks, and in the end all is done.
    """
    before = {task: [one for one in state.tasks.values() if task in one.downstream] for task in state.tasks.values()}
    failures = 0
    for _ in range(200):
        ready = {task for task in state.tasks.values() if task.status in (G, A) and all(one.status is D for one in before[task])}
        taken = [state.tasks[id] for batch in take(state) for id, _ in batch.tasks]
        assert len(taken) == len(set(taken))
        assert set(taken) <= ready
        check(state)
        if len(taken) < len(ready):  # some limit is the reason
            left = [task for task in ready if task not in taken]
            assert state.active == state.max_running or all(is_full(task.array) for task in left)
        running = [task for task in state.tasks.values() if task.status in ACTIVE]
        if not running:
            break
        task = data.draw(st.sampled_from(running))
        status = data.draw(st.sampled_from([D, R, G, A] if failures < 20 else [D]))
        failures += status in (G, A)
        state.move(task, status)
    assert state.is_done
    assert all(task.attempts >= 1 for task in state.tasks.values())


def is_full(array: SwarmArray) -> bool:
    return array.definition.max_running is not None and array.active >= array.definition.max_running


def check(state: SwarmState) -> None:
    tasks = list(state.tasks.values())
    assert {status: {task for task in tasks if task.status is status} for status in TaskStatus} == state.task_status_map
    assert state.active == sum(task.status in ACTIVE for task in tasks) <= state.max_running
    for array in state.arrays.values():
        mine = [task for task in tasks if task.array is array]
        assert array.active == sum(task.status in ACTIVE for task in mine) <= (array.definition.max_running or len(tasks))
        assert array.counts == {status: sum(task.status is status for task in mine) for status in TaskStatus}
        assert len(array.ready) == len(set(array.ready)) == sum(task.is_ready for task in mine)
