"""What a driver knows of the workflow that it drives: its tasks, where each is, and which of them can be carried out.

There may be a million tasks, so a task is small, sets are kept up to date instead of being made, and no step looks at all tasks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from latent.swarm.statuses import ACTIVE, TaskStatus
from latent.swarm.values import ArrayDefinition, Resources

_NOBODY: tuple[SwarmTask, ...] = ()

_WAITING = frozenset({TaskStatus.REGISTERING, TaskStatus.ADJUSTING_RESOURCES})
"""The statuses in which a task is queued next, once all that it waits for is done."""


class SwarmTask:
    """A task of a run; two of them are equal only if they are the same object.

    ``upstream``: how many tasks it waits for; ``upstream_done``: how many of those are done. Tasks that were done before the
    state was built are in neither. ``level``: which fallback of its array it uses, from 1, or 0.
    """

    __slots__ = (
        *("array", "attempts", "downstream", "id", "level", "max_attempts", "name", "resources", "status"),
        *("upstream", "upstream_done"),
    )

    def __init__(
        self,
        id: int,
        array: SwarmArray,
        name: str,
        status: TaskStatus,
        max_attempts: int,
        resources: Resources,
        attempts: int = 0,
        level: int = 0,
    ) -> None:
        self.id = id
        self.array = array
        self.name = name
        self.status = status
        self.attempts = attempts
        self.max_attempts = max_attempts
        self.resources = resources
        self.level = level
        self.upstream = 0
        self.upstream_done = 0
        self.downstream: Sequence[SwarmTask] = _NOBODY

    @property
    def label(self) -> str:
        """How it is called in messages: ``align/sample-1``."""
        return f"{self.array.name}/{self.name}"

    @property
    def is_ready(self) -> bool:
        """Whether it can be queued."""
        return self.upstream_done == self.upstream and self.status in _WAITING

    def __repr__(self) -> str:
        return f"<task {self.id} {self.label} {self.status.value}>"


class SwarmArray:
    """An array of a run. ``counts``: its tasks, by status. ``ready``: those that can be queued, the next one first."""

    __slots__ = ("active", "counts", "definition", "id", "ready")

    def __init__(self, id: int, definition: ArrayDefinition) -> None:
        self.id = id
        self.definition = definition
        self.counts = dict.fromkeys(TaskStatus, 0)
        self.active = 0
        self.ready: deque[SwarmTask] = deque()

    @property
    def name(self) -> str:
        return self.definition.name

    def __repr__(self) -> str:
        return f"<array {self.id} {self.name}>"


class SwarmState:
    """The state of one workflow run.

    ``tasks``: by id, without those that were done before. ``task_status_map``: the same by status, with a set for every status.
    ``last_sync``: the controller's time up to which all changes are known. ``active``: how many tasks count towards the limit.
    """

    def __init__(self, workflow_id: int, name: str, arrays: Iterable[SwarmArray], *, max_running: int, fail_fast: bool) -> None:
        self.workflow_id = workflow_id
        self.name = name
        self.arrays: dict[int, SwarmArray] = {array.id: array for array in arrays}
        self.max_running = max_running
        self.fail_fast = fail_fast
        self.last_sync: float | None = None
        self.tasks: dict[int, SwarmTask] = {}
        self.task_status_map: dict[TaskStatus, set[SwarmTask]] = {letter: set() for letter in TaskStatus}
        self.active = 0
        self._alike: dict[frozenset[tuple[str, float]], Resources] = {}

    @property
    def counts(self) -> dict[TaskStatus, int]:
        """All tasks of the workflow by status, those that were done before too."""
        return {status: sum(array.counts[status] for array in self.arrays.values()) for status in TaskStatus}

    @property
    def is_done(self) -> bool:
        return len(self.task_status_map[TaskStatus.DONE]) == len(self.tasks)

    # --- building ------------------------------------------------------------------------------------------------------------

    def alike(self, resources: Resources) -> Resources:
        """The same amounts, as one object for all tasks that have them."""
        return self._alike.setdefault(frozenset(resources.items()), resources)

    def add(self, task: SwarmTask) -> None:
        """A task that is new here."""
        self.tasks[task.id] = task
        self.task_status_map[task.status].add(task)
        task.array.counts[task.status] += 1
        if task.status in ACTIVE:
            task.array.active += 1
            self.active += 1

    def link(self, task: SwarmTask, downstream: Iterable[int]) -> None:
        """``downstream``: ids of tasks that wait for ``task``. Those that are not here are left out."""
        tasks = self.tasks
        linked = [waiting for id in downstream if (waiting := tasks.get(id)) is not None]
        done = task.status is TaskStatus.DONE
        for waiting in linked:
            waiting.upstream += 1
            waiting.upstream_done += done
        task.downstream = linked or _NOBODY

    def line_up(self) -> None:
        """All tasks are here and linked: those that can be queued go to their arrays' lines, in order of their ids."""
        for task in self.tasks.values():
            if task.is_ready:
                task.array.ready.append(task)

    # --- what happens --------------------------------------------------------------------------------------------------------

    def move(self, task: SwarmTask, status: TaskStatus) -> None:
        """The task's status changes. Those that waited for it, or it itself, get into line when they can be queued now."""
        before = task.status
        if before is status:
            return
        array = task.array
        self.task_status_map[before].discard(task)
        self.task_status_map[status].add(task)
        array.counts[before] -= 1
        array.counts[status] += 1
        active = (status in ACTIVE) - (before in ACTIVE)
        array.active += active
        self.active += active
        task.status = status
        if status is TaskStatus.DONE:
            for waiting in task.downstream:
                waiting.upstream_done += 1
                if waiting.is_ready:
                    waiting.array.ready.append(waiting)
        elif status is TaskStatus.ADJUSTING_RESOURCES:
            array.ready.appendleft(task)
        elif status is TaskStatus.REGISTERING:
            array.ready.append(task)

    @property
    def waits(self) -> bool:
        """Whether there is a task that can be queued."""
        return any(array.ready for array in self.arrays.values())

    def behind(self, failed: Iterable[SwarmTask]) -> set[SwarmTask]:
        """The tasks that wait for any of these, directly or through others."""
        found: set[SwarmTask] = set()
        ahead = [task for one in failed for task in one.downstream]
        while ahead:
            task = ahead.pop()
            if task not in found:
                found.add(task)
                ahead += task.downstream
        return found
