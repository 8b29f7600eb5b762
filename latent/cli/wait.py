"""Waiting for a build and following its log, also while the controller is away for a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from latent.cli.client import Client, Doc, NotRunning

POLL = 30.0
"""Seconds of one long poll."""

PATIENCE = 60.0
"""Seconds that a controller may be away (restarting, say) before who waits for it gives up."""

AGAIN = 0.5
"""Seconds between two tries to reach it."""


class Patience:
    """Bears with a controller that is away; says so once, and gives up with its last error in the end."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, pause: Callable[[float], Any] | None = None) -> None:
        self._clock = clock
        self._pause = pause or threading.Event().wait
        self._since: float | None = None

    def there(self) -> None:
        """The controller has answered."""
        if self._since is not None:
            click.echo("the controller is back", err=True)
        self._since = None

    def away(self, error: NotRunning) -> None:
        """It has not. Raises the error when that has been so for too long."""
        now = self._clock()
        if self._since is None:
            self._since = now
            click.echo(f"the controller is away; waiting {PATIENCE:g} s for it to come back", err=True)
        if now - self._since >= PATIENCE:
            raise error
        self._pause(AGAIN)


def finished(client: Client, build_id: int, patience: Patience | None = None) -> Doc:
    """The build, once it is finished."""
    patience = patience or Patience()
    while True:
        try:
            build = client.call("GET", f"/builds/{build_id}", params={"wait": POLL}, wait=POLL)
        except NotRunning as error:
            patience.away(error)
            continue
        patience.there()
        if build["state"] == "finished":
            return build


def log_lines(client: Client, build_id: int, patience: Patience | None = None) -> Iterator[Doc]:
    """The lines of a build's log as they come, until it is finished; each once, whatever happens to the controller."""
    patience = patience or Patience()
    shown: dict[int, int] = {}
    while True:
        passed: dict[int, int] = {}
        try:
            for line in client.lines(f"/builds/{build_id}/logs", {"follow": 1, "format": "json"}):
                patience.there()
                # The stream begins with the run's first line each time it is opened. A line of no step is the stream's own.
                run = line["run"] if line["step"] else 0
                passed[run] = passed.get(run, 0) + 1
                if passed[run] > shown.get(run, 0):
                    shown[run] = passed[run]
                    yield line
            return
        except NotRunning as error:
            patience.away(error)
