"""Whether a plugin keeps its promises: a test case for whoever writes one.

In a test module of the plugin's own, for pytest, trial or unittest::

    from twisted.internet import reactor
    from latent.testing.contract import Mistake, Provider, make_latent_worker_tests

    class Metal(Provider):
        reactor = reactor
        mistakes = [Mistake("account", keywords={"account": ""})]
        ...

    class TestMetalLatentWorker(make_latent_worker_tests(Metal)):
        pass

Each test checks one promise, with the hooks called as a controller calls them, on the real reactor. A broken promise is an
AssertionError that names it and tells what happened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from latent.testing.contract.case import ContractCase
from latent.testing.contract.declaring import Declaring
from latent.testing.contract.finding import Finding
from latent.testing.contract.healthy import Healthy
from latent.testing.contract.leaving import Leaving
from latent.testing.contract.promises import PROMISES, BrokenPromise, Promise
from latent.testing.contract.provider import Mistake, Provider
from latent.testing.contract.starting import Starting
from latent.testing.contract.stopping import Stopping

__all__ = ["PROMISES", "BrokenPromise", "Mistake", "Promise", "Provider", "make_latent_worker_tests"]


def make_latent_worker_tests(factory: Callable[[Any], Provider]) -> type[ContractCase]:
    """A `unittest.TestCase` with a test for each promise; subclass it, or give it a name, in a module of tests.

    ``factory`` makes the `Provider` of one test; it is called with the test case, and may be the class itself.
    """

    class LatentWorkerContract(Declaring, Starting, Stopping, Finding, Healthy, Leaving):
        def make_provider(self) -> Provider:
            return factory(self)

    LatentWorkerContract.__doc__ = f"The promises of a plugin, checked with {getattr(factory, '__name__', factory)}."
    return LatentWorkerContract
