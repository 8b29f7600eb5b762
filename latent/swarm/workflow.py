"""What somebody writes down: a workflow, its arrays of tasks, and which task waits for which.

    wf = Workflow("sequence", max_running=200)
    align = wf.array("align", template="align", resources={"timeout": 600, "memory": 2048}, scale={"memory": 0.5})
    merge = wf.array("merge", template="merge").task("all")
    for sample in samples:
        merge.after(align.task(sample, {"sample": sample}))

No controller is asked anything here. Mistakes are kept, with the line that made them, until `Workflow.definition` tells them all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from json import JSONEncoder
from typing import Any, TypeVar

from attrs import asdict

from latent.config import values
from latent.config.builder import PRIORITIES
from latent.errors import ConfigError
from latent.model import JSON, Labels
from latent.swarm.circles import circles, told
from latent.swarm.values import MOST_AMOUNT, ArrayDefinition, Bound, Definition, Resources, TaskDefinition
from latent.worker.values import number
from latent.worker.words import did_you_mean, kind, shown

MOST_MISTAKES = 100
"""How many are told; the rest is counted."""

MOST_ATTEMPTS = 1000

_encode = JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode

T = TypeVar("T")
D = TypeVar("D")


class Workflow:
    """A DAG of tasks. ``max_running``: how many of them are with the controller at a time, in all arrays together.

    ``fail_fast``: the first task that fails for good ends the whole; otherwise all that does not wait for it goes on.
    ``bound``: the ids that the store gave it, once it has been bound.
    """

    def __init__(self, name: str, *, max_running: int = 10_000, fail_fast: bool = False) -> None:
        self.name = name
        self.arrays: list[Array] = []
        self.tasks: list[Task] = []
        self.bound: Bound | None = None
        self._mistakes: list[str] = []
        self._untold = 0
        place = f"workflow {shown(name)}"
        self._check(place, values.name, "its name", name, default="")
        self.max_running = self._check(place, number, "max_running", max_running, default=1)
        self.fail_fast = self._check(place, values.boolean, "fail_fast", fail_fast, default=False)

    def array(
        self,
        name: str,
        template: str,
        *,
        properties: Mapping[str, JSON] | None = None,
        labels: Labels | None = None,
        resources: Resources | None = None,
        scale: Mapping[str, float] | None = None,
        most: Resources | None = None,
        fallbacks: Iterable[Labels] = (),
        max_running: int | None = None,
        max_attempts: int = 3,
        priority: int | None = None,
    ) -> Array:
        """Many tasks of one kind. ``template`` names a builder of master.cfg; ``properties`` and ``labels`` are put over its own.

        ``resources``: ``timeout`` is the build's, in seconds; every other amount is a property of the build. After a build
        that ended for want of memory or time, each amount grows by its ``scale`` (0.5: half as much again) up to ``most``;
        when that was not enough, the labels of the next of the ``fallbacks`` replace the array's. ``max_attempts`` counts
        all tries of a task. ``max_running``: of this array at a time. ``priority``: higher goes first; None: the builder's.
        """
        place = f"array {shown(name)}"
        check = self._check
        if any(array.name == name for array in self.arrays):
            self.mistake(place, "there is one of this name already; choose another name")
        definition = ArrayDefinition(
            name=check(place, values.name, "its name", name, default=""),
            template=check(place, values.name, "template", template, default=""),
            properties=check(place, values.properties, "properties", properties, default={}),
            labels=check(place, values.labels, "labels", labels, default={}),
            resources=check(place, _amounts, "resources", resources, default={}),
            scale=check(place, _amounts, "scale", scale, default={}),
            most=check(place, _amounts, "most", most, default={}),
            fallbacks=check(place, _fallbacks, fallbacks, default=()),
            max_running=None if max_running is None else check(place, number, "max_running", max_running, default=1),
            priority=None if priority is None else check(place, _priority, priority, default=0),
        )
        attempts = check(place, number, "max_attempts", max_attempts, most=MOST_ATTEMPTS, default=1)
        made = Array(self, len(self.arrays), definition, attempts)
        _check_both(self, place, definition.properties, definition.resources)
        self.arrays.append(made)
        return made

    def definition(self) -> Definition:
        """What is stored of it, without the tasks. Raises `ConfigError` with all mistakes there are."""
        mistakes = [*self._mistakes]
        if self._untold:
            mistakes.append(f"and {self._untold} more mistakes of the same workflow")
        if not self.tasks:
            mistakes.append(f"workflow {shown(self.name)} has no tasks; add some with wf.array(...).task(...)")
        for array in self.arrays:
            mistakes += array.unknown_resources()
        mistakes += self._circles()
        if mistakes:
            raise ConfigError(mistakes)
        return Definition(
            name=self.name,
            digest=self._digest(),
            tasks=len(self.tasks),
            arrays=tuple(array.definition for array in self.arrays),
            max_running=self.max_running,
            fail_fast=self.fail_fast,
        )

    def task_definitions(self, first: int = 0, count: int | None = None) -> Sequence[TaskDefinition]:
        """The tasks at the positions from ``first`` on, as they are stored."""
        last = len(self.tasks) if count is None else first + count
        return [task.definition() for task in self.tasks[first:last]]

    def mistake(self, place: str, what: str) -> None:
        """Something is wrong at ``place``: `definition` will say so, with the line of the user's that is being executed."""
        if len(self._mistakes) < MOST_MISTAKES:
            self._mistakes.append(f"{_line()}: {place}: {what}")
        else:
            self._untold += 1

    def _check(self, place: str, check: Callable[..., T], *args: Any, default: D, **kwargs: Any) -> T | D:
        errors: list[str] = []
        checked = values.collect(errors, check, *args, default=default, **kwargs)
        for error in errors:
            self.mistake(place, error)
        return checked

    def _circles(self) -> list[str]:
        return [
            f"tasks that wait for one another: {told([self.tasks[position].label for position in circle])}; "
            "one of these has to start without the next"
            for circle in circles([task.downstream or () for task in self.tasks])
        ]

    def _digest(self) -> str:
        head = [1, self.name, self.max_running, self.fail_fast, [asdict(array.definition) for array in self.arrays]]
        digest = sha256(_encode(head).encode())
        for task in self.tasks:
            digest.update(_encode(task.content()).encode())
        return digest.hexdigest()


class Array:
    """Many tasks of one template. Iterating over it gives its tasks, so that others can be ``after`` all of them."""

    __slots__ = ("_named", "_tasks", "definition", "max_attempts", "position", "workflow")

    def __init__(self, workflow: Workflow, position: int, definition: ArrayDefinition, max_attempts: int) -> None:
        self.workflow = workflow
        self.position = position
        self.definition = definition
        self.max_attempts = max_attempts
        self._tasks: dict[str, Task] = {}
        self._named = set(definition.resources)

    @property
    def name(self) -> str:
        return self.definition.name

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"<array {self.name}>"

    def task(
        self,
        name: str,
        properties: Mapping[str, JSON] | None = None,
        *,
        labels: Labels | None = None,
        resources: Resources | None = None,
        max_attempts: int | None = None,
    ) -> Task:
        """A task, whose name no other task of this array has. What it is given is put over what the array has."""
        workflow = self.workflow
        place = f"task {self.name}/{name}"
        if isinstance(name, str) and name in self._tasks:
            workflow.mistake(place, "there is one of this name already; choose another name")
            return self._tasks[name]
        check = workflow._check
        check(place, values.name, "its name", name, default="")
        task = Task(self, len(workflow.tasks), name, self.max_attempts)
        if properties:
            task.properties = check(place, values.properties, "properties", properties, default=None)
        if labels:
            task.labels = check(place, values.labels, "labels", labels, default=None)
        if resources:
            task.resources = check(place, _amounts, "resources", resources, default=None)
            self._named.update(task.resources or ())
        if properties or resources:
            both = self.definition
            _check_both(
                workflow, place, {**both.properties, **(task.properties or {})}, {**both.resources, **(task.resources or {})}
            )
        if max_attempts is not None:
            task.max_attempts = check(place, number, "max_attempts", max_attempts, most=MOST_ATTEMPTS, default=1)
        if isinstance(name, str):
            self._tasks[name] = task
        workflow.tasks.append(task)
        return task

    def unknown_resources(self) -> Iterator[str]:
        """What is to be scaled, or limited, though no task has it."""
        for keyword, amounts in (("scale", self.definition.scale), ("most", self.definition.most)):
            for name in amounts:
                if name not in self._named:
                    remedy = did_you_mean(name, self._named, "its resources")
                    yield f"array {shown(self.name)}: {keyword} names {name!r}, which none of its tasks has; {remedy}"


class Task:
    """A node of the DAG. ``position``: in the workflow. ``downstream``: positions of the tasks that wait for this one."""

    __slots__ = ("array", "downstream", "labels", "max_attempts", "name", "position", "properties", "resources")

    def __init__(self, array: Array, position: int, name: str, max_attempts: int) -> None:
        self.array = array
        self.position = position
        self.name = name
        self.max_attempts = max_attempts
        # None where there is nothing: there may be a million of these.
        self.downstream: list[int] | None = None
        self.properties: Mapping[str, JSON] | None = None
        self.labels: Labels | None = None
        self.resources: Resources | None = None

    @property
    def label(self) -> str:
        """How it is called in messages: ``align/sample-1``."""
        return f"{self.array.name}/{self.name}"

    def __repr__(self) -> str:
        return f"<task {self.label}>"

    def after(self, *others: Task | Iterable[Task]) -> Task:
        """This task waits until all of the others are done. Takes tasks, arrays and lists of tasks; returns this task."""
        for other in others:
            if isinstance(other, Task):
                self._wait_for(other)
            elif isinstance(other, Iterable) and not isinstance(other, str | bytes):
                for one in other:
                    self._wait_for(one)
            else:
                self._wait_for(other)
        return self

    def definition(self) -> TaskDefinition:
        return TaskDefinition(
            self.array.position,
            self.name,
            self._downstream(),
            self.max_attempts,
            self.properties or {},
            self.labels or {},
            self.resources or {},
        )

    def content(self) -> list[JSON]:
        """All that makes it what it is, for the digest."""
        extra = [self.properties, self.labels, self.resources] if self.properties or self.labels or self.resources else 0
        return [self.array.position, self.name, self.max_attempts, self._downstream(), extra]

    def _downstream(self) -> tuple[int, ...]:
        return tuple(sorted(set(self.downstream))) if self.downstream else ()

    def _wait_for(self, other: object) -> None:
        workflow = self.array.workflow
        if not isinstance(other, Task):
            what = f"it is after {shown(other)}, {kind(other)}, which is no task; give what array.task(...) returned"
            workflow.mistake(f"task {self.label}", what)
        elif other.array.workflow is not workflow:
            whose = f"workflow {shown(other.array.workflow.name)}"
            what = f"it is after {other.label} of {whose}, which is not in this one; tasks wait for tasks of their own workflow"
            workflow.mistake(f"task {self.label}", what)
        elif other.downstream is None:
            other.downstream = [self.position]
        else:
            other.downstream.append(self.position)


def _line() -> str:
    """File and line of whoever called into this module."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _check_both(workflow: Workflow, place: str, properties: Mapping[str, JSON], resources: Resources) -> None:
    for name in sorted(properties.keys() & resources.keys()):
        what = f"{name!r} is both a property and a resource; resources become properties of the build, so give it once"
        workflow.mistake(place, what)


def _amounts(subject: str, value: Any) -> Mapping[str, float]:
    """Names and numbers from 0 on."""
    if value is None:
        return {}
    checked = values.mapping(subject, value, remedy="write {'memory': 2048}")
    wrong = [
        f"{subject}: {name!r} is {shown(amount)}; write a number from 0 to {MOST_AMOUNT:.0e}"
        for name, amount in checked.items()
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 <= amount <= MOST_AMOUNT
    ]
    if subject != "scale" and checked.get("timeout") == 0:
        wrong.append(f"{subject}: 'timeout' is 0; write a number of seconds above 0, or leave it out for the builder's")
    if wrong:
        raise ConfigError(wrong)
    return dict(checked)


def _fallbacks(value: Any) -> tuple[Labels, ...]:
    if isinstance(value, Mapping | str) or not isinstance(value, Iterable):
        raise ConfigError(f"fallbacks is {kind(value)}, {shown(value)}; write a list of labels, [{{'size': 'big'}}] for example")
    return tuple(values.labels(f"fallbacks[{index}]", labels) for index, labels in enumerate(value))


def _priority(value: Any) -> int:
    return number("priority", value, least=-PRIORITIES, most=PRIORITIES)
