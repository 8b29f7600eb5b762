"""What the actions of latent machines are declared with, checked by attrs. Each check raises ConfigError: "what; remedy"."""

from __future__ import annotations

import ipaddress
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import Attribute

from latent.errors import ConfigError
from latent.worker.words import did_you_mean, kind, shown

MAC = re.compile(r"[0-9A-Fa-f]{2}([:-]?)(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


def command(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    """A list of strings that is not empty."""
    subject = f"{type(instance).__name__}: {attribute.name}"
    remedy = "write a list of arguments, ['virsh', 'start', 'builder-1'] for example"
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ConfigError(f"{subject} is {kind(value)}, {shown(value)}; {remedy}")
    wrong = [argument for argument in value if not isinstance(argument, str) or "\0" in argument]
    if wrong or not value[0]:
        bad = wrong[0] if wrong else value
        raise ConfigError(f"{subject} has {kind(bad)}, {shown(bad)}, in it, which no program can be given; {remedy}")


def remote_command(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    """A list of arguments, or a line for the shell of the other machine."""
    if not isinstance(value, str):
        command(instance, attribute, value)
    elif not value.strip():
        raise ConfigError(f"{type(instance).__name__}: {attribute.name} is empty; write what is to run there")


def text(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{type(instance).__name__}: {attribute.name} is {shown(value)}; write a string that is not empty")


def text_or_none(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is not None:
        text(instance, attribute, str(value) if isinstance(value, Path) else value)


def host(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    text(instance, attribute, value)
    if value.startswith("-") or any(character.isspace() for character in value):
        raise ConfigError(f"{type(instance).__name__}: host is {shown(value)}; write 'HOST', 'USER@HOST' or 'ssh://HOST:PORT'")


def mac(instance: Any, attribute: Attribute[Any] | None, value: Any) -> None:
    if not isinstance(value, str) or MAC.fullmatch(value) is None:
        what = f"{type(instance).__name__}: wakeMac is {shown(value)}, which is no hardware address"
        raise ConfigError(f"{what}; write six pairs of hex digits, '00:1b:21:3c:9d:0e' for example")


def address(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        what = f"{type(instance).__name__}: address is {shown(value)}, which is no IPv4 address"
        raise ConfigError(f"{what}; write the broadcast address of the machine's network, '192.168.1.255' for example") from None


def port(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise ConfigError(f"{type(instance).__name__}: port is {shown(value)}, which is no port; write a number from 1 to 65535")


def url(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    try:
        parts = urlsplit(value)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, AttributeError, TypeError):
        right = False
    if not right:
        raise ConfigError(f"HttpAction: url is {shown(value)}; write 'http://HOST/PATH' or 'https://HOST/PATH'")


def method(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or value.upper() not in METHODS:
        remedy = did_you_mean(str(value), METHODS, "the methods")
        raise ConfigError(f"HttpAction: method is {shown(value)}; {remedy}")


def seconds(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf")):
        raise ConfigError(f"HttpAction: timeout is {shown(value)}; write a number of seconds above 0")


def no_proxies(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is not None:
        raise ConfigError("HttpAction: proxies is not supported; name a url that the controller reaches itself")


def json_or_data(instance: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and (instance.data is not None or instance.files is not None):
        raise ConfigError("HttpAction: json goes with neither data nor files; give one of them")


def no_program(subject: str, program: str, directory: Path) -> Iterator[str]:
    """That there is no such program, if there is none."""
    path = program if "/" not in program else str(directory / program)
    if shutil.which(path) is None:
        remedy = "install it, or write the path where it is" if "/" not in program else "correct the path, or make it executable"
        yield f"{subject}: there is no program {program!r}; {remedy}"
