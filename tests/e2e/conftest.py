from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[[str], Site]]:
    """Makes a site from what its master.cfg says; its controller and instances are ended with the test."""
    made: list[Site] = []

    def make(config: str) -> Site:
        made.append(Site(tmp_path, config))
        return made[-1]

    yield make
    for one in made:
        one.end()
