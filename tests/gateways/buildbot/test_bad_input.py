"""What comes over the wires and should not: each is refused, nothing breaks, and little memory is taken."""

from __future__ import annotations

import contextlib
import random

import msgpack
import psutil
import pytest
import pytest_twisted
from twisted.cred.error import UnauthorizedLogin
from twisted.spread import pb

from latent.gateways.buildbot import listener
from latent.gateways.buildbot.broker import answer
from latent.model import Result
from tests.gateways.buildbot.raw import (
    HELLO,
    Flood,
    Mind,
    PbAgent,
    banana_list,
    banana_string,
    basic,
    connected,
    frame,
    msgpack_agent,
    pb_message,
    upgrade,
)
from tests.gateways.buildbot.site import MSGPACK, PB, sleep, until

HUGE = 100 * 1024 * 1024
ROOM = 64 * 1024 * 1024
"""Bytes that the process may grow while it refuses something of 100 MB."""


@contextlib.contextmanager
def little_memory():
    process = psutil.Process()
    before = process.memory_info().rss
    yield
    assert process.memory_info().rss - before < ROOM


PB_GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: somebody who took the wrong port\r\n\r\n",
    "zeros": b"\0" * 1000,
    "long prefix": b"\1" * 100,
    "unknown type": HELLO + b"\1\x8f",
    "list too long": HELLO + banana_list(10_000_000),
    "string too long": HELLO + b"\x7f\x7f\x7f\x7f\x82",
    "empty list": HELLO + banana_list(0),
    "not a list": HELLO + banana_string(b"message"),
    "other dialect": banana_string(b"none") + banana_list(0),
    "unknown word": HELLO + b"\x7f\x87",
    "an answer to nothing": HELLO + banana_list(3) + banana_string(b"answer") + b"\1\x81" + b"\1\x81",
    "a decref of nothing": HELLO + banana_list(2) + banana_string(b"decref") + b"\1\x81",
    "wrong version": HELLO + banana_list(2) + banana_string(b"version") + b"\1\x81",
    "too few parts": HELLO + banana_list(2) + banana_string(b"message") + b"\1\x81",
    "deep": HELLO + banana_list(1) * 30_000 + banana_list(0),
}


@pytest.mark.parametrize("data", PB_GARBAGE.values(), ids=PB_GARBAGE)
@pytest_twisted.ensureDeferred
async def test_what_is_not_pb(site, data):
    """The connection is closed."""
    raw = await connected(site.port(PB))
    raw.write(data)
    await raw.until_lost()


MSGPACK_GARBAGE = {
    "no http": b"\1\2\3\r\n\r\n",
    "other method": b"POST / HTTP/1.1\r\nHost: x\r\n\r\n",
    "no websocket": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "no authorization": upgrade(),
    "other authorization": upgrade("Bearer x"),
    "no base64": upgrade("Basic ???"),
    "no colon": upgrade("Basic " + "cGxhaW4="),
    "no text": upgrade("Basic /////w=="),
    "wrong password": upgrade(basic("plain", "wrong")),
    "stranger": upgrade(basic("stranger", "plain-password")),
    "odd stranger": upgrade(basic("\u2028\0\u00e9", "\ud7ff")),
}


@pytest.mark.parametrize("data", MSGPACK_GARBAGE.values(), ids=MSGPACK_GARBAGE)
@pytest_twisted.ensureDeferred
async def test_what_is_no_login_over_msgpack(site, data):
    """It is answered with an HTTP status, and the connection is closed."""
    raw = await connected(site.port(MSGPACK))
    raw.write(data)
    await raw.until_lost()
    assert raw.received.startswith(b"HTTP/1.1 4")


@pytest_twisted.ensureDeferred
async def test_random_bytes(site, protocol):
    """Two hundred connections of noise, some in the middle of a login."""
    random.seed(3)
    heads = [b"", HELLO] if protocol == PB else [b"", upgrade(), upgrade(basic("plain", "wrong"))]
    for _ in range(200):
        raw = await connected(site.port(protocol))
        raw.write(random.choice(heads) + random.randbytes(random.randrange(300)))
        await sleep(0)
        await raw.close()
    await until(lambda: not site.assembly._gateways[protocol]._listener._connections)


@pytest_twisted.ensureDeferred
async def test_a_huge_login(site, protocol):
    """Somebody who has not logged in is cut off after a little."""
    raw = await connected(site.port(protocol))
    with little_memory():
        if protocol == PB:
            raw.write(HELLO + banana_list(100))
            raw.flood(HUGE, banana_string(b"x" * 1000))
        else:
            raw.write(b"GET / HTTP/1.1\r\nX: ")
            raw.flood(HUGE)
        await raw.until_lost()
    assert raw.sent < HUGE // 2


@pytest.mark.parametrize("filling", [b"\0\x80", banana_string(b"x" * 600_000), b"\1\x81"], ids=["lists", "strings", "numbers"])
@pytest_twisted.ensureDeferred
async def test_a_huge_message_of_a_pb_agent(site, filling):
    """One that has logged in is cut off too, later."""
    agent = PbAgent(site.port(PB))
    await agent.login()
    await site.attached("plain")
    with little_memory():
        transport = agent.factory._broker.transport
        transport.write(banana_list(600_000))
        agent.sent = 0
        Flood(agent, transport, HUGE, filling)
        await site.detached("plain")
    assert agent.sent < HUGE // 2
    await agent.close()


@pytest.mark.parametrize("fragments", [1, 1000], ids=["one frame", "fragments"])
@pytest_twisted.ensureDeferred
async def test_a_huge_message_of_a_msgpack_agent(site, fragments):
    """A frame of 100 MB, or a message of that size in many frames."""
    agent = await msgpack_agent(site.port(MSGPACK))
    await site.attached("plain")
    with little_memory():
        if fragments == 1:
            agent.write(frame(b"", length=HUGE))
            agent.flood(HUGE)
        else:
            piece = frame(b"x" * (HUGE // fragments), opcode=0, final=False)
            agent.write(frame(b"x", final=False))
            agent.flood(HUGE, piece)
        await agent.until_lost()
    assert agent.sent < HUGE // 2
    await site.detached("plain")


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        msgpack.packb([1, 2]),
        msgpack.packb({"op": "update"}),
        msgpack.packb({"op": 1, "seq_number": 1}),
        msgpack.packb({"op": "response", "seq_number": 10**9, "result": None}),
        msgpack.packb({"op": "update", "seq_number": 1, "args": 7, "command_id": "x"}),
        msgpack.packb({"op": "update", "seq_number": 1, "args": [["stdout", 7]], "command_id": "x"}),
        msgpack.packb({"op": "update", "seq_number": 1, "args": [["rc", "0"]], "command_id": "x"}),
        msgpack.packb({"op": "update", "seq_number": 1, "args": [[7, 7]], "command_id": "x"}),
        b"\x91" * 100_000,
        b"\xdf\xff\xff\xff\xff",
    ],
    ids=str,
)
@pytest_twisted.ensureDeferred
async def test_a_malformed_message_of_a_msgpack_agent(site, message):
    """The connection is closed, the session with it."""
    agent = await msgpack_agent(site.port(MSGPACK))
    await site.attached("plain")
    agent.write(frame(message))
    await agent.until_lost()
    await site.detached("plain")


@pytest_twisted.ensureDeferred
async def test_a_text_frame(site):
    """Messages are binary."""
    agent = await msgpack_agent(site.port(MSGPACK))
    await site.attached("plain")
    agent.write(frame(b"{}", opcode=1))
    await agent.until_lost()


@pytest_twisted.ensureDeferred
async def test_what_a_msgpack_agent_may_not_ask(site):
    """File transfers that nobody began and operations that nobody knows are answered with an error."""
    agent = await msgpack_agent(site.port(MSGPACK))
    await site.attached("plain")
    agent.say({"op": "update_upload_file_write", "seq_number": 1, "args": b"x", "command_id": "x"})
    agent.say({"op": "dance", "seq_number": 2})
    agent.say({"op": "complete", "seq_number": 3, "args": None, "command_id": "unknown"})
    answers = await until(lambda: [m for m in agent.asked if m["op"] == "response"][2:] and agent.asked)
    said = {m["seq_number"]: m.get("is_exception", False) for m in answers if m["op"] == "response"}
    assert said == {1: True, 2: True, 3: False}
    await agent.close()


@pytest.mark.parametrize("info", [None, 7, {}, {"basedir": 7}, {"basedir": ""}], ids=str)
@pytest_twisted.ensureDeferred
async def test_an_agent_that_does_not_describe_itself(site, info):
    """It is not taken."""
    agent = await msgpack_agent(site.port(MSGPACK), get_worker_info=info)
    await agent.until_lost()
    other = PbAgent(site.port(PB), mind=Mind(getWorkerInfo=info))
    with pytest.raises(pb.RemoteError) as refused:
        await other.login()
    assert b"Unauthorized" in refused.value.remoteType
    assert site.status("plain").session is None
    await other.close()


@pytest_twisted.ensureDeferred
async def test_secrets_are_not_kept(site):
    """An agent tells its whole environment; nobody is shown it."""
    agent = await msgpack_agent(site.port(MSGPACK))
    session = await site.attached("plain")
    assert session["info"]["version"] == "raw"
    assert "secret" not in repr(session)
    await agent.close()


@pytest.mark.parametrize(
    ("name", "password"), [("plain", "wrong"), ("stranger", "plain-password"), ("", ""), ("plain\0", "x"), (7, "x"), (None, "x")]
)
@pytest_twisted.ensureDeferred
async def test_a_pb_login_is_refused_as_agents_expect(site, name, password):
    """Whatever is wrong, UnauthorizedLogin is among the error's classes; and the connection stays for the agent to close."""
    agent = PbAgent(site.port(PB), name, password)
    assert (await agent.refusal()).check(UnauthorizedLogin)
    assert not agent.factory._broker.disconnected
    await agent.close()


@pytest_twisted.ensureDeferred
async def test_what_strangers_may_not_call(site):
    """Anonymous logins, second answers, methods that are not there: refused, without a traceback in the log."""
    agent = PbAgent(site.port(PB))
    root = await agent.root()
    for call in (("loginAnonymous", None), ("login",), ("no_such_thing", 1), ("__class__",)):
        with pytest.raises(pb.RemoteError):
            await root.callRemote(*call)
    challenge, challenger = await root.callRemote("login", "plain")
    with pytest.raises(pb.RemoteError):
        await root.callRemote("login", "plain")
    for response in ("text", 7, None):
        with pytest.raises(pb.RemoteError):
            await challenger.callRemote("respond", response, agent.mind)
    with pytest.raises(pb.RemoteError):
        await challenger.callRemote("respond", answer("plain-password", challenge), agent.mind)
    await agent.close()


@pytest_twisted.ensureDeferred
async def test_malformed_updates_of_a_pb_agent(site):
    """They are refused one by one; a build that goes on beside them ends well."""
    agent = PbAgent(site.port(PB))
    await agent.login()
    build = await site.submit("echo hello")
    clearing = await until(lambda: agent.mind.started[0:1])
    await clearing[0][0].callRemote("update", [[{"rc": 0}, 0]])
    await clearing[0][0].callRemote("complete", None)
    port, name, _ = (await until(lambda: agent.mind.started[1:2]))[0]
    assert name == "shell"
    for bad in (None, 7, [7], [[7, 0]], [[{7: 7}, 0]], [[{"stdout": 7}, 0]], [[{"rc": "0"}, 0]], [[]]):
        with pytest.raises(pb.RemoteError):
            await port.callRemote("update", bad)
    await port.callRemote("update", [[{"stdout": "hel"}, 0], [{"stdout": b"lo\n"}, 0]])
    await port.callRemote("update", [[{"header": "x\n", "elapsed": 1.0, "unknown": None}, 0]])
    # The exit code comes last, for once.
    await port.callRemote("complete", None)
    await port.callRemote("update", [[{"rc": 0}, 0]])
    assert (await site.finished(build)).result is Result.SUCCESS
    assert site.lines(await site.run_of(build)) == ["hello"]
    await agent.close()


@pytest_twisted.ensureDeferred
async def test_half_open_connections(site, protocol, monkeypatch):
    """Who connects and says nothing is let go after a while; others are served meanwhile."""
    monkeypatch.setattr(listener, "LOGIN_TIME", 1.0)
    quiet = [await connected(site.port(protocol)) for _ in range(20)]
    half = await connected(site.port(protocol))
    half.write(HELLO if protocol == PB else upgrade()[:-2])
    agent = PbAgent(site.port(PB))
    await agent.login()
    for raw in (*quiet, half):
        await raw.until_lost()
    assert site.status("plain").session
    await agent.close()


@pytest_twisted.ensureDeferred
async def test_too_many_strangers(site, protocol, monkeypatch):
    """More than a number of them are turned away at once; there is room again when they have gone."""
    monkeypatch.setattr(listener, "STRANGERS", 5)
    first = [await connected(site.port(protocol)) for _ in range(5)]
    await until(lambda: len(site.assembly._gateways[protocol]._listener._strangers) == 5)
    extra = await connected(site.port(protocol))
    await extra.until_lost()
    for raw in first:
        await raw.close()
    agent = PbAgent(site.port(PB))
    await agent.login()
    await agent.close()


@pytest_twisted.ensureDeferred
async def test_an_agent_that_stops_answering(site):
    """A connection that stays open and is silent is dead after three keepalives."""
    agent = await msgpack_agent(site.port(MSGPACK))
    await site.attached("plain")
    await until(lambda: "keepalive" in agent.ops())
    agent.silent = True
    await agent.until_lost()
    await site.detached("plain")


@pytest_twisted.ensureDeferred
async def test_an_agent_that_does_not_end_what_it_is_told_to(site, monkeypatch):
    """Its connection is closed, and its build is cancelled all the same."""
    from latent.gateways.buildbot import command

    monkeypatch.setattr(command, "INTERRUPT_GRACE", 0.5)
    agent = PbAgent(site.port(PB))
    await agent.login()
    build = await site.submit("true")
    port, _, _ = (await until(lambda: agent.mind.started[0:1]))[0]
    await port.callRemote("update", [[{"rc": 0}, 0]])
    await port.callRemote("complete", None)
    await until(lambda: agent.mind.started[1:2])
    await site.controller.cancel(build.id, "not wanted")
    assert (await site.finished(build)).result is Result.CANCELLED
    assert "interruptCommand" in agent.mind.calls
    await site.detached("plain")
    await agent.close()


@pytest_twisted.ensureDeferred
async def test_a_msgpack_agent_that_does_not_read(site):
    """It is not heard any more, so that answers to it don't pile up, and counts as dead soon."""
    agent = await msgpack_agent(site.port(MSGPACK))
    await site.attached("plain")
    agent.transport.pauseProducing()
    with little_memory():
        agent.flood(HUGE, frame(msgpack.packb({"op": "nonsense", "seq_number": 1})))
        await until(lambda: not site.status("plain").session or agent.sent >= HUGE)
    assert agent.sent < HUGE // 4
    agent.transport.resumeProducing()
    await agent.until_lost()


@pytest_twisted.ensureDeferred
async def test_a_pb_agent_that_does_not_read(site):
    """Nor is one heard over PB."""
    agent = PbAgent(site.port(PB))
    await agent.login()
    await site.attached("plain")
    transport = agent.factory._broker.transport
    transport.pauseProducing()
    agent.sent = 0
    with little_memory():
        Flood(agent, transport, HUGE, pb_message("root", "nonsense"))
        await until(lambda: not site.status("plain").session or agent.sent >= HUGE)
    assert agent.sent < HUGE // 4
    transport.resumeProducing()
    await agent.close()
