"""What a driver and the controller tell each other about a workflow. All are frozen; ids are ints, times POSIX seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from attrs import field, frozen

from latent.model import JSON, Labels
from latent.swarm.statuses import RunStatus, TaskStatus, WorkflowStatus

Resources = Mapping[str, float]
"""Amounts by name. ``timeout`` is the build's, in seconds; every other is a property of the build: ``memory``, ``cpus``..."""

MOST_AMOUNT = 10**15
"""Of a resource. Up to here a float holds whole numbers as they are."""


class Resume(Enum):
    """What becomes of the builds that run when a workflow is taken over: COLD ends them, HOT keeps them."""

    COLD = "cold"
    HOT = "hot"


class Trouble(Enum):
    """Why a task's build did not succeed. TIMEOUT and MEMORY are for want of resources."""

    FAILURE = "failure"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    INFRASTRUCTURE = "infrastructure"
    CANCELLED = "cancelled"
    REFUSED = "refused"

    @property
    def wants_resources(self) -> bool:
        return self in (Trouble.TIMEOUT, Trouble.MEMORY)

    @property
    def is_fatal(self) -> bool:
        """Whether it would be no better a second time: somebody cancelled the build, or it can't even be asked for."""
        return self in (Trouble.CANCELLED, Trouble.REFUSED)


@frozen(kw_only=True)
class ArrayDefinition:
    """Many tasks of one template. ``template``: the builder. ``max_running``: how many of them at a time; None: no limit.

    ``scale``: after a resource error an amount grows by this share of itself (0.5: half as much again), but not over ``most``.
    ``fallbacks``: labels that replace those of the array, one set after the other, when ``most`` was not enough.
    """

    name: str
    template: str
    properties: Mapping[str, JSON] = field(factory=dict)
    labels: Labels = field(factory=dict)
    resources: Resources = field(factory=dict)
    scale: Mapping[str, float] = field(factory=dict)
    most: Resources = field(factory=dict)
    fallbacks: tuple[Labels, ...] = ()
    max_running: int | None = None
    priority: int | None = None


@frozen
class TaskDefinition:
    """One task. ``array`` and ``downstream`` are positions: of its array, and of the tasks that wait for this one.

    ``properties`` and ``labels`` are put over the array's, ``resources`` too.
    """

    array: int
    name: str
    downstream: tuple[int, ...] = ()
    max_attempts: int = 3
    properties: Mapping[str, JSON] = field(factory=dict)
    labels: Labels = field(factory=dict)
    resources: Resources = field(factory=dict)


@frozen(kw_only=True)
class Definition:
    """A workflow without its tasks. ``digest`` is over everything, tasks and edges too: the same digest is the same workflow."""

    name: str
    digest: str
    tasks: int
    arrays: tuple[ArrayDefinition, ...]
    max_running: int
    fail_fast: bool = False


@frozen(kw_only=True)
class Bound:
    """What the store made of a definition. The task at position n has the id ``first_task`` + n.

    ``tasks``: how many it has so far. ``arrays``: their ids, by position.
    """

    workflow_id: int
    first_task: int
    arrays: tuple[int, ...]
    tasks: int


@frozen(kw_only=True)
class ArrayInfo:
    """``counts``: its tasks, by status."""

    id: int
    definition: ArrayDefinition
    counts: Mapping[TaskStatus, int]


@frozen(kw_only=True)
class RunInfo:
    """A workflow run. ``driver``: who drives it, in words. ``report_by``: when it is given up, unless it is heard of."""

    id: int
    workflow_id: int
    status: RunStatus
    driver: str
    created_at: float
    heartbeat_at: float
    report_by: float


@frozen(kw_only=True)
class WorkflowInfo:
    """A workflow as it is now. ``run``: its last run. ``tasks``: how many it has. ``now``: the controller's time."""

    id: int
    name: str
    digest: str
    status: WorkflowStatus
    tasks: int
    first_task: int
    max_running: int
    fail_fast: bool
    arrays: Sequence[ArrayInfo]
    run: RunInfo | None
    created_at: float
    now: float


@frozen
class TaskRow:
    """A task as it is stored. ``resources``: what it is to have. ``level``: which fallback of the array it uses, from 1, or 0.

    ``build_id``: its last attempt's build. ``reason``: why that did not succeed.
    """

    id: int
    array_id: int
    name: str
    status: TaskStatus
    attempts: int
    max_attempts: int
    resources: Resources
    level: int
    build_id: int | None = None
    reason: str = ""


@frozen(kw_only=True)
class Linked:
    """An answer to whoever wants to drive a workflow. ``run`` None: not yet; ``waits_for`` says what for."""

    run: RunInfo | None
    waits_for: str = ""


@frozen(kw_only=True)
class Batch:
    """Tasks of one array that are to be carried out, with the same resources. ``tasks``: id and number of the attempt, from 1."""

    array_id: int
    tasks: Sequence[tuple[int, int]]
    resources: Resources
    level: int


@frozen
class TaskChange:
    """What became of a task. ``build_id``: its last attempt's build. ``trouble`` and ``reason``: why that did not succeed."""

    id: int
    status: TaskStatus
    attempts: int
    build_id: int | None = None
    trouble: Trouble | None = None
    reason: str = ""


@frozen(kw_only=True)
class Delta:
    """The tasks that have changed. ``now``: what to ask from the next time. ``status``: the run's, as the controller has it."""

    now: float
    status: RunStatus
    changes: Sequence[TaskChange]
