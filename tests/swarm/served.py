"""A real controller with workers in its process, served on a unix socket and on TCP, that can die and come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latent.config.settings import Config
from latent.controller.clock import WallClock
from latent.controller.service import Controller
from latent.store.database import Store
from latent.swarm.http import Address, HttpRequester
from latent.swarm.service import Workflows, attach
from latent.testing.worker import InProcessLatentWorker
from latent.web.address import read_address
from latent.web.service import ApiService
from tests.swarm.site import BUILDERS

TOKEN = "made-up"


class Served:
    """``over``: "socket" or "url", how `requester` reaches it."""

    def __init__(self, state_dir: Path, over: str = "socket") -> None:
        # Not at the top: this file is read before pytest-twisted installs its reactor.
        from twisted.internet import reactor

        self.state_dir = state_dir
        self.over = over
        self.token = TOKEN
        self.reactor: Any = reactor
        self.controller: Controller
        self.workflows: Workflows
        self.api: Any = None
        self._store: Store

    async def start(self) -> None:
        self._store = Store.open(f"sqlite:///{self.state_dir}/latent.sqlite", self.state_dir, reactor=self.reactor)
        clock = WallClock(self.reactor)
        workers = {f"w{n}": InProcessLatentWorker(f"w{n}") for n in range(4)}
        config = Config(
            path=self.state_dir, workers=dict(workers), db_url="", builders={builder.name: builder for builder in BUILDERS}
        )
        self.controller = Controller(
            config, self._store, reactor=self.reactor, clock=clock, state_dir=self.state_dir, jitter=lambda: 0.0
        )
        for worker in workers.values():
            worker.plug(self.controller, clock.seconds)
        self.workflows = attach(self.controller, self._store, clock)
        self.api = ApiService(
            self.controller,
            socket_path=self.state_dir / "api.sock",
            tcp=("127.0.0.1", 0),
            token=TOKEN,
            reactor=self.reactor,
            reconfigure=self._nothing,
            stop=lambda fast: None,
            workflows=self.workflows,
        )
        await self.controller.start()
        assert self.controller._recovered is not None
        await self.controller._recovered
        self.workflows.start()
        await self.api.start()

    async def stop(self) -> None:
        """Nobody answers any more; connections are cut."""
        if self.api is None:
            return
        api, self.api = self.api, None
        await api.stop()
        self.workflows.stop()
        await self.controller.stop(fast=True)
        await self._store.close()

    async def _nothing(self) -> list[str]:
        return []

    def find(self) -> Address | None:
        found = read_address(self.state_dir / "api.json")
        if found is None:
            return None
        if self.over == "socket":
            return Address("http://latent", self.token, found.socket)
        assert found.url is not None
        return Address(found.url, self.token)

    def requester(self, **settings: Any) -> HttpRequester:
        return HttpRequester(self.reactor, self.find, **settings)
