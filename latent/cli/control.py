"""Commands for the controller itself: start, stop, checkconfig, reconfig."""

from __future__ import annotations

import time
from pathlib import Path

import click

from latent.cli import words
from latent.cli.exits import ExitCode, config_error
from latent.cli.look import show_status
from latent.cli.place import Place
from latent.cli.screen import Screen
from latent.cli.shared import call, json_option, pass_place


@click.command(short_help="Start the controller of master.cfg.")
@click.option("--foreground", is_flag=True, help="Stay in this terminal and log to it; Ctrl-C stops, a second one at once.")
@click.option("--report-fd", type=int, hidden=True, help="Where to tell the outcome of the start, for `latent start` itself.")
@json_option
@pass_place
def start(place: Place, foreground: bool, report_fd: int | None, as_json: bool) -> None:
    """Start the controller of master.cfg, in the background unless told otherwise.

    Returns when the controller is up. Its state and its log, latent.log, are in BASEDIR/state.
    """
    if foreground:
        from latent.cli.run import run

        run(place, report_fd)
        return
    from latent.cli.daemon import spawn

    spawn(place)
    doc = call(place, "GET", "/status")
    screen = Screen()
    if as_json:
        screen.document(doc)
        return
    screen.line(("the controller is up", "green"))
    show_status(screen, doc, time.time(), place.log)


@click.command(short_help="Stop the controller and every instance.")
@click.option("--fast", is_flag=True, help="Do not wait for builds that run: they are queued again for the next start.")
@json_option
@pass_place
def stop(place: Place, fast: bool, as_json: bool) -> None:
    """Stop the controller and every instance, and wait until it is gone.

    Builds that run may end first, unless --fast; those that are queued stay queued.
    """
    from latent.cli.daemon import wait_until_gone

    screen = Screen()
    running = [] if fast else call(place, "GET", "/builds", params={"state": "running", "limit": 1000})["builds"]
    doc = call(place, "POST", "/stop", body={"fast": fast})
    if running:
        click.echo(f"waiting for {words.count(len(running), 'build')} to end; --fast does not wait", err=True)
    wait_until_gone(place, doc["pid"])
    if as_json:
        screen.document({"stopped": True, "pid": doc["pid"]})
    else:
        screen.line("the controller is stopped")


@click.command(short_help="List everything that is wrong with master.cfg.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--live", is_flag=True, help="Ask the workers' providers, too: credentials, images, keys, networks.")
@json_option
@pass_place
def checkconfig(place: Place, file: Path | None, live: bool, as_json: bool) -> None:
    """Check master.cfg, or FILE, and list everything that is wrong with it.

    With --live, providers are asked whether they would start what is declared. Nothing is started.
    """
    from latent.cli.reactor import install
    from latent.errors import ConfigError

    path = place.config if file is None else file
    reactor = install()
    from latent.config.loader import load

    screen = Screen()
    asked = ""
    try:
        config = load(path)
        if live:
            from latent.cli.live import ask_providers

            asked = ask_providers(config, reactor)
    except ConfigError as error:
        if as_json:
            screen.document({"ok": False, "errors": error.errors})
            raise click.exceptions.Exit(int(ExitCode.CONFIG)) from None
        raise config_error(path, error.errors) from None
    if as_json:
        screen.document({"ok": True, "errors": [], "workers": list(config.workers), "builders": list(config.builders)})
    else:
        found = f"{words.count(len(config.workers), 'worker')}, {words.count(len(config.builders), 'builder')}"
        screen.line((f"{path} is right", "green"), f": {found}{asked}")


@click.command(short_help="Apply a changed master.cfg to the running controller.")
@json_option
@pass_place
def reconfig(place: Place, as_json: bool) -> None:
    """Make the running controller read master.cfg again; what did not change is not touched."""
    from latent.cli.client import Refused

    try:
        doc = call(place, "POST", "/reconfig")
    except Refused as error:
        if error.status == 400:
            raise config_error(place.config, error.doc.get("errors") or [f"{error.message}; {error.remedy}"]) from None
        raise
    screen = Screen()
    if as_json:
        screen.document(doc)
    elif not doc["changes"]:
        screen.line("nothing has changed")
    else:
        for change in doc["changes"]:
            screen.line(change)
