"""What stays open: followed logs, long polls whose client goes away, and the service's own end."""

from __future__ import annotations

import socket as stdlib_socket
from contextlib import closing

import httpx
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred as as_deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from latent.model import Result, RunStatus
from latent.web.follow import LOOK_AGAIN, Follower, Outlet, within
from latent.web.service import ApiService
from tests.web.fake_controller import FakeController
from tests.web.serving import until


class Reader(Protocol):
    """A raw client; ``seen`` is what came."""

    def __init__(self):
        self.seen = bytearray()
        self.lost = False

    def dataReceived(self, data):
        self.seen += data

    def connectionLost(self, reason):
        self.lost = True


async def ask(world, path):
    """A raw connection that has sent a GET."""
    reader = await connectProtocol(UNIXClientEndpoint(reactor, world.service.address.socket), Reader())
    reader.transport.write(f"GET /api/v1{path} HTTP/1.1\r\nHost: latent\r\nAuthorization: Bearer made-up\r\n\r\n".encode())
    return reader


@ensureDeferred
async def test_a_followed_log_goes_on_through_a_retry(world):
    """Following shows each line as it comes, says when another run takes over, and ends with the build."""
    controller = world.controller
    controller.store()
    reader = await ask(world, "/builds/1/logs?follow=1")
    await until(lambda: b"200 OK" in reader.seen)
    first = controller.start_run(1)
    controller.log_line(first, "from the first")
    await until(lambda: b"from the first" in reader.seen)
    controller.end_run(1, RunStatus.INTERRUPTED)
    second = controller.start_run(1, worker="linux-2", attempt=4)
    controller.log_line(second, "from the second")
    await until(lambda: b"from the second" in reader.seen)
    assert f"run {second} on linux-2#4 takes over".encode() in reader.seen
    controller.finish(1, Result.SUCCESS)
    await until(lambda: reader.seen.endswith(b"0\r\n\r\n"))
    reader.transport.loseConnection()
    await until(lambda: reader.lost)


@pytest.mark.parametrize("path", ["/builds/1?wait=600", "/builds/1/logs?follow=1", "/builds/1/logs?follow=1&run=100"])
@ensureDeferred
async def test_what_a_client_waits_for_is_cancelled_when_it_goes_away(world, path):
    """Nothing waits on for a client that has left."""
    controller = world.controller
    controller.store()
    controller.start_run(1)
    reader = await ask(world, path)
    await until(lambda: controller.waiting or controller.listening)
    reader.transport.abortConnection()
    await until(lambda: reader.lost and not controller.waiting and not controller.listening)
    assert controller.cancelled_waits >= 1


@ensureDeferred
async def test_a_slow_reader_holds_the_log_back(world):
    """A client that does not read stops the log from being read, and gets all of it when it reads again."""
    controller = world.controller
    controller.store()
    run = controller.start_run(1)
    asked = []
    plain = controller.log

    async def counted(build_id, run_id, offset):
        asked.append(offset)
        return await plain(build_id, run_id, offset)

    controller.log = counted
    for _ in range(1500):
        controller.log_line(run, "x" * 10_000)
    controller.finish(1, Result.SUCCESS)
    reader = await connectProtocol(UNIXClientEndpoint(reactor, world.service.address.socket), Reader())
    reader.transport.pauseProducing()
    reader.transport.write(b"GET /api/v1/builds/1/logs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer made-up\r\n\r\n")
    await until(lambda: asked)
    for _ in range(20):
        await until(iter([False, False, True]).__next__)
    assert len(asked) < 10
    reader.transport.resumeProducing()
    await until(lambda: reader.seen.endswith(b"0\r\n\r\n"))
    assert reader.seen.count(b"x" * 10_000) == 1500
    reader.transport.abortConnection()
    await until(lambda: reader.lost)


@ensureDeferred
async def test_stopping_the_service_closes_its_connections(world):
    """A stop ends idle connections and long polls, and removes the socket and its record."""
    controller = world.controller
    controller.store()
    polling = await ask(world, "/builds/1?wait=600")
    await until(lambda: controller.waiting)
    socket = world.service.address.socket
    assert (world.state_dir / "api.json").exists()
    await world.service.stop()
    await until(lambda: polling.lost and not controller.waiting)
    assert not (world.state_dir / "api.json").exists()
    with closing(stdlib_socket.socket(stdlib_socket.AF_UNIX)) as client, pytest.raises(OSError, match="No such file"):
        client.connect(socket)


@ensureDeferred
async def test_tcp_answers_as_the_socket_does(world):
    """The TCP listener serves the same API under the same token."""

    def get(token):
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.get(f"{world.service.address.url}/api/v1/workers", headers=headers, trust_env=False)

    assert (await deferToThread(get, "made-up")).json() == {"workers": [], "machines": []}
    assert (await deferToThread(get, "other")).status_code == 401


def test_the_next_run_is_looked_for_until_the_build_is_finished():
    """A queued build's log waits for its run, looking again from time to time, and leaves no timer behind."""
    clock, controller, seen = Clock(), FakeController(), []
    controller.store()

    async def write(run_id, lines):
        seen.extend((run_id, line.text) for line in lines)

    async def go():
        await Follower(controller, clock, 1, write).all(await controller.build(1))

    done = as_deferred(go())
    clock.advance(LOOK_AGAIN)
    run = controller.start_run(1)
    controller.log_line(run, "a")
    clock.advance(LOOK_AGAIN)
    assert seen == [(run, "a")]
    controller.finish(1, Result.SUCCESS)
    assert done.called
    assert clock.getDelayedCalls() == []
    assert controller.waiting == controller.listening == []


def test_waiting_a_while_does_not_cancel_what_it_waits_for():
    """`within` gives up in time, and cancelling it leaves no timer."""
    clock, controller = Clock(), FakeController()
    controller.store()
    waiting = controller.when_finished(1)
    first = as_deferred(within(waiting, 5, clock))
    clock.advance(5)
    assert first.result is False
    assert controller.waiting
    second = as_deferred(within(waiting, 5, clock))
    second.addErrback(lambda _: None)
    second.cancel()
    assert clock.getDelayedCalls() == []


def test_an_outlet_waits_for_its_client():
    """A paused client is waited for; to one that is lost nothing is written."""

    class Request:
        written = b""

        def registerProducer(self, producer, streaming):
            self.producer = producer

        def unregisterProducer(self):
            self.producer = None

        def write(self, data):
            self.written += data

    request = Request()
    with Outlet(request) as outlet:
        outlet.pauseProducing()
        writing = as_deferred(outlet.write(b"a"))
        assert not writing.called
        outlet.resumeProducing()
        assert writing.called
        outlet.stopProducing()
        as_deferred(outlet.write(b"b"))
    assert request.written == b"a"
    assert request.producer is outlet  # a lost connection has forgotten its producer itself


@ensureDeferred
async def test_a_port_in_use_leaves_nothing_open(world):
    """A service that can't have its port says so and leaves no socket behind."""
    port = int(world.service.address.url.rpartition(":")[2])
    other = ApiService(
        FakeController(),
        socket_path=world.state_dir.with_name("other") / "api.sock",
        tcp=("127.0.0.1", port),
        token="made-up",
        reactor=reactor,
        reconfigure=world.reconfigure,
        stop=world.stopped.append,
    )
    with pytest.raises(CannotListenError):
        await other.start()
    assert other.address is None
    assert list(world.state_dir.with_name("other").iterdir()) == []
