"""The gRPC server of the Remote Workers API: grpc.aio in Twisted's asyncio reactor (specs/grpc-in-twisted.md).

Messages are parsed here and not by gRPC, so that one that is malformed is answered with a status that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from latent.gateways.bots import calls
from latent.gateways.bots.desk import Desk
from latent.gateways.bots.errors import InvalidArgumentError, RetriableError
from latent.gateways.bots.interface import BotsInterface
from latent.gateways.bots.patience import KEEP_ALIVE
from latent.gateways.bots.service import Context, Service
from latent.gateways.rpc.listening import OPTIONS, check_free, listen
from latent.wire import bots_pb2 as pb
from latent.wire.calls import Call

log = Logger()


class BotsGateway:
    """Serves the Remote Workers API on ``bind`` ("host:port"; port 0 takes a free one, which ``port`` then holds).

    ``instances``: the names that bots may come to; bots and builds of one know nothing of another. ``keep_alive``: see
    `BotsInterface`. ``tls``: the private key and the certificate with its chain, as PEM; None is without TLS.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        bind: str = "127.0.0.1:0",
        instances: Iterable[str] = ("",),
        keep_alive: float = KEEP_ALIVE,
        tls: tuple[bytes, bytes] | None = None,
    ) -> None:
        self.bind = bind
        self._credentials = None if tls is None else grpc.ssl_server_credentials([tls])
        self.port = 0
        self.instances: Mapping[str, BotsInterface] = {name: BotsInterface(desk, keep_alive=keep_alive) for name in instances}
        for name, interface in self.instances.items():
            interface.set_instance_name(name)
        self.service = Service(self.instances)
        # The one reference that keeps the port open (trap 3).
        self._server: grpc.aio.Server | None = None
        self._stopping = False
        self._held = False

    async def start(self, *, held: bool = False) -> None:
        """Listen. Raises ConfigError when that can't be done. The reactor must run.

        ``held``: until `open` is called, bots are told to try again: the sessions that they belong to are not back yet.
        """
        self._held = held
        check_free(calls.PROTOCOL, self.bind)
        await Deferred.fromFuture(asyncio.ensure_future(self._start()))
        log.info("bots: listening on {bind}, port {port}", bind=self.bind, port=self.port)
        if not held:
            self.open()

    def count(self) -> dict[tuple[tuple[str, str], ...], float]:
        """How many bots there are, by instance and by what they say of themselves."""
        return {
            (("instance", name), ("status", pb.BotStatus.Name(status))): interface.count_bots_by_status(status)
            for name, interface in self.instances.items()
            for status in pb.BotStatus.values()
        }

    def failed(self) -> dict[tuple[tuple[str, str], ...], float]:
        """How many calls failed through no fault of the bots."""
        return {(("call", call),): count for call, count in self.service.exceptions.items()}

    def open(self) -> None:
        self._held = False
        for interface in self.instances.values():
            interface.start()

    async def stop(self, grace: float = 5.0) -> None:
        """Stop listening; parked calls are answered at once, others have ``grace`` seconds. Idempotent."""
        self._stopping = True
        for interface in self.instances.values():
            interface.stop()
        server, self._server = self._server, None
        if server is not None:
            await Deferred.fromFuture(asyncio.ensure_future(server.stop(grace)))

    async def _start(self) -> None:
        server = grpc.aio.server(options=OPTIONS)
        service = self.service
        bots: tuple[tuple[Call, Callable[..., Awaitable[Any]]], ...] = (
            (calls.CREATE, service.create),
            (calls.UPDATE, service.update),
            (calls.POST_EVENT, service.post_event),
        )
        methods = {call.name: self._method(call, handler) for call, handler in bots}
        asked = {calls.CAPABILITIES.name: self._method(calls.CAPABILITIES, service.capabilities)}
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(calls.SERVICE, methods),
                grpc.method_handlers_generic_handler(calls.CAPABILITIES_SERVICE, asked),
            )
        )
        port = listen(server, calls.PROTOCOL, self.bind, self._credentials)
        await server.start()
        self._server, self.port = server, port

    def _method(self, call: Call, handler: Callable[..., Awaitable[Any]]) -> grpc.RpcMethodHandler[Any, Any]:
        async def serve(data: bytes, context: Context) -> bytes:
            try:
                if self._stopping or self._held:
                    raise RetriableError(f"the controller is {'stopping' if self._stopping else 'starting'}; try again")
                answer = await handler(_parsed(call, data), context)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                refused = self.service.refusal(error, call.name)
                await context.abort(refused.code, refused.message, refused.details)
            return bytes(answer.SerializeToString())

        return grpc.unary_unary_rpc_method_handler(serve)


def _parsed(call: Call, data: bytes) -> Any:
    try:
        return call.parse_request(data)
    except DecodeError:
        message = f"the {len(data)} bytes of the request are not a {call.request.DESCRIPTOR.full_name}"
        raise InvalidArgumentError(message) from None
