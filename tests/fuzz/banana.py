"""Perspective Broker by hand: what goes over the wire, made of lists, and a client that can send anything at any time."""

import struct

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.spread import banana

from latent.gateways.buildbot.broker import answer
from tests.gateways.buildbot.raw import banana_list, banana_string, connected, int128


def encoded(value):
    """Lists, strings, numbers; anything else as a string."""
    match value:
        case list() | tuple():
            return banana_list(len(value)) + b"".join(map(encoded, value))
        case bool():
            return encoded([b"boolean", b"true" if value else b"false"])
        case int() if 0 <= value < 2**31:
            return int128(value) + b"\x81"
        case int() if -(2**31) <= value < 0:
            return int128(-value) + b"\x83"
        case int():
            return int128(abs(value)) + (b"\x85" if value > 0 else b"\x86")
        case float():
            return b"\x84" + struct.pack("!d", value)
        case str():
            return banana_string(value.encode("utf-8", "replace"))
        case bytes():
            return banana_string(value)
        case _:
            return banana_string(repr(value).encode())


def jelly(value):
    """A value as PB sends values."""
    match value:
        case None:
            return [b"None"]
        case str():
            return [b"unicode", value.encode("utf-8", "replace")]
        case list():
            return [b"list", *map(jelly, value)]
        case dict():
            return [b"dictionary", *([jelly(key), jelly(part)] for key, part in value.items())]
        case _:
            return value


def message(number, target, name, *args, wants_answer=1):
    return [b"message", number, target, name, wants_answer, [b"tuple", *args], [b"dictionary"]]


MIND, FIRST_BUILDER = 1, 2
"""The numbers of our own objects."""


class PbClient(banana.Banana):
    """Answers as an agent does, unless ``silent``. ``ports``: objects of the controller's that we were given."""

    def __init__(self):
        super().__init__(isClient=True)
        self.gone = False
        self.silent = False
        self.ports = []
        self.received = 0
        self._answers = {}
        self._ready = Deferred()
        self._lost = [self._ready]

    def connectionReady(self):
        """The dialect is agreed."""
        self._ready.callback(None)

    def connectionLost(self, reason=connectionDone):
        self.gone = True
        answers, self._answers = self._answers, {}
        for waiter in answers.values():
            waiter.callback(None)
        lost, self._lost = self._lost, []
        for waiter in lost:
            if not waiter.called:
                waiter.callback(None)

    def until_lost(self):
        waiter = Deferred()
        if self.gone:
            waiter.callback(None)
        else:
            self._lost.append(waiter)
        return waiter

    async def close(self):
        if not self.gone:
            self.transport.abortConnection()
            await self.until_lost()

    def say(self, *messages):
        if not self.gone:
            self.transport.write(b"".join(map(encoded, messages)))

    def ask(self, number, target, name, *args):
        """Fires with the answer as it came, or with None when the connection is lost."""
        waiter = Deferred()
        if self.gone:
            waiter.callback(None)
            return waiter
        self._answers[number] = waiter
        self.say(message(number, target, name, *args))
        return waiter

    def expressionReceived(self, expression):
        self.received += 1
        if not isinstance(expression, list) or not expression:
            return
        kind = expression[0]
        if kind in (b"answer", b"error") and expression[1] in self._answers:
            self._answers.pop(expression[1]).callback(expression)
        elif kind == b"message" and not self.silent:
            self._called(*expression[1:6])

    def _called(self, number, target, name, wants_answer, args):
        result = [b"None"]
        if name == b"getWorkerInfo":
            result = jelly({"basedir": "/nowhere", "system": "posix", "version": "raw"})
        elif name == b"setBuilderList":
            names = [each[1] for each in args[1][1:]]
            result = [b"dictionary", *([each, [b"remote", FIRST_BUILDER + n]] for n, each in enumerate(names))]
        elif name == b"startCommand":
            self.ports.append(args[1][1])
            self.started(args[1][1])
        if wants_answer:
            self.say([b"answer", number, result])

    def started(self, port):
        """A command is to be run; ``port`` takes what it says."""

    async def login(self, name, password):
        """The avatar's number, or None."""
        await self._ready
        challenged = await self.ask(1, b"root", b"login", name.encode())
        if challenged is None or challenged[0] != b"answer":
            return None
        _, challenge, (_, challenger) = challenged[2]
        response = answer(password, challenge)
        accepted = await self.ask(2, challenger, b"respond", response, [b"remote", MIND])
        if accepted is None or accepted[0] != b"answer":
            return None
        return accepted[2][1]


class Obedient(PbClient):
    """Every command succeeds at once."""

    def started(self, port):
        update = [b"list", [b"list", [b"dictionary", [[b"unicode", b"rc"], 0]], 0]]
        self.say(
            message(9001, port, b"update", update, wants_answer=0), message(9002, port, b"complete", [b"None"], wants_answer=0)
        )


async def client(port, kind=PbClient):
    return await connected(port, kind())
