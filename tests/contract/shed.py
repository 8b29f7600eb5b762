"""A small provider of the tests' own, and a plugin for it that keeps all promises: what planted faults are planted in.

The provider's calls block, and take a moment, as those of most SDKs do.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from attrs import define
from twisted.internet import reactor

from latent.errors import LatentWorkerFailedToSubstantiate
from latent.model import JSON, Attempt
from latent.testing.contract import Mistake, Provider
from latent.worker import AbstractLatentWorker, ListedInstance, ThreadPool, discard


@define(eq=False)
class Animal:
    """An instance. ``state``: "well", "ended" or "hung"."""

    name: str
    tags: Mapping[str, str]
    once: str = ""
    state: str = "well"


class Shed:
    """The provider. Each method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self.animals: dict[str, Animal] = {}
        self.open = threading.Event()
        self.open.set()

    def buy(self, tags: Mapping[str, str], once: str = "") -> str:
        """The same ``once`` buys the same."""
        with self._lock:
            known = next((one for one in self.animals.values() if once and one.once == once), None)
            if known is None:
                known = Animal(f"a{next(self._numbers)}", dict(tags), once)
                self.animals[known.name] = known
        self.open.wait(30)
        return known.name

    def sell(self, name: str) -> None:
        with self._lock:
            self.animals.pop(name, None)

    def all(self) -> list[Animal]:
        with self._lock:
            return list(self.animals.values())

    def state(self, name: str) -> str:
        with self._lock:
            found = self.animals.get(name)
            return "gone" if found is None else found.state

    def becomes(self, name: str, state: str) -> None:
        with self._lock:
            self.animals[name].state = state


class ShedLatentWorker(AbstractLatentWorker):
    """Its instances are animals. ``feed``: "hay" or "oats"; there are no "carrots"."""

    bought: str | None = None

    def checkConfig(self, name: str, password: str | None = None, *, shed: Any = None, feed: str = "hay", **kwargs: Any) -> None:
        super().checkConfig(name, password, **kwargs)
        if not isinstance(feed, str) or not feed:
            self.config_error(f"feed is {feed!r}; write feed='hay'")

    def reconfigService(
        self, name: str, password: str | None = None, *, shed: Any = None, feed: str = "hay", **kwargs: Any
    ) -> Any:
        self.shed: Shed = shed
        self.feed = feed
        self.threads = ThreadPool.shared("shed", 4, self.reactor)
        return super().reconfigService(name, password, **kwargs)

    async def start_instance(self, build: Any) -> list[str]:
        self.bought = None
        self.bought = await self.threads.run(self.buy, self.tags(), self.once(), adopt=self.came_late)
        return [self.bought]

    async def stop_instance(self, fast: bool = False) -> None:
        await self.threads.run(self.sell_all, self.tags(), adopt=discard)

    async def check_instance(self) -> tuple[bool, str]:
        if self.bought is None:
            return False, "nothing was bought"
        state = await self.threads.run(self.shed.state, self.bought, adopt=discard)
        return state == "well", f"{self.bought} is {state}"

    def instance_handle(self) -> JSON:
        return None if self.bought is None else {"name": self.bought, **self.tags()}

    async def resume_instance(self, handle: JSON) -> bool:
        state = await self.threads.run(self.shed.state, handle["name"], adopt=discard)
        mine = {name: handle[name] for name in self.tags()} == self.tags()
        self.bought = handle["name"] if mine and state == "well" else None
        return self.bought is not None

    def list_scope(self) -> str:
        return "the shed"

    async def list_instances(self) -> list[ListedInstance]:
        found = await self.threads.run(self.shed.all, adopt=discard)
        return [self.listed(one) for one in found if "controller" in one.tags]

    async def destroy_instance(self, handle: JSON) -> None:
        await self.threads.run(self.shed.sell, handle["name"], adopt=discard)

    def buy(self, tags: Mapping[str, str], once: str) -> str:
        if self.feed == "carrots":
            raise LatentWorkerFailedToSubstantiate("there are no carrots; choose hay")
        return self.shed.buy(tags, once)

    def sell_all(self, tags: Mapping[str, str]) -> None:
        for one in self.shed.all():
            if one.tags == tags:
                self.shed.sell(one.name)

    def came_late(self, name: str) -> None:
        self.shed.sell(name)

    def listed(self, one: Animal) -> ListedInstance:
        attempt = Attempt(one.tags["worker"], int(one.tags["attempt"]))
        return ListedInstance(attempt, {"name": one.name, **one.tags}, one.tags["controller"])

    def tags(self) -> dict[str, str]:
        assert self.enrolment is not None
        attempt = self.enrolment.attempt
        return {"controller": self.enrolment.controller_id, "worker": attempt.worker, "attempt": str(attempt.number)}

    def once(self) -> str:
        assert self.enrolment is not None
        return self.enrolment.idempotency_token


class ShedProvider(Provider):
    """``worker_class``: the plugin."""

    reactor = reactor
    mistakes = (Mistake("feed", keywords={"feed": ""}),)
    failing = MappingProxyType({"feed": "carrots"})

    def __init__(self, case: Any, worker_class: type[ShedLatentWorker] = ShedLatentWorker, patience: float = 30.0) -> None:
        self.shed = Shed()
        self.worker_class = worker_class
        self.patience = patience

    def make_worker(self, name: str, **keywords: Any) -> AbstractLatentWorker:
        return self.worker_class(name, shed=self.shed, **keywords)

    def existing(self) -> list[str]:
        return [one.name for one in self.shed.all()]

    def vanish(self, instance: str) -> None:
        self.shed.sell(instance)

    def exit(self, instance: str) -> None:
        self.shed.becomes(instance, "ended")

    def hang(self, instance: str) -> None:
        self.shed.becomes(instance, "hung")

    def plant(self) -> str:
        return self.shed.buy({"worker": "kit", "attempt": "1"})

    def hold_starts(self) -> Callable[[], object]:
        self.shed.open.clear()
        return self.shed.open.set

    def clean_up(self) -> None:
        self.shed.open.set()
        self.shed.animals.clear()
