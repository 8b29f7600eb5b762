"""The promises that a plugin makes, each checked by the test whose promise it is, and what is said of one that is broken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Protocol

from attrs import frozen

from latent.controller.failures import explained


@frozen
class Promise:
    """``name``: how a message and the documentation call it. ``text``: what the plugin's author promises."""

    name: str
    text: str

    def broken(self, what: str) -> BrokenPromise:
        return BrokenPromise(self, what)


class BrokenPromise(AssertionError):
    """A plugin does not keep ``promise``; the message names it and says what happened."""

    def __init__(self, promise: Promise, what: str) -> None:
        self.promise = promise
        self.what = what
        super().__init__(f"broken promise {promise.name!r}: {promise.text}\nWhat happened: {what}")


class Checks(Protocol):
    """What runs a check: `latent.testing.contract.case.ContractCase`."""

    def carry_out(self, promise: Promise, check: Callable[[Any], Awaitable[None]]) -> None: ...


PROMISES: dict[str, Promise] = {}
"""All that are checked, by their names."""


def named(name: str, text: str) -> Promise:
    """A promise that is among `PROMISES`."""
    made = PROMISES.setdefault(name, Promise(name, text))
    assert made.text == text, f"two promises are called {name}"
    return made


def promise(name: str, text: str) -> Callable[[Callable[[Any], Awaitable[None]]], Callable[[Any], None]]:
    """Make a test method of an ``async def`` one that checks a promise. What goes wrong in it is reported as that promise broken.

    Several methods may check the same one.
    """
    made = named(name, text)

    def decorate(check: Callable[[Any], Awaitable[None]]) -> Callable[[Any], None]:
        @wraps(check)
        def test(case: Checks) -> None:
            case.carry_out(made, check)

        test.__doc__ = check.__doc__ or text
        test.promise = made  # type: ignore[attr-defined]
        return test

    return decorate


def said(error: BaseException) -> str:
    """An error in words, with its type."""
    words = explained(error)
    kind = type(error).__name__
    return words if words.startswith(kind) else f"{kind}: {words}"
