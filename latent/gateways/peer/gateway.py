"""The gRPC server of the peer protocol.

grpc.aio in Twisted's asyncio reactor (specs/grpc-in-twisted.md). Messages are parsed here and not by gRPC, so that one that
is malformed is answered with a status that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from latent.controller.clock import Clock
from latent.gateways.peer.handlers import Handlers
from latent.gateways.peer.refusal import Code, Refusal, refusal, starting, stopping
from latent.gateways.peer.tokens import Tokens
from latent.gateways.ports import Dispatcher, Sessions
from latent.gateways.rpc.listening import OPTIONS, check_free, listen
from latent.wire import calls

log = Logger()

LONGEST_WAIT = 600.0


class PeerGateway:
    """Serves the peer protocol on ``bind`` ("host:port"; port 0 takes a free one, which ``port`` then holds).

    ``secret`` (32 bytes) signs access tokens and has to be the same after a restart. ``version``: the protocol version told to
    agents that do not tell theirs. ``longest_wait``: seconds after which a parked call is answered so that it is made again.
    """

    def __init__(
        self,
        sessions: Sessions,
        dispatcher: Dispatcher,
        *,
        secret: bytes,
        clock: Clock,
        bind: str = "127.0.0.1:0",
        version: int = calls.PROTOCOL_VERSION,
        longest_wait: float = LONGEST_WAIT,
    ) -> None:
        self.bind = bind
        self.port = 0
        tokens = Tokens(secret, clock.seconds)
        self._handlers = Handlers(sessions, dispatcher, tokens, clock, version=version, longest_wait=longest_wait)
        # The one reference that keeps the port open (trap 3).
        self._server: grpc.aio.Server | None = None
        self._stopping = False
        self._held = False

    async def start(self, *, held: bool = False) -> None:
        """Listen. Raises ConfigError when that can't be done. The reactor must run.

        ``held``: until `open` is called, agents are told to try again: the sessions that they belong to are not back yet.
        """
        self._held = held
        check_free("peer", self.bind)
        await Deferred.fromFuture(asyncio.ensure_future(self._start()))
        log.info("peer: listening on {bind}, port {port}", bind=self.bind, port=self.port)

    def open(self) -> None:
        self._held = False

    async def stop(self, grace: float = 5.0) -> None:
        """Stop listening; parked calls are answered at once, others have ``grace`` seconds. Idempotent."""
        self._stopping = True
        self._handlers.release()
        server, self._server = self._server, None
        if server is not None:
            await Deferred.fromFuture(asyncio.ensure_future(server.stop(grace)))

    async def _start(self) -> None:
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers(self._services())
        port = listen(server, "peer", self.bind)
        await server.start()
        self._server, self.port = server, port

    def _services(self) -> tuple[grpc.GenericRpcHandler, ...]:
        handlers = self._handlers
        table: tuple[tuple[calls.Call, Callable[..., Awaitable[Any]]], ...] = (
            (calls.VERSION, handlers.version),
            (calls.NEXT, handlers.next),
            (calls.INIT, handlers.init),
            (calls.WAIT, handlers.wait),
            (calls.DONE, handlers.done),
            (calls.EXTEND, handlers.extend),
            (calls.UPDATE, handlers.update),
            (calls.LOG, handlers.log),
            (calls.REGISTER, handlers.register),
            (calls.UNREGISTER, handlers.unregister),
            (calls.HEALTH, handlers.health),
        )
        authorised = {call.name: self._method(call, handler) for call, handler in table}
        auth = {calls.AUTH.name: self._method(calls.AUTH, None)}
        return (
            grpc.method_handlers_generic_handler(calls.SERVICE, authorised),
            grpc.method_handlers_generic_handler(calls.AUTH_SERVICE, auth),
        )

    def _method(self, call: calls.Call, handler: Callable[..., Awaitable[Any]] | None) -> grpc.RpcMethodHandler[Any, Any]:
        """``handler`` None: Auth, the one call that needs no access token."""

        async def serve(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            try:
                answer = await self._answer(call, handler, data, context)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                refused = stopping() if self._stopping else refusal(error, call.name)
                await context.abort(refused.code, refused.message)
            return bytes(answer.SerializeToString())

        return grpc.unary_unary_rpc_method_handler(serve)

    async def _answer(
        self,
        call: calls.Call,
        handler: Callable[..., Awaitable[Any]] | None,
        data: bytes,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> Any:
        if self._stopping:
            raise stopping()
        if self._held:
            raise starting()
        caller = None
        if handler is not None:
            metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
            caller = await self._handlers.caller(metadata)
        try:
            request = call.parse_request(data)
        except DecodeError:
            message = f"the {len(data)} bytes of the request are not a {call.request.DESCRIPTOR.full_name}"
            raise Refusal(Code.INVALID_ARGUMENT, message) from None
        if handler is None:
            return await self._handlers.auth(request)
        return await handler(caller, request)
