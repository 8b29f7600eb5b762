"""The store of runs that a command is for: the controller's, through its API or (while none runs) in its database, or another."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from latent.cli.exits import CliError, ExitCode, config_error
from latent.cli.place import Place
from latent.errors import ConfigError, RunNotFound, StoreError
from latent.model import JSON, Run, RunStatus
from latent.store.run_stores import open_runs
from latent.store.runs import MachineBusy, RunsRefused, from_document, number_of, to_document

AT_ONCE = 500
"""Records in one request: while it is carried out, nothing else is."""

BODY = 900_000
"""Bytes of records in one request: its body is limited (`latent.web.service.MAX_BODY`)."""


class Records(Protocol):
    """What the commands need of `latent.store.runs.RunStore`."""

    def find(
        self,
        *,
        machine: str | None = None,
        statuses: Collection[RunStatus] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[Run]: ...
    def get(self, id: str) -> Run: ...
    def adopt(self, runs: Sequence[Run], *, new_ids: bool = False) -> list[Run]: ...


class Served:
    """The store of a controller that runs."""

    def __init__(self, place: Place) -> None:
        from latent.cli.client import Client

        self._client = Client(place)

    def find(
        self,
        *,
        machine: str | None = None,
        statuses: Collection[RunStatus] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[Run]:
        asked: dict[str, Any] = {"machine": machine, "after": after, "limit": limit or 10_000}
        asked["status"] = ",".join(status.value for status in statuses) if statuses else None
        params = {name: value for name, value in asked.items() if value is not None}
        return [from_document(run) for run in self._client.call("GET", "/runs", params=params)["runs"]]

    def get(self, id: str) -> Run:
        return from_document(self._client.call("GET", f"/runs/{number_of(id)}"))

    def adopt(self, runs: Sequence[Run], *, new_ids: bool = False) -> list[Run]:
        """In parts, each of which is taken in whole or not at all."""
        stored: list[Run] = []
        for part in _parts(runs):
            answer = self._client.call("POST", "/runs", body={"runs": part, "new_ids": new_ids})
            stored += map(from_document, answer["runs"])
        return stored


def _parts(runs: Sequence[Run]) -> Iterator[list[JSON]]:
    part: list[JSON] = []
    size = 0
    for run in runs:
        document = to_document(run)
        length = len(json.dumps(document))
        if part and (len(part) == AT_ONCE or size + length > BODY):
            yield part
            part, size = [], 0
        part.append(document)
        size += length
    if part:
        yield part


@contextmanager
def opened(place: Place, address: str | None) -> Iterator[Records]:
    """The store at ``address`` or, without one, the controller's."""
    with explained():
        if address is None and (place.url is not None or place.holder() is not None or not place.config.exists()):
            yield Served(place)
            return
        store = open_runs(address or _database(place))
        try:
            yield store
        finally:
            store.close()


@contextmanager
def explained() -> Iterator[None]:
    """Errors of a store leave the block as `CliError`."""
    try:
        yield
    except StoreError as error:
        message, _, remedy = str(error).partition("; ")
        match error:
            case RunNotFound():
                raise CliError(ExitCode.NOT_FOUND, message, "see `latent runs list`") from None
            case MachineBusy():
                raise CliError(ExitCode.BUSY, message, remedy) from None
            case RunsRefused():
                raise CliError(ExitCode.REFUSED, message, remedy) from None
            case _:
                raise CliError(ExitCode.UNAVAILABLE, message, remedy) from None


def _database(place: Place) -> str:
    from latent.cli.reactor import install

    install()
    from latent.config.loader import load

    try:
        return load(place.config).db_url
    except ConfigError as error:
        raise config_error(place.config, error.errors) from None


def store_address(given: str | None) -> str | None:
    """An address with its path absolute."""
    return given if given is None or "://" in given else str(Path(given).absolute())
