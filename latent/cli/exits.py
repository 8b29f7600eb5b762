"""How a command ends: every exit code, and the one exception that carries one."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import IO, Any

import click

from latent.cli import words


class ExitCode(enum.IntEnum):
    """What the shell is told. `MEANINGS` has the words for each."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    CONFIG = 3
    NOT_RUNNING = 4
    RUNNING = 5
    NOT_FOUND = 6
    REFUSED = 7
    UNAVAILABLE = 8
    START_FAILED = 9
    EXCEPTION = 10
    TIMEOUT = 11
    CANCELLED = 12
    BUSY = 13
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.OK: "done; with --wait or --follow: the build succeeded",
    ExitCode.FAILURE: "the build, or a task of the workflow, failed; health, leaks: something is not well",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.CONFIG: "master.cfg, or a workflow's FILE.py, is missing or wrong",
    ExitCode.NOT_RUNNING: "no controller answers",
    ExitCode.RUNNING: "start: a controller is running already",
    ExitCode.NOT_FOUND: "no build, workflow, worker, machine or run of that name",
    ExitCode.REFUSED: "the controller refuses the request or the token",
    ExitCode.UNAVAILABLE: "the controller answers, but can't do it now",
    ExitCode.START_FAILED: "start: a port in use, a database out of reach, ...",
    ExitCode.EXCEPTION: "the build could not be carried out (its reason says why)",
    ExitCode.TIMEOUT: "the build, or the workflow, timed out",
    ExitCode.CANCELLED: "the build was cancelled, or the workflow, or somebody else goes on with it",
    ExitCode.BUSY: "dispatch: the machine is busy with another run",
    ExitCode.INTERRUPTED: "Ctrl-C; a build that was waited for goes on, and so do those of a workflow",
}
"""In the words of `latent --help` and docs/cli.md."""

RESULTS = {
    "success": ExitCode.OK,
    "failure": ExitCode.FAILURE,
    "exception": ExitCode.EXCEPTION,
    "timeout": ExitCode.TIMEOUT,
    "cancelled": ExitCode.CANCELLED,
}
"""The exit code for each result of a build that was waited for."""


class CliError(click.ClickException):
    """The command can't go on: ``message`` says why in one line, ``remedy`` what to do about it."""

    def __init__(self, code: ExitCode, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.exit_code = int(code)  # type: ignore[misc]  # click looks at the instance, too
        self.code = code
        self.remedy = remedy

    def show(self, file: IO[Any] | None = None) -> None:
        click.secho(f"latent: {self.message}", file=file, err=True, fg="red")
        if self.remedy:
            click.echo(f"  {self.remedy}", file=file, err=True)


def config_error(path: Path, errors: list[str]) -> CliError:
    """All that is wrong with a configuration, one a line."""
    if len(errors) == 1:
        message, _, remedy = errors[0].partition("; ")
        return CliError(ExitCode.CONFIG, message, remedy)
    listed = "\n".join(f"  {error}" for error in errors)
    return CliError(ExitCode.CONFIG, f"{path} has {words.count(len(errors), 'error')}:\n{listed}")
