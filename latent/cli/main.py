"""The command ``latent``: its global options, and its commands in the order in which one comes to need them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from latent import __version__
from latent.cli import builds, control, dispatch, leaks, look, pause, runs, submit, workflow
from latent.cli.exits import MEANINGS, CliError, ExitCode
from latent.cli.place import Place

SECTIONS = (
    ("The controller", (control.start, control.stop, control.checkconfig, control.reconfig)),
    ("Builds", (submit.submit, builds.builds, builds.build, builds.logs, builds.cancel, builds.why)),
    ("Workflows", (workflow.workflow,)),
    ("Machines and runs", (dispatch.dispatch, runs.runs)),
    ("What goes on", (look.status, look.workers, look.health, look.history, leaks.leaks, pause.pause, pause.unpause)),
)


class Latent(click.Group):
    """Lists its commands by section, and the exit codes; turns Ctrl-C into an exit code of its own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [str(command.name) for _, commands in SECTIONS for command in commands]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.list_commands(ctx)))
        for title, commands in SECTIONS:
            with formatter.section(title):
                rows = [(f"{command.name:<{width}}", command.get_short_help_str(limit=200)) for command in commands]
                formatter.write_dl(rows)
        with formatter.section("Exit codes"):
            formatter.write_dl([(f"{code.value:<{width}}", meaning) for code, meaning in MEANINGS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise CliError(ExitCode.INTERRUPTED, "interrupted") from None


@click.group(cls=Latent, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "-C",
    "basedir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="LATENT_BASEDIR",
    default=Path(),
    metavar="BASEDIR",
    help="The directory of master.cfg [$LATENT_BASEDIR, else the current one].",
)
@click.option(
    "--url", envvar="LATENT_URL", metavar="URL", help="Reach the controller over HTTP; else $LATENT_URL, else its socket."
)
@click.version_option(__version__, prog_name="latent", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, basedir: Path, url: str | None) -> None:
    """Run builds on machines that exist only while there is work.

    \b
      latent start                       start the controller of ./master.cfg
      latent submit -- make check        run a command on a worker
      latent builds                      see what became of it

    `latent COMMAND --help` tells more. With --url the API token is taken from
    $LATENT_API_TOKEN.
    """
    ctx.obj = Place(Path(os.path.abspath(basedir)), url or None, os.environ.get("LATENT_API_TOKEN") or None)


for _, _commands in SECTIONS:
    for _command in _commands:
        cli.add_command(_command)


def main() -> None:
    """The console script."""
    cli(prog_name="latent")
