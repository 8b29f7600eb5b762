"""Whether what a driver asks makes sense. All that is wrong is a `ConfigError`, which names the place and the remedy."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from latent.errors import ConfigError
from latent.store.workflows import WorkflowRow
from latent.swarm.values import ArrayDefinition, Batch, Definition, TaskDefinition
from latent.worker.words import shown

MOST = 2**31 - 1
"""What every database takes as a number."""

SHOWN = 20
"""Mistakes that are told at once."""


def definition(value: Definition, builders: Collection[str]) -> None:
    """``builders``: the templates that there are."""
    errors = []
    if not value.name.strip():
        errors.append("the workflow has no name; give it one")
    if not value.digest:
        errors.append("the workflow has no digest; take it from Workflow.definition()")
    if not 1 <= value.tasks <= MOST:
        errors.append(f"workflow {value.name!r} has {value.tasks} tasks; add some")
    if not 1 <= value.max_running <= MOST:
        errors.append(f"max_running of workflow {value.name!r} is {value.max_running}; give a whole number from 1")
    names: set[str] = set()
    for array in value.arrays:
        if array.name in names:
            errors.append(f"two arrays are called {array.name!r}; give each a name of its own")
        names.add(array.name)
        errors += [f"array {array.name!r}: {error}" for error in _array(array, builders)]
    _raise(errors)


def _array(array: ArrayDefinition, builders: Collection[str]) -> list[str]:
    errors = []
    if not array.name.strip():
        errors.append("it has no name; give it one")
    if array.template not in builders:
        known = ", ".join(sorted(builders)) or "none is declared"
        errors.append(f"no builder is called {array.template!r}; the templates are the builders of master.cfg: {known}")
    if array.max_running is not None and not 1 <= array.max_running <= MOST:
        errors.append(f"max_running is {array.max_running}; give a whole number from 1, or leave it out")
    if array.priority is not None and not -MOST <= array.priority <= MOST:
        errors.append(f"priority is {array.priority}; give a whole number from -{MOST} to {MOST}")
    errors += amounts("resources", array.resources) + amounts("most", array.most)
    for name, share in array.scale.items():
        if not math.isfinite(share) or share < 0:
            errors.append(f"scale[{name!r}] is {share}; give the share by which it grows, 0 or more")
    for labels in (array.labels, *array.fallbacks):
        errors += _labels(labels)
    return errors


def amounts(what: str, resources: Mapping[str, float]) -> list[str]:
    """What is wrong with amounts by name."""
    errors = []
    for name, amount in resources.items():
        if not name.strip():
            errors.append(f"a name in {what} is empty; name what is needed")
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not math.isfinite(amount) or amount < 0:
            errors.append(f"{what}[{name!r}] is {shown(amount)}; give a number, 0 or more")
    if resources.get("timeout", 1) == 0:
        errors.append(f"{what}['timeout'] is 0; give it some seconds")
    return errors


def tasks(workflow: WorkflowRow, arrays: int, first: int, given: Sequence[TaskDefinition]) -> None:
    """Tasks for the positions from ``first`` on of a workflow with so many arrays."""
    if not 0 <= first <= workflow.bound:
        raise ConfigError(
            f"tasks of workflow {workflow.id} from position {first} on can't be stored: it has those up to {workflow.bound}; "
            "store them in order"
        )
    total = workflow.tasks
    if first + len(given) > total:
        raise ConfigError(f"workflow {workflow.id} is to have {total} tasks, not {first + len(given)}; bind it with their number")
    errors: list[str] = []
    looked: set[int] = set()
    for position, task in enumerate(given, first):
        wrong = []
        if not 0 <= task.array < arrays:
            wrong.append(f"it is of array {task.array}, of {arrays}; count from 0")
        if not task.name.strip():
            wrong.append("it has no name; give it one")
        if not 1 <= task.max_attempts <= MOST:
            wrong.append(f"max_attempts is {task.max_attempts}; give a whole number from 1")
        for other in task.downstream:
            if not 0 <= other < total or other == position:
                wrong.append(f"downstream names position {other}; it is of another workflow, or the task itself")
        # Tasks share these mostly.
        if task.resources and id(task.resources) not in looked:
            looked.add(id(task.resources))
            wrong += amounts("resources", task.resources)
        if task.labels and id(task.labels) not in looked:
            looked.add(id(task.labels))
            wrong += _labels(task.labels)
        if wrong:
            errors += [f"task {task.name!r} (position {position}): {one}" for one in wrong]
            if len(errors) > SHOWN:
                break
    _raise(errors)


def batch(value: Batch) -> None:
    """What a driver wants to have carried out."""
    errors = amounts("resources", value.resources)
    if len({id for id, _ in value.tasks}) != len(value.tasks):
        errors.append("a task is in the batch twice; name each once")
    if any(not 1 <= number <= MOST for _, number in value.tasks):
        errors.append("the attempts of a task are numbered from 1; give their numbers")
    if value.level < 0:
        errors.append(f"level is {value.level}; give 0, or the number of a fallback from 1")
    _raise(errors)


def _labels(labels: Mapping[str, str]) -> list[str]:
    return [
        f"label {shown(name)} is {shown(value)}; names and values of labels are strings"
        for name, value in labels.items()
        if not isinstance(name, str) or not name.strip() or not isinstance(value, str)
    ]


def _raise(errors: list[str]) -> None:
    if errors:
        more = [f"... and {len(errors) - SHOWN} mistakes more"] if len(errors) > SHOWN else []
        raise ConfigError(errors[:SHOWN] + more)
