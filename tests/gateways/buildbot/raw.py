"""Connections of our own making: bytes as they are, and agents that break the rules."""

from __future__ import annotations

import base64
import struct

import msgpack
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.spread import pb
from twisted.spread.banana import Banana

from latent.gateways.buildbot.broker import answer

CHUNK = 256 * 1024


class Raw(Protocol):
    """``lost``: fires when the other end closes. ``sent``: how much of `flood` was taken."""

    def __init__(self):
        self.received = b""
        self.sent = 0
        self.gone = False
        self.lost = Deferred()

    def dataReceived(self, data):
        self.received += data

    def connectionLost(self, reason=connectionDone):
        self.gone = True
        self.lost.callback(None)

    def write(self, data):
        self.transport.write(data)

    async def until_lost(self):
        """It may be lost already."""
        if not self.gone:
            await self.lost

    async def close(self):
        self.transport.abortConnection()
        await self.until_lost()

    def flood(self, size, filling=b"x"):
        """Send ``size`` bytes as fast as they are taken, or until the other end closes."""
        Flood(self, self.transport, size, filling)


class Flood:
    """Writes as fast as the other end takes it; ``raw.sent`` counts."""

    def __init__(self, raw, transport, size, filling):
        self.raw = raw
        self.transport = transport
        self.left = size
        self.piece = filling * (CHUNK // len(filling)) or filling
        transport.registerProducer(self, False)

    def resumeProducing(self):
        if self.left <= 0:
            self.transport.unregisterProducer()
            return
        self.transport.write(self.piece)
        self.raw.sent += len(self.piece)
        self.left -= len(self.piece)

    def stopProducing(self):
        self.left = 0


async def connected(port, protocol=None):
    from twisted.internet import reactor

    return await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), protocol or Raw())


def banana_list(count):
    return int128(count) + b"\x80"


def banana_string(data):
    return int128(len(data)) + b"\x82" + data


def int128(number):
    out = b""
    while True:
        out += bytes([number & 0x7F])
        number >>= 7
        if not number:
            return out


HELLO = banana_string(b"pb")
"""With which a client chooses its dialect."""


def upgrade(authorization=""):
    """The request that opens a WebSocket."""
    lines = [
        "GET / HTTP/1.1",
        "Host: 127.0.0.1:1",
        "Upgrade: WebSocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(b'0123456789abcdef').decode()}",
        "Sec-WebSocket-Version: 13",
        *([f"Authorization: {authorization}"] if authorization else []),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def basic(name, password):
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def frame(payload, opcode=2, length=None, final=True):
    """A client's WebSocket frame, masked with zeros. ``length``: what its head says, if not the truth."""
    size = len(payload) if length is None else length
    head = bytes([(0x80 if final else 0) | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += bytes([0x80 | 126]) + struct.pack("!H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", size)
    return head + b"\0\0\0\0" + payload


class MsgpackAgent(Raw):
    """Answers what it is asked at its login; then it does what a test says. ``asked``: the messages that came."""

    def __init__(self, **changes):
        super().__init__()
        self.asked = []
        self.open = False
        self.info = {"basedir": "/nowhere", "system": "posix", "version": "raw", "environ": {"PASSWORD": "secret"}}
        self.results = {"get_worker_info": self.info, **changes}
        self.silent = False

    def dataReceived(self, data):
        super().dataReceived(data)
        if not self.open:
            head, end, rest = self.received.partition(b"\r\n\r\n")
            if not end or b"101" not in head:
                return
            self.open = True
            self.received = rest
        while (parsed := self._frame()) is not None:
            self._message(parsed)

    def _frame(self):
        data = self.received
        if len(data) < 2:
            return None
        size, start = data[1] & 0x7F, 2
        if size == 126:
            size, start = struct.unpack("!H", data[2:4])[0] if len(data) >= 4 else 1 << 40, 4
        elif size == 127:
            size, start = struct.unpack("!Q", data[2:10])[0] if len(data) >= 10 else 1 << 40, 10
        if len(data) < start + size:
            return None
        self.received = data[start + size :]
        return data[start : start + size]

    def _message(self, payload):
        message = msgpack.unpackb(payload)
        self.asked.append(message)
        if message["op"] != "response" and not self.silent:
            result = self.results.get(message["op"])
            self.say({"op": "response", "seq_number": message["seq_number"], "result": result})

    def say(self, message):
        self.write(frame(msgpack.packb(message)))

    def ops(self):
        return [message["op"] for message in self.asked]


async def msgpack_agent(port, name="plain", password="plain-password", **changes):
    """One whose login has been sent."""
    agent = await connected(port, MsgpackAgent(**changes))
    agent.write(upgrade(basic(name, password)))
    return agent


class Mind(pb.Referenceable):
    """A PB agent's own object. ``calls``: what was asked of it."""

    def __init__(self, **changes):
        self.calls = []
        self.results = {"getWorkerInfo": {"basedir": "/nowhere", "system": "posix", "version": "raw"}, **changes}
        self.builders = {}
        self.started = []

    def remoteMessageReceived(self, broker, message, args, kw):
        arguments = broker.unserialize(args)
        name = message if isinstance(message, str) else message.decode()
        self.calls.append(name)
        if name in self.results:
            result = self.results[name]
            if callable(result):
                result = result(*arguments)
        elif name == "setBuilderList":
            result = self.builders = {each[0]: Builder(self) for each in arguments[0]}
        else:
            result = None
        return broker.serialize(result, None)


class Builder(pb.Referenceable):
    def __init__(self, mind):
        self.mind = mind

    def remote_startCommand(self, reference, command_id, name, args):
        self.mind.started.append((reference, name, args))

    def remote_interruptCommand(self, command_id, why):
        self.mind.calls.append("interruptCommand")


class PbAgent:
    """A PB client that logs in as the agent of a worker; `login` gives its avatar or raises."""

    def __init__(self, port, name="plain", password="plain-password", mind=None):
        self.factory = pb.PBClientFactory()
        self.port = port
        self.name = name
        self.password = password
        self.mind = mind or Mind()

    async def root(self):
        from twisted.internet import reactor

        self.connector = reactor.connectTCP("127.0.0.1", self.port, self.factory)
        return await self.factory.getRootObject()

    async def login(self):
        root = await self.root()
        challenge, challenger = await root.callRemote("login", self.name)
        return await challenger.callRemote("respond", answer(self.password, challenge), self.mind)

    async def refusal(self):
        """Why the login fails, as a stock agent sees it: a failure."""
        failures = []
        root = await self.root()

        def respond(challenge_and_challenger):
            challenge, challenger = challenge_and_challenger
            return challenger.callRemote("respond", answer(self.password, challenge), self.mind)

        await root.callRemote("login", self.name).addCallback(respond).addErrback(failures.append)
        assert failures, "the login was accepted"
        return failures[0]

    async def close(self):
        broker = self.factory._broker
        if broker is not None and not broker.disconnected:
            lost = Deferred()
            broker.notifyOnDisconnect(lambda: lost.callback(None))
            broker.transport.abortConnection()
            await lost


def pb_message(target, name):
    """A call that wants an answer, as bytes."""
    written = []
    encoder = Banana(isClient=False)
    encoder.setPrefixLimit(64)
    encoder._selectDialect(b"pb")
    encoder._encode([b"message", 1, target.encode(), name.encode(), 1, [b"tuple"], [b"dictionary"]], written.append)
    return b"".join(written)
