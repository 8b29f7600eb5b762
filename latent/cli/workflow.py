"""The commands workflow run, status, graph and cancel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from latent.cli import words
from latent.cli.exits import CliError, ExitCode
from latent.cli.place import Place
from latent.cli.screen import Screen
from latent.cli.shared import call, json_option, open_named, pass_place
from latent.cli.tables import Cell, Column

Doc = dict[str, Any]

SHOWN = 20
"""Failed tasks that are shown."""

PAGE = 10_000
"""Tasks that are asked for at once."""

STATUSES = {
    "G": ("being stored", "dim"),
    "Q": ("not begun", ""),
    "A": ("aborted", "yellow"),
    "I": ("begins", "cyan"),
    "O": ("begins", "cyan"),
    "R": ("running", "cyan"),
    "D": ("done", "green"),
    "H": ("halted", "yellow"),
    "F": ("failed", "red"),
}
"""A workflow's, in words, with a colour."""

RUNS = {
    "G": "registered",
    "L": "begins",
    "B": "begins",
    "I": "begins",
    "O": "begins",
    "R": "running",
    "D": "done",
    "S": "cancelled",
    "E": "failed",
    "A": "aborted before it began",
    "C": "gives way to a cold resume",
    "H": "gives way to a hot resume",
    "T": "ended before the workflow was done",
}
"""A workflow run's."""

OVER = ("D", "S", "E", "A", "T")

workflow_id = click.argument("workflow_id", metavar="ID", type=click.IntRange(1))


@click.group(short_help="Run tasks that wait for each other: run, status, graph, cancel.")
def workflow() -> None:
    """Run a workflow: tasks that wait for each other, each carried out as a build of a builder of master.cfg.

    docs/workflows.md tells how one is written.
    """


@workflow.command(short_help="Run the workflow in FILE.py, or go on with one.")
@click.argument("file", metavar="FILE.py", required=False, type=click.Path(path_type=Path))
@click.option(
    "--resume", metavar="ID", type=click.IntRange(1), help="Go on with a workflow that was begun. FILE.py may be left out."
)
@click.option("--cold", is_flag=True, help="With --resume: end the builds that still run, and try their tasks again.")
@click.option("--hot", is_flag=True, help="With --resume: let the builds that still run go on.")
@click.option("--name", metavar="NAME", help="Call it so. The same file under another name is another workflow.")
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Give up when it is not done by then."
)
@click.option(
    "--heartbeat",
    type=click.FloatRange(0.5, 3600),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to tell the controller that this driver lives. After half as much again without a word it counts as dead.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON when it has ended.")
@pass_place
def run(
    place: Place,
    file: Path | None,
    resume: int | None,
    cold: bool,
    hot: bool,
    name: str | None,
    timeout: float | None,
    heartbeat: float,
    as_json: bool,
) -> None:
    """Run the workflow in FILE.py to its end, and show how far it is.

    Ctrl-C asks once. A second one leaves the workflow: what runs goes on, and --resume ID --hot takes it up again.
    The exit code is 0 when all tasks are done, 1 when some failed.

    \b
      latent workflow run nightly.py
      latent workflow run nightly.py --resume 7 --hot
    """
    if file is None and resume is None:
        raise click.UsageError("name the FILE.py of a workflow, or give --resume ID")
    if resume is None and (cold or hot):
        raise click.UsageError(f"--{'cold' if cold else 'hot'} is for --resume ID")
    if resume is not None and cold == hot:
        raise click.UsageError("--resume needs one of the two: --cold ends what still runs, --hot lets it go on")
    if resume is not None and name is not None:
        raise click.UsageError("--name is for a new workflow; one that is resumed has its name")
    from latent.cli.driving import Plan, carry_out

    plan = Plan(file=file, resume=resume, hot=hot, name=name, timeout=timeout, heartbeat=heartbeat, as_json=as_json)
    carry_out(place, plan)


@workflow.command(short_help="List workflows, or show one.")
@click.argument("workflow_id", metavar="[ID]", required=False, type=click.IntRange(1))
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many are listed.")
@json_option
@pass_place
def status(place: Place, workflow_id: int | None, limit: int, as_json: bool) -> None:
    """List workflows, the newest first; with an ID, show how far each array of that one is, and what failed."""
    screen = Screen()
    if workflow_id is None:
        doc = call(place, "GET", "/workflows", params={"limit": limit})
        if as_json:
            screen.document(doc)
        elif not doc["workflows"]:
            screen.line("no workflows; run one: " + place.command("workflow", "run", "FILE.py"))
        else:
            show_workflows(screen, doc["workflows"])
        return
    doc = call(place, "GET", f"/workflows/{workflow_id}")
    failed = call(place, "GET", f"/workflows/{workflow_id}/tasks", params={"limit": SHOWN + 1, "status": "FE"})
    if as_json:
        screen.document({**doc, "failed": failed})
    else:
        show_workflow(screen, place, doc, _rows(failed))


def show_workflows(screen: Screen, found: list[Doc]) -> None:
    columns = [
        Column("id", right=True),
        Column("name"),
        Column("status"),
        Column("done", right=True),
        Column("tasks", right=True),
        Column("failed", right=True),
        Column("begun", right=True),
        Column("driver", wraps=True),
    ]
    rows = []
    for doc in found:
        counts = _counts(doc)
        rows.append(
            (
                doc["id"],
                doc["name"],
                _standing(doc),
                f"{counts.get('D', 0):,}",
                f"{doc['tasks']:,}",
                f"{counts['F']:,}" if counts.get("F") else "",
                words.ago(doc["created_at"], doc["now"]),
                Cell(doc["run"]["driver"] if _is_driven(doc) else "", "dim"),
            )
        )
    screen.table(columns, rows)


def show_workflow(screen: Screen, place: Place, doc: Doc, failed: list[Doc]) -> None:
    screen.fields(
        [
            ("workflow", f"{doc['id']} ({doc['name']})"),
            ("status", _standing(doc)),
            ("begun", words.moment(doc["created_at"])),
            ("run", _run(doc)),
            ("limit", f"{words.count(doc['max_running'], 'task')} at a time" + (", fails fast" if doc["fail_fast"] else "")),
        ]
    )
    screen.line()
    _show_arrays(screen, doc["arrays"])
    if failed:
        screen.line()
        _show_failed(screen, doc, failed)
    if doc["status"] in ("H", "F", "A") or _is_silent(doc):
        resume = place.command("workflow", "run", "--resume", str(doc["id"]), "--cold")
        screen.line()
        screen.line(f"go on with what is not done: {resume} (or --hot, to keep the builds that still run)")


def _show_arrays(screen: Screen, arrays: list[Doc]) -> None:
    from latent.swarm.looks import Look, by_look, told
    from latent.swarm.statuses import TaskStatus

    columns = [
        Column("array"),
        Column("builder"),
        Column("done", right=True),
        Column("tasks", right=True),
        Column("limit", right=True),
        Column("others", wraps=True),
    ]
    rows = []
    for array in arrays:
        looks = by_look({TaskStatus(letter): number for letter, number in array["counts"].items()})
        total = sum(looks.values())
        style = "red" if looks.get(Look.FAILED) else "green" if looks.get(Look.DONE) == total else ""
        rows.append(
            (
                array["definition"]["name"],
                array["definition"]["template"],
                Cell(f"{looks.get(Look.DONE, 0):,}", style),
                f"{total:,}",
                array["definition"]["max_running"] or "",
                Cell(told(looks, without=frozenset({Look.DONE})), style if looks.get(Look.FAILED) else ""),
            )
        )
    screen.table(columns, rows)


def _show_failed(screen: Screen, doc: Doc, failed: list[Doc]) -> None:
    arrays = {array["id"]: array["definition"]["name"] for array in doc["arrays"]}
    columns = [Column("failed"), Column("tries", right=True), Column("build", right=True), Column("reason", wraps=True)]
    rows = [
        (
            f"{arrays.get(task['array_id'], '?')}/{task['name']}",
            f"{task['attempts']} of {task['max_attempts']}",
            task["build_id"] or "",
            Cell(task["reason"], "dim"),
        )
        for task in failed[:SHOWN]
    ]
    screen.table(columns, rows)
    number = _counts(doc).get("F", 0) + _counts(doc).get("E", 0)
    if number > SHOWN:
        screen.line(f"and {number - SHOWN:,} more")


def _standing(doc: Doc) -> Cell:
    if _is_silent(doc):
        return Cell("its driver is silent", "yellow")
    return Cell(*STATUSES[doc["status"]])


def _run(doc: Doc) -> str:
    run = doc["run"]
    if run is None:
        return ""
    heard = words.ago(run["heartbeat_at"], doc["now"])
    if run["status"] in OVER:
        return f"{run['id']}, {RUNS[run['status']]}; last heard of {heard}"
    return f"{run['id']}, {RUNS[run['status']]}, by {run['driver']}; heard of {heard}"


def _is_driven(doc: Doc) -> bool:
    return doc["run"] is not None and doc["run"]["status"] not in OVER


def _is_silent(doc: Doc) -> bool:
    return _is_driven(doc) and bool(doc["now"] > doc["run"]["report_by"])


def _counts(doc: Doc) -> dict[str, int]:
    found: dict[str, int] = {}
    for array in doc["arrays"]:
        for letter, number in array["counts"].items():
            found[letter] = found.get(letter, 0) + number
    return found


def _rows(table: Doc) -> list[Doc]:
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


@workflow.command(short_help="Draw a workflow: what waits for what, and how far it is.")
@click.argument("target", metavar="ID|FILE.py")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path),
    default=Path("-"),
    metavar="FILE.svg",
    help="Where the picture goes [standard output].",
)
@click.option(
    "--arrays/--tasks", "by_array", default=None, help="A box for each array, or for each task [arrays, from 200 tasks on]."
)
@pass_place
def graph(place: Place, target: str, output: Path, by_array: bool | None) -> None:
    """Draw a workflow as SVG: what waits for what and, with the ID of one that was begun, how far it is.

    With FILE.py no controller is needed: a look at what would be run.
    """
    from latent.swarm.graph import graph_of, svg

    if target.isdigit() and not Path(target).exists():
        title, arrays, members, begun = _stored(place, int(target))
    else:
        title, arrays, members, begun = _written(Path(target))
    picture = svg(graph_of(title, arrays, members, begun=begun, by_array=by_array))
    with open_named(output, "w") as stream:
        stream.write(picture)
    if str(output) != "-":
        Screen().line(f"{output}: {words.count(len(members), 'task')} in {words.count(len(arrays), 'array')}")


def _written(file: Path) -> tuple[str, list[str], list[Any], bool]:
    from latent.cli.workflow_file import load
    from latent.swarm.graph import Member

    found, definition = load(file)
    members = [Member(task.label, task.array.position, tuple(task.downstream or ())) for task in found.tasks]
    return definition.name, [array.name for array in definition.arrays], members, False


def _stored(place: Place, number: int) -> tuple[str, list[str], list[Any], bool]:
    from latent.cli.client import Client
    from latent.swarm.graph import Member
    from latent.swarm.statuses import TaskStatus

    client = Client(place)
    doc = client.call("GET", f"/workflows/{number}")
    arrays = {array["id"]: position for position, array in enumerate(doc["arrays"])}
    names = [array["definition"]["name"] for array in doc["arrays"]]
    members: list[Member] = []
    after = 0
    while True:
        every = "".join(TaskStatus)
        params = {"after": after, "limit": PAGE, "status": every}
        rows = _rows(client.call("GET", f"/workflows/{number}/tasks", params=params))
        if not rows:
            break
        after = rows[-1]["id"]
        asked = {"ids": [row["id"] for row in rows]}
        waiting = dict(client.call("POST", f"/workflows/{number}/downstream", body=asked)["downstream"])
        for row in rows:
            array = arrays[row["array_id"]]
            below = tuple(other - doc["first_task"] for other in waiting.get(row["id"], ()))
            build = f"Build {row['build_id']}. " if row["build_id"] else ""
            note = f"{build}{row['reason']}"
            members.append(Member(f"{names[array]}/{row['name']}", array, below, TaskStatus(row["status"]), note))
    if not members:
        raise CliError(ExitCode.NOT_FOUND, f"workflow {number} has no tasks yet", "draw it once it is stored")
    return f"workflow {number} ({doc['name']})", names, members, True


@workflow.command(short_help="End a workflow, and the builds of its tasks.")
@workflow_id
@click.option("--reason", default="", metavar="TEXT", help="Kept with the builds.")
@json_option
@pass_place
def cancel(place: Place, workflow_id: int, reason: str, as_json: bool) -> None:
    """End a workflow: its run, and the builds of its tasks. What is done stays done, and it can be resumed."""
    doc = call(place, "POST", f"/workflows/{workflow_id}/cancel", body={"reason": reason} if reason else {})
    screen = Screen()
    if as_json:
        screen.document(doc)
        return
    screen.line(f"workflow {workflow_id} ({doc['name']}): ", _standing(doc))
    if doc["status"] in ("H", "F", "A"):
        screen.line((f"  {place.command('workflow', 'run', '--resume', str(workflow_id), '--cold')} goes on with it", "dim"))
