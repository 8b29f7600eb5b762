"""The command dispatch: one command for one directory on one machine, once."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import click

from latent.cli import words
from latent.cli.exits import CliError, ExitCode
from latent.cli.place import Place
from latent.cli.runs import store_option
from latent.cli.screen import Screen
from latent.cli.shared import call, json_option, pass_place
from latent.cli.submit import Submit, watch
from latent.model import Run, RunStatus

LOOK_AGAIN = 0.5
"""Seconds between two looks at a run that another process carries out."""

ENDS = {
    RunStatus.COMPLETED: ExitCode.OK,
    RunStatus.FAILED: ExitCode.FAILURE,
    RunStatus.INTERRUPTED: ExitCode.EXCEPTION,
    RunStatus.TIMEOUT: ExitCode.TIMEOUT,
}
"""The exit code for each status of a run that was waited for."""


class Dispatch(Submit):
    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["--machine NAME --dir DIR [OPTIONS] -- COMMAND..."]


@click.command(cls=Dispatch)
@click.option("--machine", required=True, metavar="NAME", help="The machine: a worker, or what workers have as machine_name.")
@click.option(
    "--dir",
    "folder",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="The directory that the command is for; by its content the dispatch is known.",
)
@click.option("--workdir", metavar="PATH", help="Where the command runs on the machine [DIR's path, which it must have, too].")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="How long it may run [3600].")
@click.option("--batch", "batch_id", metavar="ID", help="The batch that the run belongs to, for its record.")
@click.option("--entry", "plan_entry", metavar="NAME", help="The entry in the batch's plan, for its record.")
@click.option("--wait", is_flag=True, help="Wait for the end; the exit code tells the result.")
@click.option("-f", "--follow", is_flag=True, help="Print the log as it comes, and wait for the end.")
@store_option
@json_option
@pass_place
@click.pass_context
def dispatch(
    ctx: click.Context,
    place: Place,
    machine: str,
    folder: Path,
    workdir: str | None,
    timeout: float | None,
    batch_id: str | None,
    plan_entry: str | None,
    wait: bool,
    follow: bool,
    address: str | None,
    as_json: bool,
) -> None:
    """Run a COMMAND for a directory on one machine, unless it runs there already.

    A dispatch is known by its machine and the content of DIR. While the same is not over, it is not started again: the run
    that there is is told. A machine that is busy with another is an error that names it, and nothing is stored.

    With --store there is no controller: the command runs here, as one that machine NAME was given in that store.

    \b
      latent dispatch --machine board-7 --dir tests/smoke --wait -- ./run.sh
      latent dispatch --store runs --machine board-7 --dir tests/smoke -- ssh board-7 smoke
    """
    from latent.store.folders import hash_of

    command: list[str] = ctx.meta.get("latent.command") or []
    if not command:
        raise click.UsageError("there is no command after --", ctx)
    path = Path(os.path.abspath(folder))
    try:
        hash = hash_of(path)
    except OSError as error:
        raise CliError(ExitCode.USAGE, f"{path} can't be read: {error}", "a dispatch is known by all that is in it") from None
    asked: dict[str, Any] = {
        "machine": machine,
        "test_dir": str(path),
        "test_dir_hash": hash,
        "batch_id": batch_id,
        "plan_entry": plan_entry,
        "timeout": timeout,
        "workdir": workdir or str(path),
        "command": command[0] if len(command) == 1 else command,
    }
    if address is not None:
        _here(place, address, asked, wait=wait or follow, as_json=as_json)
    else:
        _there(place, asked, wait=wait, follow=follow, as_json=as_json)


def _there(place: Place, asked: dict[str, Any], *, wait: bool, follow: bool, as_json: bool) -> None:
    """Have the controller carry it out."""
    from latent.cli.client import Refused
    from latent.cli.records import Served

    try:
        doc = call(place, "POST", "/dispatches", body={name: value for name, value in asked.items() if value is not None})
    except Refused as error:
        if "run" in error.doc:
            raise CliError(ExitCode.BUSY, error.message, error.remedy) from None
        raise
    build, run = doc["build"], doc["run"]
    screen = Screen()
    if (wait or follow) and build is not None:
        watch(place, screen, build["id"], follow=follow, as_json=as_json)
        return
    if wait or follow:
        _wait_for(Served(place), run["id"], screen, as_json=as_json)
        return
    if as_json:
        screen.document(doc)
        return
    which = f"run {run['id']}" if run else "it waits for the machine"
    if doc["outcome"] == "created":
        screen.line(f"build {build['id']} is dispatched to {asked['machine']}: {which}")
    else:
        whose = "another process's" if build is None else f"build {build['id']}"
        screen.line(f"{asked['machine']} has it already, as {whose}: {which}" + (f" ({run['status']})" if run else ""))
    if build is not None:
        screen.line((f"  {place.command('logs', str(build['id']), '--follow')}", "dim"))


def _here(place: Place, address: str, asked: dict[str, Any], *, wait: bool, as_json: bool) -> None:
    """Carry it out in this process, unless another does."""
    from latent.cli import carry
    from latent.cli.records import explained, store_address
    from latent.store.run_stores import open_runs
    from latent.store.runs import PrepareOutcome, to_document

    screen = Screen()
    with explained():
        store = open_runs(store_address(address) or "")
        try:
            said: dict[str, Any] = {name: asked[name] or "" for name in carry.RECORDED}
            record = Run(id="", **said)
            run, outcome = carry.carry_out(
                store, record, asked["command"], workdir=asked["workdir"], timeout=asked["timeout"] or 3600.0, quiet=as_json
            )
            if outcome is PrepareOutcome.REUSE:
                if wait:
                    _wait_for(store, run.id, screen, as_json=as_json)
                elif as_json:
                    screen.document(to_document(run))
                else:
                    screen.line(f"{run.machine} has it already: run {run.id} ({run.status.value})")
                return
        finally:
            store.close()
    _tell(screen, run, as_json)


def _wait_for(records: Any, id: str, screen: Screen, *, as_json: bool) -> None:
    while not (run := records.get(id)).status.is_terminal:
        pause()
    _tell(screen, run, as_json)


def pause() -> None:
    """Between two looks."""
    threading.Event().wait(LOOK_AGAIN)


def _tell(screen: Screen, run: Run, as_json: bool) -> None:
    """One line on a run that is over, and its exit code."""
    from latent.store.runs import to_document

    if as_json:
        screen.document(to_document(run))
    else:
        took = words.took(run.started_at, run.ended_at, time.time())
        error = f": {run.error_msg}" if run.error_msg else ""
        status = run.status.value
        screen.line(f"run {run.id} on {run.machine}: ", (status, words.STYLES.get(status, "")), f" after {took}{error}")
    if ENDS[run.status] is not ExitCode.OK:
        raise click.exceptions.Exit(int(ENDS[run.status]))
