"""docs/machines.md says what the code does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from latent.config.loader import load
from latent.core.machines import FIRST_RETRY, LAST_RETRY, NAMES
from latent.errors import ConfigError
from latent.plugins import machine as machines
from latent.worker.generic_machine import GenericLatentMachine
from latent.worker.machine import AbstractLatentMachine

PAGE = (Path(__file__).parents[2] / "docs" / "machines.md").read_text()


def python(number: int) -> str:
    return re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[number]


def test_the_first_example_is_right(tmp_path: Path) -> None:
    """With the key that it names, and without it the mistake is told."""
    path = tmp_path / "master.cfg"
    path.write_text(python(0))
    with pytest.raises(ConfigError, match="sshKey: there is no file"):
        load(path)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "builder-1").write_text("a key")
    (tmp_path / "keys" / "builder-1").chmod(0o600)
    config = load(path)
    assert {worker.machine_name for worker in config.workers.values()} == set(config.machines) == {"builder-1"}


def test_the_class_is_one() -> None:
    """It checks its own keywords, and the times are taken as always."""
    namespace: dict[str, Any] = {}
    exec(python(1), namespace)
    made = namespace["Shelf"]("a", slot=3, missing_timeout=60)
    assert (made.slot, made.policy().missing_timeout) == (3, 60)
    with pytest.raises(ConfigError, match="slot is 'x'; write the number"):
        namespace["Shelf"]("a", slot="x")


def test_keywords_and_defaults_are_those_of_the_code() -> None:
    section = PAGE.split("## Declaring one")[1].split("## Actions")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    told = {name: row[-1].strip().strip("`") for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    known = set(inspect.signature(GenericLatentMachine.checkConfig).parameters) - {"self", "kwargs"}
    assert set(told) == known | AbstractLatentMachine.keywords
    for name in AbstractLatentMachine.keywords:
        assert float(told[name]) == getattr(AbstractLatentMachine, name), name


def test_every_action_is_there_with_its_arguments() -> None:
    """By name, in order; three dots stand for what is as in the action before."""
    section = PAGE.split("## Actions")[1].split("## A machine of your own")[0]
    told = dict(re.findall(r"`(\w+(?:Action))\((.*?)\)`", section))
    assert set(told) == {name for name in dir(machines) if name.endswith("Action")}
    for name, arguments in told.items():
        shown = re.sub(r'"[^"]*"', "", arguments)
        names = [one.split("=")[0].strip() for one in shown.split(",") if one.strip() != "..."]
        known = [one for one in inspect.signature(getattr(machines, name)).parameters if one != "proxies"]
        assert names == (known[: len(names)] if "..." in arguments else known), name


def test_states_and_retries_are_those_of_the_code() -> None:
    assert re.findall(r"^\| ([A-Z]+) \|", PAGE, re.MULTILINE) == list(NAMES.values())
    assert (FIRST_RETRY, LAST_RETRY) == (10, 3600)
    assert "after 10 seconds, doubling up to an hour" in " ".join(PAGE.split())
