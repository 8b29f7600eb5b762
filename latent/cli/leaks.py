"""``latent leaks``: instances that nobody expects, and their end. Through the running controller, or without one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from latent.cli import words
from latent.cli.conversation import Ask, Conversation, Doc, Pause
from latent.cli.exits import CliError, ExitCode
from latent.cli.place import Place
from latent.cli.screen import Screen
from latent.cli.shared import json_option, pass_place
from latent.cli.tables import Cell, Column

if TYPE_CHECKING:
    from latent.cli.client import Client

LOOKS = 60.0
"""Seconds that the providers have to be listed."""

DESTROYS = 120.0
"""Seconds for which it is waited for instances to be gone."""

ROUNDS = 3
"""How often it is looked, at most: what is new each time is for the next call of the command."""

STYLES = {"leaked": "red", "suspect": "yellow", "condemned": "yellow", "protected": "cyan", "gone": "green"}


@click.command(short_help="Show instances that nobody expects, and destroy them.")
@click.option("--reap", is_flag=True, help="Destroy them, and wait until their providers confirm that they are gone.")
@click.option("--dry-run", is_flag=True, help="With --reap: destroy nothing, show what would be.")
@click.option(
    "--controller",
    "controllers",
    multiple=True,
    metavar="ID",
    help="With --reap: a controller that is gone for good, with all of its instances. Repeatable.",
)
@click.option("-a", "--all", "everything", is_flag=True, help="Show instances that are expected, and other controllers', too.")
@json_option
@pass_place
def leaks(place: Place, reap: bool, dry_run: bool, controllers: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Look at the providers for instances that nobody expects.

    Without a controller, master.cfg says where to look, and its state what is expected. An instance is destroyed
    only when two scans have seen it: --reap waits for the second one. The exit code is 1 when something is left.
    """
    if dry_run and not reap:
        raise CliError(ExitCode.USAGE, "--dry-run is for --reap", "without either, nothing is destroyed anyway")
    if controllers and not reap:
        raise CliError(ExitCode.USAGE, "--controller is for --reap", "add --reap --dry-run to see what would be destroyed")
    screen = Screen()

    def tell(line: str) -> None:
        if not as_json:
            click.echo(line, err=True)

    conversation = reaping(list(controllers), dry_run, tell) if reap else looking()
    doc = carried_on(place, conversation, tell)
    if as_json:
        screen.document(doc)
    else:
        show(screen, place, doc, time.time(), everything, dry_run)
    if any(one["standing"] in ("leaked", "suspect", "condemned") for one in doc["instances"]) or doc["unlisted"]:
        raise click.exceptions.Exit(int(ExitCode.FAILURE))


def looking() -> Conversation:
    return (yield Ask())


def reaping(controllers: list[str], dry_run: bool, tell: Callable[[str], None]) -> Conversation:
    """Scan until what was seen once was seen twice."""
    gone: dict[str, Doc] = {}
    for left in reversed(range(ROUNDS)):
        doc = yield Ask(reap=True, body={"controllers": controllers, "dry_run": dry_run, "wait": DESTROYS})
        gone |= {_key(one): one for one in doc["instances"] if one["standing"] == "gone"}
        suspects = [one for one in doc["instances"] if one["standing"] == "suspect"]
        # Named once, in full: when all of its instances are gone, nobody knows a controller by a part of its name.
        controllers = [one["controller"] for one in suspects if any(one["controller"].startswith(c) for c in controllers)]
        controllers = sorted(set(controllers))
        if dry_run or not suspects or not left:
            break
        seconds = max(one["certain_at"] for one in suspects) - time.time()
        if seconds > 0:
            number = words.count(len(suspects), "instance")
            tell(f"{number} must be seen twice: looking again in {words.duration(seconds)} (Ctrl-C gives up)")
            yield Pause(seconds)
    now = {_key(one): one for one in doc["instances"]}
    return {**doc, "instances": list({**gone, **now}.values())}


def carried_on(place: Place, conversation: Conversation, tell: Callable[[str], None]) -> Doc:
    """Have it with the controller; where none runs, with its providers and its state."""
    from latent.cli.client import Client, NotRunning

    client = Client(place)
    try:
        client.call("GET", "/status")
    except NotRunning as error:
        if place.url is not None or place.holder() is not None or not place.config.exists():
            raise
        from latent.cli.unattended import converse

        tell(f"{error.message}: looking without one")
        return converse(place, conversation, tell)
    try:
        wanted: Ask | Pause = next(conversation)
        while True:
            wanted = conversation.send(_answered(client, wanted))
    except StopIteration as end:
        doc: Doc = end.value
        return doc


def _answered(client: Client, wanted: Ask | Pause) -> Doc:
    if isinstance(wanted, Pause):
        _sleep(wanted.seconds)
        return {}
    if not wanted.reap:
        return client.call("GET", "/leaks", wait=LOOKS)
    return client.call("POST", "/leaks/reap", body=wanted.body, wait=2 * LOOKS + DESTROYS)


def _sleep(seconds: float) -> None:
    import threading

    threading.Event().wait(seconds)


def show(screen: Screen, place: Place, doc: Doc, now: float, everything: bool, dry_run: bool = False) -> None:
    instances = doc["instances"]
    quiet = ("expected", "foreign")
    shown = [one for one in instances if everything or one["standing"] not in quiet]
    if shown:
        _table(screen, shown, doc["controller"], now)
    for one in doc["unlisted"]:
        screen.line(("not listed: ", "bold red"), (one["where"], "bold"), f": {one['error']}")
    if doc["blind"]:
        screen.line(f"not listed, as their plugin can't: {', '.join(doc['blind'])}; look for what they made by hand")
    standings = (*quiet, "leaked", "suspect", "gone")
    by = {standing: [one for one in instances if one["standing"] == standing] for standing in standings}
    if by["foreign"]:
        _tell_foreign(screen, place, by["foreign"], everything)
    bad = [*by["leaked"], *by["suspect"]]
    if dry_run:
        screen.line(f"{words.count(len(bad), 'instance')} would be destroyed, once seen twice; nothing was done")
    elif by["gone"]:
        screen.line((f"{words.count(len(by['gone']), 'instance')} destroyed", "green"))
    elif bad:
        screen.line(f"{words.count(len(bad), 'instance')} that nobody expects; {place.command('leaks', '--reap')} destroys them")
    elif not shown or everything:
        screen.line((f"nothing of this controller has leaked ({words.count(len(by['expected']), 'instance')} expected)", "green"))


def _table(screen: Screen, shown: list[Doc], ours: str, now: float) -> None:
    columns = [
        Column("instance"),
        Column("standing"),
        Column("age", right=True),
        Column("controller"),
        Column("what"),
        Column("why", wraps=True),
    ]
    rows = [
        (
            f"{one['worker']}#{one['attempt']}",
            Cell(one["standing"], STYLES.get(one["standing"], "")),
            "" if one["created_at"] is None else words.duration(max(0.0, now - one["created_at"]), whole=True),
            "" if one["controller"] == ours else one["controller"][:8],
            one["title"],
            Cell(one["why"], "dim"),
        )
        for one in shown
    ]
    screen.table(columns, rows)


def _tell_foreign(screen: Screen, place: Place, foreign: list[Doc], everything: bool) -> None:
    owners = sorted({one["controller"] for one in foreign})
    counted = ", ".join(f"{owner[:8]}: {sum(one['controller'] == owner for one in foreign)}" for owner in owners)
    lists = "" if everything else "; -a lists them"
    screen.line(f"other controllers' instances are left alone ({counted}){lists}")
    remedy = place.command("leaks", "--reap", "--dry-run", "--controller", owners[0][:8])
    screen.line(f"    if such a controller is gone for good: {remedy}")


def _key(one: Doc) -> str:
    return f"{one['controller']}/{one['worker']}/{one['attempt']}/{one['title']}"
