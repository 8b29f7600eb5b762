"""docs/docker.md and docs/moving-from-buildbot.md say what is there."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

from latent.config.loader import load
from latent_docker import DockerLatentWorker

DOCS = Path(__file__).resolve().parents[2] / "docs"
DOCKER = (DOCS / "docker.md").read_text()
MOVING = (DOCS / "moving-from-buildbot.md").read_text()


def test_every_option_is_documented() -> None:
    """The table has the keywords that the class takes, those that may be renderables marked, and no others."""
    rows = re.findall(r"^\| `(\w+)` \| (R?) *\|", DOCKER, re.MULTILINE)
    parameters = inspect.signature(DockerLatentWorker.checkConfig).parameters
    own = {name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD} - {"self", "name", "password"}
    assert {name for name, _ in rows} == own
    assert {name for name, mark in rows if mark} == set(DockerLatentWorker.renderables)


def test_the_example_loads(tmp_path: Path) -> None:
    """The page's master.cfg is one."""
    (example,) = re.findall(r"```python\n(.*?)```", DOCKER, re.DOTALL)
    (tmp_path / "master.cfg").write_text(example)
    assert len(load(tmp_path / "master.cfg").workers) == 10


def test_the_new_imports_are_there() -> None:
    """Every import of the right column can be made."""
    found = re.findall(r"\| `from (latent[\w.]*) import ([\w, ]+)`", MOVING)
    assert len(found) == 7
    for module, names in found:
        for name in names.split(", "):
            if not hasattr(importlib.import_module(module), name):
                importlib.import_module(f"{module}.{name}")
