"""docs/cli.md is whole: every command, option and exit code is in it."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from latent.cli.exits import MEANINGS, ExitCode
from latent.cli.main import cli

GROUPS = [name for name, command in cli.commands.items() if isinstance(command, click.Group)]
PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_a_command_is_described_with_all_of_its_options(name):
    """Each command has a section that names each of its options."""
    section = re.search(rf"^### `latent {name}\b.*?(?=^##|\Z)", PAGE, re.M | re.S)
    assert section, f"docs/cli.md has no section on latent {name}"
    for parameter in cli.commands[name].params:
        if isinstance(parameter, click.Option) and not parameter.hidden and parameter.name != "help":
            for option in parameter.opts:
                assert re.search(rf"{option}\b", section[0]), f"latent {name} {option} is not described"


@pytest.mark.parametrize("path", sorted(f"{group} {name}" for group in GROUPS for name in cli.commands[group].commands))
def test_a_command_of_a_group_is_described_with_all_of_its_options(path):
    """Each has a section of its own."""
    section = re.search(rf"^#### `latent {path}\b.*?(?=^##|\Z)", PAGE, re.M | re.S)
    assert section, f"docs/cli.md has no section on latent {path}"
    group, name = path.split()
    for parameter in cli.commands[group].commands[name].params:
        for option in parameter.opts if isinstance(parameter, click.Option) else ():
            assert re.search(rf"{option}\b", section[0]), f"latent {path} {option} is not described"


def test_every_exit_code_has_a_meaning():
    """The help and the page tell the same codes, and all of them."""
    assert set(MEANINGS) == set(ExitCode)
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.M)] == [code.value for code in ExitCode]


def test_every_route_is_described():
    """The page's table has each path of the API."""
    from latent.web.app import Api
    from latent.web.workflows import WorkflowApi

    for rule in (*Api.app.url_map.iter_rules(), *WorkflowApi.app.url_map.iter_rules()):
        path = str(rule.rule).removeprefix("/api/v1")
        path = path.replace("<build_id>", "ID").replace("<run_id>", "ID").replace("<number>", "ID").replace("<path:name>", "NAME")
        assert re.search(rf"`(GET|POST) {re.escape(path)}[?`]", PAGE), path
