"""The HTTP server: a unix socket, TCP where it is configured, and what stands before the routes: token and size."""

# mypy: disable-error-code="no-untyped-call"
# twisted.web.http and twisted.protocols.policies have no annotations.

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from latent.controller.clock import WallClock
from latent.web.address import Address, clear_socket, private_directory, short_socket, write_address
from latent.web.answering import error
from latent.web.app import Api
from latent.web.facade import Facade, WorkflowsFacade
from latent.web.workflows import PREFIX, WorkflowApi

MAX_BODY = 1 << 20
"""Bytes in a request's body; more is refused with 413."""

MAX_DRAINED = 16 << 20
"""Bytes of a refused body that are read and thrown away, so that the client gets to read the answer."""

IDLE = 60
"""Seconds after which a connection without a request is closed."""


class ApiService:
    """Serves the API on ``socket_path`` and, where given, on ``tcp`` (interface, port; port 0 takes any).

    ``socket_path`` may be longer than a socket's path can be; ``api.json`` beside it says where the socket really is.
    ``reconfigure`` and ``stop`` are what the routes of those names call. Raises `twisted.internet.error.CannotListenError`
    when a port is in use, StoreError when there is no place for the socket.
    """

    def __init__(
        self,
        controller: Facade,
        *,
        socket_path: Path,
        tcp: tuple[str, int] | None,
        token: str,
        reactor: Any,
        reconfigure: Callable[[], Awaitable[list[str]]],
        stop: Callable[[bool], object],
        workflows: WorkflowsFacade | None = None,
    ) -> None:
        self._wanted = socket_path
        self._tcp = tcp
        self._reactor = reactor
        api = Api(controller, clock=WallClock(reactor), reconfigure=reconfigure, stop=stop, tasks=workflows)
        self._guard = Guard(api, None if workflows is None else WorkflowApi(workflows), token)
        self._connections = Connections(QuietSite(self._guard, requestFactory=LimitedRequest, timeout=IDLE))
        self._ports: list[Any] = []
        self.address: Address | None = None

    @property
    def _record(self) -> Path:
        return self._wanted.with_name("api.json")

    async def start(self, *, held: bool = False) -> None:
        """Listen, then say where in ``api.json``. ``held``: until `open` is called, callers are told to try again."""
        private_directory(self._wanted.parent)
        socket = short_socket(self._wanted)
        url = None
        try:
            if self._tcp is not None:
                interface, port = self._tcp
                listening = self._reactor.listenTCP(port, self._connections, interface=interface)
                self._ports.append(listening)
                url = _url(interface, listening.getHost().port)
            clear_socket(socket)
            self._ports.append(self._reactor.listenUNIX(str(socket), self._connections, mode=0o600))
        except BaseException:
            await self.stop()
            raise
        self._listening = Address(str(socket), url, os.getpid())
        if not held:
            self.open()

    def open(self) -> None:
        """The controller is ready for callers."""
        self._guard.held = False
        self.address = self._listening
        write_address(self._record, self._listening)

    async def stop(self) -> None:
        """Close the ports and every connection. What waits in a request is cancelled."""
        if self.address is not None:
            self._record.unlink(missing_ok=True)
            self.address = None
        ports, self._ports = self._ports, []
        for port in ports:
            at = port.getHost()
            await _closed(port)
            if isinstance(at, UNIXAddress) and at.name:
                Path(os.fsdecode(at.name)).unlink(missing_ok=True)
        self._connections.close()


async def _closed(port: Any) -> None:
    closing = port.stopListening()
    if closing is not None:
        await closing


def _url(interface: str, port: int) -> str:
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(interface, interface)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{port}"


class QuietSite(Site):
    """Does not log each request: a client that waits asks again and again."""

    noisy = False

    def log(self, request: Any) -> None:
        pass


class Connections(WrappingFactory):
    """Knows every connection, so that stopping can close them: a port only stops taking new ones."""

    noisy = False

    class protocol(ProtocolWrapper):
        def connectionMade(self) -> None:
            keep_alive = getattr(self.transport, "setTcpKeepAlive", None)
            if keep_alive is not None:
                keep_alive(1)  # a client that vanished without a word would hold its long poll for ever
            super().connectionMade()

    def close(self) -> None:
        for connection in list(self.protocols):
            connection.transport.abortConnection()


class LimitedRequest(Request):
    """A request whose body is kept up to MAX_BODY bytes."""

    _received = 0

    @property
    def is_too_large(self) -> bool:
        return self._received > MAX_BODY

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > MAX_DRAINED:
            self.channel.forceAbortClient()
        elif not self.is_too_large:
            super().handleContentChunk(data)


class Guard(Resource):
    """Lets nothing through to the routes but requests of a decent size that carry the token."""

    isLeaf = True

    def __init__(self, api: Api, workflows: WorkflowApi | None, token: str) -> None:
        super().__init__()
        self.held = True
        self._routes: Any = api.app.resource()
        self._of_workflows: Any = self._routes if workflows is None else workflows.app.resource()
        self._expected = b"Bearer " + token.encode()

    def render(self, request: Request) -> Any:
        given = request.getHeader(b"authorization") or b""
        if not hmac.compare_digest(given, self._expected):
            request.setHeader("WWW-Authenticate", "Bearer")
            remedy = "send `Authorization: Bearer TOKEN` with the token in state/token (for the command line: LATENT_API_TOKEN)"
            return error(request, 401, "the API token is missing or wrong", remedy)
        if isinstance(request, LimitedRequest) and request.is_too_large:
            remedy = f"send at most {MAX_BODY} bytes; put large inputs where the build can fetch them"
            return error(request, 413, "the request is too large", remedy)
        if self.held:
            return error(request, 503, "the controller is starting", "try again in a moment")
        routes = self._of_workflows if request.path.startswith(PREFIX) else self._routes
        return routes.render(request)
