"""Documents over TCP: each a line of JSON."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

LONGEST = 16 * 1024 * 1024
"""Bytes of a line that is still read."""


class Documents(Protocol):
    """A subclass has `heard`, and may have `lost`."""

    transport: Any
    _rest = b""
    _gone = False

    def say(self, document: Any) -> None:
        """To whoever is at the other end; to nobody, if that has gone."""
        if self.transport is not None and not self._gone:
            self.transport.write(json.dumps(document).encode() + b"\n")

    def hang_up(self) -> None:
        if self.transport is not None and not self._gone:
            self.transport.loseConnection()

    def heard(self, line: bytes) -> None:
        """A line came, without its end."""

    def lost(self, reason: str) -> None:
        """The connection is gone."""

    def dataReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            self.hang_up()
            return
        for line in lines:
            self.heard(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        self.lost(reason.getErrorMessage())
