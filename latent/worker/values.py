"""Checks of the values that a worker is declared with. Each raises ConfigError with "what; remedy"."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from latent.errors import ConfigError
from latent.worker.words import kind, shown

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
"""Names become parts of paths, tags and host names at providers."""


def name(value: Any) -> str:
    if isinstance(value, str) and NAME.fullmatch(value):
        return value
    remedy = "a name is 1 to 100 letters, digits, dots, dashes and underscores, and starts with none of '.' and '-'"
    raise ConfigError(f"the name of a worker is {shown(value)}; {remedy}")


def seconds(subject: str, value: Any, *, least: float | None = None) -> float:
    """A finite number; above 0, or from ``least`` (``-inf``: any)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{subject} is {shown(value)}; write a number of seconds")
    if least is None and value <= 0:
        raise ConfigError(f"{subject} is {shown(value)}; write a number of seconds above 0")
    if least is not None and value < least:
        raise ConfigError(f"{subject} is {shown(value)}; write {least:g} or more seconds")
    return float(value)


def number(subject: str, value: Any, *, least: int = 1, most: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{subject} is {shown(value)}; write a whole number, {least} or more")
    if most is not None and value > most:
        raise ConfigError(f"{subject} is {value}; write a whole number, {most} or less")
    return int(value)


def text(subject: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{subject} is {shown(value)}; write a string that is not empty")
    return value


def texts(subject: str, value: Any) -> tuple[str, ...]:
    """One string, or a list of them; None is an empty list."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (text(subject, value),)
    if not isinstance(value, list | tuple | set | frozenset):
        raise ConfigError(f"{subject} is {kind(value)}, {shown(value)}; write a string or a list of strings")
    return tuple(text(f"an element of {subject}", item) for item in value)


def labels(value: Any) -> Mapping[str, str]:
    """What a worker offers; ``worker`` is its name and can't be given."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"labels is {kind(value)}, {shown(value)}; write a dict such as {{'os': 'linux'}}")
    errors = []
    for label, content in value.items():
        if not isinstance(label, str) or not label.strip():
            errors.append(f"labels has the name {shown(label)}; write a string that is not empty")
        elif label == "worker":
            errors.append("the label 'worker' is always the worker's name; take it out")
        elif not isinstance(content, str):
            errors.append(f"the label {label!r} is {kind(content)}, {shown(content)}; labels are strings, put it in quotes")
    if errors:
        raise ConfigError(errors)
    return dict(value)


def properties(subject: str, value: Any) -> Mapping[str, Any]:
    """Names are strings, values are what JSON can say."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{subject} is {kind(value)}, {shown(value)}; write a dict such as {{'arch': 'amd64'}}")
    errors = []
    for key, content in value.items():
        if not isinstance(key, str):
            errors.append(f"{subject} has the name {shown(key)}; write a string")
            continue
        try:
            json.dumps(content, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            remedy = "use strings, numbers, booleans, None, lists and dicts"
            errors.append(f"{subject}: {key!r} is {kind(content)}, {shown(content)}, which JSON can't say; {remedy}")
    if errors:
        raise ConfigError(errors)
    return dict(value)
