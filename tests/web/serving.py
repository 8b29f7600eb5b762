"""An API over a fake controller, on a real socket; and clients that run in a thread beside the reactor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest_twisted
from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.threads import deferToThread

from latent.errors import ConfigError
from latent.store.tasks import TaskOfBuild
from tests.web.fake_controller import FakeController

TOKEN = "made-up"


@define
class FakeWorkflows:
    """Which builds are of workflows, and nothing else of these. ``known``: by build."""

    known: dict[int, TaskOfBuild] = field(factory=dict)

    async def task_of(self, build_id: int) -> TaskOfBuild | None:
        return self.known.get(build_id)


@define
class World:
    """A served fake. ``call`` is one HTTP request; ``stopped`` and ``changes`` are what the routes reached."""

    controller: FakeController
    state_dir: Path
    service: Any = None
    workflows: FakeWorkflows = field(factory=FakeWorkflows)
    stopped: list[bool] = field(factory=list)
    changes: list[str] = field(factory=lambda: ["worker linux-1: added"])
    config_error: str = ""

    async def reconfigure(self) -> list[str]:
        if self.config_error:
            raise ConfigError(self.config_error.split("|"))
        return self.changes

    def client(self, token: str = TOKEN) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=self.service.address.socket)
        return httpx.Client(
            transport=transport,
            base_url="http://latent",
            headers={"Authorization": f"Bearer {token}".encode()},
            timeout=20,
            trust_env=False,
        )

    def call(self, method: str, path: str, token: str = TOKEN, **kwargs: Any) -> Deferred[httpx.Response]:
        def send() -> httpx.Response:
            with self.client(token) as client:
                return client.request(method, "/api/v1" + path, **kwargs)

        return deferToThread(send)


@contextlib.contextmanager
def served(state_dir: Path) -> Iterator[World]:
    """A world whose API listens."""
    # Not at the top: this file is read before pytest-twisted installs its reactor.
    from twisted.internet import reactor

    from latent.web.service import ApiService

    made = World(FakeController(), state_dir)
    made.service = ApiService(
        made.controller,
        socket_path=made.state_dir / "api.sock",
        tcp=("127.0.0.1", 0),
        token=TOKEN,
        reactor=reactor,
        reconfigure=made.reconfigure,
        stop=made.stopped.append,
        workflows=cast(Any, made.workflows),
    )
    pytest_twisted.blockon(ensureDeferred(made.service.start()))
    try:
        yield made
    finally:
        pytest_twisted.blockon(ensureDeferred(made.service.stop()))


async def until(condition: Callable[[], object]) -> None:
    """Turn the reactor until a condition holds."""
    from twisted.internet import reactor

    while not condition():
        turn: Deferred[None] = Deferred()
        reactor.callLater(0.005, turn.callback, None)  # type: ignore[attr-defined]
        await turn
