"""An agent that speaks msgpack (specs/buildbot-worker.md, "msgpack over WebSocket"): its messages, whatever carries them.

Imported only where the protocol is configured: msgpack comes with latent[buildbot].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgpack
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

from latent.errors import ProtocolError
from latent.gateways.buildbot.command import TEXTS
from latent.gateways.buildbot.ports import MSGPACK, Receiver

log = Logger()

SETTINGS = {
    # Characters. A stock agent cuts lines that are longer, and loses some at the cut; what it sends at once is no longer, and
    # has to be a message of at most `listener.MESSAGE_LIMIT` bytes.
    "max_line_length": 1_000_000,
    "newline_re": r"\r\n|\r(?=.)",
    "buffer_size": 64 * 1024,
    "buffer_timeout": 0.5,
}
"""What agents are told about how to send output. ``buffer_timeout`` in seconds."""

FILE_TRANSFER = "update_upload_file_", "update_upload_directory_", "update_read_file"


class Refused(Exception):
    """The agent answered a call with an exception."""


class Gone(Exception):
    """The connection is lost."""


class Carrier(Protocol):
    """The connection below. ``received``: bytes so far. ``why_lost``: "" while it is there."""

    address: str
    received: int
    why_lost: str

    def send(self, payload: bytes) -> None: ...

    def pause(self, paused: bool) -> None: ...

    def drop(self, reason: str) -> None: ...


class MsgpackLink:
    """`latent.gateways.buildbot.ports.Link`."""

    protocol = MSGPACK

    def __init__(self, carrier: Carrier) -> None:
        self.on_lost: Callable[[str], None] = lambda reason: None
        self._carrier = carrier
        self._sequence = 0
        self._waiting: dict[int, Deferred[Any]] = {}
        self._receivers: dict[str, Receiver] = {}

    @property
    def address(self) -> str:
        return self._carrier.address

    @property
    def received(self) -> int:
        return self._carrier.received

    @property
    def why_lost(self) -> str:
        return self._carrier.why_lost

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        waiting, self._waiting = self._waiting, {}
        for deferred in waiting.values():
            deferred.errback(Gone(reason))
        receivers, self._receivers = self._receivers, {}
        for receiver in receivers.values():
            receiver.lost(reason)
        self.on_lost(reason)

    # --- messages ------------------------------------------------------------------------------------------------------------

    def came(self, payload: bytes) -> None:
        """A message of the agent's. Raises ProtocolError."""
        message = _unpacked(payload)
        number, op = message.get("seq_number"), message.get("op")
        if type(number) is not int or not isinstance(op, str):
            raise ProtocolError("a message without op and seq_number")
        if op == "response":
            self._response(number, message)
        elif op == "update":
            self._update(message)
            self._answer(number)
        elif op == "complete":
            self._complete(message)
            self._answer(number)
        elif op.startswith(FILE_TRANSFER):
            self._answer(number, f"{op}: no file was asked for", is_exception=True)
        else:
            self._answer(number, f"there is no {op[:50]!r}", is_exception=True)

    def _response(self, number: int, message: Mapping[Any, Any]) -> None:
        waiter = self._waiting.pop(number, None)
        if waiter is None:
            raise ProtocolError(f"an answer to {number}, which was not asked or is answered")
        if message.get("is_exception"):
            waiter.errback(Refused(str(message.get("result"))[:1000]))
        else:
            waiter.callback(message.get("result"))

    def _update(self, message: Mapping[Any, Any]) -> None:
        receiver = self._receivers.get(str(message.get("command_id")))
        updates = message.get("args")
        if not isinstance(updates, list):
            raise ProtocolError("the args of update are a list")
        for update in updates:
            if not isinstance(update, list) or len(update) != 2 or not isinstance(update[0], str):
                raise ProtocolError("an update is a key and a value")
            key, value = update[0], _checked(update[0], update[1])
            if receiver is not None:
                receiver.updated(key, value)

    def _complete(self, message: Mapping[Any, Any]) -> None:
        error = message.get("args")
        # It stays: an exit code may still come, or the loss of the connection before that.
        receiver = self._receivers.get(str(message.get("command_id")))
        if receiver is not None:
            receiver.completed("" if error is None else str(error))

    def _answer(self, number: int, result: Any = None, *, is_exception: bool = False) -> None:
        message = {"op": "response", "seq_number": number, "result": result}
        self._send(message | ({"is_exception": True} if is_exception else {}))

    def _send(self, message: Mapping[str, Any]) -> None:
        self._carrier.send(msgpack.packb(message))

    def _ask(self, op: str, **more: Any) -> Deferred[Any]:
        """A call; fires with its result."""
        if self.why_lost:
            return fail(Gone(self.why_lost))
        number, self._sequence = self._sequence, self._sequence + 1
        waiter: Deferred[Any] = Deferred()
        try:
            self._send({"op": op, "seq_number": number, **more})
        except Exception:
            return fail()
        self._waiting[number] = waiter
        # Who waits no longer leaves the place for the answer: it may still come.
        given: Deferred[Any] = Deferred()
        waiter.addCallbacks(given.callback, given.errback)
        return given

    # --- `latent.gateways.buildbot.ports.Link` -------------------------------------------------------------------------------

    async def describe(self) -> Mapping[str, Any]:
        await self._ask("print", message="attached")
        description = await self._ask("get_worker_info")
        if not isinstance(description, dict):
            raise ProtocolError("the agent's description of itself is not a map")
        return {key: value for key, value in description.items() if isinstance(key, str)}

    async def prepare(self, slots: int) -> None:
        await self._ask("set_worker_settings", args=SETTINGS)

    async def end(self, command_ids: Sequence[str]) -> None:
        # A stock agent goes on with a command whose connection is gone, and nothing that comes of it is ever sent.
        for command_id in command_ids:
            await self._ask("interrupt_command", command_id=command_id, why="its connection was lost")

    def ping(self) -> Deferred[Any]:
        return self._ask("keepalive")

    def start(self, slot: int, command_id: str, name: str, args: dict[str, Any], receiver: Receiver) -> Deferred[Any]:
        self._receivers[command_id] = receiver
        return self._ask("start_command", command_id=command_id, command_name=name, args=args)

    def interrupt(self, slot: int, command_id: str, why: str) -> Deferred[Any]:
        return self._ask("interrupt_command", command_id=command_id, why=why)

    def shut_down(self) -> Deferred[Any]:
        return self._ask("shutdown")

    def pause(self, paused: bool) -> None:
        self._carrier.pause(paused)

    def drop(self, reason: str) -> None:
        self._carrier.drop(reason)


def _unpacked(payload: bytes) -> Mapping[Any, Any]:
    """Raises ProtocolError."""
    try:
        message = msgpack.unpackb(payload, raw=False, strict_map_key=False)
    except Exception as error:  # msgpack raises nearly anything
        raise ProtocolError(f"what came is not msgpack: {type(error).__name__}") from None
    if not isinstance(message, dict):
        raise ProtocolError("a message is a map")
    return message


def _checked(key: str, value: Any) -> Any:
    """The value of an update as `ports.Receiver` takes it."""
    if key in TEXTS:
        return _text(key, value)
    if key == "failure_reason" and not isinstance(value, str):
        raise ProtocolError("failure_reason is a string")
    if key == "rc" and type(value) is not int:
        raise ProtocolError("rc is a number")
    return value


def _text(key: str, value: Any) -> str:
    """Text comes with where its lines end and when they came; we see to that ourselves."""
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        raise ProtocolError(f"{key} is a text with its lines' ends")
    return value[0]
