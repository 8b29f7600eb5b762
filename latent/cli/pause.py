"""Commands for one worker: pause, unpause."""

from __future__ import annotations

import time
from typing import Any

import click

from latent.cli.look import show_workers
from latent.cli.place import Place
from latent.cli.screen import Screen
from latent.cli.shared import call, json_option, pass_place


@click.command(short_help="Give a worker no more builds.")
@click.argument("worker")
@json_option
@pass_place
def pause(place: Place, worker: str, as_json: bool) -> None:
    """Give WORKER no more builds until `latent unpause`. What it runs goes on; its agent stays attached and waits."""
    _show(_told(place, worker, "pause"), as_json)


@click.command(short_help="Give a paused worker builds again.")
@click.argument("worker")
@json_option
@pass_place
def unpause(place: Place, worker: str, as_json: bool) -> None:
    """Give WORKER builds again. It also ends the time that the worker backs off for after a failure."""
    _show(_told(place, worker, "unpause"), as_json)


def _told(place: Place, worker: str, what: str) -> dict[str, Any]:
    from urllib.parse import quote

    return call(place, "POST", f"/workers/{quote(worker, safe='')}/{what}")


def _show(doc: dict[str, Any], as_json: bool) -> None:
    screen = Screen()
    if as_json:
        screen.document(doc)
    else:
        show_workers(screen, [doc], time.time())
