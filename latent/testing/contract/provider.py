"""What the kit can't ask a plugin: the provider as somebody sees it who does not go through the plugin."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn
from unittest import SkipTest

from attrs import field, frozen

from latent.model import JSON
from latent.worker.base import AbstractLatentWorker


@frozen
class Mistake:
    """A declaration that is wrong: ``keywords`` on top of those that `Provider.make_worker` gives.

    ``says``: a regular expression that the error matches; the keyword at least, and better the remedy too.
    """

    says: str
    keywords: Mapping[str, Any] = field(kw_only=True)


class Provider:
    """One is made for each test by the factory that `make_latent_worker_tests` is given, which is called with the test case.

    Define `make_worker`, `existing`, `vanish`, `plant` and `clean_up`, and set `reactor` and `mistakes`. What else is defined
    lets more be checked; the tests of what is not are skipped, and say so. Every method but `make_worker` and `hold_starts` may
    return a plain value, return a Deferred, or be ``async def``; an instance is named by a string of your choice.
    """

    reactor: Any
    """Twisted's."""

    mistakes: Sequence[Mistake] = ()
    """Wrong declarations, at least one for each keyword of the plugin's own."""

    failing: Mapping[str, Any] | None = None
    """Keywords that checkConfig lets pass and with which every start fails, such as an image that does not exist."""

    patience: float = 30.0
    """Seconds within which whatever is to happen has happened. Only a test that fails waits so long."""

    quiet: float = 0.1
    """Seconds after which a call that was sent, and that nobody waits for any more, has had its effect; counted from when no call
    runs in a `latent.worker.ThreadPool` any more."""

    block_limit: float = 0.05
    """Seconds for which nothing may keep the reactor."""

    cycles: int = 4
    """How many instances are started and stopped to see whether something grows."""

    servers: Mapping[str, str] = {"peer": "127.0.0.1:9"}
    """Protocol -> "host:port": where agents are told to attach."""

    names: ClassVar[tuple[str, ...]] = ("kit", "kit-1", "kit-11", "Kit_1")
    """Of workers; some are the beginnings of others, or differ in what a provider may not tell apart."""

    def make_worker(self, name: str, **keywords: Any) -> AbstractLatentWorker:
        """Declare a worker, with all that it needs; ``keywords`` are added to that, or take its place. Raises what it raises."""
        _missing(self, "make_worker(self, name, **keywords)")

    def existing(self) -> Any:
        """The names of all instances that there are at the provider, whoever made them and however they are."""
        _missing(self, "existing(self)")

    def vanish(self, instance: str) -> Any:
        """It is gone, as if it had never been there."""
        _missing(self, "vanish(self, instance)")

    def plant(self) -> Any:
        """Make an instance that has nothing to do with latent, as alike to ours as it may be; its name."""
        _missing(self, "plant(self)")

    def clean_up(self) -> Any:
        """The test is over: remove whatever is left of it at the provider, also what a broken plugin has left."""
        _missing(self, "clean_up(self)")

    def is_of(self, handle: JSON, instance: str) -> bool:
        """Whether a handle is this instance's; by itself, whether the instance's name is one of the strings in it."""
        return json.dumps(instance) in json.dumps(handle)

    # --- what may be left out ------------------------------------------------------------------------------------------------

    def exit(self, instance: str) -> Any:
        """What runs in it ends by itself."""
        _skip(self, "exit(self, instance)")

    def hang(self, instance: str) -> Any:
        """It is there, and does nothing any more, in a way that the provider can tell."""
        _skip(self, "hang(self, instance)")

    def hold_starts(self) -> Callable[[], object]:
        """From now on the provider makes an instance at once, but does not answer before what this returns is called.

        A plain function.
        """
        _skip(self, "hold_starts(self)")


def _missing(provider: Provider, what: str) -> NoReturn:
    raise TypeError(f"{type(provider).__name__} does not define {what}, without which no plugin can be checked")


def _skip(provider: Provider, what: str) -> NoReturn:
    raise SkipTest(f"{type(provider).__name__} does not define {what}")
