"""What a client sent, checked: bodies and query parameters. Whatever is wrong is a `BadRequest` that names the field."""

from __future__ import annotations

import base64
import difflib
import enum
import json
import math
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeVar

from attrs import frozen

from latent.errors import LatentError, StoreCorrupt
from latent.model import (
    INFRASTRUCTURE_ATTEMPTS,
    JSON,
    BuildRequest,
    BuildState,
    Dispatch,
    Payload,
    Requirements,
    Run,
    RunStatus,
    Step,
)
from latent.store.runs import from_document

E = TypeVar("E", bound=enum.Enum)

MAX_NUMBER = 2**31 - 1
"""The largest priority, limit or timeout: what every database takes as an integer."""

MAX_TEXT = 200
"""Characters in a name."""

MAX_PATH = 4096
"""Characters in a path."""

MAX_LIMIT = 10_000
"""Rows in one answer."""

COMMAND_BUILDER = "command"
"""The builder of a build that was submitted as a bare command without a name."""

DISPATCH_BUILDER = "dispatch"
"""The builder of a build that was dispatched to a machine without a name."""

PAYLOAD_BUILDER = "payload"
"""The builder of a build that was submitted as a payload without a name."""


class ApiError(LatentError):
    """A request that can't be carried out: the HTTP status, what is wrong, and what to do about it."""

    def __init__(self, code: int, error: str, remedy: str = "") -> None:
        super().__init__(error)
        self.code = code
        self.error = error
        self.remedy = remedy


class BadRequest(ApiError):
    """The request itself is wrong."""

    def __init__(self, error: str, remedy: str) -> None:
        super().__init__(400, error, remedy)


@frozen(kw_only=True)
class Submission:
    """What ``POST /builds`` asks for: a ``builder``'s template, a ``command`` of its own, or a ``payload`` for a bot."""

    builder: str | None = None
    command: str | tuple[str, ...] | None = None
    payload: Payload | None = None
    name: str | None = None
    properties: Mapping[str, JSON]
    labels: Mapping[str, str]
    priority: int | None = None
    timeout: float | None = None

    def request(self) -> BuildRequest:
        """The request of a bare command, or of a payload."""
        given: dict[str, Any] = {} if self.timeout is None else {"timeout": self.timeout}
        if self.command is not None:
            given["steps"] = (Step(name=_step_name(self.command), command=self.command),)
        return BuildRequest(
            builder=self.name or (PAYLOAD_BUILDER if self.command is None else COMMAND_BUILDER),
            payload=self.payload,
            requirements=Requirements(labels=self.labels),
            properties=self.properties,
            priority=self.priority or 0,
            max_attempts=INFRASTRUCTURE_ATTEMPTS,
            **given,
        )


def body(raw: bytes, fields: Iterable[str]) -> dict[str, JSON]:
    """The JSON object in a request's body, with no other keys than ``fields``. An empty body is an empty object."""
    known = list(fields)
    try:
        doc = json.loads(raw.decode("utf-8"), parse_constant=_no_constant) if raw.strip() else {}
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8", "send a JSON object encoded as UTF-8") from None
    except RecursionError:
        raise BadRequest("the body is nested too deeply", "send a flat JSON object") from None
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}", "send a JSON object") from None
    if not isinstance(doc, dict):
        raise BadRequest(f"the body is {_kind(doc)}", "send a JSON object")
    for name in doc:
        if name not in known:
            raise BadRequest(f"unknown field {name[:MAX_TEXT]!r}", _instead(name, known, "field"))
    return doc


def submission(raw: bytes) -> Submission:
    """The body of ``POST /builds``."""
    doc = body(raw, ["builder", "command", "payload", "properties", "labels", "priority", "timeout", "name"])
    builder, command, payload = text(doc, "builder"), _command(doc), _payload(doc)
    given = [name for name, value in (("builder", builder), ("command", command), ("payload", payload)) if value is not None]
    if len(given) != 1:
        both = " and ".join(map(repr, given))
        what = f"both {both} are given" if given else "neither 'builder' nor 'command' nor 'payload' is given"
        raise BadRequest(what, "name a builder, or give a command or a payload")
    if builder is not None and doc.get("name") is not None:
        raise BadRequest("'name' goes with 'command' or 'payload' only", "leave it out: the builder has a name")
    return Submission(
        builder=builder,
        command=command,
        payload=payload,
        name=text(doc, "name"),
        properties=_mapping(doc, "properties"),
        labels=_labels(doc),
        priority=_integer(doc, "priority"),
        timeout=_seconds(doc, "timeout"),
    )


def dispatch(raw: bytes) -> BuildRequest:
    """The body of ``POST /dispatches``. Where ``workdir`` is left out the command runs in the build's own folder."""
    about = ["machine", "test_dir", "test_dir_hash", "batch_id", "plan_entry"]
    doc = body(raw, [*about, "command", "workdir", "properties", "priority", "timeout", "name"])
    texts = {name: text(doc, name, longest=MAX_PATH if name == "test_dir" else MAX_TEXT) or "" for name in about}
    command = _command(doc)
    for name in ("machine", "test_dir", "test_dir_hash", "command"):
        if doc.get(name) is None:
            raise BadRequest(f"{name!r} is not given", "a dispatch needs machine, test_dir, test_dir_hash and command")
    assert command is not None
    seconds = _seconds(doc, "timeout")
    timeout: dict[str, Any] = {} if seconds is None else {"timeout": seconds}
    return BuildRequest(
        builder=text(doc, "name") or DISPATCH_BUILDER,
        steps=(Step(name=_step_name(command), command=command, workdir=text(doc, "workdir", longest=MAX_PATH)),),
        dispatch=Dispatch(**texts),
        properties=_mapping(doc, "properties"),
        priority=_integer(doc, "priority") or 0,
        **timeout,
    )


def records(raw: bytes) -> tuple[list[Run], bool]:
    """The body of ``POST /runs``: records, and whether they get new ids."""
    doc = body(raw, ["runs", "new_ids"])
    listed = doc.get("runs")
    if not isinstance(listed, list):
        _wrong("runs", listed, "a list of records")
    found = []
    for number, record in enumerate(listed):
        try:
            found.append(from_document(record))
        except StoreCorrupt as error:
            raise BadRequest(f"runs[{number}]: {error}", "give records as GET /runs does") from None
    return found, flag(doc, "new_ids")


def text(doc: Mapping[str, JSON], name: str, *, longest: int = MAX_TEXT) -> str | None:
    """A string that is not empty, or None when it is left out."""
    value = doc.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        _wrong(name, value, "a string")
    if not value.strip() or len(value) > longest or "\0" in value:
        raise BadRequest(f"{name!r} is empty, longer than {longest} characters or holds a NUL", f"give {name!r} a proper value")
    return value


def flag(doc: Mapping[str, JSON], name: str) -> bool:
    """A boolean, false when it is left out."""
    value = doc.get(name, False)
    if not isinstance(value, bool):
        _wrong(name, value, "true or false")
    return value


def names(doc: Mapping[str, JSON], name: str) -> list[str]:
    """A list of strings, empty when it is left out."""
    value = doc.get(name, [])
    if not isinstance(value, list) or not all(isinstance(one, str) and one.strip() for one in value):
        _wrong(name, value, "a list of strings")
    return [one.strip() for one in value]


def waiting(doc: Mapping[str, JSON], name: str, most: float) -> float:
    """A duration, 0 when it is left out, and never more than ``most``."""
    return 0.0 if doc.get(name) in (None, 0) else min(_seconds(doc, name) or 0.0, most)


def query(args: Mapping[bytes, list[bytes]], fields: Iterable[str]) -> dict[str, str]:
    """The query parameters, each at most once and none that is not in ``fields``."""
    known = list(fields)
    found: dict[str, str] = {}
    for raw, values in args.items():
        name = raw.decode("utf-8", "replace")
        if name not in known:
            raise BadRequest(f"unknown parameter {name[:MAX_TEXT]!r}", _instead(name, known, "parameter"))
        if len(values) != 1:
            raise BadRequest(f"parameter {name!r} is given {len(values)} times", "give it once")
        found[name] = values[0].decode("utf-8", "replace")
    return found


def whole(found: Mapping[str, str], name: str, default: int, *, least: int = 1, most: int = MAX_LIMIT) -> int:
    """A whole number between ``least`` and ``most``."""
    given = found.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdigit() and len(given) <= 12 and least <= int(given) <= most):
        raise BadRequest(f"parameter {name!r} is {given[:MAX_TEXT]!r}", f"give a whole number from {least} to {most}")
    return int(given)


def switch(found: Mapping[str, str], name: str) -> bool:
    """``0`` or ``1``."""
    given = found.get(name, "0")
    if given not in ("0", "1"):
        raise BadRequest(f"parameter {name!r} is {given[:MAX_TEXT]!r}", "give 0 or 1")
    return given == "1"


def seconds(found: Mapping[str, str], name: str, most: float) -> float:
    """A duration, 0 when it is left out, and never more than ``most``."""
    try:
        value = float(found.get(name, "0"))
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise BadRequest(f"parameter {name!r} is {found[name][:MAX_TEXT]!r}", "give a number of seconds, 0 or more")
    return min(value, most)


def states(found: Mapping[str, str], name: str) -> list[BuildState] | None:
    """Build states separated by commas; None when the parameter is left out."""
    return _several(found, name, BuildState, "state")


def statuses(found: Mapping[str, str], name: str) -> list[RunStatus] | None:
    """Statuses of runs separated by commas; None when the parameter is left out."""
    return _several(found, name, RunStatus, "status")


def _several(found: Mapping[str, str], name: str, kind: type[E], word: str) -> list[E] | None:
    if name not in found:
        return None
    known = [each.value for each in kind]
    chosen = []
    for given in found[name].split(","):
        if given not in known:
            raise BadRequest(f"parameter {name!r}: no {word} is called {given[:MAX_TEXT]!r}", _instead(given, known, word))
        chosen.append(kind(given))
    return chosen


def nearest(name: str, known: Iterable[str]) -> str:
    """The name that was probably meant, as the start of a remedy; empty when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def _instead(name: str, known: list[str], kind: str) -> str:
    kinds = f"{kind}es" if kind.endswith("s") else f"{kind}s"
    return f"{nearest(name, known)}the {kinds} are: {', '.join(known)}" if known else f"send no {kinds} here"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _kind(value: JSON) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


def _wrong(name: str, value: JSON, wanted: str) -> NoReturn:
    raise BadRequest(f"{name!r} is {_kind(value)}", f"give {wanted}")


def _command(doc: Mapping[str, JSON]) -> str | tuple[str, ...] | None:
    value = doc.get("command")
    if value is None:
        return None
    words = value if isinstance(value, list) else [value]
    if not all(isinstance(word, str) for word in words):
        _wrong("command", value, "a command line, or a list of strings")
    if not words or not words[0].strip() or any("\0" in word for word in words):
        raise BadRequest("'command' is empty or holds a NUL", "give a command line, or a list of strings")
    return tuple(words) if isinstance(value, list) else str(value)


def _payload(doc: Mapping[str, JSON]) -> Payload | None:
    value = doc.get("payload")
    if value is None:
        return None
    if not isinstance(value, dict):
        _wrong("payload", value, "an object with type_url and value")
    if value.keys() != {"type_url", "value"}:
        raise BadRequest("'payload' has other fields than type_url and value", "give it these two")
    type_url = text(value, "type_url")
    if type_url is None:
        raise BadRequest("'type_url' is null", "name the type of the payload")
    if not isinstance(value["value"], str):
        _wrong("payload.value", value["value"], "a string in base64")
    try:
        return Payload(type_url, base64.b64decode(value["value"], validate=True))
    except ValueError:
        raise BadRequest("'payload.value' is not base64", "encode the payload's bytes in base64") from None


def _step_name(command: str | tuple[str, ...]) -> str:
    line = command if isinstance(command, str) else shlex.join(command)
    line = " ".join(line.split())
    return line if len(line) <= 40 else line[:39] + "…"


def _mapping(doc: Mapping[str, JSON], name: str, check: Callable[[str, JSON], None] | None = None) -> dict[str, JSON]:
    value = doc.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        _wrong(name, value, "an object")
    for key, each in value.items():
        if not key.strip() or len(key) > MAX_TEXT or "\0" in key:
            raise BadRequest(f"a name in {name!r} is empty, too long or holds a NUL", f"give 1 to {MAX_TEXT} characters")
        if check:
            check(key, each)
    return dict(value)


def _labels(doc: Mapping[str, JSON]) -> dict[str, str]:
    def check(key: str, value: JSON) -> None:
        if not isinstance(value, str):
            _wrong(f"labels.{key}", value, "a string")

    return _mapping(doc, "labels", check)


def _integer(doc: Mapping[str, JSON], name: str) -> int | None:
    value = doc.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        _wrong(name, value, "a whole number")
    if abs(value) > MAX_NUMBER:
        raise BadRequest(f"{name!r} is out of range", f"give a whole number from -{MAX_NUMBER} to {MAX_NUMBER}")
    return value


def _seconds(doc: Mapping[str, JSON], name: str) -> float | None:
    value = doc.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        _wrong(name, value, "a number of seconds")
    if not 0 < value <= MAX_NUMBER:
        raise BadRequest(f"{name!r} is out of range", f"give a number of seconds above 0 and up to {MAX_NUMBER}")
    return float(value)
