"""How a caller reaches the cloud: in the same process, or over TCP by lines of JSON, one connection for each call.

A line to the cloud is ``{"call": NAME, "arguments": {...}}`` or, from a test, ``{"order": NAME, "arguments": {...}}``; a line
from it is an answer (`latent.testing.cloud.cloud.Answer`). The cloud may answer twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.testing.cloud.cloud import Cloud
from latent.testing.cloud.lines import Documents
from latent.testing.cloud.provider import Answer
from latent.testing.cloud.values import CloudError

log = Logger()

CONNECT_TIMEOUT = 10.0

Late = Callable[[Any], None]
"""Called with the answer of a call that was cancelled before it came."""


class Line(Protocol):
    """``where``: by which messages know the cloud."""

    @property
    def where(self) -> str: ...

    def call(self, call: str, late: Late | None = None, **arguments: Any) -> Deferred[Any]:
        """The answer; fails with CloudError. Cancelling gives up waiting for it: the cloud carries the call out all the same."""


class Asked:
    """One call, and who waits for its answer. Whatever comes after the first answer is nobody's business."""

    def __init__(self, call: str, late: Late | None) -> None:
        self.deferred: Deferred[Any] = Deferred(self._given_up)
        self.hang_up: Callable[[], None] | None = None
        self._call = call
        self._late = late
        self._answered = False
        self._cancelled = False

    @property
    def waits(self) -> bool:
        """Whether an answer would be of use to anybody."""
        return not self._answered and not (self._cancelled and self._late is None)

    def _given_up(self, _: object) -> None:
        self._cancelled = True
        if self.hang_up is not None and not self.waits:
            self.hang_up()

    def take(self, answer: Answer) -> None:
        if self._answered:
            log.info("{call} was answered once more", call=self._call)
            return
        self._answered = True
        if "error" in answer:
            if not self._cancelled:
                self.deferred.errback(CloudError(answer["error"], answer["message"]))
        elif not self._cancelled:
            self.deferred.callback(answer["answer"])
        elif self._late is not None:
            self._late(answer["answer"])


class LocalLine:
    """To a cloud in the same process. ``cut``: a caller that has died; nobody hears the answers."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.cut = False

    @property
    def where(self) -> str:
        return self.cloud.name

    def call(self, call: str, late: Late | None = None, **arguments: Any) -> Deferred[Any]:
        asked = Asked(call, late)

        def respond(answer: Answer) -> None:
            if not self.cut:
                # As it would come over a wire: what the caller does to it is not done to the cloud.
                asked.take(json.loads(json.dumps(answer)))

        self.cloud.request(call, json.loads(json.dumps(arguments)), respond)
        return asked.deferred


class RemoteLine:
    """To a cloud that is a process of its own. ``address``: "host:port"."""

    def __init__(self, reactor: Any, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.where = address
        self._endpoint = TCP4ClientEndpoint(reactor, host, int(port), timeout=CONNECT_TIMEOUT)

    def call(self, call: str, late: Late | None = None, **arguments: Any) -> Deferred[Any]:
        asked = Asked(call, late)
        message = {"call": call, "arguments": arguments}
        factory: Any = Factory.forProtocol(_Caller)
        factory.noisy = False
        connecting = self._endpoint.connect(factory)

        def connected(caller: Any) -> None:
            if asked.deferred.called:  # given up before anything was said
                caller.hang_up()
            else:
                caller.ask(message, asked)

        connecting.addCallback(connected)
        connecting.addErrback(self._not_reached, asked)
        return asked.deferred

    def _not_reached(self, failure: Failure, asked: Asked) -> None:
        message = f"no cloud answers at {self.where} ({failure.getErrorMessage()}); start it: python -m latent.testing.cloud"
        asked.take({"error": "unreachable", "message": message})


class _Caller(Documents):
    _asked: Asked | None = None

    def ask(self, message: Mapping[str, Any], asked: Asked) -> None:
        self._asked = asked
        asked.hang_up = self.hang_up
        self.say(message)

    def heard(self, line: bytes) -> None:
        if self._asked is not None:
            self._asked.take(json.loads(line))
        self.hang_up()

    def lost(self, reason: str) -> None:
        asked, self._asked = self._asked, None
        if asked is not None and asked.waits:
            asked.take({"error": "unreachable", "message": f"the cloud broke the connection off ({reason})"})
