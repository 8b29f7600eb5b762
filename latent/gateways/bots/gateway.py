"""The gateway of the Remote Workers API: its instances, and the calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import grpc

from latent.gateways.bots import calls
from latent.gateways.bots.desk import Desk
from latent.gateways.bots.errors import RetriableError
from latent.gateways.bots.interface import BotsInterface
from latent.gateways.bots.patience import KEEP_ALIVE
from latent.gateways.bots.service import Service
from latent.gateways.rpc.server import Context, Method, Server, method, parsed
from latent.wire import bots_pb2 as pb
from latent.wire.calls import Call


class BotsGateway:
    """Serves the Remote Workers API on ``bind`` ("host:port"; port 0 takes a free one, which ``port`` then is).

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
        self._server = Server(calls.PROTOCOL, bind, None if tls is None else grpc.ssl_server_credentials([tls]))
        self.instances: Mapping[str, BotsInterface] = {name: BotsInterface(desk, keep_alive=keep_alive) for name in instances}
        for name, interface in self.instances.items():
            interface.set_instance_name(name)
        self.service = Service(self.instances)

    @property
    def port(self) -> int:
        return self._server.port

    async def start(self, *, held: bool = False) -> None:
        """Listen. Raises ConfigError when that can't be done. The reactor must run.

        ``held``: until `open` is called, bots are told to try again: the sessions that they belong to are not back yet.
        """
        service = self.service
        table: dict[Call, Callable[..., Awaitable[Any]]] = {
            calls.CREATE: service.create,
            calls.UPDATE: service.update,
            calls.POST_EVENT: service.post_event,
            calls.CAPABILITIES: service.capabilities,
        }
        await self._server.start({call: self._method(call, handler) for call, handler in table.items()})
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
        for interface in self.instances.values():
            interface.start()
        self._server.open()

    async def stop(self, grace: float = 5.0) -> None:
        """Stop listening; parked calls are answered at once, others have ``grace`` seconds. Idempotent."""
        self._server.close()
        for interface in self.instances.values():
            interface.stop()
        await self._server.stop(grace)

    def _method(self, call: Call, handler: Callable[..., Awaitable[Any]]) -> Method:
        async def answer(data: bytes, context: Context) -> Any:
            if self._server.closed:
                raise RetriableError(self._server.closed)
            return await handler(parsed(call, data), context)

        return method(answer, lambda error: self.service.refusal(error, call.name))
