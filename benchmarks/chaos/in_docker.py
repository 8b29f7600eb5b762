"""Workers on a Docker daemon of their own, with latent-agent in the containers."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import docker.errors
import requests.exceptions

from benchmarks.chaos.part import Later, Unavailable, births, born, declaration, drawn
from tests.docker.engine import AGENT, BASE, VOLUMES, Engine

AWAY = (docker.errors.DockerException, requests.exceptions.RequestException, OSError)
"""What docker-py says of a daemon that is not there, or not ready, and of a container that has just gone."""


class InDocker:
    name = "docker"

    def __init__(self, directory: Path, later: Later) -> None:
        for there, what in (
            (shutil.which("dockerd"), "there is no dockerd"),
            (os.path.exists("/bin/busybox"), "there is no busybox"),
            (os.geteuid() == 0, "only root may start a daemon"),
        ):
            if not there:
                raise Unavailable(what)
        self._directory = directory
        self._later = later
        self._engine = Engine()
        self._up = False
        try:
            self._start()
            self._engine.load_base()
        except BaseException:
            self._engine.stop()
            raise
        self._client = self._engine.client()

    def declared(self, variant: int) -> str:
        given = {
            "docker_host": self._engine.url,
            "image": BASE,
            "command": born(self._directory, self.name, AGENT),
            "volumes": [*VOLUMES, f"{self._directory}:{self._directory}"],
            "hostconfig": {"network_mode": "host"},
            "stop_grace": 2,
            "build_wait_timeout": 6 * (variant // 2 % 2),
        }
        return declaration("worker.DockerLatentWorker", self.name, variant, **given)

    def strike(self, what: str, seconds: float, lot: float) -> str:
        if what == "daemon":
            if not self._up:
                return ""
            pid = self._engine.pid
            self._engine.kill()
            self._up = False
            self._later(seconds, self._start)
            return f"dockerd {pid}"
        try:
            return self._strike_one(what, seconds, lot)
        except AWAY as error:
            return f"nothing came of it: {error}" if self._up else ""

    def _strike_one(self, what: str, seconds: float, lot: float) -> str:
        found = self._client.containers() if self._up else []
        container = drawn(lot, sorted(found, key=lambda one: str(one["Names"])))
        if container is None:
            return ""
        match what:
            case "kill":
                pid = int(self._client.inspect_container(container["Id"])["State"]["Pid"])
                if pid:
                    os.kill(pid, signal.SIGKILL)
            case "freeze":
                self._client.pause(container["Id"])
                self._later(seconds, lambda: self._unpause(container))
            case "remove":
                self._client.remove_container(container["Id"], v=True, force=True)
        return str(container["Names"][0])

    def _unpause(self, container: dict[str, Any]) -> None:
        try:
            self._client.unpause(container["Id"])
        except AWAY:
            # It is gone, or its daemon was restarted and has ended it.
            return

    def _start(self) -> None:
        if not self._up:
            self._engine.start()
            self._up = True

    def mend(self) -> None:
        self._start()
        for container in self._client.containers(filters={"status": "paused"}):
            self._unpause(container)

    def births(self) -> Counter[str]:
        return births(self._directory, self.name)

    def left(self) -> list[str]:
        engine = self._engine
        return [f"{what} {name}" for what in ("names", "volumes", "networks") for name in getattr(engine, what)()]

    def wrong(self) -> list[str]:
        """What its agents wrote down is with the processes'."""
        return []

    def close(self) -> None:
        self._engine.stop()
