"""The plugin keeps its promises."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

from latent_template import TemplateLatentWorker
from latent_template.shop import Shop
from twisted.internet import reactor

from latent.testing.contract import Mistake, Provider, make_latent_worker_tests


class ShopProvider(Provider):
    """What the kit can't ask the plugin. A machine is named by its id."""

    reactor = reactor
    mistakes = (
        Mistake("shop .*write the directory", keywords={"shop": ""}),
        Mistake("size .*'small' or 'large'", keywords={"size": None}),
        Mistake("command .*write a list", keywords={"command": "latent-agent"}),
    )

    def __init__(self, case: Any) -> None:
        self.failing = {"size": "enormous"}
        self.shop = Shop(tempfile.mkdtemp(prefix="shop-"))

    def make_worker(self, name: str, **keywords: Any) -> TemplateLatentWorker:
        given = {"shop": self.shop.directory, "command": ["sleep", "1000"], **keywords}
        return TemplateLatentWorker(name, **given)

    def existing(self) -> list[str]:
        return [machine.id for machine in self.shop.machines()]

    def vanish(self, instance: str) -> None:
        self.shop.give_back(instance)

    def exit(self, instance: str) -> None:
        program = self.shop.program(instance)
        program.kill()
        program.wait(10)

    def hang(self, instance: str) -> None:
        self.shop.program(instance).suspend()

    def plant(self) -> str:
        return self.shop.rent("small", {"worker": "kit", "attempt": "1"}, ["sleep", "1000"], {}, "somebody")

    def hold_starts(self) -> Callable[[], object]:
        answered = threading.Event()
        rent = Shop.rent

        def slow(*args: Any) -> str:
            machine = rent(*args)
            answered.wait(30)
            return machine

        patch = mock.patch.object(Shop, "rent", slow)
        patch.start()

        def release() -> None:
            patch.stop()
            answered.set()

        return release

    def clean_up(self) -> None:
        for machine in self.existing():
            self.shop.give_back(machine)
        shutil.rmtree(self.shop.directory)


class TestTemplateLatentWorker(make_latent_worker_tests(ShopProvider)):
    """A test for each promise, for pytest, trial and unittest."""
