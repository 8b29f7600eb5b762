"""Commands about builds that were submitted: builds, build, logs, cancel, why."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import click

from latent.cli import words
from latent.cli.place import Place
from latent.cli.screen import Screen
from latent.cli.shared import call, json_option, leave_with, open_named, pass_place, print_line
from latent.cli.tables import Cell, Column

STATES = ("queued", "starting", "running", "finished")


@click.command()
@click.option("--state", "states", type=click.Choice(STATES), multiple=True, help="Only builds in this state. Repeatable.")
@click.option("--builder", help="Only builds of this builder.")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many.")
@json_option
@pass_place
def builds(place: Place, states: tuple[str, ...], builder: str | None, limit: int, as_json: bool) -> None:
    """List builds, the newest first."""
    params: dict[str, Any] = {"limit": limit}
    if states:
        params["state"] = ",".join(states)
    if builder:
        params["builder"] = builder
    doc = call(place, "GET", "/builds", params=params)
    screen = Screen()
    if as_json:
        screen.document(doc)
    elif not doc["builds"]:
        screen.line(
            "no builds" + (" of that kind" if states or builder else f"; submit one: {place.command('submit', '--help')}")
        )
    else:
        show_builds(screen, doc["builds"], time.time())


def show_builds(screen: Screen, found: list[dict[str, Any]], now: float) -> None:
    columns = [
        Column("id", right=True),
        Column("builder"),
        Column("state"),
        Column("tries", right=True),
        Column("submitted", right=True),
        Column("took", right=True),
        Column("reason", wraps=True),
    ]
    rows = [
        (
            build["id"],
            words.what(build),
            Cell(words.state(build), words.STYLES.get(words.state(build), "")),
            build["attempts"] if build["attempts"] > 1 else "",
            words.ago(build["submitted_at"], now),
            words.took(build["started_at"], build["ended_at"], now),
            Cell("" if build["result"] == "success" else build["reason"], "dim"),
        )
        for build in found
    ]
    screen.table(columns, rows)


@click.command(short_help="Show a build: where it is and why, its runs and steps.")
@click.argument("build_id", metavar="ID", type=click.IntRange(1))
@click.option("--wait", is_flag=True, help="Wait for the end; the exit code tells the result.")
@click.option(
    "--answer",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Write what the bot answered to the build's payload to FILE (- is standard output).",
)
@json_option
@pass_place
def build(place: Place, build_id: int, wait: bool, answer: Path | None, as_json: bool) -> None:
    """Show a build: what was asked for, where it is and why, its runs and their steps."""
    if wait:
        from latent.cli.client import Client
        from latent.cli.wait import finished

        doc = finished(Client(place), build_id)
    else:
        doc = call(place, "GET", f"/builds/{build_id}")
    screen = Screen()
    if answer is not None:
        _write_answer(screen, call(place, "GET", f"/builds/{build_id}/answer"), answer)
    elif as_json:
        screen.document(doc)
    else:
        show_build(screen, doc, time.time())
    if wait:
        leave_with(doc)


def _write_answer(screen: Screen, doc: dict[str, Any], file: Path) -> None:
    value = base64.b64decode(doc["value"])
    with open_named(file, "wb") as stream:
        stream.write(value)
    if str(file) != "-":
        screen.line(f"{file}: {words.count(len(value), 'byte')}, {doc['type_url']}")


def show_build(screen: Screen, doc: dict[str, Any], now: float) -> None:
    state = words.state(doc)
    screen.fields(
        [
            ("build", doc["id"]),
            ("builder", words.what(doc)),
            ("state", Cell(state, words.STYLES.get(state, ""))),
            ("why", "" if doc["why"] == state else doc["why"]),
            ("submitted", words.moment(doc["submitted_at"])),
            ("started", words.moment(doc["started_at"])),
            ("took", words.took(doc["started_at"], doc["ended_at"], now)),
            ("priority", doc["priority"] or ""),
            ("labels", words.pairs(doc["labels"])),
            ("workers", ", ".join(doc["workers"] or [])),
            ("properties", words.pairs(doc["properties"])),
            ("commands", "\n".join(words.command(step) for step in doc["steps"])),
            ("payload", words.payload(doc["payload"])),
            ("dispatched", words.dispatch(doc["dispatch"])),
            ("task", words.task(doc["task"])),
        ]
    )
    if not doc["runs"]:
        return
    screen.line()
    _show_runs(screen, doc["runs"], now)
    steps = doc["runs"][-1]["steps"]
    if steps:
        screen.line()
        _show_steps(screen, steps, now)


def _show_runs(screen: Screen, runs: list[dict[str, Any]], now: float) -> None:
    columns = [
        Column("run", right=True),
        Column("instance"),
        Column("status"),
        Column("exit", right=True),
        Column("started"),
        Column("took", right=True),
        Column("error", wraps=True),
    ]
    rows = [
        (
            run["id"],
            f"{run['worker']}#{run['attempt']}" if run["attempt"] else run["worker"],
            Cell(run["status"], words.STYLES.get(run["status"], "")),
            "" if run["exit_code"] is None else run["exit_code"],
            words.moment(run["started_at"]),
            words.took(run["started_at"], run["ended_at"], now),
            ": ".join(filter(None, (run["error_code"], run["error_msg"]))),
        )
        for run in runs
    ]
    screen.table(columns, rows)


def _show_steps(screen: Screen, steps: list[dict[str, Any]], now: float) -> None:
    columns = [
        Column("step"),
        Column("status"),
        Column("exit", right=True),
        Column("took", right=True),
        Column("error", wraps=True),
    ]
    rows = [
        (
            step["name"],
            Cell(step["status"], words.STYLES.get(step["status"], "")),
            "" if step["exit_code"] is None else step["exit_code"],
            words.took(step["started_at"], step["ended_at"], now),
            step["error"],
        )
        for step in steps
    ]
    screen.table(columns, rows)


@click.command()
@click.argument("build_id", metavar="ID", type=click.IntRange(1))
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until the build is finished.")
@click.option("--run", "run_id", type=click.IntRange(1), help="The log of this run (see `latent build ID`), not of the latest.")
@json_option
@pass_place
def logs(place: Place, build_id: int, follow: bool, run_id: int | None, as_json: bool) -> None:
    """Print the log of a build's latest run. With --json: one document a line."""
    from latent.cli.client import Client
    from latent.cli.wait import log_lines

    client, screen = Client(place), Screen()
    if follow and run_id is None:
        lines = log_lines(client, build_id)
    else:
        params = {"follow": int(follow), "format": "json", **({"run": run_id} if run_id else {})}
        lines = client.lines(f"/builds/{build_id}/logs", params)
    for line in lines:
        print_line(screen, line, as_json)


@click.command()
@click.argument("build_id", metavar="ID", type=click.IntRange(1))
@click.option("--reason", help="Why, for whoever looks at the build later.")
@json_option
@pass_place
def cancel(place: Place, build_id: int, reason: str | None, as_json: bool) -> None:
    """Cancel a build. One that is finished stays as it is."""
    doc = call(place, "POST", f"/builds/{build_id}/cancel", body={"reason": reason} if reason else {})
    screen = Screen()
    if as_json:
        screen.document(doc)
    elif doc["result"] in (None, "cancelled"):
        screen.line(f"build {build_id} is {'cancelled' if doc['result'] else 'being cancelled'}")
    else:
        screen.line(f"build {build_id} had ended before: {doc['result']}")


@click.command()
@click.argument("build_id", metavar="ID", type=click.IntRange(1))
@json_option
@pass_place
def why(place: Place, build_id: int, as_json: bool) -> None:
    """Say why a build is where it is."""
    doc = call(place, "GET", f"/builds/{build_id}")
    screen = Screen()
    if as_json:
        screen.document({name: doc[name] for name in ("id", "state", "result", "why", "task")})
        return
    state = words.state(doc)
    reason = "" if doc["why"] == state else f": {doc['why'].removeprefix(state + ': ')}"
    what = ", ".join(filter(None, (words.what(doc), words.task(doc["task"]))))
    screen.line(f"build {build_id} ({what}): ", (state, words.STYLES.get(state, "")), reason)
