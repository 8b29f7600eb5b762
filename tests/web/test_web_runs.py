"""The records of runs, and dispatches, over the HTTP API."""

from __future__ import annotations

import json

import pytest
from pytest_twisted import ensureDeferred

from latent.model import Dispatch, Run, RunStatus, Step
from latent.store.runs import MachineBusy, PrepareOutcome, RunsRefused, to_document

RUNS = [
    Run(id="1", machine="m1", status=RunStatus.FAILED, exit_code=1, started_at=1.5, ended_at=2.0),
    Run(id="2", machine="m2", test_dir="/é"),
    Run(id="3", machine="m1", status=RunStatus.RUNNING),
]
DISPATCH = {"machine": "m1", "test_dir": "/t", "test_dir_hash": "h", "command": ["make", "it"]}


@ensureDeferred
async def test_runs_are_listed(world):
    """As public records, by machine, status and place, in the order of their creation."""
    world.controller.records.kept = RUNS
    everything = (await world.call("GET", "/runs")).json()
    assert everything == {"runs": [to_document(run) for run in RUNS]}
    assert everything["runs"][0]["started_at"] == "1970-01-01T00:00:01.5Z"
    for query, ids in (
        ("limit=1", ["3"]),
        ("after=0&limit=2", ["1", "2"]),
        ("machine=m1", ["1", "3"]),
        ("status=pending,running", ["2", "3"]),
    ):
        assert [run["id"] for run in (await world.call("GET", f"/runs?{query}")).json()["runs"]] == ids


@ensureDeferred
async def test_a_run_is_shown(world):
    world.controller.records.kept = RUNS
    assert (await world.call("GET", "/runs/2")).json() == to_document(RUNS[1])
    missing = await world.call("GET", "/runs/x")
    assert (missing.status_code, missing.json()["error"]) == (404, "there is no run x")


@ensureDeferred
async def test_a_status_that_is_none_is_refused(world):
    answer = await world.call("GET", "/runs?status=fialed")
    assert answer.status_code == 400
    assert answer.json()["remedy"].startswith("did you mean 'failed'? the statuses are: pending, running")


@ensureDeferred
async def test_records_are_taken_in(world):
    """With their ids, or with new ones; what the store refuses is a 409 with its remedy."""
    body = {"runs": [to_document(RUNS[0])]}
    answer = await world.call("POST", "/runs", json=body)
    assert (answer.status_code, answer.json()) == (201, body)
    answer = await world.call("POST", "/runs", json={**body, "new_ids": True})
    assert [run.id for run in world.controller.records.kept] == ["1", "2"]
    world.controller.records.refusal = RunsRefused("run 1 is here already; import them with new ids")
    answer = await world.call("POST", "/runs", json=body)
    assert answer.status_code == 409
    assert answer.json() == {"error": "run 1 is here already", "remedy": "import them with new ids"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "'runs' is null"),
        ({"runs": {}}, "'runs' is an object"),
        ({"runs": [7]}, "runs[0]: the record of a run is damaged: it should be an object"),
        ({"runs": [], "new_ids": 1}, "'new_ids' is a number"),
        ({"run": []}, "unknown field 'run'"),
    ],
)
@ensureDeferred
async def test_what_is_no_record_is_refused(world, body, words):
    answer = await world.call("POST", "/runs", content=json.dumps(body).encode())
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@ensureDeferred
async def test_a_dispatch_is_a_build_for_a_machine(world):
    """201 for a new one, with build and run; 200 for one that was there."""
    records = world.controller.records
    records.build, records.run = world.controller.store(), RUNS[1]
    body = {**DISPATCH, "workdir": "/w", "timeout": 9, "batch_id": "b", "plan_entry": "e", "properties": {"n": 1}}
    answer = await world.call("POST", "/dispatches", json=body)
    assert answer.status_code == 201
    assert (answer.json()["outcome"], answer.json()["build"]["id"]) == ("created", 1)
    assert answer.json()["run"] == to_document(RUNS[1])
    [request] = records.dispatched
    assert request.dispatch == Dispatch(machine="m1", test_dir="/t", test_dir_hash="h", batch_id="b", plan_entry="e")
    assert request.steps == (Step(name="make it", command=("make", "it"), workdir="/w"),)
    assert (request.timeout, request.properties, request.builder) == (9.0, {"n": 1}, "dispatch")
    records.outcome, records.build = PrepareOutcome.REUSE, None
    answer = await world.call("POST", "/dispatches", json=DISPATCH)
    assert (answer.status_code, answer.json()["outcome"], answer.json()["build"]) == (200, "reuse", None)


@ensureDeferred
async def test_a_busy_machine_is_a_conflict(world):
    """The error names what occupies it, and the document has it."""
    world.controller.records.refusal = MachineBusy(RUNS[2], 7)
    answer = await world.call("POST", "/dispatches", json=DISPATCH)
    assert answer.status_code == 409
    assert answer.json() == {
        "error": "machine m1 is busy with run 3 of build 7 (running)",
        "remedy": "wait until it is over",
        "build": 7,
        "run": to_document(RUNS[2]),
    }


@pytest.mark.parametrize("missing", DISPATCH)
@ensureDeferred
async def test_a_dispatch_needs_all_of_it(world, missing):
    body = {name: value for name, value in DISPATCH.items() if name != missing}
    answer = await world.call("POST", "/dispatches", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"] == f"'{missing}' is not given"
    assert not world.controller.records.dispatched
