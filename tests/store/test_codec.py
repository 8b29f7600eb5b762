"""Requests and runs as JSON documents."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latent.errors import StoreCorrupt
from latent.model import BuildRequest, Payload, Requirements, Run, RunStatus, Step
from latent.store.codec import request_from_json, request_to_json, step_from_json, step_to_json
from latent.store.runs import from_json, to_json
from tests.store.helpers import REQUEST

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.dictionaries(st.text(), st.text())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
STEPS = st.builds(
    Step,
    name=st.text(),
    command=st.text() | st.lists(st.text()).map(tuple),
    env=TEXTS,
    workdir=st.none() | st.text(),
    timeout=st.none() | NUMBERS,
    max_time=st.none() | NUMBERS,
    always_run=st.booleans(),
)
REQUESTS = st.builds(
    BuildRequest,
    builder=st.text(),
    steps=st.lists(STEPS, max_size=3).map(tuple),
    requirements=st.builds(Requirements, labels=TEXTS, workers=st.none() | st.frozensets(st.text())),
    properties=st.dictionaries(st.text(), VALUES),
    priority=st.integers(),
    timeout=NUMBERS,
    max_attempts=st.integers(),
)
# Microseconds are what a record keeps.
MOMENTS = st.none() | st.integers(0, 4 * 10**15).map(lambda micros: micros / 1e6)
RUNS = st.builds(
    Run,
    id=st.text(),
    machine=st.text(),
    status=st.sampled_from(RunStatus),
    exit_code=st.none() | st.integers(),
    started_at=MOMENTS,
    ended_at=MOMENTS,
    error_msg=st.text(),
    batch_id=st.text(),
    plan_entry=st.text(),
)


PAYLOADS = st.builds(
    BuildRequest, builder=st.text(), payload=st.builds(Payload, type_url=st.text(), value=st.binary(max_size=100))
)


def test_a_build_has_steps_or_a_payload() -> None:
    with pytest.raises(ValueError, match="not both"):
        BuildRequest(builder="b", steps=REQUEST.steps, payload=Payload("t", b""))


@given(REQUESTS | PAYLOADS)
def test_a_request_comes_back_as_it_was(request: BuildRequest) -> None:
    assert request_from_json(json.loads(json.dumps(request_to_json(request))), "it") == request


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"builder": 3}, "3 should be a string"),
        ({"steps": None}, "not iterable"),
        ({"steps": [{}]}, "it has no 'command'"),
        ({"labels": {"a": 1}}, "1 should be a string"),
        ({"properties": []}, r"\[\] should be an object"),
        ({"timeout": "soon"}, "could not convert"),
        ({"payload": {"type_url": "t", "value": "AA=="}}, "steps or a payload, not both"),
        ({"steps": [], "payload": {"type_url": "t", "value": "é"}}, "ASCII"),
        ({"steps": [], "payload": {"type_url": "t"}}, "it has no 'value'"),
    ],
)
def test_a_damaged_request_is_refused(change: dict[str, object], message: str) -> None:
    """The error names the document and what is wrong with it."""
    with pytest.raises(StoreCorrupt, match=f"build 5 is damaged: .*{message}"):
        request_from_json({**request_to_json(REQUEST), **change}, "build 5")


def test_a_damaged_step_is_refused() -> None:
    step = REQUEST.steps[1]
    assert step_from_json(step_to_json(step), "it") == step
    with pytest.raises(StoreCorrupt, match="step 1 is damaged: 7 should be a string"):
        step_from_json({**step_to_json(step), "command": [7]}, "step 1")


@given(RUNS)
def test_a_runs_record_is_byte_stable(run: Run) -> None:
    """The same record always gives the same bytes, also after it was read back."""
    text = to_json(run)
    assert from_json(text) == run
    assert to_json(from_json(text)) == text


def test_a_pending_runs_record() -> None:
    """exit_code, started_at and ended_at are null while it is pending; batch_id and plan_entry are left out when empty."""
    assert to_json(Run(id="1", machine="m", test_dir="/t", test_dir_hash="h")) == (
        '{"id":"1","machine":"m","test_dir":"/t","test_dir_hash":"h","status":"pending","exit_code":null,"started_at":null,'
        '"ended_at":null,"artifacts_path":"","logs_path":"","error_code":"","error_msg":""}'
    )


def test_a_finished_runs_record() -> None:
    """Times are RFC 3339 in UTC, without zeros at the end; the batch's fields come last."""
    run = Run(
        id="2",
        machine="m",
        status=RunStatus.FAILED,
        exit_code=1,
        started_at=1780315200.0,
        ended_at=1780315201.25,
        batch_id="b",
        plan_entry="é",
    )
    assert to_json(run).endswith(
        '"status":"failed","exit_code":1,"started_at":"2026-06-01T12:00:00Z","ended_at":"2026-06-01T12:00:01.25Z",'
        '"artifacts_path":"","logs_path":"","error_code":"","error_msg":"","batch_id":"b","plan_entry":"é"}'
    )


def test_times_of_other_writers_are_read() -> None:
    """Nanoseconds and other zones are read; the record keeps microseconds in UTC."""
    text = to_json(Run(id="1", machine="m")).replace('"started_at":null', '"started_at":"2026-06-01T14:00:00.123456789+02:00"')
    assert '"started_at":"2026-06-01T12:00:00.123456Z"' in to_json(from_json(text))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("{", ""), "damaged"),
        (('"pending"', '"resting"'), "'resting' is not a valid RunStatus"),
        (('"exit_code":null', '"exit_code":"1"'), "exit_code '1' should be an integer or null"),
        (('"machine":"m"', '"machine":3'), "machine should be a string"),
        (('"machine":"m",', ""), "it has no 'machine'"),
        (('"started_at":null', '"started_at":"yesterday"'), "yesterday"),
        (('"started_at":null', '"started_at":"2026-06-01T12:00:00"'), "has no time zone"),
        (('"started_at":null', '"started_at":5'), "damaged"),
    ],
)
def test_a_damaged_record_is_refused(damage: tuple[str, str], message: str) -> None:
    with pytest.raises(StoreCorrupt, match=message):
        from_json(to_json(Run(id="1", machine="m")).replace(*damage, 1))
