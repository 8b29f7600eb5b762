"""followStartupLogs: what a container writes while its agent starts, in the log of the controller and of the build."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from latent.worker import discard
from latent_docker import containers
from latent_docker.daemon import Daemon

log = Logger()

INTERVAL = 1.0
"""Seconds between two looks: nothing waits for them, the start least of all."""


class StartupLog:
    """Reads until `stop`, or for ``seconds``."""

    def __init__(self, daemon: Daemon, container: str, name: str, tell: Callable[[str], None], seconds: float, reactor: Any):
        self._daemon = daemon
        self._container = container
        self._name = name
        self._tell = tell
        self._looks = int(seconds / INTERVAL)
        self._seen: set[tuple[str, str]] = set()
        self._since = 0.0
        self._loop = LoopingCall(self._look)
        self._loop.clock = reactor
        self._call: Deferred[Any] | None = None
        self._loop.start(INTERVAL, now=True).addErrback(
            lambda f: log.failure("the log of {name} is no longer read", f, name=name)
        )

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()
        if self._call is not None:
            self._call.cancel()

    def _look(self) -> Deferred[None]:
        self._looks -= 1
        if self._looks < 0:
            self._loop.stop()
        self._call = self._daemon.run(containers.log_since, self._container, self._since, adopt=discard)
        return self._call.addCallbacks(self._lines, lambda _: None)  # a daemon that is away is somebody else's concern

    def _lines(self, lines: list[tuple[str, str]]) -> None:
        self._call = None
        for line in lines:
            if line not in self._seen:
                self._seen.add(line)
                log.info("{name}: {line}", name=self._name, line=line[1])
                self._tell(line[1])
