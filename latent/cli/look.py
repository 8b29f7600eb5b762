"""Commands that look at the controller: status, workers, health, history."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from latent.cli import words
from latent.cli.exits import ExitCode
from latent.cli.place import Place
from latent.cli.screen import Screen
from latent.cli.shared import call, json_option, pass_place
from latent.cli.tables import Cell, Column


@click.command()
@json_option
@pass_place
def status(place: Place, as_json: bool) -> None:
    """Show the controller at a glance."""
    doc = call(place, "GET", "/status")
    screen = Screen()
    if as_json:
        screen.document(doc)
    else:
        show_status(screen, doc, time.time(), None if place.url else place.log)


def show_status(screen: Screen, doc: dict[str, Any], now: float, log: Path | None = None) -> None:
    well = Cell("all is well", "green") if doc["healthy"] else Cell("something is not well: see `latent health`", "red")
    screen.fields(
        [
            ("latent", f"{doc['version']}, process {doc['pid']}, up for {words.duration(now - doc['started_at'], whole=True)}"),
            ("builds", ", ".join(f"{number} {state}" for state, number in doc["builds"].items() if number) or "none to do"),
            ("workers", ", ".join(f"{number} {state}" for state, number in doc["workers"].items()) or "none declared"),
            ("builders", ", ".join(doc["builders"]) or "none declared"),
            ("health", well),
            ("log", str(log or "")),
        ]
    )


@click.command(short_help="List workers and machines, and what each is doing.")
@json_option
@pass_place
def workers(place: Place, as_json: bool) -> None:
    """List the workers, what each is doing, and why one takes no builds; then the latent machines that they live on."""
    doc = call(place, "GET", "/workers")
    screen = Screen()
    if as_json:
        screen.document(doc)
    elif not doc["workers"]:
        screen.line("no workers; declare some in master.cfg, then: " + place.command("reconfig"))
    else:
        show_workers(screen, doc["workers"], time.time())
        if doc["machines"]:
            screen.line("")
            show_machines(screen, doc["machines"], time.time())


def show_workers(screen: Screen, found: list[dict[str, Any]], now: float) -> None:
    columns = [
        Column("worker"),
        Column("kind"),
        Column("state"),
        Column("since", right=True),
        Column("attempt", right=True),
        Column("machine"),
        Column("builds"),
        Column("note", wraps=True),
    ]
    rows = [
        (
            worker["name"],
            worker["kind"],
            Cell(worker["state"], words.STYLES.get(worker["state"], "")),
            words.duration(now - worker["since"], whole=True),
            worker["attempt"] or "",
            worker["machine"],
            ", ".join(map(str, worker["builds"])),
            Cell(_note(worker, now), "yellow"),
        )
        for worker in found
    ]
    screen.table(columns, rows)


def show_machines(screen: Screen, found: list[dict[str, Any]], now: float) -> None:
    columns = [
        Column("machine"),
        Column("kind"),
        Column("state"),
        Column("since", right=True),
        Column("starts", right=True),
        Column("workers"),
        Column("note", wraps=True),
    ]
    rows = [
        (
            machine["name"],
            machine["kind"],
            Cell(machine["state"], words.STYLES.get(machine["state"], "")),
            words.duration(now - machine["since"], whole=True),
            machine["starts"] or "",
            ", ".join(machine["workers"]),
            Cell(_machine_note(machine, now), "yellow"),
        )
        for machine in found
    ]
    screen.table(columns, rows)


def _machine_note(machine: dict[str, Any], now: float) -> str:
    retry, idle = machine["retry_at"], machine["idle_until"]
    parts = [
        machine["error"],
        f"its stop is tried again in {words.duration(retry - now, whole=True)}" if retry is not None else "",
        f"stops in {words.duration(idle - now, whole=True)} unless somebody builds" if idle is not None else "",
    ]
    return "; ".join(part for part in parts if part)


def _note(worker: dict[str, Any], now: float) -> str:
    until = worker["quarantined_until"]
    parts = [
        "paused" if worker["paused"] and worker["reason"] != "paused" else "",
        f"backs off for {words.duration(until - now, whole=True)}" if until is not None and until > now else "",
        worker["reason"],
    ]
    return "; ".join(part for part in parts if part)


@click.command(short_help="Show what is not well, and what to do about it.")
@click.option("-a", "--all", "everything", is_flag=True, help="Show what is well, too.")
@json_option
@pass_place
def health(place: Place, everything: bool, as_json: bool) -> None:
    """Show what is not well and what to do about it. The exit code is 1 when there is something."""
    doc = call(place, "GET", "/health")
    screen = Screen()
    if as_json:
        screen.document(doc)
    else:
        show_health(screen, doc, everything)
    if not doc["healthy"]:
        raise click.exceptions.Exit(int(ExitCode.FAILURE))


def show_health(screen: Screen, doc: dict[str, Any], everything: bool) -> None:
    bad = [item for item in doc["items"] if not item["ok"]]
    for item in bad:
        screen.line(("BAD ", "bold red"), (item["subject"], "bold"), f": {item['message']}")
        if item["remedy"]:
            screen.line(f"    {item['remedy']}")
    for item in doc["items"]:
        if item["ok"] and everything:
            screen.line(("ok  ", "green"), (item["subject"], "bold"), f": {item['message']}")
    total = words.count(len(doc["items"]), "thing")
    if bad:
        screen.line(f"{len(bad)} of {total} not well")
    else:
        screen.line((f"all is well ({total} looked at)", "green"))


@click.command(short_help="Tell what happened to a worker or a machine.")
@click.argument("worker")
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many of the latest.")
@json_option
@pass_place
def history(place: Place, worker: str, limit: int, as_json: bool) -> None:
    """Tell what happened to a worker, or a latent machine: each event and the state it led to, the latest last."""
    from urllib.parse import quote

    doc = call(place, "GET", f"/workers/{quote(worker, safe='')}/history", params={"limit": limit})
    screen = Screen()
    if as_json:
        screen.document(doc)
    elif not doc["entries"]:
        screen.line(f"nothing has happened to {worker} yet")
    else:
        show_history(screen, doc["entries"])


def show_history(screen: Screen, entries: list[dict[str, Any]]) -> None:
    columns = [Column("time"), Column("attempt", right=True), Column("event"), Column("state"), Column("detail", wraps=True)]
    rows = [
        (
            words.moment(entry["at"]),
            entry["attempt"] or "",
            entry["event"],
            Cell(entry["state"], words.STYLES.get(entry["state"], "")),
            Cell(_detail(entry["detail"]), "dim"),
        )
        for entry in entries
    ]
    screen.table(columns, rows)


def _detail(detail: Any) -> str:
    if isinstance(detail, dict):
        return words.pairs({name: value for name, value in detail.items() if value not in (None, "", [], {})})
    return str(detail or "")
