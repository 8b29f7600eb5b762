"""What the routes for workflows make of bad input, and of values that go through JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_twisted
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import ensureDeferred
from twisted.internet.threads import deferToThread

from latent.errors import ConfigError
from latent.swarm import documents
from latent.swarm.statuses import RunStatus, TaskStatus, WorkflowStatus
from latent.swarm.values import (
    ArrayInfo,
    Batch,
    Delta,
    Linked,
    RunInfo,
    TaskChange,
    TaskDefinition,
    TaskRow,
    Trouble,
    WorkflowInfo,
)
from tests.swarm.served import TOKEN, Served
from tests.swarm.site import ARRAY, apart, definition

RUN = RunInfo(id=3, workflow_id=2, status=RunStatus.BOUND, driver="", created_at=1.0, heartbeat_at=2.5, report_by=3.0)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    pytest_twisted.blockon(ensureDeferred(made.start()))
    yield made
    pytest_twisted.blockon(ensureDeferred(made.stop()))


async def asked(served: Served, method: str, path: str, **how: Any) -> httpx.Response:
    def send() -> httpx.Response:
        transport = httpx.HTTPTransport(uds=served.api.address.socket)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(transport=transport, base_url="http://latent/api/v1", headers=headers, trust_env=False) as client:
            return client.request(method, path, timeout=20, **how)

    answer: httpx.Response = await deferToThread(send)
    return answer


BIND = documents.definition(definition(1))
QUEUE = {"array_id": 1, "tasks": [[1, 1]], "resources": {}, "level": 0}

BAD: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/workflows", {"nme": "x"}, 400, "unknown field 'nme'"),
    ("POST", "/workflows", [], 400, "the body is a list"),
    ("POST", "/workflows", {**BIND, "tasks": "3"}, 400, "the workflow.tasks is the string '3'"),
    ("POST", "/workflows", {**BIND, "tasks": True}, 400, "the workflow.tasks is a boolean"),
    ("POST", "/workflows", {**BIND, "arrays": {}}, 400, "the workflow.arrays is an object"),
    ("POST", "/workflows", {**BIND, "arrays": [{"name": "a"}]}, 400, "the workflow.arrays[0] has no field 'template'"),
    ("POST", "/workflows", {**BIND, "arrays": [{"name": "a", "x": 1}]}, 400, "has the unknown field 'x'"),
    ("POST", "/workflows", {**BIND, "fail_fast": 1}, 400, "true or false"),
    ("POST", "/workflows", {**BIND, "name": "\0"}, 400, "holds a NUL"),
    ("POST", "/workflows", {**BIND, "name": ""}, 400, "an empty string"),
    ("GET", "/workflows?limit=0", None, 400, "whole number"),
    ("GET", "/workflows?x=0", None, 400, "unknown parameter"),
    ("GET", "/workflows/abc", None, 404, "there is nothing with the id 'abc'"),
    ("GET", "/workflows/99", None, 404, "there is no workflow 99"),
    ("PUT", "/workflows", {}, 405, "does not take PUT"),
    ("GET", "/workflow", None, 404, "there is nothing at /api/v1/workflow"),
    ("POST", "/workflows/1/tasks", {"first": 0}, 400, "has no field 'tasks'"),
    ("POST", "/workflows/1/tasks", {"first": -1, "tasks": []}, 400, "first is the number -1"),
    ("POST", "/workflows/1/tasks", {"first": 0, "tasks": [3]}, 400, "tasks[0] is the number 3"),
    ("POST", "/workflows/1/tasks", {"first": 0, "tasks": [{"array": 0, "name": "t", "downstream": ["1"]}]}, 400, "downstream"),
    ("POST", "/workflows/1/tasks", {"first": 0, "tasks": [{"array": 0, "name": "t", "labels": {"a": 1}}]}, 400, "labels['a']"),
    ("GET", "/workflows/1/tasks?status=Z", None, 400, "one of G, Q"),
    ("GET", "/workflows/1/tasks?after=x", None, 400, "after"),
    ("POST", "/workflows/1/downstream", {"ids": [-1]}, 400, "ids is the number -1"),
    ("POST", "/workflows/1/downstream", {"ids": [1] * 200_001}, 400, "ask for 200000 at a time"),
    ("POST", "/workflows/1/link", {"driver": ""}, 400, "driver is an empty string"),
    ("POST", "/workflows/1/link", {"driver": "x", "resume": "warm"}, 400, "one of cold, hot"),
    ("POST", "/workflows/1/cancel", {"reason": 1}, 400, "'reason' is a number"),
    ("POST", "/workflow-runs/1/heartbeat", {"status": "X", "next_report_increment": 1}, 400, "status is the string 'X'"),
    ("POST", "/workflow-runs/1/heartbeat", {"status": "R", "next_report_increment": -1}, 400, "next_report_increment is -1"),
    ("POST", "/workflow-runs/1/queue", {**QUEUE, "tasks": [[1]]}, 400, "the batch.tasks[0] is a list"),
    ("POST", "/workflow-runs/1/queue", {**QUEUE, "tasks": [[1, 0]]}, 400, "the batch.tasks[0] is the number 0"),
    ("POST", "/workflow-runs/1/settle", {"changes": [[1, "G", {}]]}, 400, "changes[0] is a list"),
    ("POST", "/workflow-runs/1/sync", {"since": None}, 400, "since is null"),
    ("POST", "/workflow-runs/9/sync", {"since": 0}, 404, "there is no workflow run 9"),
    ("POST", "/workflow-runs/1/finish", {"status": "R", "reason": ""}, 400, "can't be finished as 'R'"),
    ("POST", "/workflow-runs/1/detach", {"x": 1}, 400, "unknown field"),
]


@pytest_twisted.ensureDeferred
async def test_bad_input(served: Served) -> None:
    """Each is answered with its place and a remedy; none leaves anything behind."""
    await served.workflows.bind(definition(1))
    await served.workflows.add_tasks(1, 0, apart(1))
    run = (await served.workflows.link(1, "somebody")).run
    assert run is not None
    for method, path, body, code, words in BAD:
        answer = await asked(served, method, path, **({} if body is None else {"json": body}))
        doc = answer.json()
        assert (answer.status_code, words in doc["error"] + doc["remedy"]) == (code, True), (method, path, body, doc)
        assert doc["remedy"]
    assert len(await served.workflows.workflows()) == 1
    answer = await asked(served, "POST", "/workflows/1/link", json={"driver": "another"})
    assert (answer.status_code, answer.json()["kind"]) == (409, "NotResumable")
    assert (await asked(served, "POST", "/workflows", content=b"{" * 100_000)).status_code == 400
    assert (await asked(served, "POST", "/workflows", content=b"x" * 2_000_000)).status_code == 413


@pytest_twisted.ensureDeferred
async def test_metrics_and_health_know_workflows(served: Served) -> None:
    text = (await asked(served, "GET", "/metrics")).text
    assert "latent_workflow_builds 0" in text
    assert "# HELP latent_workflow_runs" in text


# --- values through JSON -----------------------------------------------------------------------------------------------------

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=9).filter(str.strip)
amounts = st.dictionaries(names, st.floats(0, 1e9) | st.integers(0, 10**9), max_size=3)
labels = st.dictionaries(names, names, max_size=3)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | names, lambda v: st.lists(v) | st.dictionaries(names, v), max_leaves=5
)
ids = st.integers(0, 2**40)
tasks = st.builds(
    TaskDefinition,
    st.integers(0, 9),
    names,
    st.lists(ids, max_size=4).map(tuple),
    st.integers(1, 9),
    st.dictionaries(names, values, max_size=3),
    labels,
    amounts,
)
arrays = st.builds(
    type(ARRAY),
    name=names,
    template=names,
    properties=st.dictionaries(names, values, max_size=3),
    labels=labels,
    resources=amounts,
    scale=amounts,
    most=amounts,
    fallbacks=st.lists(labels, max_size=2).map(tuple),
    max_running=st.none() | st.integers(1, 9),
    priority=st.none() | st.integers(-9, 9),
)


def through_json(doc: Any) -> Any:
    return json.loads(json.dumps(doc))


@given(st.lists(arrays, max_size=3), st.lists(tasks, max_size=5))
def test_definitions_come_back_as_they_were(some_arrays: list[Any], some_tasks: list[TaskDefinition]) -> None:
    bound = evolve(definition(3, fail_fast=True), arrays=tuple(some_arrays))
    assert documents.read_definition(through_json(documents.definition(bound))) == bound
    assert [documents.read_task(through_json(documents.task(task)), "") for task in some_tasks] == some_tasks


changes = st.builds(
    TaskChange,
    ids,
    st.sampled_from(TaskStatus),
    st.integers(0, 9),
    st.none() | ids,
    st.none() | st.sampled_from(Trouble),
    st.text(),
)


@given(st.lists(changes), st.floats(0, 1e300))
def test_changes_come_back_as_they_were(some: list[TaskChange], now: float) -> None:
    delta = Delta(now=now, status=RunStatus.HOT_RESUME, changes=some)
    assert documents.read_delta(through_json(documents.delta(delta))) == delta


@given(arrays)
def test_what_there_is_comes_back_as_it_was(array: Any) -> None:
    info = WorkflowInfo(
        id=1,
        name="w",
        digest="d",
        status=WorkflowStatus.HALTED,
        tasks=3,
        first_task=4,
        max_running=5,
        fail_fast=True,
        arrays=[ArrayInfo(id=1, definition=array, counts={TaskStatus.DONE: 2})],
        run=RUN,
        created_at=0.5,
        now=7.0,
    )
    assert documents.read_workflow(through_json(documents.workflow(info))) == info
    rows = [TaskRow(1, 2, "t", TaskStatus.RUNNING, 1, 3, {"memory": 1}, 0, 7, "why")]
    assert documents.read_rows(through_json(documents.rows(rows))) == rows
    batch = Batch(array_id=1, tasks=[(1, 2)], resources={"x": 1.5}, level=2)
    assert documents.read_batch(through_json(documents.batch(batch))) == batch
    for linked in (Linked(run=RUN), Linked(run=None, waits_for="a driver")):
        assert documents.read_linked(through_json(documents.linked(linked))) == linked
    settled = {4: (TaskStatus.ADJUSTING_RESOURCES, {"memory": 2}, 1)}
    assert documents.read_settlement(through_json(documents.settlement(settled))) == settled


def test_an_answer_of_another_version_is_named() -> None:
    with pytest.raises(ConfigError, match=r"other columns than id, status, .*; install its version"):
        documents.read_changes({"columns": ["id"], "rows": []})
