"""The command submit, and staying with a build to its end."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import click

from latent.cli import words
from latent.cli.exits import CliError, ExitCode
from latent.cli.place import Place
from latent.cli.screen import Screen
from latent.cli.shared import call, json_option, leave_with, named_values, open_named, pass_place, print_line, tell_end


class Submit(click.Command):
    """Keeps what stands behind ``--`` apart: click itself would not tell a builder from a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta["latent.command"] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS]", "BUILDER | -- COMMAND... | --payload FILE --type-url URL"]


LARGEST = 700 * 1024
"""Bytes in a payload. Its base64 and the rest of the request fit into `latent.web.service.MAX_BODY`."""

NAMED: dict[str, Any] = {"multiple": True, "metavar": "NAME=VALUE", "callback": named_values}


@click.command(cls=Submit)
@click.argument("builder", required=False)
@click.option("-p", "--property", "properties", **NAMED, help="A property of the build. Repeatable.")
@click.option("-l", "--label", "labels", **NAMED, help="A label that the worker must offer. Repeatable.")
@click.option("--priority", type=int, help="Higher goes first [the builder's own, or 0].")
@click.option("--timeout", type=float, metavar="SECONDS", help="How long the build may run [the builder's own, or 3600].")
@click.option("--name", help="What to call a bare command or a payload in lists.")
@click.option(
    "--payload",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="A message for a bot, as it is in FILE.",
)
@click.option("--type-url", metavar="URL", help="What is in the payload: type.googleapis.com/PACKAGE.MESSAGE, say.")
@click.option("--wait", is_flag=True, help="Wait for the end; the exit code tells the result.")
@click.option("-f", "--follow", is_flag=True, help="Print the log as it comes, and wait for the end.")
@json_option
@pass_place
@click.pass_context
def submit(
    ctx: click.Context,
    place: Place,
    builder: str | None,
    properties: dict[str, str],
    labels: dict[str, str],
    priority: int | None,
    timeout: float | None,
    name: str | None,
    payload: Path | None,
    type_url: str | None,
    wait: bool,
    follow: bool,
    as_json: bool,
) -> None:
    """Submit a build: a BUILDER of master.cfg, a COMMAND after --, or a payload for a bot.

    One word after -- is a shell command line; several are the program and its arguments, passed on as they are.

    \b
      latent submit tests -p branch=main --follow
      latent submit --label os=linux -- make check
      latent submit -- 'make check | tail -n 20'
      latent submit --payload lease.bin --type-url type.googleapis.com/my.Task
    """
    command: list[str] | None = ctx.meta.get("latent.command")
    given = [each for each in (builder, command, payload) if each is not None]
    if len(given) > 1:
        raise click.UsageError("give one of the three, a BUILDER, a command after -- or a --payload", ctx)
    if type_url is not None and payload is None:
        raise click.UsageError("--type-url says what is in a payload: give --payload FILE too", ctx)
    if not given:
        raise click.UsageError("give a BUILDER, a command after --, or a --payload", ctx)
    if payload is not None and not type_url:
        raise click.UsageError("a payload has a type: give --type-url type.googleapis.com/PACKAGE.MESSAGE", ctx)
    if command == []:
        raise click.UsageError("there is no command after --", ctx)
    asked: dict[str, Any] = {
        "builder": builder,
        "command": command[0] if command and len(command) == 1 else command,
        "payload": None if payload is None else {"type_url": type_url, "value": _encoded(payload)},
        "properties": properties,
        "labels": labels,
        "priority": priority,
        "timeout": timeout,
        "name": name,
    }
    body = {field: value for field, value in asked.items() if value is not None}
    build = call(place, "POST", "/builds", body=body)
    screen = Screen()
    if not (wait or follow):
        if as_json:
            screen.document(build)
            return
        screen.line(f"build {build['id']} ({words.what(build)}) is submitted")
        screen.line((f"  {place.command('logs', str(build['id']), '--follow')}", "dim"))
        return
    watch(place, screen, build["id"], follow=follow, as_json=as_json)


def _encoded(file: Path) -> str:
    with open_named(file, "rb") as stream:
        value = stream.read(LARGEST + 1)
    if len(value) > LARGEST:
        raise CliError(
            ExitCode.USAGE,
            f"{file} has more than {LARGEST} bytes, which is too much for a payload",
            "put what is large where the bot can fetch it, and where that is into the payload",
        )
    return base64.b64encode(value).decode()


def watch(place: Place, screen: Screen, build_id: int, *, follow: bool, as_json: bool) -> None:
    """Stay with a build to its end, and leave with its exit code."""
    from latent.cli import wait
    from latent.cli.client import Client

    client = Client(place)
    if not as_json:
        click.echo(f"build {build_id} is submitted{'' if follow else '; waiting for its end'}", err=True)
    try:
        if follow:
            for line in wait.log_lines(client, build_id):
                print_line(screen, line, as_json)
        build = wait.finished(client, build_id)
    except KeyboardInterrupt:
        raise CliError(
            ExitCode.INTERRUPTED, f"build {build_id} goes on", f"{place.command('cancel', str(build_id))} ends it"
        ) from None
    if not as_json:
        tell_end(screen, build, time.time())
    elif follow:
        screen.document_line({"build": build})
    else:
        screen.document(build)
    leave_with(build)
