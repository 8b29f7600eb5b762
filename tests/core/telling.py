"""A path of the search in words: what happened, what the machine did about it, and where that led."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from attrs import field, frozen

from latent.core import events as ev
from latent.core.states import NAMES, State
from tests.core.promises import Promise


@frozen
class Counterexample:
    """The shortest way to a broken promise."""

    promise: Promise
    what: str
    steps: tuple[str, ...]

    def __str__(self) -> str:
        path = "\n".join(f"{n:3}. {step}" for n, step in enumerate(self.steps, 1))
        return f"Promise {self.promise.value}\nis broken after {len(self.steps)} steps: {self.what}\n{path}"


@attrs.define
class Names:
    """What canonical numbers and letters stand for along one path: attempts are counted from 1, builds from build1."""

    attempts: dict[int, int]
    builds: dict[str, str] = field(factory=dict)
    count: int = 0

    def attempt(self, number: int) -> int:
        newest = max(self.attempts)
        return self.attempts.get(number, self.attempts[newest] + 1 if number > newest else 0)

    def build(self, letter: str) -> str:
        if letter not in self.builds:
            self.count += 1
            self.builds[letter] = f"build{self.count}"
        return self.builds[letter]

    def follow(self, numbers: tuple[int, ...], builds: Mapping[str, str] | None, newest: int) -> None:
        """The next step has other names: those of ``numbers`` end at ``newest``, ``builds`` are the new by the old."""
        first = newest + 1 - len(numbers)
        self.attempts = {first + i: self.attempt(number) for i, number in enumerate(numbers)}
        if builds is not None:
            self.builds = {new: self.build(old) for old, new in builds.items()}


def line(text: str, event: ev.Event | None, actions: tuple[ev.Action, ...], state: State, names: Names) -> str:
    told = "" if event is None else f"  {_value(event, names)}"
    done = "".join(f"\n{'':9}{_value(action, names)}" for action in actions)
    return f"{text}{told}  -> {NAMES[type(state)]}{done}"


def _value(value: Any, names: Names) -> str:
    parts = []
    for attribute in attrs.fields(type(value)):
        item = getattr(value, attribute.name)
        match attribute.name, item:
            case "attempt", int():
                parts.append(f"{names.attempt(item)}")
            case "build", str():
                parts.append(names.build(item))
            case "builds", _:
                parts.append(", ".join(names.build(b) for b in item))
            case "policy", _:
                parts.append(f"build_wait_timeout={item.build_wait_timeout:g}, has_machine={item.has_machine}")
            case _, ev.Failure():
                parts.append(f"{item.fault.value}: {item.message}")
            case "found", _:
                parts.append({True: "found", False: "not found", None: "can't tell"}[item])
            case "good", _:
                parts.append("good" if item else "bad")
            case _, None | False | "":
                continue
            case name, True:
                parts.append(name)
            case _, _:
                parts.append(getattr(item, "value", str(item)))
    return f"{type(value).__name__}({', '.join(parts)})"
