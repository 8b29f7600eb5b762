"""What a hook is given of the build that its instance is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from latent.worker.properties import Properties, render


class WorkerBuild:
    """A build, as far as a plugin may see it. ``id`` is the build's id, ``builder`` its builder's name."""

    def __init__(self, id: int, builder: str, properties: Properties, write: Callable[[str], None] = lambda line: None) -> None:
        self.id = id
        self.builder = builder
        self.properties = properties
        self._write = write

    def getProperties(self) -> Properties:
        return self.properties

    def getProperty(self, name: str, default: Any = None) -> Any:
        return self.properties.getProperty(name, default)

    def hasProperty(self, name: str) -> bool:
        return self.properties.hasProperty(name)

    def setProperty(self, name: str, value: Any, source: str = "Worker") -> None:
        """For this build only, and only for what is rendered after it."""
        self.properties.setProperty(name, value, source)

    def render(self, value: Any) -> Deferred[Any]:
        """``value`` with its renderables replaced; fails with MissingProperty, which makes the build end as an exception."""
        return render(value, self.properties)

    def log(self, line: str) -> None:
        """Add a line to the build's log, for whoever waits for the instance: how far an image is, for example."""
        self._write(line)

    def __repr__(self) -> str:
        return f"WorkerBuild({self.id}, {self.builder!r})"
