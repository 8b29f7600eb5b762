"""The values of `latent.swarm.values` as JSON documents, and back.

Tables with many rows are lists of lists, their columns named once. What can't be read is a `ConfigError` that names the place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import asdict, fields

from latent.errors import ConfigError
from latent.model import JSON
from latent.swarm import reading
from latent.swarm.reading import anything, listed, mapping, named, number, one_of, text, whole, wrong
from latent.swarm.statuses import RunStatus, TaskStatus, WorkflowStatus
from latent.swarm.values import (
    ArrayDefinition,
    ArrayInfo,
    Batch,
    Bound,
    Definition,
    Delta,
    Linked,
    Resources,
    RunInfo,
    TaskChange,
    TaskDefinition,
    TaskRow,
    Trouble,
    WorkflowInfo,
)

LONGEST_REASON = 100_000


def _names(kind: type) -> list[str]:
    return [one.name for one in fields(kind)]


_ARRAY, _TASK, _DEFINITION = _names(ArrayDefinition), _names(TaskDefinition), _names(Definition)
_ROW, _CHANGE = _names(TaskRow), _names(TaskChange)


# --- definitions --------------------------------------------------------------------------------------------------------


def array(value: ArrayDefinition) -> dict[str, JSON]:
    return {
        "name": value.name,
        "template": value.template,
        "properties": dict(value.properties),
        "labels": dict(value.labels),
        "resources": dict(value.resources),
        "scale": dict(value.scale),
        "most": dict(value.most),
        "fallbacks": [dict(labels) for labels in value.fallbacks],
        "max_running": value.max_running,
        "priority": value.priority,
    }


def read_array(doc: JSON, place: str) -> ArrayDefinition:
    found = mapping(doc, place, _ARRAY, ("name", "template"))
    limit, priority = found.get("max_running"), found.get("priority")
    return ArrayDefinition(
        name=text(found["name"], f"{place}.name"),
        template=text(found["template"], f"{place}.template"),
        properties=named(found.get("properties", {}), f"{place}.properties", anything),
        labels=named(found.get("labels", {}), f"{place}.labels", text),
        resources=named(found.get("resources", {}), f"{place}.resources", number),
        scale=named(found.get("scale", {}), f"{place}.scale", number),
        most=named(found.get("most", {}), f"{place}.most", number),
        fallbacks=tuple(listed(found.get("fallbacks", []), f"{place}.fallbacks", lambda labels, at: named(labels, at, text))),
        max_running=None if limit is None else whole(limit, f"{place}.max_running", 1),
        priority=None if priority is None else whole(priority, f"{place}.priority", -(2**31) + 1, 2**31 - 1),
    )


def definition(value: Definition) -> dict[str, JSON]:
    return {
        "name": value.name,
        "digest": value.digest,
        "tasks": value.tasks,
        "arrays": [array(one) for one in value.arrays],
        "max_running": value.max_running,
        "fail_fast": value.fail_fast,
    }


def read_definition(doc: JSON, place: str = "the workflow") -> Definition:
    found = mapping(doc, place, _DEFINITION, ("name", "digest", "tasks", "arrays", "max_running"))
    return Definition(
        name=text(found["name"], f"{place}.name"),
        digest=text(found["digest"], f"{place}.digest", longest=200),
        tasks=whole(found["tasks"], f"{place}.tasks"),
        arrays=tuple(listed(found["arrays"], f"{place}.arrays", read_array)),
        max_running=whole(found["max_running"], f"{place}.max_running"),
        fail_fast=reading.flag(found.get("fail_fast", False), f"{place}.fail_fast"),
    )


def task(value: TaskDefinition) -> dict[str, JSON]:
    """What is as it is by default is left out: there may be a million."""
    doc: dict[str, JSON] = {"array": value.array, "name": value.name}
    if value.downstream:
        doc["downstream"] = list(value.downstream)
    if value.max_attempts != 3:
        doc["max_attempts"] = value.max_attempts
    if value.properties:
        doc["properties"] = dict(value.properties)
    if value.labels:
        doc["labels"] = dict(value.labels)
    if value.resources:
        doc["resources"] = dict(value.resources)
    return doc


def read_task(doc: JSON, place: str) -> TaskDefinition:
    found = mapping(doc, place, _TASK, ("array", "name"))
    return TaskDefinition(
        whole(found["array"], f"{place}.array"),
        text(found["name"], f"{place}.name"),
        reading.ids(found["downstream"], f"{place}.downstream") if "downstream" in found else (),
        whole(found["max_attempts"], f"{place}.max_attempts", 1) if "max_attempts" in found else 3,
        named(found["properties"], f"{place}.properties", anything) if "properties" in found else {},
        named(found["labels"], f"{place}.labels", text) if "labels" in found else {},
        named(found["resources"], f"{place}.resources", number) if "resources" in found else {},
    )


def bound(value: Bound) -> dict[str, JSON]:
    return {
        "workflow_id": value.workflow_id,
        "first_task": value.first_task,
        "arrays": list(value.arrays),
        "tasks": value.tasks,
    }


def read_bound(doc: JSON) -> Bound:
    found = mapping(doc, "the answer", _names(Bound), _names(Bound))
    return Bound(
        workflow_id=whole(found["workflow_id"], "workflow_id"),
        first_task=whole(found["first_task"], "first_task"),
        arrays=reading.ids(found["arrays"], "arrays"),
        tasks=whole(found["tasks"], "tasks"),
    )


# --- what there is ------------------------------------------------------------------------------------------------------


def run(value: RunInfo) -> dict[str, JSON]:
    return {**asdict(value), "status": value.status.value}


def read_run(doc: JSON, place: str = "run") -> RunInfo:
    found = mapping(doc, place, _names(RunInfo), _names(RunInfo))
    return RunInfo(
        id=whole(found["id"], f"{place}.id"),
        workflow_id=whole(found["workflow_id"], f"{place}.workflow_id"),
        status=one_of(found["status"], f"{place}.status", RunStatus),
        driver=text(found["driver"], f"{place}.driver", empty=True),
        created_at=number(found["created_at"], f"{place}.created_at"),
        heartbeat_at=number(found["heartbeat_at"], f"{place}.heartbeat_at"),
        report_by=number(found["report_by"], f"{place}.report_by"),
    )


def workflow(value: WorkflowInfo) -> dict[str, JSON]:
    return {
        "id": value.id,
        "name": value.name,
        "digest": value.digest,
        "status": value.status.value,
        "tasks": value.tasks,
        "first_task": value.first_task,
        "max_running": value.max_running,
        "fail_fast": value.fail_fast,
        "arrays": [
            {"id": one.id, "definition": array(one.definition), "counts": {s.value: n for s, n in one.counts.items()}}
            for one in value.arrays
        ],
        "run": None if value.run is None else run(value.run),
        "created_at": value.created_at,
        "now": value.now,
    }


def read_workflow(doc: JSON, place: str = "workflow") -> WorkflowInfo:
    found = mapping(doc, place, _names(WorkflowInfo), _names(WorkflowInfo))
    return WorkflowInfo(
        id=whole(found["id"], f"{place}.id"),
        name=text(found["name"], f"{place}.name"),
        digest=text(found["digest"], f"{place}.digest"),
        status=one_of(found["status"], f"{place}.status", WorkflowStatus),
        tasks=whole(found["tasks"], f"{place}.tasks"),
        first_task=whole(found["first_task"], f"{place}.first_task"),
        max_running=whole(found["max_running"], f"{place}.max_running"),
        fail_fast=reading.flag(found["fail_fast"], f"{place}.fail_fast"),
        arrays=listed(found["arrays"], f"{place}.arrays", _read_array_info),
        run=None if found["run"] is None else read_run(found["run"], f"{place}.run"),
        created_at=number(found["created_at"], f"{place}.created_at"),
        now=number(found["now"], f"{place}.now"),
    )


def _read_array_info(doc: JSON, place: str) -> ArrayInfo:
    found = mapping(doc, place, _names(ArrayInfo), _names(ArrayInfo))
    counts = named(found["counts"], f"{place}.counts", whole)
    return ArrayInfo(
        id=whole(found["id"], f"{place}.id"),
        definition=read_array(found["definition"], f"{place}.definition"),
        counts={one_of(status, f"{place}.counts", TaskStatus): number for status, number in counts.items()},
    )


def rows(values: Iterable[TaskRow]) -> dict[str, JSON]:
    return {
        "columns": _ROW,
        "rows": [
            (
                row.id,
                row.array_id,
                row.name,
                row.status.value,
                row.attempts,
                row.max_attempts,
                row.resources,
                row.level,
                row.build_id,
                row.reason,
            )
            for row in values
        ],
    }


def read_rows(doc: JSON) -> list[TaskRow]:
    # Not checked value by value, as what people send is: these come from the controller, by the million.
    return [
        TaskRow(id, array_id, name, _status(status), attempts, max_attempts, resources, level, build_id, reason)
        for id, array_id, name, status, attempts, max_attempts, resources, level, build_id, reason in _table(doc, _ROW)
    ]


def changes(values: Iterable[TaskChange]) -> dict[str, JSON]:
    return {
        "columns": _CHANGE,
        "rows": [
            (one.id, one.status.value, one.attempts, one.build_id, one.trouble and one.trouble.value, one.reason)
            for one in values
        ],
    }


def read_changes(doc: JSON) -> list[TaskChange]:
    return [
        TaskChange(id, _status(status), attempts, build_id, None if trouble is None else Trouble(trouble), reason)
        for id, status, attempts, build_id, trouble, reason in _table(doc, _CHANGE)
    ]


_STATUSES = {status.value: status for status in TaskStatus}


def _status(letter: JSON) -> TaskStatus:
    try:
        return _STATUSES[letter]
    except (KeyError, TypeError):
        wrong("a task's status", letter, "one of " + ", ".join(_STATUSES))


def _table(doc: JSON, columns: Sequence[str]) -> list[Sequence[JSON]]:
    found = mapping(doc, "the answer", ("columns", "rows"), ("columns", "rows"))
    if found["columns"] != columns or not isinstance(found["rows"], list):
        raise ConfigError(f"the controller answers with other columns than {', '.join(columns)}; install its version of latent")
    return found["rows"]


def delta(value: Delta) -> dict[str, JSON]:
    return {"now": value.now, "status": value.status.value, "changes": changes(value.changes)}


def read_delta(doc: JSON) -> Delta:
    found = mapping(doc, "the answer", _names(Delta), _names(Delta))
    return Delta(
        now=number(found["now"], "now"),
        status=one_of(found["status"], "status", RunStatus),
        changes=read_changes(found["changes"]),
    )


# --- what a driver asks -------------------------------------------------------------------------------------------------


def batch(value: Batch) -> dict[str, JSON]:
    return {
        "array_id": value.array_id,
        "tasks": [list(one) for one in value.tasks],
        "resources": dict(value.resources),
        "level": value.level,
    }


def read_batch(doc: JSON, place: str = "the batch") -> Batch:
    found = mapping(doc, place, _names(Batch), _names(Batch))
    return Batch(
        array_id=whole(found["array_id"], f"{place}.array_id"),
        tasks=listed(found["tasks"], f"{place}.tasks", _read_pair),
        resources=named(found["resources"], f"{place}.resources", number),
        level=whole(found["level"], f"{place}.level"),
    )


def _read_pair(doc: JSON, place: str) -> tuple[int, int]:
    if not isinstance(doc, list) or len(doc) != 2:
        wrong(place, doc, "the id of a task and the number of an attempt")
    return whole(doc[0], place), whole(doc[1], place, 1, 2**31 - 1)


def settlement(values: Mapping[int, tuple[TaskStatus, Resources, int]]) -> list[JSON]:
    return [[id, status.value, dict(resources), level] for id, (status, resources, level) in values.items()]


def read_settlement(doc: JSON, place: str = "changes") -> dict[int, tuple[TaskStatus, Resources, int]]:
    def one(value: JSON, at: str) -> tuple[int, tuple[TaskStatus, Resources, int]]:
        if not isinstance(value, list) or len(value) != 4:
            wrong(at, value, "id, status, resources and level of a task")
        id, status, resources, level = value
        return whole(id, at), (one_of(status, at, TaskStatus), named(resources, at, number), whole(level, at, 0, 2**31 - 1))

    return dict(listed(doc, place, one))


def linked(value: Linked) -> dict[str, JSON]:
    return {"run": None if value.run is None else run(value.run), "waits_for": value.waits_for}


def read_linked(doc: JSON) -> Linked:
    found = mapping(doc, "the answer", _names(Linked), _names(Linked))
    return Linked(
        run=None if found["run"] is None else read_run(found["run"]), waits_for=text(found["waits_for"], "waits_for", empty=True)
    )
