"""The Docker worker keeps its promises, on a real daemon."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from types import MappingProxyType
from typing import Any
from unittest import mock

import pytest
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from latent.model import JSON
from latent.testing.contract import Mistake, Provider, make_latent_worker_tests
from latent.worker import AbstractLatentWorker
from latent_docker import DockerLatentWorker, containers
from tests.docker.engine import BASE, Engine


class RealDaemon(Provider):
    """An instance is named by its container's id."""

    reactor = reactor
    quiet = 0.5
    mistakes = (
        Mistake("image", keywords={"image": 3}),
        Mistake("dockerfile", keywords={"dockerfile": 3}),
        Mistake("docker_host", keywords={"docker_host": 3}),
        Mistake("volumes", keywords={"volumes": 3}),
        Mistake("hostconfig", keywords={"hostconfig": "host"}),
        Mistake("max_containers .*1 or more", keywords={"max_containers": 0}),
        Mistake("stop_grace", keywords={"stop_grace": -1}),
        Mistake("master_protocol", keywords={"master_protocol": "smoke signals"}),
    )
    failing = MappingProxyType({"image": "no-such-image:1"})

    def __init__(self, case: TestDockerLatentWorker) -> None:
        self.engine: Engine = case.engine
        self.client = self.engine.client()
        self.patches = contextlib.ExitStack()

    def make_worker(self, name: str, **keywords: Any) -> AbstractLatentWorker:
        given = {"docker_host": self.engine.url, "image": BASE, "command": ["sleep", "1000"], "stop_grace": 0, **keywords}
        return DockerLatentWorker(name, **given)

    def existing(self) -> Any:
        return deferToThread(self._existing)

    def vanish(self, instance: str) -> Any:
        return deferToThread(self.client.remove_container, instance, v=True, force=True)

    def exit(self, instance: str) -> Any:
        return deferToThread(self.client.kill, instance)

    def hang(self, instance: str) -> Any:
        return deferToThread(self.client.pause, instance)

    def plant(self) -> Any:
        return deferToThread(self._plant)

    def is_of(self, handle: JSON, instance: str) -> bool:
        return bool(handle["container"] == instance)

    def hold_starts(self) -> Callable[[], object]:
        released = threading.Event()
        start = containers.start

        def slow(*args: Any) -> Any:
            made = start(*args)
            released.wait(self.patience)
            return made

        self.patches.enter_context(mock.patch.object(containers, "start", slow))

        def release() -> None:
            self.patches.close()
            released.set()

        return release

    def clean_up(self) -> Any:
        self.patches.close()
        return deferToThread(self._clean_up)

    def _existing(self) -> list[str]:
        return [container["Id"] for container in self.client.containers(all=True)]

    def _plant(self) -> str:
        """The same image and the labels of the same worker; only no controller has made it."""
        labels = {"latent.worker": "kit", "latent.attempt": "1"}
        made = self.client.create_container(BASE, ["sleep", "1000"], name="latent-kit-1", labels=labels)
        self.client.start(made["Id"])
        return str(made["Id"])

    def _clean_up(self) -> None:
        for container in self._existing():
            self.client.remove_container(container, v=True, force=True)


class TestDockerLatentWorker(make_latent_worker_tests(RealDaemon)):  # type: ignore[misc]
    """Every promise, none skipped."""

    engine: Engine

    @pytest.fixture(autouse=True)
    def has_engine(self, engine: Engine) -> None:
        self.engine = engine
