from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docker.engine import BASE, Engine, require_engine, running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """docker-py leaves a socket to the garbage collector when nobody answers."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"))


@pytest.fixture(scope="module", autouse=True)
def sockets_of_docker_py() -> Iterator[None]:
    """They are collected here, where they are expected, and not in a test of another room."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def whole_engine() -> Iterator[Engine]:
    """A daemon for all tests that leave it as it is."""
    require_engine()
    with running() as engine:
        engine.load_base()
        yield engine


@pytest.fixture
def engine(whole_engine: Engine) -> Iterator[Engine]:
    """The same, for one test, which must leave no container, volume or network behind."""
    yield whole_engine
    left = [*whole_engine.names(), *whole_engine.volumes(), *whole_engine.networks()]
    client = whole_engine.client()
    for container in client.containers(all=True):
        client.remove_container(container["Id"], v=True, force=True)
    for name in whole_engine.networks():
        client.remove_network(name)
    for name in whole_engine.volumes():
        client.remove_volume(name)
    assert left == [], "the test left these on the daemon"


@pytest.fixture
def made(engine: Engine, tmp_path: Path) -> Callable[..., Any]:
    """Makes a DockerLatentWorker on the engine that is in an attempt, as the controller has one."""
    from tests.docker.kit import in_attempt

    def make(name: str = "w1", number: int = 1, **keywords: Any) -> Any:
        return in_attempt(
            name,
            number,
            state_dir=tmp_path,
            **{"docker_host": engine.url, "image": BASE, "command": ["sleep", "1000"], "stop_grace": 0, **keywords},
        )

    return make
