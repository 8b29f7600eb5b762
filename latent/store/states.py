"""The states of one worker's life as JSON documents. The policy is not in them: it comes from the declaration."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from attrs import NOTHING, fields

from latent.core.states import NAMES, Call, Policy, State, Timer
from latent.errors import StoreCorrupt
from latent.model import JSON


class _Kind(NamedTuple):
    """How a field's value is written and read; ``read`` raises ValueError when it is not what was written."""

    write: Callable[[Any], JSON]
    read: Callable[[JSON], Any]


class _Field(NamedTuple):
    """``optional``: it has a default, so an older release may have written a state without it."""

    kind: _Kind
    optional: bool


def dump(state: State) -> JSON:
    """The state as an object: its name under "state", and its fields without the policy."""
    name, layout = _LAYOUTS[type(state)]
    document: dict[str, JSON] = {"state": name}
    for field, (kind, _) in layout.items():
        document[field] = kind.write(getattr(state, field))
    return document


def load(document: JSON, policy: Policy) -> State:
    """What `dump` wrote, with this policy. Raises `StoreCorrupt` that says what is wrong with it."""
    if not isinstance(document, dict):
        raise StoreCorrupt(f"a worker's state should be an object, but is {document!r}")
    name = document.get("state")
    kind_of_state = _BY_NAME.get(name) if isinstance(name, str) else None
    if kind_of_state is None:
        raise StoreCorrupt(f"a worker's state can't be {name!r}; it is one of {', '.join(_BY_NAME)}")
    _, layout = _LAYOUTS[kind_of_state]
    if unknown := document.keys() - layout.keys() - {"state"}:
        raise StoreCorrupt(f"worker state {name} has no field {', '.join(sorted(map(repr, unknown)))}")
    values: dict[str, Any] = {}
    for field, (kind, optional) in layout.items():
        if field not in document:
            if optional:
                continue
            raise StoreCorrupt(f"worker state {name} lacks its field {field!r}")
        try:
            values[field] = kind.read(document[field])
        except ValueError as error:
            raise StoreCorrupt(f"worker state {name}: field {field!r} {error}, but is {document[field]!r}") from error
    return kind_of_state(policy=policy, **values)


def _same(value: Any) -> JSON:
    return value


def _of_type(words: str, *types: type) -> Callable[[JSON], Any]:
    def read(value: JSON) -> Any:
        # By exact type: a bool is no number here.
        if type(value) not in types:
            raise ValueError(f"should be {words}")
        return value

    return read


_text = _of_type("a string", str)


def _number(value: JSON) -> float:
    if type(value) not in (float, int) or not math.isfinite(value):
        raise ValueError("should be a number")
    return cast(float, value)


def _read_texts(value: JSON) -> tuple[str, ...]:
    if type(value) is not list or not all(type(each) is str for each in value):
        raise ValueError("should be a list of strings")
    return tuple(value)


def _write_call(call: Call) -> JSON:
    return {"hook": call.hook.value, "deadline": call.deadline, "cancelled": call.cancelled}


def _read_call(value: JSON) -> Call:
    if type(value) is not dict or value.keys() != {"hook", "deadline", "cancelled"}:
        raise ValueError('should be an object with "hook", "deadline" and "cancelled"')
    hook = _HOOKS.get(value["hook"]) if isinstance(value["hook"], str) else None
    if hook is None:
        raise ValueError(f'should have one of {", ".join(_HOOKS)} as "hook"')
    return Call(hook, _number(value["deadline"]), _of_type("true or false", bool)(value["cancelled"]))


_HOOKS = {timer.value: timer for timer in Timer}


def _or_none(kind: _Kind) -> _Kind:
    return _Kind(
        lambda value: None if value is None else kind.write(value), lambda value: None if value is None else kind.read(value)
    )


_CALL = _Kind(_write_call, _read_call)
_KINDS: Mapping[str, _Kind] = {
    "int": _Kind(_same, _of_type("an integer", int)),
    "bool": _Kind(_same, _of_type("true or false", bool)),
    "str": _Kind(_same, _text),
    "float": _Kind(_same, _number),
    "str | None": _or_none(_Kind(_same, _text)),
    "float | None": _or_none(_Kind(_same, _number)),
    "tuple[str, ...]": _Kind(list, _read_texts),
    "frozenset[str]": _Kind(sorted, lambda value: frozenset(_read_texts(value))),
    "Call": _CALL,
    "Call | None": _or_none(_CALL),
}


def _layout(state: type[State]) -> dict[str, _Field]:
    declared = fields(cast(Any, state))
    return {each.name: _Field(_KINDS[each.type], each.default is not NOTHING) for each in declared if each.name != "policy"}


# Read off the declared types, so that a new field needs no change here, and one of a new kind fails when this is imported.
_LAYOUTS: dict[type[State], tuple[str, dict[str, _Field]]] = {state: (name, _layout(state)) for state, name in NAMES.items()}
_BY_NAME: dict[str, type[State]] = {name: state for state, name in NAMES.items()}
