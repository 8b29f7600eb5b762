"""The gateway to stock agents: one port, one protocol, with or without TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from latent.config.settings import Tls
from latent.controller.clock import Clock
from latent.errors import ConfigError
from latent.gateways.buildbot import pb
from latent.gateways.buildbot.door import Door
from latent.gateways.buildbot.listener import Listener
from latent.gateways.buildbot.ports import PB

log = Logger()

INTERVAL = 10.0

EXTRA = "install it with pip install 'latent[buildbot]'"


class BuildbotGateway:
    """Serves ``protocol`` (`ports.PB` or `ports.MSGPACK`) on ``interface`` and ``port``; port 0 takes a free one, which ``port``
    then holds. ``door`` is shared by all gateways of a controller. ``interval``: seconds between two keepalives.
    """

    def __init__(
        self,
        protocol: str,
        door: Door,
        *,
        reactor: Any,
        clock: Clock,
        interface: str = "127.0.0.1",
        port: int = 0,
        tls: Tls | None = None,
        interval: float = INTERVAL,
    ) -> None:
        self.protocol = protocol
        self.port = port
        self._door = door
        self._reactor = reactor
        self._interface = interface
        self._tls = tls
        self._listener = Listener(door, clock, interval)
        self._listening: Any = None

    async def start(self, *, held: bool = False) -> None:
        """Listen. Raises ConfigError when that can't be done. ``held``: until `open` is called, agents wait for their login."""
        if held:
            self._door.hold()
        factory = self._factory()
        where = f"{self._interface}, port {self.port}"
        try:
            if self._tls is None:
                self._listening = self._reactor.listenTCP(self.port, factory, interface=self._interface)
            else:
                context = tls_context(self._tls, self.protocol)
                self._listening = self._reactor.listenSSL(self.port, factory, context, interface=self._interface)
        except CannotListenError as error:
            remedy = f"stop the program that uses the port, or choose another in c['protocols'][{self.protocol!r}]"
            raise ConfigError(f"{self.protocol}: can't listen on {where} ({error.socketError}); {remedy}") from None
        self.port = self._listening.getHost().port
        log.info(
            "{protocol}: listening on {interface}, port {port}{tls}",
            protocol=self.protocol,
            interface=self._interface,
            port=self.port,
            tls=" (TLS)" if self._tls else "",
        )

    def open(self) -> None:
        self._door.open()

    async def stop(self) -> None:
        """Stop listening and close all connections; sessions are left for the next controller. Idempotent."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await maybeDeferred(listening.stopListening)
        closed = self._listener.stop()
        await self._door.stop()
        await closed

    def _factory(self) -> Any:
        if self.protocol == PB:
            return pb.factory(self._listener)
        try:
            from latent.gateways.buildbot import websocket
        except ImportError as error:
            raise ConfigError(f"{self.protocol} needs autobahn and msgpack ({error}); {EXTRA}") from None
        return websocket.factory(self._listener, self._reactor)


def tls_context(files: Tls, protocol: str) -> Any:
    """What a listener with TLS needs. Raises ConfigError."""
    try:
        from OpenSSL import SSL
        from twisted.internet.ssl import DefaultOpenSSLContextFactory
    except ImportError as error:
        raise ConfigError(f"{protocol}: TLS needs pyOpenSSL ({error}); {EXTRA}") from None
    try:
        factory = DefaultOpenSSLContextFactory(str(files.key), str(files.certificate), SSL.TLS_SERVER_METHOD)
        context = factory.getContext()
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        if files.chain is not None:
            _add_chain(context, files.chain)
    except (SSL.Error, OSError, ValueError) as error:
        subject = f"c['protocols'][{protocol!r}]['tls']"
        raise ConfigError(f"{subject} can't be used ({error!r:.200}); check certificate, key and chain") from None
    return factory


def _add_chain(context: Any, path: Path) -> None:
    from cryptography.x509 import load_pem_x509_certificates
    from OpenSSL.crypto import X509

    for certificate in load_pem_x509_certificates(path.read_bytes()):
        context.add_extra_chain_cert(X509.from_cryptography(certificate))
