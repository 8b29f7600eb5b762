"""The model's values as JSON documents and back. What can't be read raises `StoreCorrupt` that names the document."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from attrs import asdict

from latent.errors import StoreCorrupt
from latent.model import JSON, BuildRequest, Dispatch, Payload, Requirements, Step

T = TypeVar("T")


def request_to_json(request: BuildRequest) -> JSON:
    needs = request.requirements
    document: dict[str, JSON] = {
        "builder": request.builder,
        "steps": [step_to_json(step) for step in request.steps],
        "labels": dict(needs.labels),
        "workers": None if needs.workers is None else sorted(needs.workers),
        "properties": dict(request.properties),
        "priority": request.priority,
        "timeout": request.timeout,
        "max_attempts": request.max_attempts,
    }
    if request.payload is not None:
        value = base64.b64encode(request.payload.value).decode()
        document["payload"] = {"type_url": request.payload.type_url, "value": value}
    if request.dispatch is not None:
        document["dispatch"] = asdict(request.dispatch)
    return document


def request_from_json(document: JSON, what: str) -> BuildRequest:
    """``what`` names the document in errors."""
    return _reading(_request, document, what)


def step_to_json(step: Step) -> JSON:
    return {
        "name": step.name,
        "command": step.command if isinstance(step.command, str) else list(step.command),
        "env": dict(step.env),
        "workdir": step.workdir,
        "timeout": step.timeout,
        "max_time": step.max_time,
        "always_run": step.always_run,
    }


def step_from_json(document: JSON, what: str) -> Step:
    """``what`` names the document in errors."""
    return _reading(_step, document, what)


def clean(value: str) -> str:
    """Text that every database takes: no NUL, no half of a surrogate pair (what programs print may have both)."""
    if value.isascii():
        return value.replace("\0", "\ufffd") if "\0" in value else value
    return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def time_to_json(at: float | None) -> str | None:
    """RFC 3339 in UTC, with microseconds where there are any."""
    if at is None:
        return None
    moment = datetime.fromtimestamp(at, UTC)
    fraction = f".{moment.microsecond:06d}".rstrip("0") if moment.microsecond else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def time_from_json(value: str | None) -> float | None:
    """Raises ValueError or TypeError when it is not RFC 3339. A time without zone is not."""
    if value is None:
        return None
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    return moment.timestamp()


def _reading(read: Callable[[Any], T], document: JSON, what: str) -> T:
    try:
        return read(document)
    except KeyError as error:
        raise StoreCorrupt(f"{what} is damaged: it has no {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise StoreCorrupt(f"{what} is damaged: {error}") from error


def _request(document: Any) -> BuildRequest:
    workers = document["workers"]
    return BuildRequest(
        builder=_string(document["builder"]),
        steps=tuple([_step(step) for step in document["steps"]]),
        requirements=Requirements(
            labels=_strings(document["labels"]), workers=None if workers is None else frozenset(map(_string, workers))
        ),
        properties=_mapping(document["properties"]),
        priority=int(document["priority"]),
        timeout=float(document["timeout"]),
        max_attempts=int(document["max_attempts"]),
        payload=_payload(document["payload"]) if "payload" in document else None,
        dispatch=Dispatch(**_strings(document["dispatch"])) if "dispatch" in document else None,
    )


def _payload(document: Any) -> Payload:
    return Payload(_string(document["type_url"]), base64.b64decode(document["value"], validate=True))


def _step(document: Any) -> Step:
    command = document["command"]
    return Step(
        name=_string(document["name"]),
        command=command if isinstance(command, str) else tuple(map(_string, command)),
        env=_strings(document["env"]),
        workdir=document["workdir"],
        timeout=document["timeout"],
        max_time=document["max_time"],
        always_run=bool(document["always_run"]),
    )


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise TypeError(f"{value!r} should be a string")


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise TypeError(f"{value!r} should be an object")


def _strings(value: Any) -> Mapping[str, str]:
    for each in _mapping(value).values():
        _string(each)
    return value  # type: ignore[no-any-return]  # a dict of strings, as was just seen
