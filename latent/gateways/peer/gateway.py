"""The gateway of the peer protocol: the calls, who may make them, and when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from latent.controller.clock import Clock
from latent.gateways.peer.handlers import PROTOCOL, Handlers
from latent.gateways.peer.refusal import Code, refusal, stopping
from latent.gateways.peer.tokens import Tokens
from latent.gateways.ports import Dispatcher, Sessions
from latent.gateways.rpc.refusal import Refusal
from latent.gateways.rpc.server import STOPPING, Context, Method, Server, method, parsed
from latent.wire import calls

LONGEST_WAIT = 600.0


class PeerGateway:
    """Serves the peer protocol on ``bind`` ("host:port"; port 0 takes a free one, which ``port`` then is).

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
        tokens = Tokens(secret, clock.seconds)
        self._handlers = Handlers(sessions, dispatcher, tokens, clock, version=version, longest_wait=longest_wait)
        self._server = Server(PROTOCOL, bind)

    @property
    def port(self) -> int:
        return self._server.port

    async def start(self, *, held: bool = False) -> None:
        """Listen. Raises ConfigError when that can't be done. The reactor must run.

        ``held``: until `open` is called, agents are told to try again: the sessions that they belong to are not back yet.
        """
        await self._server.start(self._methods())
        if not held:
            self.open()

    def open(self) -> None:
        self._server.open()

    async def stop(self, grace: float = 5.0) -> None:
        """Stop listening; parked calls are answered at once, others have ``grace`` seconds. Idempotent."""
        self._server.close()
        self._handlers.release()
        await self._server.stop(grace)

    def _methods(self) -> Mapping[calls.Call, Method]:
        handlers = self._handlers
        table: dict[calls.Call, Callable[..., Awaitable[Any]]] = {
            calls.VERSION: handlers.version,
            calls.NEXT: handlers.next,
            calls.INIT: handlers.init,
            calls.WAIT: handlers.wait,
            calls.DONE: handlers.done,
            calls.EXTEND: handlers.extend,
            calls.UPDATE: handlers.update,
            calls.LOG: handlers.log,
            calls.REGISTER: handlers.register,
            calls.UNREGISTER: handlers.unregister,
            calls.HEALTH: handlers.health,
        }
        authorised = {call: self._method(call, handler) for call, handler in table.items()}
        return {calls.AUTH: self._method(calls.AUTH, None), **authorised}

    def _method(self, call: calls.Call, handler: Callable[..., Awaitable[Any]] | None) -> Method:
        """``handler`` None: Auth, the one call that needs no access token."""

        async def answer(data: bytes, context: Context) -> Any:
            self._check_open()
            if handler is None:
                return await self._handlers.auth(parsed(call, data))
            metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
            caller = await self._handlers.caller(metadata)
            return await handler(caller, parsed(call, data))

        def refused(error: Exception) -> Refusal:
            # What goes wrong then, goes wrong because of it.
            return stopping() if self._server.closed == STOPPING else refusal(error, call.name)

        return method(answer, refused)

    def _check_open(self) -> None:
        if self._server.closed:
            raise Refusal(Code.UNAVAILABLE, self._server.closed)
