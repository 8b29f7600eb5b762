"""Controllers with Docker workers, killed around their starts and stops (`latent.killpoints`), on a real daemon."""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.docker.engine import AGENT, BASE, VOLUMES, Engine
from tests.killpoints.harness import judge, run_all, wanted
from tests.killpoints.scenarios import STARTS_AND_STOPS, points_of
from tests.killpoints.site import Outcome

WORKER, ATTEMPT = "latent.worker", "latent.attempt"


class Containers:
    """`tests.killpoints.providers.Provider`. What there was is in the daemon's events."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self._directory = directory
        self._client = engine.client()
        self._url = engine.url

    def declared(self, name: str, **keywords: Any) -> str:
        given: dict[str, Any] = {
            "docker_host": self._url,
            "image": BASE,
            "command": AGENT,
            "volumes": [*VOLUMES, f"{self._directory}:{self._directory}"],
            "hostconfig": {"network_mode": "host"},
            "stop_grace": 1,
            **keywords,
        }
        told = ", ".join(f"{keyword}={value!r}" for keyword, value in given.items())
        return f"type('Killed', (workers.Obedient, worker.DockerLatentWorker), {{}})({name!r}, None, {told})"

    def births(self) -> Counter[str]:
        made = self._client.events(since=0, until=int(time.time()), decode=True, filters={"event": "create", "type": "container"})
        labels = [event["Actor"]["Attributes"] for event in made]
        return Counter(f"{one[WORKER]}#{one[ATTEMPT]}" for one in labels if one.get(WORKER) == self._directory.name)

    def left(self) -> list[str]:
        return [str(one["Names"]) for one in self._client.containers(all=True)]

    def doubled(self) -> list[str]:
        return [f"{attempt} had {count} instances" for attempt, count in self.births().items() if count > 1]

    def beside(self) -> list[str]:
        return []  # nobody counts them

    def plant(self, controller_id: str, worker: str, number: int) -> None:
        raise AssertionError("no scenario of these needs it")

    def close(self) -> None:
        for container in self._client.containers(all=True):
            self._client.remove_container(container["Id"], v=True, force=True)


Outcomes = dict[str, list[Outcome]]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, whole_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    directory = tmp_path_factory.mktemp("killpoints")
    make = partial(Containers, whole_engine)
    return run_all([STARTS_AND_STOPS], directory, make, wanted(request), modules=["latent_docker"])


@pytest.mark.parametrize("point", points_of(STARTS_AND_STOPS))
def test_killed(outcomes: Outcomes, point: str) -> None:
    """Killed there and started again, it leaves no container, makes none twice, and each build ends as it should and ran once."""
    judge(point, outcomes)
