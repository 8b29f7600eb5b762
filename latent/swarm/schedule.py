"""Which tasks are queued next. Pure but for the state, which it moves."""

from __future__ import annotations

from collections.abc import Iterator

from latent.swarm.state import SwarmArray, SwarmState, SwarmTask
from latent.swarm.statuses import TaskStatus
from latent.swarm.values import Batch, Resources

MOST_OF_A_BATCH = 500


def take(state: SwarmState) -> list[Batch]:
    """The tasks that can be carried out now and are within the limits: they become QUEUED, and this is one more attempt of each.

    Arrays of a higher priority come first, then those declared first. What can't go now keeps its place in its array's line.
    """
    batches: list[Batch] = []
    for array in sorted(state.arrays.values(), key=_priority):  # stable: as declared
        if array.ready:
            batches += _batches(array, _taken(state, array))
    return batches


def _priority(array: SwarmArray) -> int:
    return -(array.definition.priority or 0)


def _taken(state: SwarmState, array: SwarmArray) -> Iterator[SwarmTask]:
    room = state.max_running - state.active
    if array.definition.max_running is not None:
        room = min(room, array.definition.max_running - array.active)
    for _ in range(min(room, len(array.ready))):
        task = array.ready.popleft()
        task.attempts += 1
        state.move(task, TaskStatus.QUEUED)
        yield task


def _batches(array: SwarmArray, tasks: Iterator[SwarmTask]) -> Iterator[Batch]:
    """Those that are alike together, in the order of their first."""
    alike: dict[tuple[int, int], tuple[Resources, list[tuple[int, int]]]] = {}
    for task in tasks:
        # The state has one object for all equal resources.
        _, members = alike.setdefault((id(task.resources), task.level), (task.resources, []))
        members.append((task.id, task.attempts))
    for (_, level), (resources, members) in alike.items():
        for first in range(0, len(members), MOST_OF_A_BATCH):
            chunk = tuple(members[first : first + MOST_OF_A_BATCH])
            yield Batch(array_id=array.id, tasks=chunk, resources=resources, level=level)
