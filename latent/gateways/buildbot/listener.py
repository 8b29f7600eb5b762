"""What both wires have in common as listeners: limits on who has not logged in yet, and the end of all connections."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from latent.controller.clock import Clock, Wait
from latent.gateways.buildbot.door import Door

log = Logger()

LOGIN_TIME = 60.0
"""Seconds that a connection may be open without a login."""

STRANGERS = 1000
"""How many connections without a login may be open at once."""

STRANGER_LIMIT = 8 * 1024
"""Bytes that may come in one piece from someone who has not logged in."""

MESSAGE_LIMIT = 4 * 1024 * 1024
"""Bytes of one message of an agent."""


class Connection(Protocol):
    """A connection as its listener sees it."""

    address: str

    def drop(self, reason: str) -> None: ...


class Listener:
    """The connections of one listening port. ``interval``: seconds between two keepalives."""

    def __init__(self, door: Door, clock: Clock, interval: float) -> None:
        self.door = door
        self.clock = clock
        self.interval = interval
        self._connections: set[Connection] = set()
        self._strangers: dict[Connection, Wait] = {}
        self._stopping = False
        self._empty: list[Deferred[None]] = []

    def came(self, connection: Connection) -> None:
        """A connection was made."""
        self._connections.add(connection)
        if self._stopping or len(self._strangers) >= STRANGERS:
            log.warn("{peer}: too many connections wait for a login; this one is closed", peer=connection.address)
            connection.drop("too many connections")
            return
        self._strangers[connection] = self.clock.callLater(LOGIN_TIME, self._too_late, connection)

    def known(self, connection: Connection) -> None:
        """It has logged in."""
        wait = self._strangers.pop(connection, None)
        if wait is not None and wait.active():
            wait.cancel()

    def refused(self, connection: Connection) -> None:
        """It has not logged in after all, and has a while to go by itself."""
        if connection in self._connections and connection not in self._strangers:
            self._strangers[connection] = self.clock.callLater(LOGIN_TIME, self._too_late, connection)

    def went(self, connection: Connection) -> None:
        """It is closed."""
        self.known(connection)
        self._connections.discard(connection)
        if not self._connections:
            empty, self._empty = self._empty, []
            for waiter in empty:
                waiter.callback(None)

    def stop(self) -> Deferred[None]:
        """Close all connections. Fires when they are."""
        self._stopping = True
        if not self._connections:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._empty.append(waiter)
        for connection in list(self._connections):
            connection.drop("the controller stopped")
        return waiter

    def _too_late(self, connection: Connection) -> None:
        log.info("{peer}: no login in {limit:g} s; the connection is closed", peer=connection.address, limit=LOGIN_TIME)
        connection.drop("no login in time")


def address_of(transport: Any) -> str:
    """host:port of the other end."""
    peer = transport.getPeer()
    host, port = getattr(peer, "host", "?"), getattr(peer, "port", 0)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
