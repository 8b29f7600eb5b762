"""When a connection is read from. What its agent says costs memory, so an agent that does not listen is not listened to."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.protocols.policies import ProtocolWrapper


class Connection(Protocol):
    """``why_lost``: "" while it is there."""

    transport: Any
    why_lost: str


class Valve:
    """Closed while `pause` says so, and while the agent does not take what it is sent: answers to whatever it says, for example.

    To the transport it is what produces all that is sent (Twisted's IPushProducer), and so it hears when much of that waits.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._transport = connection.transport
        # Below TLS: it pauses who writes until it has read more of its handshake, which it would then never do.
        while isinstance(self._transport, ProtocolWrapper):
            self._transport = self._transport.transport
        self._paused = False
        self._full = False
        self._transport.registerProducer(self, True)

    def pause(self, paused: bool) -> None:
        self._paused = paused
        self._turn()

    def pauseProducing(self) -> None:
        self._full = True
        self._turn()

    def resumeProducing(self) -> None:
        self._full = False
        self._turn()

    def stopProducing(self) -> None:
        """The connection is gone; its owner hears of it by itself."""

    def _turn(self) -> None:
        if self._connection.why_lost:
            return
        if self._paused or self._full:
            self._transport.pauseProducing()
        else:
            self._transport.resumeProducing()
