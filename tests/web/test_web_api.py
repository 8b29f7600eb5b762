"""The HTTP API over a unix socket: what it answers, and how it refuses."""

from __future__ import annotations

import json

import pytest
from pytest_twisted import ensureDeferred

from latent.errors import ControllerStopping
from latent.model import Payload, Result, Step
from latent.web.service import MAX_BODY
from tests.web.fake_controller import NOW, FakeEntry, FakeHealth, FakeWorker
from tests.web.serving import until


@ensureDeferred
async def test_a_command_becomes_a_build(world):
    """A submitted command is a build of one step, with what was asked for."""
    body = {"command": ["make", "all of it"], "labels": {"os": "linux"}, "properties": {"n": 1}, "priority": 3, "timeout": 60}
    answer = await world.call("POST", "/builds", json=body)
    assert answer.status_code == 201
    assert answer.headers["location"] == "/api/v1/builds/1"
    request = world.controller.known[1].request
    assert request.steps == (Step(name="make 'all of it'", command=("make", "all of it")),)
    assert (request.requirements.labels, request.properties) == ({"os": "linux"}, {"n": 1})
    assert (request.priority, request.timeout, request.builder) == (3, 60.0, "command")
    assert answer.json()["state"] == "queued"


@ensureDeferred
async def test_a_builder_becomes_a_build(world):
    """A builder's template is rendered by the controller with the given properties."""
    world.controller.templates = {"tests": object()}
    answer = await world.call("POST", "/builds", json={"builder": "tests", "properties": {"branch": "main"}})
    assert answer.status_code == 201
    assert answer.json()["properties"] == {"branch": "main"}


@ensureDeferred
async def test_a_payload_becomes_a_build(world):
    """A payload is a build without steps; the build tells its type and size, and its answer can be fetched once there is one."""
    body = {"payload": {"type_url": "t/my.Task", "value": "AP8="}, "labels": {"os": "linux"}, "name": "compile"}
    answer = await world.call("POST", "/builds", json=body)
    assert answer.status_code == 201
    assert (answer.json()["payload"], answer.json()["steps"]) == ({"type_url": "t/my.Task", "size": 2}, [])
    request = world.controller.known[1].request
    assert (request.payload, request.steps, request.builder) == (Payload("t/my.Task", b"\x00\xff"), (), "compile")
    answer = await world.call("GET", "/builds/1/answer")
    assert (answer.status_code, answer.json()["error"]) == (404, "build 1 has no answer yet: it is queued")
    world.controller.answers[1] = (7, Payload("t/my.Answer", b"\xfe"))
    assert (await world.call("GET", "/builds/1/answer")).json() == {"run": 7, "type_url": "t/my.Answer", "value": "/g=="}
    assert (await world.call("GET", "/builds/2/answer")).status_code == 404


@ensureDeferred
async def test_a_misspelt_builder_is_refused(world):
    """A builder that does not exist is refused with the nearest name."""
    world.controller.templates = {"tests": object(), "docs": object()}
    answer = await world.call("POST", "/builds", json={"builder": "test"})
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "no builder is called 'test'",
        "remedy": "did you mean 'tests'? the builders are: docs, tests",
    }


@ensureDeferred
async def test_a_template_that_can_not_be_rendered_is_refused(world):
    """What the template lacks is told to the client, with the remedy apart."""
    world.controller.templates = {"tests": object()}
    answer = await world.call("POST", "/builds", json={"builder": "tests", "properties": {"branch": "missing"}})
    assert answer.status_code == 400
    assert answer.json()["error"] == "builder 'tests': step 'checkout' needs property 'branch'"
    assert answer.json()["remedy"] == "give it with -p branch=..."


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[]", "the body is a list"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"command": "x", "priority": NaN}', "NaN"),
        (b"{}", "neither 'builder' nor 'command' nor 'payload'"),
        (b'{"command": "x", "builder": "y"}', "both 'builder' and 'command'"),
        (b'{"command": "x", "prioritee": 1}', "unknown field 'prioritee'"),
        (b'{"command": 7}', "'command' is a number"),
        (b'{"command": ["a", 1]}', "'command' is a list"),
        (b'{"command": []}', "'command' is empty"),
        (b'{"command": "a\\u0000b"}', "'command' is empty or holds a NUL"),
        (b'{"command": "x", "labels": ["a"]}', "'labels' is a list"),
        (b'{"command": "x", "labels": {"a": 1}}', "'labels.a' is a number"),
        (b'{"command": "x", "labels": {"": "b"}}', "a name in 'labels' is empty"),
        (b'{"command": "x", "properties": "a"}', "'properties' is a string"),
        (b'{"command": "x", "priority": true}', "'priority' is a boolean"),
        (b'{"command": "x", "priority": 1e3}', "'priority' is a number"),
        (b'{"command": "x", "priority": 99999999999999999999}', "'priority' is out of range"),
        (b'{"command": "x", "timeout": 0}', "'timeout' is out of range"),
        (b'{"command": "x", "timeout": "1h"}', "'timeout' is a string"),
        (b'{"command": "x", "name": ""}', "'name' is empty"),
        (b'{"builder": "x", "name": "y"}', "'name' goes with 'command' or 'payload' only"),
        (b'{"payload": 7}', "'payload' is a number"),
        (b'{"payload": {"type_url": "t"}}', "other fields than type_url and value"),
        (b'{"payload": {"type_url": "t", "value": "%"}}', "'payload.value' is not base64"),
        (b'{"payload": {"type_url": null, "value": ""}}', "'type_url' is null"),
        (b'{"payload": {"type_url": "t", "value": ""}, "command": "x"}', "both 'command' and 'payload'"),
    ],
)
@ensureDeferred
async def test_a_bad_submission_is_refused(world, body, words):
    """A body that is malformed, mistyped or unknown is refused by name, with a remedy, and nothing is submitted."""
    answer = await world.call("POST", "/builds", content=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]
    assert answer.json()["remedy"]
    assert not world.controller.known


@ensureDeferred
async def test_a_request_without_the_token_is_refused(world):
    """Nothing is answered without the right token, not even whether a path exists."""
    for token in ("wrong", "made-up2", "mädchen"):
        for path in ("/builds", "/nowhere"):
            answer = await world.call("GET", path, token=token)
            assert answer.status_code == 401
            assert "LATENT_API_TOKEN" in answer.json()["remedy"]


@ensureDeferred
async def test_a_large_body_is_refused(world):
    """A body above the limit is refused, whether its length is declared or not."""
    answer = await world.call("POST", "/builds", content=b" " * (MAX_BODY + 1))
    assert answer.status_code == 413
    answer = await world.call("POST", "/builds", content=iter([b" " * (MAX_BODY // 2)] * 3))
    assert answer.status_code == 413
    assert answer.json()["error"] == "the request is too large"


@ensureDeferred
async def test_builds_are_listed_newest_first(world):
    """The list can be narrowed by state and builder."""
    for _ in range(3):
        world.controller.store()
    world.controller.finish(2, Result.SUCCESS)
    listed = (await world.call("GET", "/builds")).json()["builds"]
    assert [build["id"] for build in listed] == [3, 2, 1]
    finished = (await world.call("GET", "/builds?state=finished,running&builder=tests")).json()["builds"]
    assert [(build["id"], build["result"]) for build in finished] == [(2, "success")]
    assert (await world.call("GET", "/builds?limit=1")).json()["builds"][0]["id"] == 3


@pytest.mark.parametrize(
    "query",
    ["state=finnished", "limit=0", "limit=x", "limit=999999", "colour=red", "limit=1&limit=2", "state="],
)
@ensureDeferred
async def test_a_bad_query_is_refused(world, query):
    """A parameter that is unknown or has no sense is refused with a remedy."""
    answer = await world.call("GET", f"/builds?{query}")
    assert answer.status_code == 400
    assert answer.json()["remedy"]


@ensureDeferred
async def test_a_build_is_shown_with_its_runs(world):
    """A build comes with its runs and the reason why it is where it is."""
    world.controller.store()
    world.controller.start_run(1)
    shown = (await world.call("GET", "/builds/1")).json()
    assert shown["why"] == "it waits for a worker"
    assert [(run["id"], run["worker"], run["status"]) for run in shown["runs"]] == [(100, "linux-1", "running")]


@pytest.mark.parametrize("path", ["/builds/7", "/builds/x9", f"/builds/{10**20}", "/workers/nobody/history", "/nowhere"])
@ensureDeferred
async def test_what_does_not_exist_is_not_found(world, path):
    """An unknown id, name or path is 404, as JSON with a remedy."""
    answer = await world.call("GET", path)
    assert answer.status_code == 404
    assert answer.json()["remedy"]


@ensureDeferred
async def test_a_wrong_method_is_refused(world):
    """A method that a path does not take is 405, as JSON."""
    answer = await world.call("DELETE", "/builds")
    assert (answer.status_code, answer.json()["error"]) == (405, "/api/v1/builds does not take DELETE")


@ensureDeferred
async def test_a_store_that_can_not_write_is_unavailable(world):
    """A full disk is 503 with the store's remedy."""
    world.controller.break_store()
    answer = await world.call("POST", "/builds", json={"command": "x"})
    assert (answer.status_code, answer.json()) == (503, {"error": "the disk is full", "remedy": "free some space"})


@ensureDeferred
async def test_a_controller_that_stops_is_unavailable(world):
    """Nothing is wrong with the build: the next controller takes it, so this is 503 and not 400."""
    world.controller.broken = ControllerStopping("the controller is stopping; submit again when it is back")
    answer = await world.call("POST", "/builds", json={"command": "x"})
    remedy = "submit again when it is back"
    assert (answer.status_code, answer.json()) == (503, {"error": "the controller is stopping", "remedy": remedy})


@ensureDeferred
async def test_an_unforeseen_error_is_told_without_its_details(world, flush_logged_errors):
    """A bug in the controller is 500; its text, which may hold secrets, goes to the log alone."""
    world.controller.broken = ZeroDivisionError("the password is hunter2")
    answer = await world.call("POST", "/builds", json={"command": "x"})
    assert answer.status_code == 500
    assert "ZeroDivisionError" in answer.json()["error"]
    assert "hunter2" not in answer.text
    assert len(flush_logged_errors(ZeroDivisionError)) == 1


@ensureDeferred
async def test_a_build_is_cancelled_with_its_reason(world):
    """Cancelling takes a reason, and a finished build stays as it is."""
    world.controller.store()
    answer = await world.call("POST", "/builds/1/cancel", json={"reason": "not needed"})
    assert (answer.json()["result"], answer.json()["reason"]) == ("cancelled", "not needed")
    again = await world.call("POST", "/builds/1/cancel")
    assert again.json()["reason"] == "not needed"


@ensureDeferred
async def test_workers_health_and_history_are_shown(world):
    """Workers, health and a worker's history come as documents."""
    world.controller.worker_list = [FakeWorker(name="linux-1", labels={"os": ["linux"]})]
    world.controller.health_list = [FakeHealth(subject="disk", ok=False, message="full", remedy="free some space")]
    world.controller.entries = {
        "linux-1": [FakeEntry(seq=1, at=NOW, worker="linux-1", attempt=1, event="Wanted", detail={}, state_name="X")]
    }
    assert (await world.call("GET", "/workers")).json()["workers"][0]["labels"] == {"os": ["linux"]}
    health = (await world.call("GET", "/health")).json()
    assert (health["healthy"], health["items"][0]["remedy"]) == (False, "free some space")
    history = (await world.call("GET", "/workers/linux-1/history?limit=5")).json()
    assert [(entry["event"], entry["state"]) for entry in history["entries"]] == [("Wanted", "X")]
    status = (await world.call("GET", "/status")).json()
    assert (status["healthy"], status["workers"]) == (False, {"NOT_SUBSTANTIATED": 1})


@ensureDeferred
async def test_a_worker_is_paused_and_taken_back(world):
    """Both answer with the worker as it is now; one that nobody knows is 404."""
    world.controller.worker_list = [FakeWorker(name="a/b")]
    paused = (await world.call("POST", "/workers/a%2Fb/pause")).json()
    assert (paused["name"], paused["paused"], paused["reason"]) == ("a/b", True, "paused")
    assert (await world.call("POST", "/workers/a%2Fb/unpause")).json()["paused"] is False
    answer = await world.call("POST", "/workers/a/pause")
    assert (answer.status_code, answer.json()["error"]) == (404, "no worker is called 'a'")


@ensureDeferred
async def test_reconfig_tells_what_changed(world):
    """A reload answers with the changes, or with every error of the configuration."""
    assert (await world.call("POST", "/reconfig")).json() == {"changes": ["worker linux-1: added"]}
    world.config_error = "master.cfg:3: no; do|master.cfg:9: neither; do that"
    answer = await world.call("POST", "/reconfig")
    assert answer.status_code == 400
    assert answer.json()["errors"] == ["master.cfg:3: no; do", "master.cfg:9: neither; do that"]


@ensureDeferred
async def test_stop_answers_before_it_stops(world):
    """The client that asks for the stop gets its answer."""
    answer = await world.call("POST", "/stop", json={"fast": True})
    assert (answer.status_code, answer.json()["fast"]) == (202, True)
    await until(lambda: world.stopped == [True])
    refused = await world.call("POST", "/stop", json={"fast": 1})
    assert refused.status_code == 400


@ensureDeferred
async def test_a_long_poll_ends_with_the_build(world):
    """Waiting for a build answers as soon as it is finished."""
    world.controller.store()
    polling = world.call("GET", "/builds/1?wait=30")
    await until(lambda: world.controller.waiting)
    world.controller.finish(1, Result.FAILURE, "step test failed")
    assert (await polling).json()["result"] == "failure"


@ensureDeferred
async def test_a_long_poll_ends_in_time(world):
    """A wait that is over answers with the build as it is; one that makes no sense is refused."""
    world.controller.store()
    assert (await world.call("GET", "/builds/1?wait=0.01")).json()["state"] == "queued"
    assert world.controller.waiting == []
    for wait in ("soon", "-1", "nan"):
        assert (await world.call("GET", f"/builds/1?wait={wait}")).status_code == 400


@ensureDeferred
async def test_the_log_of_the_latest_run_is_text_or_json(world):
    """Logs are lines of text, or a JSON document a line."""
    world.controller.store()
    assert (await world.call("GET", "/builds/1/logs")).text == ""
    run = world.controller.start_run(1)
    for number in range(250):
        world.controller.log_line(run, f"line {number} ✓")
    text = await world.call("GET", "/builds/1/logs")
    assert text.text.splitlines() == [f"line {number} ✓" for number in range(250)]
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    lines = (await world.call("GET", f"/builds/1/logs?run={run}&format=json")).text.splitlines()
    assert json.loads(lines[7])["text"] == "line 7 ✓"
    missing = await world.call("GET", "/builds/1/logs?run=5")
    assert (missing.status_code, missing.json()["error"]) == (404, "build 1 has no run 5")
    assert (await world.call("GET", "/builds/1/logs?format=xml")).status_code == 400
