"""A plugin with a planted fault fails the contract, with a message that names the promise."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from latent.testing.contract import PROMISES, BrokenPromise, make_latent_worker_tests
from tests.contract.faults import FAULTS, forget
from tests.contract.shed import ShedLatentWorker, ShedProvider

PATIENCE = 0.5
"""Seconds: a broken promise is one that is not kept in this time."""


EVERY_TEST = {"errors-are-answered", "nothing-left-waiting"}
"""Promises that every test checks when it is over; one is enough."""


class Heard(unittest.TestResult):
    """What the contract says. ``others``: errors that are no broken promises."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: list[BrokenPromise] = []
        self.others: list[BaseException] = []

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        if isinstance(err[1], BrokenPromise):
            self.broken.append(err[1].with_traceback(None))
        else:
            self.others.append(err[1])

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self.others.append(err[1])


@pytest.fixture(params=list(FAULTS), ids=lambda plugin: plugin.__name__)
def plugin(request: pytest.FixtureRequest) -> type[ShedLatentWorker]:
    chosen: type[ShedLatentWorker] = request.param
    return chosen


@pytest.fixture
def heard(plugin: type[ShedLatentWorker], flush_logged_errors: Callable[..., Any]) -> Iterator[Heard]:
    """The verdict on the plugin. A fixture, as pytest-twisted runs test functions in the reactor, where none can wait for it."""
    heard = Heard()
    tests = make_latent_worker_tests(lambda case: ShedProvider(case, plugin, PATIENCE))
    for name in unittest.defaultTestLoader.getTestCaseNames(tests):
        if getattr(tests, name).promise.name in FAULTS[plugin] or (FAULTS[plugin] <= EVERY_TEST and name == "test_good"):
            tests(name).run(heard)
    yield heard
    flush_logged_errors()
    forget()


def test_planted_fault(plugin: type[ShedLatentWorker], heard: Heard) -> None:
    """Each promise that the fault breaks is named, and no other."""
    print(f"\n{plugin.__name__}: {plugin.__doc__}", *heard.broken, *heard.others, sep="\n  ")
    named = {name for name in PROMISES for error in heard.broken if str(error).startswith(f"broken promise {name!r}: ")}
    assert (named, heard.others) == (FAULTS[plugin], [])


def test_enough_faults() -> None:
    """Every promise is seen broken."""
    assert set(PROMISES) == frozenset().union(*FAULTS.values())
