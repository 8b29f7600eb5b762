"""Perspective Broker, held to limits: whatever comes over the wire, it costs little memory and no more than its connection."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.spread import pb
from twisted.spread.jelly import globalSecurity

from latent.gateways.buildbot.listener import MESSAGE_LIMIT, STRANGER_LIMIT, Listener, address_of
from latent.gateways.buildbot.valve import Valve

log = Logger()

CHALLENGE_SIZE = 16


class Unauthorized(pb.Error, UnauthorizedLogin):
    """How a login fails, always: at any other error a stock agent ends itself. As a pb.Error it is sent without a fuss."""


class MalformedCall(pb.Error):
    """A call of an agent's that makes no sense."""


class Served(pb.Referenceable):
    """An object whose methods agents call. What is wrong with a call is told to the agent, in a line to our log, and is all."""

    def remoteMessageReceived(self, broker: Any, message: Any, args: Any, kw: Any) -> Any:
        try:
            return super().remoteMessageReceived(broker, message, args, kw)
        except pb.Error:
            raise
        except Exception as error:
            log.warn(
                "{peer}: a malformed call of {call}: {error!r:.200}", peer=broker.address, call=str(message)[:50], error=error
            )
            raise MalformedCall(f"malformed call: {type(error).__name__}") from None


class Broker(pb.Broker):
    """One connection. ``received``: bytes so far. ``why_lost``: "" while it is there. ``lost`` is called with the reason."""

    factory: BrokerFactory  # type: ignore[assignment]  # there it is None, for want of a type
    transport: Any
    valve: Valve

    def __init__(self, security: Any) -> None:
        super().__init__(isClient=False, security=security)
        self.address = "?"
        self.received = 0
        self.why_lost = ""
        self.limit = STRANGER_LIMIT
        self.lost: Callable[[str], None] = lambda reason: None
        self._unfinished = 0
        self._finished = False
        self._gone = False

    def connectionMade(self) -> None:
        self.address = address_of(self.transport)
        self.factory.listener.came(self)
        if self.why_lost:
            return
        self.valve = Valve(self)
        super().connectionMade()

    def logged_in(self) -> None:
        self.limit = MESSAGE_LIMIT
        self.factory.listener.known(self)

    def dataReceived(self, chunk: bytes) -> None:
        if self.why_lost:
            return
        self.received += len(chunk)
        self._unfinished += len(chunk)
        if self.limit == STRANGER_LIMIT and self._unfinished > self.limit:
            # To parse takes much longer than to send: who has not logged in is not given that time.
            self._too_long()
            return
        self._finished = False
        try:
            super().dataReceived(chunk)
        except Exception as error:
            log.warn("{peer}: what came is not PB: {error!r:.200}", peer=self.address, error=error)
            self.drop("its agent sent what is not PB")
            return
        if self._finished:
            self._unfinished = len(self.buffer) if not self.listStack else min(self._unfinished, len(chunk))
        if self._unfinished > self.limit:
            self._too_long()

    def _too_long(self) -> None:
        log.warn("{peer}: a message of more than {limit} bytes; it is cut off", peer=self.address, limit=self.limit)
        self.drop(f"its agent sent a message of more than {self.limit} bytes")

    def callExpressionReceived(self, obj: Any) -> None:
        self._finished = True
        # A connection that was dropped in the middle of a chunk says nothing more.
        if not self.why_lost:
            super().callExpressionReceived(obj)

    def _sendMessage(self, *args: Any) -> Any:
        before = self.currentRequestID
        try:
            return super()._sendMessage(*args)
        except Exception:
            # What is too long to be sent gets no answer. What failed before it had a number is no affair of the last with one.
            if self.waitingForAnswers and self.currentRequestID != before:
                self.waitingForAnswers.pop(self.currentRequestID, None)
            raise

    def drop(self, reason: str) -> None:
        if not self.why_lost:
            self.why_lost = reason
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._gone:
            return
        self._gone = True
        # First of all: what fails because of this has to see why.
        self.why_lost = self.why_lost or reason.getErrorMessage() or "closed"
        self.buffer, self.listStack = b"", []
        try:
            super().connectionLost(reason)
            self.lost(self.why_lost)
        finally:
            # Who stops the listener waits for this.
            self.factory.listener.went(self)


Login = Callable[[Broker, str, Callable[[str], bool], Any], Any]
"""``login(broker, name, knows, mind)``: a Deferred of the avatar, or of an error."""


class BrokerFactory(ServerFactory[Broker]):
    """Every connection begins with `Root`."""

    noisy = False
    unsafeTracebacks = False

    def __init__(self, listener: Listener, login: Login) -> None:
        self.listener = listener
        self.login = login

    def buildProtocol(self, addr: IAddress | None) -> Broker:
        broker = Broker(globalSecurity)
        broker.factory = self
        broker.setNameForLocal("root", Root(broker, self.login))
        return broker

    def clientConnectionMade(self, broker: Broker) -> None:
        """Asked for by Twisted's broker."""


class Root(Served):
    """What someone who has not logged in can call: login, once."""

    def __init__(self, broker: Broker, login: Login) -> None:
        self._broker = broker
        self._login: Login | None = login

    def remote_login(self, username: Any) -> Any:
        login, self._login = self._login, None
        name = username.decode("utf-8") if isinstance(username, bytes) else username
        if login is None or not isinstance(name, str):
            raise Unauthorized("one login for each connection, with a name")
        challenge = os.urandom(CHALLENGE_SIZE)
        return challenge, Challenger(self._broker, name, challenge, login)


class Challenger(Served):
    """Takes the answer to the challenge, once."""

    def __init__(self, broker: Broker, name: str, challenge: bytes, login: Login) -> None:
        self._broker = broker
        self._name = name
        self._challenge = challenge
        self._login: Login | None = login

    def remote_respond(self, response: Any, mind: Any) -> Any:
        login, self._login = self._login, None
        if login is None or not isinstance(response, bytes) or not isinstance(mind, pb.RemoteReference):
            raise Unauthorized("not an answer to the challenge")

        def knows(password: str) -> bool:
            return hmac.compare_digest(response, answer(password, self._challenge))

        return login(self._broker, self._name, knows, mind)


def answer(password: str, challenge: bytes) -> bytes:
    """PB's answer to a challenge."""
    hashed = hashlib.md5(password.encode(), usedforsecurity=False).digest()
    return hashlib.md5(hashed + challenge, usedforsecurity=False).digest()
