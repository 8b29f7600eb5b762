"""Checks of single values that a declaration is made of. Each raises `ConfigError` with "what; remedy".

``subject`` names the value as its writer knows it: ``c['www']['port']``, ``builder 'tests': timeout``.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, TypeVar

from latent.errors import ConfigError
from latent.model import JSON
from latent.worker import values as of_workers
from latent.worker.words import kind, shown

T = TypeVar("T")
D = TypeVar("D")

JSON_DEPTH = 50
"""How deep a property may nest. Deeper is a mistake (a list that contains itself, say), and costs every reader its stack."""


def text(subject: str, value: Any, *, remedy: str = "write a string") -> str:
    """A string that is not empty and can be printed."""
    if not isinstance(value, str):
        raise ConfigError(f"{subject} is {kind(value)}, {shown(value)}, not a string; {remedy}")
    if not value.strip():
        raise ConfigError(f"{subject} is empty; {remedy}")
    if not value.isprintable():
        raise ConfigError(f"{subject} {shown(value)} has characters that can't be printed; take them out")
    return str(value)


def name(subject: str, value: Any) -> str:
    """The name of a builder: printable, without blanks at its ends, and not to be taken for an option of the command line."""
    checked = text(subject, value, remedy="give it a name")
    if checked != checked.strip() or checked.startswith("-"):
        raise ConfigError(f"{subject} {shown(checked)} starts with a dash or has blanks at an end; choose another name")
    return checked


def seconds(subject: str, value: Any) -> float:
    """A finite number of seconds above 0."""
    try:
        return of_workers.seconds(subject, value)
    except OverflowError:
        raise ConfigError(f"{subject} is {shown(value)}; write a number of seconds that a float can hold") from None


def seconds_or_0(subject: str, value: Any) -> float:
    """A finite number of seconds, 0 or more."""
    if value == 0 and not isinstance(value, bool):
        return 0.0
    return seconds(subject, value)


def boolean(subject: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{subject} is {kind(value)}, {shown(value)}; write True or False")
    return value


def port(subject: str, value: Any, *, least: int = 0) -> int:
    """A TCP port; 0 is any free one."""
    if isinstance(value, str):
        raise ConfigError(f"{subject} is the string {shown(value)}, not a port; write a number without quotes, 9989 for example")
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 65535:
        raise ConfigError(f"{subject} is {shown(value)}, which is no port; write a number from {least} to 65535")
    return int(value)


def interface(subject: str, value: Any) -> str:
    """An IP address to listen on."""
    remedy = "write '127.0.0.1' for this machine only, '0.0.0.0' for all its networks, or one of its addresses"
    address = text(subject, value, remedy=remedy)
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        raise ConfigError(f"{subject} is {shown(address)}, which is no IP address; {remedy}") from None


def host_and_port(subject: str, value: Any) -> str:
    """``host:port`` (``[host]:port`` for IPv6), as somebody else is to dial it."""
    remedy = "write 'HOST:PORT', 'controller.example.org:9989' for example"
    address = text(subject, value, remedy=remedy)
    host, _, digits = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or any(character.isspace() or character == "/" for character in bare) or (":" in bare and bare == host):
        raise ConfigError(f"{subject} is {shown(address)}; {remedy}")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and 1 <= int(digits) <= 65535):
        raise ConfigError(f"{subject} is {shown(address)}, where {shown(digits)} is no port; {remedy}")
    return address


def mapping(subject: str, value: Any, *, remedy: str) -> Mapping[str, Any]:
    """A dict whose keys are strings."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{subject} is {kind(value)}, {shown(value)}, not a dict; {remedy}")
    wrong = [key for key in value if not isinstance(key, str)]
    if wrong:
        raise ConfigError([f"{subject} has the key {shown(key)}, which is not a string; {remedy}" for key in wrong])
    return value


def labels(subject: str, value: Any) -> Mapping[str, str]:
    """Labels: names and values are strings. None: there are none."""
    if value is None:
        return {}
    checked = mapping(subject, value, remedy="write {'os': 'linux'}")
    wrong = [
        f"{subject}: the value of label {shown(label)} is {kind(content)}, {shown(content)}; labels are strings, put it in quotes"
        for label, content in checked.items()
        if not isinstance(content, str)
    ]
    wrong += [f"{subject} has a label without a name; write {{'os': 'linux'}}" for label in checked if not label.strip()]
    if wrong:
        raise ConfigError(wrong)
    return dict(checked)


def properties(subject: str, value: Any) -> Mapping[str, JSON]:
    """Properties: names are strings, values are what JSON can say. None: there are none."""
    if value is None:
        return {}
    checked = mapping(subject, value, remedy="write {'branch': 'main'}")
    wrong = [
        f"{subject}: {problem}; properties are stored as JSON: use strings, numbers, booleans, None, lists and dicts"
        for key, content in checked.items()
        if not _is_plain(content) and (problem := _not_json(content, f"property {shown(key)}"))
    ]
    if wrong:
        raise ConfigError(wrong)
    return dict(checked)


def collect(errors: list[str], check: Callable[..., T], *args: Any, default: D, **kwargs: Any) -> T | D:
    """What ``check`` answers; when it raises `ConfigError`, its messages go to ``errors`` and ``default`` is the answer."""
    try:
        return check(*args, **kwargs)
    except ConfigError as error:
        errors.extend(error.errors)
        return default


def described(error: BaseException) -> str:
    """An exception on one line, not too long; never raises."""
    try:
        message = " ".join(str(error).split())
    except Exception as broken:  # the exception is of somebody's own making
        message = f"(its message raises {type(broken).__name__})"
    shortened = message if len(message) <= 400 else message[:400] + "..."
    return f"{type(error).__name__}: {shortened}" if shortened else type(error).__name__


def encodes(value: str) -> bool:
    """Whether the string can be written as UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_plain(value: Any) -> bool:
    """Whether it is JSON at the first glance, as most values are."""
    return type(value) in (bool, int, NoneType) or (type(value) is str and value.isascii())


def _not_json(value: Any, place: str, depth: int = 0) -> str:
    """Why a value is no JSON, in words; empty if it is. What ``json`` would quietly turn into something else counts as wrong."""
    if depth > JSON_DEPTH:
        return f"{place[:80]}... nests more than {JSON_DEPTH} deep"
    if value is None or isinstance(value, bool | int):
        return ""
    if isinstance(value, str):
        return "" if encodes(value) else f"{place} is a string with half a character in it (a lone surrogate)"
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{place} is {value}, which JSON can't say"
    if isinstance(value, list | tuple):
        inner = (_not_json(element, f"{place}[{index}]", depth + 1) for index, element in enumerate(value))
        return next(filter(None, inner), "")
    if isinstance(value, dict):
        for key, element in value.items():
            if not isinstance(key, str):
                return f"{place} has the key {shown(key)}, which is not a string"
            problem = _not_json(element, f"{place}[{shown(key)}]", depth + 1)
            if problem:
                return problem
        return ""
    return f"{place} is {kind(value)}, {shown(value)}"
