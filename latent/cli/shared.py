"""What the commands share: the place they are for, their options, and how they tell of a build."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from latent.cli import words
from latent.cli.exits import RESULTS, CliError, ExitCode
from latent.cli.place import Place
from latent.cli.screen import Screen

F = TypeVar("F", bound=Callable[..., Any])

pass_place = click.make_pass_decorator(Place)


def json_option(function: F) -> F:
    """``--json``: the documents of the HTTP API instead of text."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON: the documents of the HTTP API.")(function)


def named_values(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """The callback of an option that takes NAME=VALUE any number of times: all of them as a dict."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", ctx, param)
        if name.strip() in found:
            raise click.BadParameter(f"{name.strip()!r} is given twice", ctx, param)
        found[name.strip()] = value
    return found


@contextmanager
def open_named(file: Path, mode: str) -> Iterator[IO[Any]]:
    """A file that the command line names, ``-`` being standard input or output."""
    try:
        stream = click.open_file(str(file), mode, encoding=None if "b" in mode else "utf-8")
    except OSError as error:
        what = "read" if "r" in mode else "written"
        raise CliError(ExitCode.USAGE, f"{file} can't be {what}: {error.strerror}", "name another file") from None
    with stream:
        yield stream


def call(place: Place, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
    """One request to the controller of the place."""
    from latent.cli.client import Client

    return Client(place).call(method, path, **kwargs)


def tell_end(screen: Screen, build: dict[str, Any], now: float) -> None:
    """One line on a finished build."""
    state = words.state(build)
    took = words.took(build["started_at"], build["ended_at"], now)
    reason = f": {build['reason']}" if build["reason"] and state != "success" else ""
    tail = f" after {took}" if took else ""
    screen.line(f"build {build['id']} ({words.what(build)}): ", (state, words.STYLES.get(state, "")), f"{tail}{reason}")


def leave_with(build: dict[str, Any]) -> None:
    """End the command with the exit code of the build's result."""
    code = RESULTS[build["result"]]
    if code is not ExitCode.OK:
        raise click.exceptions.Exit(int(code))


def print_line(screen: Screen, line: dict[str, Any], as_json: bool) -> None:
    """One line of a log."""
    if as_json:
        screen.document_line(line)
    else:
        screen.raw(line["text"], bold=line["stream"] == "header")
