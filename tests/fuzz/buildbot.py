"""Agents of Buildbot's protocols that have lost their minds."""

import struct
from contextlib import suppress

import msgpack
from twisted.internet.defer import Deferred, TimeoutError, succeed

from tests.fuzz.banana import FIRST_BUILDER, MIND, client, encoded, jelly, message
from tests.gateways.buildbot.raw import HELLO, MsgpackAgent, banana_list, banana_string, basic, connected, frame, upgrade

SYNC = 424242
"""The number of the message by which the fuzzer learns that all before it have been looked at."""

PATIENCE = 60.0
"""Seconds; a connection that says nothing to what needs an answer then hangs."""

TOO_MUCH = 4 * 1024 * 1024 + 1

HUGE = (
    encoded([b"message", *([b"x" * 600_000] * 8)]),
    banana_list(1_200_000) + encoded([b"None"]) * 600_000,
    banana_list(2**27),
    banana_string(b"x" * TOO_MUCH),
)
NAMES = (
    b"update",
    b"complete",
    b"keepalive",
    b"shutdown",
    b"login",
    b"respond",
    b"__class__",
    b"remote_update",
    b"perspective_x",
    b"",
)
KEYS = ("stdout", "stderr", "header", "rc", "log", "elapsed", "failure_reason", "timeout_triggered", "nonsense")


class TalkFuzzer:
    """``broken``: what went wrong, for people; empty when all is well. ``oversized``: messages that were too large, and
    cost their sender the connection."""

    def __init__(self, port, name, password, noise):
        self.frames = 0
        self.connections = 0
        self.oversized = 0
        self.broken = []
        self._port = port
        self._who = name, password
        self._noise = noise

    async def play(self, frames):
        end = self.frames + frames
        while self.frames < end:
            if self._noise.chance(0.1):
                await self._stranger()
            else:
                await self._agent(end)

    async def _stranger(self):
        """Somebody who does not log in."""
        raise NotImplementedError

    async def _agent(self, end):
        """Somebody who does, and says at most as much as is missing to ``end`` frames, or a bit more."""
        raise NotImplementedError

    async def _too_much(self, agent, data):
        """The end of its connection, and of no other."""
        self.frames += 1
        agent.transport.write(data)
        if await self._soon(agent.until_lost(), "the connection is open after what is too large"):
            self.oversized += 1

    async def _spoilt(self, agent):
        """What comes next on this connection may be taken for the rest of what was damaged: it is not heard of again."""
        agent.transport.write(self._noise.data(100))
        await turn()

    async def _soon(self, awaited, otherwise):
        """Whether it came; if not, that is ``otherwise``."""
        from twisted.internet import reactor

        try:
            await awaited.addTimeout(PATIENCE, reactor)
        except TimeoutError:
            self.broken.append(otherwise)
            return False
        return True


class PbFuzzer(TalkFuzzer):
    """Perspective Broker."""

    async def _stranger(self):
        raw = await connected(self._port)
        self.connections += 1
        self.frames += 1
        noise = self._noise
        sent = [
            noise.damaged(encoded(message(1, b"root", b"login", noise.text()))),
            encoded([noise.value() for _ in range(3)]),
            banana_list(2**20),
            noise.data(2000),
        ]
        raw.write(noise.pick(HELLO, HELLO, b"") + noise.random.choice(sent))
        if noise.chance(0.5):
            # Some are patient: let it be looked at.
            await turn()
        await raw.close()

    async def _agent(self, end):
        agent = await client(self._port)
        self.connections += 1
        avatar = await agent.login(*self._who)
        if avatar is None:
            self.frames += 1
            await agent.close()
            return
        noise = self._noise
        for _ in range(noise.random.randrange(1, 30)):
            if agent.gone or self.frames >= end:
                break
            agent.silent = noise.chance(0.05)
            batch = [self._message(agent, avatar) for _ in range(noise.random.randrange(1, 100))]
            self.frames += len(batch)
            agent.say(*batch)
            if noise.chance(0.05):
                self.frames += 1
                agent.transport.write(noise.damaged(encoded(self._message(agent, avatar))))
                await self._spoilt(agent)
                break
            if noise.chance(0.02):
                break  # and is gone in the middle of it
            if not await self._soon(agent.ask(SYNC, avatar, b"keepalive"), "a keepalive is not answered"):
                break
            if noise.chance(0.003):
                await self._too_much(agent, noise.pick(*HUGE))
        await agent.close()

    def _message(self, agent, avatar):
        noise = self._noise
        target = noise.pick(avatar, b"root", MIND, FIRST_BUILDER, noise.number(2**31), noise.text(), *agent.ports[-3:])
        match noise.random.randrange(8):
            case 0 if noise.chance(0.01):
                return [b"answer", noise.number(2**31), self._jelly()]
            case 1 if noise.chance(0.01):
                return [b"error", noise.number(2**31), self._jelly()]
            case 2 if noise.chance(0.03):
                return [noise.pick(b"decref", b"uncache", b"decache", b"version", b"didNotUnderstand", b"x"), noise.value()]
            case 3 | 4 if agent.ports:
                return message(noise.number(2**31), agent.ports[-1], b"update", jelly(self._updates()))
            case 5 if agent.ports:
                return message(noise.number(2**31), agent.ports[-1], b"complete", self._jelly())
            case _:
                args = [self._jelly() for _ in range(noise.random.randrange(3))]
                return message(noise.number(2**31), target, noise.random.choice(NAMES), *args, wants_answer=noise.pick(0, 1))

    def _updates(self):
        noise = self._noise
        values = ("text\n", 0, -1, ["name", "text"], noise.value())
        return [[{noise.pick(*KEYS): noise.random.choice(values)}, 0] for _ in range(noise.random.randrange(4))]

    def _jelly(self):
        noise = self._noise
        if noise.chance(0.7):
            return jelly(noise.value())
        number = noise.number(2**31)
        return noise.pick(
            [b"remote", number],
            [b"local", number],
            [b"reference", number, [b"list"]],
            [b"dereference", number],
            [b"class", b"os.system"],
            [b"module", b"os"],
            [b"function", b"os.system"],
            [b"method", b"system", [b"None"], [b"class", b"os.system"]],
            [b"instance", [b"class", b"twisted.spread.pb.CopiedFailure"], [b"dictionary"]],
            [b"twisted.spread.pb.CopiedFailure", [b"dictionary"]],
            [b"datetime", b"1 2 3"],
            [b"set", [b"dictionary"]],
            [b"lcache", number],
            [b"cached", number],
            [b"persistent", number],
            [b"unpersistable", b"x"],
            [b"unicode", b"\xff\xfe"],
            [b"dictionary", [number]],
            [b"decimal", 7, noise.number(1000)],
            [],
            [b"list", [b"tuple", [b"list"] * 50] * 5],
        )


MAPS = range(0x80, 0x90)
"""How a message begins, which is a small map."""


class _Told(MsgpackAgent):
    """Tells when an answer to `SYNC` came, or the connection is lost."""

    def __init__(self):
        super().__init__()
        self.synced = None
        self.commands = []
        self._busy = Deferred()

    def _message(self, payload):
        if not payload or payload[0] not in MAPS:
            return  # not a message: the answer to a ping, or the reason of an end
        self.asked.clear()
        super()._message(payload)
        (came,) = self.asked
        if came["op"] == "start_command":
            self.commands = [*self.commands[-3:], came["command_id"]]
            self._has_work()
            self.started(came["command_id"])
        if came["op"] == "response" and came["seq_number"] == SYNC:
            self._fire()

    def started(self, command_id):
        """A command is to be run."""

    def connectionLost(self, reason=None):
        super().connectionLost(reason)
        self._has_work()
        self._fire()

    async def until_busy(self):
        """It has a command to run; or for a while."""
        from twisted.internet import reactor

        with suppress(TimeoutError):
            await self._busy.addTimeout(0.5, reactor)

    def _has_work(self):
        if not self._busy.called:
            self._busy.callback(None)

    def _fire(self):
        synced, self.synced = self.synced, None
        if synced is not None:
            synced.callback(None)

    def sync(self):
        """Fires when all that was said has been looked at, or the connection is lost."""
        if self.gone:
            return succeed(None)
        synced = self.synced = Deferred()
        self.say({"op": "update", "seq_number": SYNC, "args": [], "command_id": "none"})
        return synced

    def until_lost(self):
        return Deferred.fromCoroutine(super().until_lost())

    async def until_open(self):
        """False when the login was refused."""
        while not (self.open or self.gone):
            await turn()
        return self.open


class ObedientMsgpack(_Told):
    """Every command succeeds at once."""

    def started(self, command_id):
        self.say({"op": "update", "seq_number": 9001, "args": [["rc", 0]], "command_id": command_id})
        self.say({"op": "complete", "seq_number": 9002, "args": None, "command_id": command_id})


async def msgpack_client(port, name, password, kind=_Told):
    agent = await connected(port, kind())
    agent.write(upgrade(basic(name, password)))
    return agent


class MsgpackFuzzer(TalkFuzzer):
    """The same over WebSockets."""

    async def _stranger(self):
        noise = self._noise
        raw = await connected(self._port)
        self.connections += 1
        self.frames += 1
        head = noise.pick(upgrade(), upgrade("Basic x"), upgrade(basic("stranger", noise.text())), b"")
        raw.write(noise.damaged(head) if noise.chance(0.7) else head + noise.data(500))
        if noise.chance(0.5):
            await turn()
        await raw.close()

    async def _agent(self, end):
        agent = await msgpack_client(self._port, *self._who)
        self.connections += 1
        if not await agent.until_open():
            self.frames += 1
            await agent.close()
            return
        noise = self._noise
        if noise.chance(0.8):
            await agent.until_busy()
        for _ in range(noise.random.randrange(1, 30)):
            if agent.gone or self.frames >= end:
                break
            agent.silent = noise.chance(0.05)
            batch = [frame(msgpack.packb(self._message(agent))) for _ in range(noise.random.randrange(1, 100))]
            if spoilt := noise.chance(0.05):
                batch.append(self._bad_frame(agent))
            self.frames += len(batch)
            agent.write(b"".join(batch))
            if spoilt:
                await self._spoilt(agent)
                break
            if noise.chance(0.02):
                break
            if not await self._soon(agent.sync(), "a message is not answered"):
                break
            if noise.chance(0.003):
                await self._too_much(agent, frame(msgpack.packb({"op": "update", "args": noise.pick(b"x", "x") * TOO_MUCH})))
        await agent.close()

    def _message(self, agent):
        """One that is well-formed, most often."""
        noise = self._noise
        command = noise.pick("none", *agent.commands) if noise.chance(0.9) else noise.value()
        number = noise.number() if noise.chance(0.997) else noise.value()
        match noise.random.randrange(40):
            case 0 if noise.chance(0.3):
                return {"op": noise.text(), "seq_number": number, "args": noise.value(), "command_id": command}
            case 1:
                return {"op": "complete", "seq_number": number, "args": noise.value(), "command_id": command}
            case 2 if noise.chance(0.1):
                return {"op": "response", "seq_number": number, "result": noise.value(), "is_exception": noise.value()}
            case 3 if noise.chance(0.05):
                return noise.value()
            case 4 if noise.chance(0.1):
                return {"op": "update", "seq_number": number, "args": noise.value(), "command_id": command}
            case 5 | 6:
                op = noise.pick("update_upload_file_write", "update_upload_directory_unpack", "update_read_file", "update_x")
                return {"op": op, "seq_number": number, "args": noise.value(), "command_id": command}
            case _:
                return {"op": "update", "seq_number": number, "args": self._updates(), "command_id": command}

    def _updates(self):
        noise = self._noise
        text = noise.text()
        good = [
            ["stdout", [text, [len(text)], [0.0]]],
            ["stderr", [text, noise.value(1), noise.value(1)]],
            ["log", ["name", [text, [0], [0.0]]]],
            ["header", [text]],
            ["elapsed", noise.value(1)],
            ["nonsense", noise.value()],
            ["failure_reason", text],
        ]
        if noise.chance(0.003):
            good += [[noise.pick(*KEYS), noise.value()], ["rc", noise.value(1)]]
        if noise.chance(0.1):
            good += [["rc", noise.pick(0, 0, 0, 1, -1, 2**31)]] * 3
        return [noise.random.choice(good) for _ in range(noise.random.randrange(4))]

    def _bad_frame(self, agent):
        noise = self._noise
        payload = msgpack.packb(self._message(agent))
        return noise.pick(
            frame(noise.damaged(payload)),
            noise.damaged(frame(payload)),
            frame(payload, opcode=noise.random.randrange(16)),
            frame(payload, final=False),
            frame(payload, length=noise.pick(2**16, 2**31, 2**63 - 1)),
            frame(b"\x91" * 100_000),
            frame(b"\xdf\xff\xff\xff\xff"),
            frame(b"{}", opcode=1),
            frame(struct.pack("!H", 1000), opcode=8),
            frame(b"ping", opcode=9) * 20,
        )


def turn():
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    return deferLater(reactor, 0.001)
