"""A master.cfg in a directory of its own."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from latent.config.loader import load
from latent.config.settings import Config
from latent.errors import ConfigError

HEADER = (
    "from latent.config.builder import Builder, Step; from latent.worker.base import Worker; "
    "from tests.config.cloud import Cloud\n"
)

Load = Callable[[str], Config]


@pytest.fixture
def master_cfg(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a master.cfg: one line of imports, then the text."""

    def write(text: str) -> Path:
        path = tmp_path / "master.cfg"
        path.write_text(HEADER + textwrap.dedent(text).lstrip("\n"))
        return path

    return write


@pytest.fixture
def loaded(master_cfg: Callable[[str], Path]) -> Load:
    """Writes a master.cfg and loads it."""
    return lambda text: load(master_cfg(text))


def mistakes(path: Path) -> list[tuple[int, str, str]]:
    """(line, what, remedy) for each mistake in the file; every one of them has a line and a remedy."""
    with pytest.raises(ConfigError) as caught:
        load(path)
    found = []
    for message in caught.value.errors:
        parts = re.fullmatch(r"master\.cfg:(\d+): (.+?); (.+)", message, re.DOTALL)
        assert parts is not None, message
        found.append((int(parts[1]), parts[2], parts[3]))
    return found


def marked(path: Path) -> list[int]:
    """The numbers of the lines that end in ``#!``; twice for ``#!!``."""
    lines = path.read_text().splitlines()
    return [number for number, line in enumerate(lines, 1) for _ in range(len(line) - len(line.rstrip("!")))]
