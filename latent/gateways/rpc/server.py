"""A gRPC server: grpc.aio in Twisted's asyncio reactor (specs/grpc-in-twisted.md).

Messages are parsed here and not by gRPC, so that one that is malformed is answered with a status that says so.

Note [Whose read]. They are read here as well. gRPC itself reads a request in the task that a client's cancellation ends, and when
it strikes then, 80 bytes of the C library are never given back: a client that hangs up at once, over and over, would have the
controller grow without end (grpcio up to 1.85.1 at least, https://github.com/grpc/grpc/issues/43360). A read that nobody cancels
ends by itself when the call is gone, and gives back all. So methods are declared as streams of requests, which on the wire is the
same, and the one request is read in a task of its own.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from latent.errors import ProtocolError
from latent.gateways.rpc.listening import OPTIONS, check_free, listen
from latent.gateways.rpc.refusal import Refusal
from latent.wire.calls import Call

log = Logger()

Context = grpc.aio.ServicerContext[Any, Any]
Method: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

STARTING = "the controller is starting; try again"
STOPPING = "the controller is stopping; try again"


class Server:
    """Serves on ``bind`` ("host:port"; port 0 takes a free one, which ``port`` then holds); without TLS if it has no credentials.

    ``protocol``: what its errors name. ``closed``: why calls are to be made again, STARTING or STOPPING, or "".
    """

    def __init__(self, protocol: str, bind: str, credentials: grpc.ServerCredentials | None = None) -> None:
        self.bind = bind
        self.port = 0
        self.closed = STARTING
        self._protocol = protocol
        self._credentials = credentials
        # The one reference that keeps the port open (trap 3).
        self._server: grpc.aio.Server | None = None

    async def start(self, methods: Mapping[Call, Method]) -> None:
        """Listen. Raises ConfigError when that can't be done. The reactor must run."""
        check_free(self._protocol, self.bind)
        await Deferred.fromFuture(asyncio.ensure_future(self._start(methods)))
        log.info("{protocol}: listening on {bind}, port {port}", protocol=self._protocol, bind=self.bind, port=self.port)

    def open(self) -> None:
        """Answer calls from now on."""
        self.closed = ""

    def close(self) -> None:
        """Answer no call any more; those that wait are for others to let go."""
        self.closed = STOPPING

    async def stop(self, grace: float) -> None:
        """Stop listening; calls that are being answered have ``grace`` seconds. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            await Deferred.fromFuture(asyncio.ensure_future(server.stop(grace)))

    async def _start(self, methods: Mapping[Call, Method]) -> None:
        services: defaultdict[str, dict[str, Method]] = defaultdict(dict)
        for call, each in methods.items():
            services[call.service][call.name] = each
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers(tuple(itertools.starmap(grpc.method_handlers_generic_handler, services.items())))
        port = listen(server, self._protocol, self.bind, self._credentials)
        await server.start()
        self._server, self.port = server, port


def method(answer: Callable[[bytes, Context], Awaitable[Any]], refusal: Callable[[Exception], Refusal]) -> Method:
    """One that ``answer`` gives the message for, from the request's bytes. ``refusal``: how an error of it is answered; it is
    called while the error is handled."""

    async def serve(_requests: object, context: Context) -> bytes:
        data = await _read(context)
        try:
            if data is grpc.aio.EOF:
                raise ProtocolError("the call came without a request")
            message = await answer(data, context)
        except Exception as error:
            refused = refusal(error)
            await context.abort(refused.code, refused.message, refused.details)
        return bytes(message.SerializeToString())

    return grpc.stream_unary_rpc_method_handler(serve)


async def _read(context: Context) -> Any:
    """The request's bytes, or EOF. Who awaits it may be cancelled, the read itself never is: Note [Whose read]."""
    read = asyncio.ensure_future(context.read())
    read.add_done_callback(lambda done: done.cancelled() or done.exception())  # which nobody may be there to hear of
    return await asyncio.shield(read)


def parsed(call: Call, data: bytes) -> Any:
    """The request that ``data`` is. Raises ProtocolError."""
    try:
        return call.parse_request(data)
    except DecodeError:
        raise ProtocolError(f"the {len(data)} bytes of the request are not a {call.request.DESCRIPTOR.full_name}") from None
