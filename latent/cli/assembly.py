"""The parts of a running controller, put together in the order in which they need each other."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.config.loader import load
from latent.config.settings import Config
from latent.controller.clock import WallClock
from latent.controller.service import Controller
from latent.errors import ConfigError
from latent.gateways.peer.gateway import PeerGateway
from latent.store.database import Store
from latent.web.address import load_token
from latent.web.service import ApiService

log = Logger()

PORT_FILE = "peer.port"
"""Holds the port that agents were told where master.cfg leaves it open: agents that outlive a controller come back to it."""


class Assembly:
    """A controller of the configuration in ``path``, with its state in ``state_dir``. ``ended`` is called when it has stopped."""

    def __init__(self, path: Path, state_dir: Path, *, reactor: Any, ended: Callable[[], None]) -> None:
        self.path = path
        self.state_dir = state_dir
        self.controller: Controller | None = None
        self._reactor = reactor
        self._ended = ended
        self._store: Store | None = None
        self._gateway: PeerGateway | None = None
        self._api: ApiService | None = None
        self._stopping = False
        self._hurried = False

    @property
    def api_address(self) -> str:
        """Where the API listens, for people."""
        address = self._api.address if self._api else None
        return "" if address is None else address.url or address.socket

    @property
    def peer_port(self) -> int:
        return self._gateway.port if self._gateway else 0

    async def start(self) -> None:
        """Everything is up when this answers. Raises ConfigError, StoreError, CannotListenError; then nothing is."""
        try:
            await self._start(load(self.path))
        except BaseException:
            await self._close()
            raise

    async def _start(self, config: Config) -> None:
        clock = WallClock(self._reactor)
        store = self._store = Store.open(config.db_url, self.state_dir, reactor=self._reactor)
        controller = self.controller = Controller(
            config,
            store,
            reactor=self._reactor,
            clock=clock,
            state_dir=self.state_dir,
            jitter=lambda: random.uniform(-1, 1),  # noqa: S311 -- spreads retries, keeps no secret
        )
        gateway = self._gateway = await self._listen(config, controller, clock)
        controller.identity.servers["peer"] = config.peer.address(gateway.port)
        api = self._api = ApiService(
            controller,
            socket_path=self.state_dir / "api.sock",
            tcp=None if config.www is None else (config.www.interface, config.www.port),
            token=load_token(self.state_dir / "token"),
            reactor=self._reactor,
            reconfigure=self.reconfigure,
            stop=self.stop_soon,
        )
        # Whatever may fail for want of a port has failed by now: nothing is started that would have to be stopped again.
        await api.start(held=True)
        await controller.start()
        gateway.open()
        api.open()

    async def _listen(self, config: Config, controller: Controller, clock: WallClock) -> PeerGateway:
        """Agents are told an address once, so the same port is taken again after a restart as long as it is free."""
        remembered = self.state_dir / PORT_FILE
        ports = [config.peer.port]
        if config.peer.port == 0 and (last := _read_port(remembered)):
            ports = [last, 0]
        for port in ports:
            gateway = PeerGateway(
                controller.sessions,
                controller.dispatcher,
                secret=controller.store.secret,
                clock=clock,
                bind=config.peer.bind(port),
            )
            try:
                await gateway.start(held=True)
            except ConfigError:
                if port == ports[-1]:
                    raise
                log.warn(
                    "port {port}, which agents were told, is taken now: they can't come back, their builds are retried", port=port
                )
                continue
            if config.peer.port == 0:
                remembered.write_text(f"{gateway.port}\n")
            return gateway
        raise AssertionError("there is always a port to try")

    async def reconfigure(self) -> list[str]:
        """Read master.cfg again and apply what changed. Raises ConfigError, and applies nothing, when anything is wrong."""
        assert self.controller is not None
        done = await self.controller.reconfigure(load(self.path))
        for line in done:
            log.info("reconfig: {line}", line=line)
        return done

    async def stop(self, fast: bool = False) -> None:
        """Stop the instances, then everything else. Asked again while builds are waited for: it does not wait any longer."""
        controller = self.controller
        if controller is None:
            return
        if self._stopping:
            if not self._hurried:
                self._hurried = True
                await controller.hurry()
            return
        self._stopping, self._hurried = True, fast
        await controller.stop(fast)
        await self._close()
        self._ended()

    def stop_soon(self, fast: bool) -> None:
        """Begin to stop; the caller's answer still goes out."""
        self._reactor.callLater(0, self._stop_logged, fast)

    def _stop_logged(self, fast: bool) -> None:
        Deferred.fromCoroutine(self.stop(fast)).addErrback(self._stop_failed)

    def _stop_failed(self, failure: Failure) -> None:
        log.failure("the controller could not be stopped cleanly", failure)
        self._ended()

    async def _close(self) -> None:
        if self._gateway is not None:
            await self._gateway.stop()
        if self._api is not None:
            await self._api.stop()
        if self._store is not None:
            await self._store.close()


def _read_port(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
