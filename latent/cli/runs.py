"""The commands runs list, show, export and import: the public records of runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
from attrs import evolve

from latent.cli import words
from latent.cli.exits import CliError, ExitCode
from latent.cli.place import Place
from latent.cli.screen import Screen
from latent.cli.shared import json_option, open_named, pass_place
from latent.cli.tables import Cell, Column
from latent.errors import StoreCorrupt
from latent.model import Run, RunStatus

F = TypeVar("F", bound=Callable[..., Any])

PAGE = 1000
"""Records that are read at once for an export."""


def store_option(function: F) -> F:
    """``--store``: another store than the controller's."""
    return click.option(
        "--store",
        "address",
        envvar="LATENT_RUNS",
        metavar="ADDRESS",
        help="A database's URL, or a directory for one JSON file [$LATENT_RUNS, else the controller's own store].",
    )(function)


@click.group(short_help="The records of runs: list, show, export, import.")
def runs() -> None:
    """The public records of runs, one for each try of a build and for each dispatch.

    They are in the controller's store, or in one named by --store.
    """


@runs.command("list", short_help="List runs, the latest last.")
@click.option("--machine", help="Only runs on this machine.")
@click.option(
    "--status",
    "statuses",
    type=click.Choice([status.value for status in RunStatus]),
    multiple=True,
    help="Only runs with this status. Repeatable.",
)
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many of the latest.")
@store_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the records.")
@pass_place
def list_(place: Place, machine: str | None, statuses: tuple[str, ...], limit: int, address: str | None, as_json: bool) -> None:
    """List runs in the order of their creation, the latest last."""
    from latent.cli.records import opened, store_address
    from latent.store.runs import to_document

    wanted = [RunStatus(status) for status in statuses] or None
    with opened(place, store_address(address)) as records:
        found = records.find(machine=machine, statuses=wanted, limit=limit)
    screen = Screen()
    if as_json:
        screen.document({"runs": [to_document(run) for run in found]})
    elif not found:
        screen.line("no runs" + (" of that kind" if machine or statuses else ""))
    else:
        _table(screen, found, time.time())


def _table(screen: Screen, found: list[Run], now: float) -> None:
    columns = [
        Column("run", right=True),
        Column("machine"),
        Column("status"),
        Column("exit", right=True),
        Column("started"),
        Column("took", right=True),
        Column("directory"),
        Column("batch"),
        Column("error", wraps=True),
    ]
    rows = [
        (
            run.id,
            run.machine,
            Cell(run.status.value, words.STYLES.get(run.status.value, "")),
            "" if run.exit_code is None else str(run.exit_code),
            words.moment(run.started_at),
            words.took(run.started_at, run.ended_at, now),
            run.test_dir,
            "/".join(filter(None, (run.batch_id, run.plan_entry))),
            Cell(": ".join(filter(None, (run.error_code, run.error_msg))), "dim"),
        )
        for run in found
    ]
    screen.table(columns, rows)


@runs.command()
@click.argument("run_id", metavar="ID")
@store_option
@json_option
@pass_place
def show(place: Place, run_id: str, address: str | None, as_json: bool) -> None:
    """Show one run's record."""
    from latent.cli.records import opened, store_address
    from latent.store.runs import to_document

    with opened(place, store_address(address)) as records:
        run = records.get(run_id)
    screen = Screen()
    if as_json:
        screen.document(to_document(run))
    else:
        show_run(screen, run)


def show_run(screen: Screen, run: Run) -> None:
    screen.fields(
        [
            ("run", run.id),
            ("machine", run.machine),
            ("status", Cell(run.status.value, words.STYLES.get(run.status.value, ""))),
            ("exit code", "" if run.exit_code is None else str(run.exit_code)),
            ("started", words.moment(run.started_at)),
            ("ended", words.moment(run.ended_at)),
            ("directory", run.test_dir),
            ("hash", run.test_dir_hash),
            ("artifacts", run.artifacts_path),
            ("logs", run.logs_path),
            ("error", ": ".join(filter(None, (run.error_code, run.error_msg)))),
            ("batch", run.batch_id),
            ("entry", run.plan_entry),
        ]
    )


@runs.command(short_help="Write all records, one a line.")
@click.argument("file", default="-", type=click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path))
@store_option
@pass_place
def export(place: Place, file: Path, address: str | None) -> None:
    """Write all records to FILE (standard output if left out): JSON, one a line, in the order of their creation.

    The same runs always give the same bytes.
    """
    from latent.cli.records import opened, store_address
    from latent.store.runs import to_json

    count = 0
    with opened(place, store_address(address)) as records, open_named(file, "w") as stream:
        last = "0"
        while found := records.find(after=last, limit=PAGE):
            stream.writelines(to_json(run) + "\n" for run in found)
            count += len(found)
            last = found[-1].id
    if str(file) != "-":
        Screen().line(f"{file}: {words.count(count, 'run')}")


@runs.command("import", short_help="Take in the records that an export wrote.")
@click.argument("file", default="-", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--new-ids", is_flag=True, help="Give the runs ids of this store, where theirs are taken or of another kind.")
@store_option
@json_option
@pass_place
def import_(place: Place, file: Path, new_ids: bool, address: str | None, as_json: bool) -> None:
    """Take in the records in FILE (standard input if left out): one a line, or a JSON list.

    All or none, of 500 at a time where a controller takes them in. They keep their ids; those that are here already are passed
    over, so that it may be done again. One that was not over when it was exported is interrupted here: nobody carries it out.
    """
    from latent.cli.records import opened, store_address
    from latent.store.runs import to_document

    with open_named(file, "rb") as stream:
        data = stream.read()
    try:
        given = [_settled(run) for run in _records(data)]
    except StoreCorrupt as error:
        raise CliError(ExitCode.USAGE, f"{file}: {error}", "give it what `latent runs export` wrote") from None
    with opened(place, store_address(address)) as records:
        stored = records.adopt(given, new_ids=new_ids)
    screen = Screen()
    if as_json:
        screen.document({"runs": [to_document(run) for run in stored]})
        return
    here = len(given) - len(stored)
    screen.line(f"{words.count(len(stored), 'run')} imported" + (f", {here} were here already" if here else ""))


def _records(data: bytes) -> Iterator[Run]:
    """Raises StoreCorrupt that tells the place."""
    from latent.store.runs import from_document, from_json

    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise StoreCorrupt(f"it is not UTF-8: {error.reason} at byte {error.start}") from None
    if text.lstrip().startswith("["):
        try:
            documents = json.loads(text)
        except ValueError as error:
            raise StoreCorrupt(str(error)) from None
        parts = [(f"record {number}", document) for number, document in enumerate(documents, 1)]
        read: Callable[[Any], Run] = from_document
    else:
        parts = [(f"line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        read = from_json
    for where, part in parts:
        try:
            yield read(part)
        except StoreCorrupt as error:
            raise StoreCorrupt(f"{where}: {error}") from None


def _settled(run: Run) -> Run:
    # When it ended nobody knows; and the same record is to give the same, so that an import may be done again.
    if run.status.is_terminal:
        return run
    message = f"it was {run.status.value} when it was exported"
    return evolve(run, status=RunStatus.INTERRUPTED, error_code="imported", error_msg=message)
