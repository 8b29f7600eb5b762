"""The command line against a served fake: commands run in a thread, as they would in a process of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from latent.cli.main import cli
from tests.web.serving import TOKEN, World, served


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with served(tmp_path / "state") as made:
        (made.state_dir / "token").write_text(TOKEN)
        yield made


Command = Callable[..., Deferred[Result]]


@pytest.fixture
def latent(tmp_path: Path) -> Command:
    """``latent(*words)`` runs a command in the world's directory. ``env``: what its environment has besides."""

    def run(*words: str, env: dict[str, str] | None = None) -> Deferred[Result]:
        clean = {"LATENT_URL": None, "LATENT_API_TOKEN": None, "LATENT_BASEDIR": str(tmp_path), **(env or {})}

        def invoke() -> Any:
            return CliRunner().invoke(cli, list(words), env=clean, prog_name="latent")

        return deferToThread(invoke)

    return run
