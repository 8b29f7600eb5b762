"""The cloud as a process, and a controller as a user has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from latent.testing.cloud import CloudProcess
from tests.e2e.site import Site


@pytest.fixture
def served(tmp_path: Path) -> Iterator[CloudProcess]:
    with CloudProcess(tmp_path / "cloud") as cloud:
        yield cloud


@pytest.fixture
def site(tmp_path: Path, served: CloudProcess) -> Iterator[Callable[..., Site]]:
    """Makes a controller whose worker "w" ("w-1"... where ``more`` has a count) has its instances in the cloud."""
    made: list[Site] = []

    def make(more: str = "") -> Site:
        config = "from latent.testing.cloud import CloudLatentWorker\n"
        name = "w-{n}" if "count" in more else "w"
        config += f"c['workers'] = [CloudLatentWorker({name!r}, cloud={served.address!r}{', ' + more if more else ''})]\n"
        directory = tmp_path / "site"
        directory.mkdir()
        made.append(Site(directory, config))
        return made[-1]

    yield make
    for one in made:
        one.end()
