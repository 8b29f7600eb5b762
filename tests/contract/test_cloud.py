"""The plugin of the test cloud keeps its promises, whether the cloud is in memory or a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

from twisted.internet import reactor

from latent.controller.clock import WallClock
from latent.testing.cloud import Cloud, CloudLatentWorker, CloudProcess, Orders
from latent.testing.contract import Mistake, Provider, make_latent_worker_tests
from latent.worker import AbstractLatentWorker


class InMemory(Provider):
    """``cloud``: what a worker is given. ``orders``: what drives it."""

    reactor = reactor
    cloud: Cloud | str
    orders: Orders
    mistakes = (
        Mistake("cloud .*HOST:PORT", keywords={"cloud": "nowhere"}),
        Mistake("image", keywords={"image": 3}),
        Mistake("settle", keywords={"settle": -1}),
        Mistake("poll", keywords={"poll": 0}),
    )
    failing = MappingProxyType({"image": "no-such-image"})

    def __init__(self, case: Any) -> None:
        self.cloud = self.orders = Cloud(WallClock(reactor), latency=0.001, boot=0.002, ending=0.002)

    def make_worker(self, name: str, **keywords: Any) -> AbstractLatentWorker:
        return CloudLatentWorker(name, **{"cloud": self.cloud, "image": "empty", "poll": 0.01, **keywords})

    def existing(self) -> list[str]:
        return [one.id for one in self.orders.instances()]

    def vanish(self, instance: str) -> None:
        self.orders.vanish(instance)

    def exit(self, instance: str) -> None:
        self.orders.exit(instance)

    def hang(self, instance: str) -> None:
        self.orders.freeze(instance)

    def plant(self) -> str:
        return self.orders.plant(tags={"worker": "kit", "attempt": "1"}).id

    def hold_starts(self) -> Callable[[], object]:
        self.orders.hang("create", done=True, times=None)
        return self.orders.heal

    def clean_up(self) -> Any:
        assert isinstance(self.cloud, Cloud)
        return self.cloud.close()


class TestCloudLatentWorker(make_latent_worker_tests(InMemory)):  # type: ignore[misc]
    """Every promise, none skipped."""


class Served(InMemory):
    """A cloud that all tests of the class share."""

    def __init__(self, case: TestServedCloud) -> None:
        self.orders = case.process
        self.cloud = case.process.address

    def clean_up(self) -> None:
        self.orders.heal()
        for one in self.orders.instances():
            self.orders.vanish(one.id)


class TestServedCloud(make_latent_worker_tests(Served)):  # type: ignore[misc]
    """The same over a connection."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = tempfile.TemporaryDirectory(prefix="latent-contract-")
        cls.process = CloudProcess(Path(cls.directory.name), boot=0.01, ending=0.01)
        cls.process.__enter__()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.process.close()
        cls.directory.cleanup()
