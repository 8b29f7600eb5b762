"""An agent that speaks PB (specs/buildbot-worker.md, "PB")."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.spread import pb

from latent.errors import EnrolmentRefused, ProtocolError, StoreError
from latent.gateways.buildbot.attendance import Attendance
from latent.gateways.buildbot.broker import Broker, BrokerFactory, MalformedCall, Served, Unauthorized
from latent.gateways.buildbot.command import TEXTS
from latent.gateways.buildbot.listener import Listener
from latent.gateways.buildbot.ports import PB, Receiver
from latent.gateways.buildbot.translate import slot_name

log = Logger()


def factory(listener: Listener) -> BrokerFactory:
    """What listens for PB."""

    def login(broker: Broker, name: str, knows: Callable[[str], bool], mind: Any) -> Deferred[Avatar]:
        return Deferred.fromCoroutine(_login(listener, broker, name, knows, mind))

    return BrokerFactory(listener, login)


async def _login(listener: Listener, broker: Broker, name: str, knows: Callable[[str], bool], mind: Any) -> Avatar:
    link = PbLink(broker, mind)
    attendance: Attendance | None = None
    try:
        admitted = await listener.door.admit(name, knows, link, listener.interval)
        broker.logged_in()
        await listener.door.receive(admitted)
        attendance = admitted
        return Avatar(attendance)
    except (EnrolmentRefused, StoreError) as error:
        log.info("{peer}: the login of {name!r} is refused: {why}", peer=broker.address, name=name[:100], why=str(error))
        raise Unauthorized(str(error)) from None
    except Exception:
        if not broker.why_lost:
            log.failure("{peer}: the login of {name!r} failed", peer=broker.address, name=name[:100])
        raise Unauthorized("the login failed in the controller; its log says why") from None
    finally:
        if attendance is None:
            listener.refused(broker)


class Avatar(Served):
    """What an agent that has logged in can call."""

    def __init__(self, attendance: Attendance) -> None:
        self._attendance = attendance

    def remote_keepalive(self) -> None:
        """That it came is all that there is to it."""

    def remote_shutdown(self) -> None:
        self._attendance.shutting_down()


class Port(Served):
    """Where an agent reports a slot's command.

    One for a slot, not one for a command: an agent lets go of what it was given only when its garbage is collected, and a
    connection has room for a thousand.
    """

    def __init__(self, link: PbLink) -> None:
        self.receiver: Receiver | None = None
        self._link = link

    def remote_update(self, updates: Any) -> None:
        if not isinstance(updates, list | tuple):
            raise MalformedCall("updates are a list")
        for update in updates:
            document = update[0]
            if not isinstance(document, dict):
                raise MalformedCall("an update is a dict")
            for key, value in document.items():
                name, checked = _checked(_text(key), value)
                if self.receiver is not None:
                    self.receiver.updated(name, checked)

    def remote_complete(self, failure: Any = None) -> None:
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.completed("" if failure is None else _error(failure))
            # An exit code may still come.
            self.receiver = self.receiver or receiver

    def lost(self, reason: str) -> None:
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.lost(reason)


class PbLink:
    """`latent.gateways.buildbot.ports.Link`. ``mind``: the agent's own object."""

    protocol = PB

    def __init__(self, broker: Broker, mind: Any) -> None:
        self.address = broker.address
        self.on_lost: Callable[[str], None] = lambda reason: None
        self._broker = broker
        self._mind = mind
        self._builders: list[Any] = []
        self._ports: list[Port] = []
        broker.lost = self._lost

    @property
    def received(self) -> int:
        return self._broker.received

    @property
    def why_lost(self) -> str:
        return self._broker.why_lost

    async def describe(self) -> Mapping[str, Any]:
        await _call(self._mind, "print", "attached")
        description = await _call(self._mind, "getWorkerInfo")
        if not isinstance(description, dict):
            raise ProtocolError("the agent's description of itself is not a dict")
        return {_text(key): _text(value) if isinstance(value, bytes) else value for key, value in description.items()}

    async def prepare(self, slots: int) -> None:
        names = [slot_name(slot) for slot in range(slots)]
        builders = await _call(self._mind, "setBuilderList", [(name, name) for name in names])
        if not isinstance(builders, dict):
            raise ProtocolError("the agent's builders are not a dict")
        found = {_text(name): builder for name, builder in builders.items()}
        self._builders = [found.get(name) for name in names]
        if not all(isinstance(builder, pb.RemoteReference) for builder in self._builders):
            raise ProtocolError("the agent did not make the builders that it was told to")
        self._ports = [Port(self) for _ in names]

    async def end(self, command_ids: Sequence[str]) -> None:
        """Over PB an agent ends by itself what it ran when its connection goes."""

    def ping(self) -> Deferred[Any]:
        # "print" would do too, and fill the agent's log.
        return _call(self._mind, "getVersion")

    def start(self, slot: int, command_id: str, name: str, args: dict[str, Any], receiver: Receiver) -> Deferred[Any]:
        port = self._ports[slot]
        port.receiver = receiver
        return _call(self._builders[slot], "startCommand", port, command_id, name, args)

    def interrupt(self, slot: int, command_id: str, why: str) -> Deferred[Any]:
        return _call(self._builders[slot], "interruptCommand", command_id, why)

    def shut_down(self) -> Deferred[Any]:
        return _call(self._mind, "shutdown")

    def pause(self, paused: bool) -> None:
        self._broker.valve.pause(paused)

    def drop(self, reason: str) -> None:
        self._broker.drop(reason)

    def _lost(self, reason: str) -> None:
        for port in self._ports:
            port.lost(reason)
        self.on_lost(reason)


def _call(reference: Any, name: str, *args: Any) -> Deferred[Any]:
    """A remote call; what Twisted raises at once fails the Deferred."""
    return maybeDeferred(reference.callRemote, name, *args)


def _text(value: Any) -> str:
    """Agents on Python 2 send bytes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise MalformedCall(f"a string is expected, not {type(value).__name__}")
    return value


def _checked(key: str, value: Any) -> tuple[str, Any]:
    if key in TEXTS or key == "failure_reason":
        return key, _text(value)
    if key == "rc" and type(value) is not int:
        raise MalformedCall("rc is a number")
    return key, value


def _error(failure: Any) -> str:
    """What a failure that came over the wire says."""
    told = getattr(failure, "value", failure)
    return _text(told) if isinstance(told, str | bytes) else type(failure).__name__
