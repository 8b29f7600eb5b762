"""WebSockets for agents that speak msgpack: limits, and the login, which is HTTP Basic (`messages` has the rest).

Imported only where the protocol is configured: autobahn comes with latent[buildbot].
"""

from __future__ import annotations

import base64
import binascii
import hmac
from functools import partial
from typing import Any

import txaio
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.errors import EnrolmentRefused, ProtocolError, StoreError
from latent.gateways.buildbot.attendance import Attendance
from latent.gateways.buildbot.listener import MESSAGE_LIMIT, STRANGER_LIMIT, Listener, address_of
from latent.gateways.buildbot.messages import MsgpackLink
from latent.gateways.buildbot.valve import Valve

log = Logger()


def factory(listener: Listener, reactor: Any) -> WebSocketServerFactory:
    """What listens for WebSockets."""
    # Its timers are not used, but it looks for the reactor that they would run in.
    txaio.config.loop = reactor  # type: ignore[attr-defined]  # it is there once autobahn is imported

    made = WebSocketServerFactory(server="latent", reactor=reactor)
    made.noisy = False
    made.protocol = partial(Connection, listener)  # type: ignore[assignment]  # whatever makes a protocol will do
    made.setProtocolOptions(
        webStatus=False,
        versions=[13],
        maxFramePayloadSize=MESSAGE_LIMIT,
        maxMessagePayloadSize=MESSAGE_LIMIT,
        failByDrop=True,
        # Those who connect and say nothing are seen to by the listener.
        openHandshakeTimeout=0,
        closeHandshakeTimeout=0,
        perMessageCompressionAccept=lambda offers: None,
    )
    return made


class Connection(WebSocketServerProtocol):
    """One connection; `latent.gateways.buildbot.messages.Carrier`."""

    transport: Any
    valve: Valve

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self.address = "?"
        self.received = 0
        self.why_lost = ""
        self.link = MsgpackLink(self)
        self.attendance: Attendance | None = None
        self.opened = False
        self.gone = False
        self.listener = listener

    # --- the connection ------------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        self.address = address_of(self.transport)
        super().connectionMade()
        self.listener.came(self)

    def dataReceived(self, data: bytes) -> None:
        if self.why_lost:
            return
        self.received += len(data)
        if not self.opened and self.received > STRANGER_LIMIT:
            log.warn(
                "{peer}: a login of more than {limit} bytes; the connection is closed", peer=self.address, limit=STRANGER_LIMIT
            )
            self.drop("its login was too long")
            return
        try:
            super().dataReceived(data)
        except Exception as error:
            log.warn("{peer}: what came is no WebSocket: {error!r:.200}", peer=self.address, error=error)
            self.drop("its agent sent what is no WebSocket")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.gone:
            return
        self.gone = True
        # First of all: what fails because of this has to see why.
        self.why_lost = self.why_lost or reason.getErrorMessage() or "closed"
        try:
            super().connectionLost(reason)
            self.link.lost(self.why_lost)
        finally:
            # Who stops the listener waits for this.
            self.listener.went(self)

    def drop(self, reason: str) -> None:
        if not self.why_lost:
            self.why_lost = reason
            self.transport.abortConnection()

    def pause(self, paused: bool) -> None:
        self.valve.pause(paused)

    # --- the login -----------------------------------------------------------------------------------------------------------

    def onConnect(self, request: Any) -> Any:
        return Deferred.fromCoroutine(self._login(request.headers.get("authorization", "")))

    async def _login(self, authorization: str) -> None:
        try:
            name, password = _credentials(authorization)
            presented = password.encode()

            def knows(expected: str) -> bool:
                return hmac.compare_digest(presented, expected.encode())

            self.attendance = await self.listener.door.admit(name, knows, self.link, self.listener.interval)
        except (EnrolmentRefused, StoreError) as error:
            log.info("{peer}: a login is refused: {why}", peer=self.address, why=str(error))
            raise ConnectionDeny(401, str(error)[:200].encode("ascii", "replace").decode().replace("\n", " ")) from None
        except Exception:
            log.failure("{peer}: a login failed", peer=self.address)
            raise ConnectionDeny(503, "the login failed in the controller") from None

    def onOpen(self) -> None:
        self.opened = True
        self.valve = Valve(self)
        self.listener.known(self)
        if self.attendance is not None:
            received = Deferred.fromCoroutine(self.listener.door.receive(self.attendance))
            received.addErrback(self._not_received)

    def _not_received(self, failure: Failure) -> None:
        why = failure.getErrorMessage()
        log.info("{peer}: the agent is not taken: {why}", peer=self.address, why=why)
        self.drop(why)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self.why_lost:
            return
        try:
            if not isBinary:
                raise ProtocolError("a text frame; messages are binary")
            self.link.came(payload)
        except ProtocolError as error:
            log.warn("{peer}: {error!s:.300}", peer=self.address, error=error)
            self.drop(f"its agent broke the protocol: {error}"[:300])

    def send(self, payload: bytes) -> None:
        self.sendMessage(payload, isBinary=True)


def _credentials(authorization: str) -> tuple[str, str]:
    """Name and password of HTTP Basic. Raises EnrolmentRefused."""
    kind, _, encoded = authorization.strip().partition(" ")
    try:
        name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = ""
    if kind.lower() != "basic" or not colon:
        raise EnrolmentRefused("a login needs HTTP Basic authorization with worker and password")
    return name, password
