"""Reads JSON documents strictly: what is wrong is a `ConfigError` that names the place and the remedy."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from typing import Any, NoReturn, TypeVar

from latent.errors import ConfigError
from latent.model import JSON

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

LONGEST_NAME = 1000
"""Characters."""


def wrong(place: str, value: JSON, wanted: str) -> NoReturn:
    raise ConfigError(f"{place} is {_kind(value)}; give {wanted}")


def _kind(value: JSON) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the string {value[:40]!r}" if value else "an empty string"
        case list():
            return "a list"
        case _:
            return "an object"


def mapping(value: JSON, place: str, fields: Collection[str], needed: Collection[str] = ()) -> Mapping[str, JSON]:
    """An object that has the fields ``needed``, and none that is not in ``fields``."""
    if not isinstance(value, dict):
        wrong(place, value, "an object")
    if not value.keys() <= set(fields):
        unknown = sorted(value.keys() - set(fields))[0]
        raise ConfigError(f"{place} has the unknown field {unknown[:100]!r}; the fields are: {', '.join(fields)}")
    for name in needed:
        if name not in value:
            raise ConfigError(f"{place} has no field {name!r}; give it")
    return value


def text(value: JSON, place: str, *, longest: int = LONGEST_NAME, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value.strip() or empty):
        wrong(place, value, "a string")
    if len(value) > longest or "\0" in value:
        raise ConfigError(f"{place} is longer than {longest} characters or holds a NUL; give a shorter one")
    return value


def whole(value: JSON, place: str, least: int = 0, most: int = 2**53) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        wrong(place, value, f"a whole number from {least}" + ("" if most == 2**53 else f" to {most}"))
    return value


def number(value: JSON, place: str) -> float:
    """A number that is finite. Whole ones stay so."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        wrong(place, value, "a number")
    return value


def flag(value: JSON, place: str) -> bool:
    if not isinstance(value, bool):
        wrong(place, value, "true or false")
    return value


def one_of(value: JSON, place: str, kind: type[E]) -> E:
    try:
        return kind(value)
    except ValueError:
        wrong(place, value, "one of " + ", ".join(str(each.value) for each in kind))


def listed(value: JSON, place: str, read: Callable[[JSON, str], T]) -> list[T]:
    if not isinstance(value, list):
        wrong(place, value, "a list")
    return [read(one, f"{place}[{index}]") for index, one in enumerate(value)]


def ids(value: JSON, place: str) -> tuple[int, ...]:
    """Whole numbers from 0; quick."""
    if not isinstance(value, list):
        wrong(place, value, "a list of whole numbers")
    for one in value:
        if type(one) is not int or one < 0:
            wrong(place, one, "a list of whole numbers")
    return tuple(value)


def named(value: JSON, place: str, read: Callable[[JSON, str], T]) -> dict[str, T]:
    """An object with values of one kind, by name."""
    if not isinstance(value, dict):
        wrong(place, value, "an object")
    return {text(name, f"a name in {place}"): read(one, f"{place}[{name!r}]") for name, one in value.items()}


def anything(value: JSON, place: str) -> Any:
    return value
