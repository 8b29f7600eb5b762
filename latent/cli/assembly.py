"""The parts of a running controller, put together in the order in which they need each other."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.cli.ending import Ending
from latent.config.loader import load
from latent.config.settings import Bots, Buildbot, Config, Peer
from latent.controller.clock import KEPT, WallClock
from latent.controller.service import Controller
from latent.errors import ConfigError
from latent.gateways.bots import BotsGateway, Desk
from latent.gateways.buildbot.attendance import Controller as Attended
from latent.gateways.buildbot.door import Door
from latent.gateways.buildbot.gateway import BuildbotGateway
from latent.gateways.buildbot.workers import RosterWorkers
from latent.gateways.peer.gateway import PeerGateway
from latent.store.database import Store
from latent.swarm.service import Workflows, attach
from latent.web.address import load_token, replace_file
from latent.web.service import ApiService

log = Logger()

PORT_FILE = "{protocol}.port"
"""Holds the port that agents were told where master.cfg leaves it open: agents that outlive a controller come back to it."""


class Gateway(Protocol):
    """What speaks to agents. ``held``: agents are to wait until `open` is called."""

    @property
    def port(self) -> int: ...

    async def start(self, *, held: bool) -> None: ...

    def open(self) -> None: ...

    async def stop(self) -> None: ...


class Assembly:
    """A controller of the configuration in ``path``, with its state in ``state_dir``. ``ended`` is called when it has stopped."""

    def __init__(self, path: Path, state_dir: Path, *, reactor: Any, ended: Callable[[], None]) -> None:
        self.path = path
        self.state_dir = state_dir
        self.controller: Controller | None = None
        self._reactor = reactor
        self._ended = ended
        self._store: Store | None = None
        self._gateways: dict[str, Gateway] = {}
        self._api: ApiService | None = None
        self._workflows: Workflows | None = None
        self._stopping = False
        self._hurried = False

    @property
    def api_address(self) -> str:
        """Where the API listens, for people."""
        address = self._api.address if self._api else None
        return "" if address is None else address.url or address.socket

    @property
    def peer_port(self) -> int:
        return self.port("peer")

    def port(self, protocol: str) -> int:
        """Where agents of this protocol attach; 0 if nowhere."""
        gateway = self._gateways.get(protocol)
        return gateway.port if gateway else 0

    async def start(self) -> None:
        """Everything is up when this answers. Raises ConfigError, StoreError, CannotListenError; then nothing is."""
        try:
            await self._start(load(self.path))
        except BaseException:
            await self._close()
            raise

    async def _start(self, config: Config) -> None:
        store = self._store = Store.open(config.db_url, self.state_dir, reactor=self._reactor)
        clock = WallClock(self._reactor, self.state_dir / KEPT)
        controller = self.controller = Controller(
            config,
            store,
            reactor=self._reactor,
            clock=clock,
            state_dir=self.state_dir,
            jitter=lambda: random.uniform(-1, 1),  # noqa: S311 -- spreads retries, keeps no secret
        )
        await self._listen_all(config, controller, clock)
        workflows = self._workflows = attach(controller, store, clock)
        api = self._api = ApiService(
            controller,
            socket_path=self.state_dir / "api.sock",
            tcp=None if config.www is None else (config.www.interface, config.www.port),
            token=load_token(self.state_dir / "token"),
            reactor=self._reactor,
            reconfigure=self.reconfigure,
            stop=self.stop_soon,
            workflows=workflows,
        )
        # Whatever may fail for want of a port has failed by now: nothing is started that would have to be stopped again.
        await api.start(held=True)
        await controller.start()
        workflows.start()
        for gateway in self._gateways.values():
            gateway.open()
        api.open()

    async def _listen_all(self, config: Config, controller: Controller, clock: WallClock) -> None:
        """Every protocol that the configuration names, and peer."""

        def peer(port: int) -> Gateway:
            return PeerGateway(
                controller.sessions,
                controller.dispatcher,
                secret=controller.store.secret,
                clock=clock,
                bind=config.peer.bind(port),
                version=config.peer.version,
            )

        await self._listen("peer", config.peer, peer, controller)
        if config.bots is not None:
            await self._listen_to_bots(config.bots, controller, clock)
        if not config.buildbot:
            return
        attended = Attended(sessions=controller.sessions, dispatcher=controller.dispatcher, clock=clock)
        door = Door(RosterWorkers(controller.roster, controller.identity), attended)
        for protocol, settings in config.buildbot.items():

            def buildbot(port: int, protocol: str = protocol, settings: Buildbot = settings) -> Gateway:
                return BuildbotGateway(
                    protocol,
                    door,
                    reactor=self._reactor,
                    clock=clock,
                    interface=settings.interface,
                    port=port,
                    tls=settings.tls,
                    interval=settings.keepalive_interval,
                )

            await self._listen(protocol, settings, buildbot, controller)

    async def _listen_to_bots(self, settings: Bots, controller: Controller, clock: WallClock) -> None:
        desk = Desk(
            sessions=controller.sessions,
            dispatcher=controller.dispatcher,
            roster=controller.roster,
            store=controller.store,
            clock=clock,
            when_planned=controller.scheduler.when_planned,
        )

        tls = None if settings.tls is None else settings.tls.pem()

        def bots(port: int) -> Gateway:
            gateway = BotsGateway(
                desk, bind=settings.bind(port), instances=settings.instances, keep_alive=settings.keep_alive, tls=tls
            )
            controller.gauges.add("latent_bots", "Bots that have a session, by what they say of themselves.", gateway.count)
            controller.gauges.add("latent_bot_calls_failed", "Calls of bots that failed in the controller.", gateway.failed)
            return gateway

        await self._listen("bots", settings, bots, controller)

    async def _listen(self, protocol: str, settings: Peer, make: Callable[[int], Gateway], controller: Controller) -> None:
        """Agents are told an address once, so the same port is taken again after a restart as long as it is free."""
        remembered = self.state_dir / PORT_FILE.format(protocol=protocol)
        last = _read_port(remembered) if settings.port == 0 else 0
        ports = [last, 0] if last else [settings.port]
        for port in ports:
            gateway = make(port)
            try:
                await gateway.start(held=True)
            except ConfigError:
                if port == ports[-1]:
                    raise
                log.warn(
                    "port {port}, which agents were told, is taken now: they can't come back, their builds are retried", port=port
                )
                continue
            self._gateways[protocol] = gateway
            if settings.port == 0 and gateway.port != last:
                replace_file(remembered, f"{gateway.port}\n")
            controller.identity.servers[protocol] = settings.address(gateway.port)
            return

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
        await Ending(Deferred.fromCoroutine(controller.stop(fast)), self._stalled_in_a_hurry, self._reactor)
        await self._close()
        self._ended()

    def _stalled_in_a_hurry(self) -> str | None:
        return self._store.stalled if self._hurried and self._store is not None else None

    def stop_soon(self, fast: bool) -> None:
        """Begin to stop; the caller's answer still goes out."""
        self._reactor.callLater(0, self._stop_logged, fast)

    def _stop_logged(self, fast: bool) -> None:
        Deferred.fromCoroutine(self.stop(fast)).addErrback(self._stop_failed)

    def _stop_failed(self, failure: Failure) -> None:
        log.failure("the controller could not be stopped cleanly", failure)
        self._ended()

    async def _close(self) -> None:
        if self._workflows is not None:
            self._workflows.stop()
        for gateway in self._gateways.values():
            await gateway.stop()
        if self._api is not None:
            await self._api.stop()
        if self._store is not None:
            await self._store.close()


def _read_port(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
