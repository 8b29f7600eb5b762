"""How requests are read: whole, by nobody whom the client's hanging up would end (Note [Whose read] in the server)."""

import asyncio

import grpc
import grpc.aio
import pytest

from latent.errors import ProtocolError
from latent.gateways.rpc.refusal import Refusal
from latent.gateways.rpc.server import Server, method, parsed
from latent.wire import calls
from latent.wire import peer_pb2 as pb
from tests.gateways.peer_fakes import on_loop, twisted


class Reading:
    """A call whose request has not come yet."""

    def __init__(self):
        self.request = asyncio.get_running_loop().create_future()
        self.begun = asyncio.Event()
        self.aborted = None

    async def read(self):
        self.begun.set()
        return await self.request

    async def abort(self, code, message, details):
        self.aborted = (code, message)
        raise asyncio.CancelledError


def refusal(error):
    assert isinstance(error, ProtocolError), error
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error))


async def answer(data, context):
    return parsed(calls.VERSION, data)


@on_loop
async def test_a_client_that_hangs_up_ends_no_read():
    """The call is over; the read that it had begun goes on to its own end."""
    context = Reading()
    call = asyncio.ensure_future(method(answer, refusal).stream_unary(None, context))
    await context.begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not context.request.cancelled()
    context.request.set_result(grpc.aio.EOF)


@on_loop
async def test_a_read_that_fails_after_the_client_hung_up():
    """Nobody is told."""
    context = Reading()
    call = asyncio.ensure_future(method(answer, refusal).stream_unary(None, context))
    await context.begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    context.request.set_exception(ValueError("the server is gone"))
    await asyncio.sleep(0)


@on_loop
async def test_calls_given_up_at_once_leave_no_task():
    """However early a client hangs up, the read ends with the call; the next call is answered."""
    server = Server("peer", "127.0.0.1:0")
    await twisted(server.start({calls.VERSION: method(answer, refusal)}))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.unary_unary(calls.VERSION.path)
        await call(b"")
        before = asyncio.all_tasks()
        for _ in range(100):
            given_up = call(b"")
            await asyncio.sleep(0)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
        assert await call(pb.Empty().SerializeToString()) == b""
        while left := [task for task in asyncio.all_tasks() - before if "read" in repr(task.get_coro())]:
            await asyncio.wait(left)
    await twisted(server.stop(0))


@on_loop
async def test_a_call_without_a_request():
    """It is refused, and not left without an answer."""
    server = Server("peer", "127.0.0.1:0")
    await twisted(server.start({calls.VERSION: method(answer, refusal)}))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="without a request") as refused:
            await channel.stream_unary(calls.VERSION.path)(iter(()))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await twisted(server.stop(0))
