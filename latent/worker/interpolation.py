"""How the format of an `Interpolate` is read and filled in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import frozen

from latent.errors import ConfigError
from latent.worker.words import did_you_mean

SELECTORS = ("prop", "kw")

_SPEC = re.compile(r"[#0\- +]*\d*(?:\.\d+)?[diouxXeEfFgGcrsa]")


@frozen
class Place:
    """One ``%(selector:name:MODEtext)spec``; ``selector`` is empty for a positional ``%spec``. ``mode``: "", "-", "~" or "+"."""

    selector: str
    name: str
    spec: str
    mode: str = ""
    text: tuple[str | Place, ...] = ()


Parts = tuple[str | Place, ...]


def parse(fmt: str, positional: int, keywords: frozenset[str]) -> Parts:
    """Read a format. ConfigError for one that can't be read, or that asks for an argument that was not given."""
    if not isinstance(fmt, str):
        raise ConfigError(f"Interpolate takes a string, not {fmt!r}; write Interpolate('...%(prop:NAME)s...')")
    parts = _parse(fmt, fmt)
    places = list(_places(parts))
    wanted = sum(not place.selector for place in places)
    if wanted != positional:
        raise ConfigError(f"Interpolate({fmt!r}) has {wanted} positional places and {positional} arguments; give one for each")
    for place in places:
        if place.selector == "kw" and place.name not in keywords and place.mode == "":
            near = did_you_mean(place.name, keywords, "the keywords")
            raise ConfigError(f"Interpolate({fmt!r}) lacks the keyword {place.name!r}; {near}")
    return parts


def needed(parts: Parts) -> set[tuple[str, str]]:
    """The (selector, name) of every place."""
    return {(place.selector, place.name) for place in _places(parts)}


def fill(parts: Parts, sources: Mapping[str, Mapping[str, Any]], args: Iterator[Any], missing: Callable[[str], Exception]) -> str:
    """The finished string. ``missing(name)`` makes the error for a place that has neither value nor replacement."""
    filled = []
    for part in parts:
        if isinstance(part, str):
            filled.append(part)
            continue
        if not part.selector:
            filled.append(f"%{part.spec}" % (next(args),))
            continue
        source = sources[part.selector]
        there = part.name in source
        match part.mode:
            case "+":
                filled.append(fill(part.text, sources, args, missing) if there else "")
            case "-" if not there:
                filled.append(fill(part.text, sources, args, missing))
            case "~" if not (there and source[part.name]):
                filled.append(fill(part.text, sources, args, missing))
            case _ if not there:
                raise missing(part.name)
            case _:
                filled.append(f"%{part.spec}" % (source[part.name],))
    return "".join(filled)


def _places(parts: Parts) -> Iterator[Place]:
    for part in parts:
        if isinstance(part, Place):
            yield part
            yield from _places(part.text)


def _parse(text: str, whole: str) -> Parts:
    parts: list[str | Place] = []
    at = 0
    while (percent := text.find("%", at)) >= 0:
        parts.append(text[at:percent])
        at = percent + 1
        if text.startswith("%", at):
            parts.append("%")
            at += 1
            continue
        key = None
        if text.startswith("(", at):
            end = _closing(text, at, whole)
            key = text[at + 1 : end]
            at = end + 1
        spec = _SPEC.match(text, at)
        if spec is None:
            raise ConfigError(
                f"Interpolate({whole!r}): a place ends with a letter as in %(prop:NAME)s; write %% for a percent sign"
            )
        at = spec.end()
        parts.append(Place("", "", spec[0]) if key is None else _place(key, spec[0], whole))
    parts.append(text[at:])
    return tuple(part for part in parts if part != "")


def _closing(text: str, opening: int, whole: str) -> int:
    depth = 0
    for index in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index
    raise ConfigError(f"Interpolate({whole!r}): a parenthesis is not closed; write %(prop:NAME)s")


def _place(key: str, spec: str, whole: str) -> Place:
    selector, colon, rest = key.partition(":")
    if selector not in SELECTORS or not colon:
        raise ConfigError(f"Interpolate({whole!r}): %({key}) is unknown; write %(prop:NAME)s or %(kw:NAME)s")
    name, colon, more = rest.partition(":")
    if not name:
        raise ConfigError(f"Interpolate({whole!r}): %({key}) has no name; write %(prop:NAME)s")
    if not colon:
        return Place(selector, name, spec)
    if more[:1] not in ("-", "~", "+"):
        raise ConfigError(f"Interpolate({whole!r}): %({key}): after the name may follow :-text, :~text or :+text")
    return Place(selector, name, spec, more[0], _parse(more[1:], whole))
