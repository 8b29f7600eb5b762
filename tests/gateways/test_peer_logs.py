"""The server's rules of the peer protocol over real gRPC on loopback: logs, and whatever is not as it should be."""

import pytest

from latent.errors import StoreError
from latent.wire import peer_pb2 as pb
from tests.gateways.peer_fakes import on_loop
from tests.gateways.stock_agent import Code, agent, refused

# --- logs ------------------------------------------------------------------------------------------------------------------


@on_loop
async def test_log_lines_arrive_as_they_were(gateway, world):
    """Text, stream, number and time of each line; bytes that are not text are replaced."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true", "true")
        await stock.next()
        await stock.init("1")
        entries = [
            pb.LogEntry(step_uuid="uuid-1-0", line=0, time=3, type=0, data=b"out\n"),
            pb.LogEntry(step_uuid="uuid-1-1", line=0, time=4, type=1, data="ärr".encode()),
            pb.LogEntry(step_uuid="uuid-1-0", line=1, time=5, type=3, data=b"\xff\xfe"),
        ]
        await stock.call("Log", pb.LogRequest(logEntries=entries))
        assert [(line.step_uuid, line.line, line.time, line.stream, line.text) for line in run.lines] == [
            ("uuid-1-0", 0, 3.0, "stdout", "out"),
            ("uuid-1-1", 0, 4.0, "stderr", "ärr"),
            ("uuid-1-0", 1, 5.0, "header", "\ufffd\ufffd"),
        ]


@on_loop
async def test_a_batch_sent_again_is_stored_once(gateway, world):
    """An agent that heard no answer sends its batch again."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        await stock.init("1")
        await stock.log("uuid-1-0", "a", "b")
        await stock.log("uuid-1-0", "a", "b", "c")
        assert run.texts() == ["a", "b", "c"]


@on_loop
async def test_a_batch_is_stored_as_far_as_it_is_ours(gateway, world):
    """Lines of unknown steps are refused, the others of the batch are kept."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        await stock.init("1")
        entries = [pb.LogEntry(step_uuid="nobody", data=b"x"), pb.LogEntry(step_uuid="uuid-1-0", data=b"y")]
        with refused(Code.NOT_FOUND, "nobody"):
            await stock.call("Log", pb.LogRequest(logEntries=entries))
        assert run.texts() == ["y"]


@on_loop
async def test_an_oversized_batch_is_refused_and_the_session_lives(gateway, world):
    """More than 4 MiB is RESOURCE_EXHAUSTED; 2 MiB, which a stock agent may send, is taken."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        await stock.init("1")
        with refused(Code.RESOURCE_EXHAUSTED):
            await stock.log("uuid-1-0", "x" * (5 * 1024 * 1024))
        await stock.log("uuid-1-0", "a" * (1024 * 1024), "b" * (1024 * 1024))
        assert [len(text) for text in run.texts()] == [1024 * 1024] * 2
        assert not world.sessions[1].closed


# --- what can go wrong -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Next", "Init", "Update", "Log", "RegisterAgent", "ReportHealth", "Done", "Wait"])
@on_loop
async def test_a_malformed_message_gets_a_clean_status(gateway, world, name):
    """Bytes that are no message are INVALID_ARGUMENT, and the session lives."""
    async with agent(gateway) as stock:
        await stock.attach()
        call = stock.channel.unary_unary(f"/proto.Woodpecker/{name}")
        with refused(Code.INVALID_ARGUMENT, "are not a proto."):
            await call(b"\x0a\xff\xff\xff", metadata=stock.metadata)
        await stock.call("ReportHealth", pb.ReportHealthRequest(status="I am alive!"))


@on_loop
async def test_a_malformed_auth_gets_a_clean_status(gateway, world):
    """Auth too is parsed with care."""
    async with agent(gateway) as stock:
        with refused(Code.INVALID_ARGUMENT):
            await stock.channel.unary_unary("/proto.WoodpeckerAuth/Auth")(b"\xff")


@on_loop
async def test_an_unknown_call_is_unimplemented(gateway, world):
    """A call of a later protocol says so."""
    async with agent(gateway) as stock:
        with refused(Code.UNIMPLEMENTED):
            await stock.channel.unary_unary("/proto.Woodpecker/Fetch")(b"")


@on_loop
async def test_a_store_that_can_not_write_means_try_again(gateway, world):
    """A full disk is UNAVAILABLE, with the store's words."""
    async with agent(gateway) as stock:
        await stock.attach()
        world.submit("true")
        await stock.next()
        world.failure = StoreError("the disk is full; free some space")
        with refused(Code.UNAVAILABLE, "disk is full"):
            await stock.init("1")
        world.failure = None
        await stock.init("1")


@on_loop
async def test_an_unforeseen_error_is_internal_and_says_little(gateway, world, flush_logged_errors):
    """What nobody foresaw is logged, not told."""
    async with agent(gateway) as stock:
        await stock.attach()
        world.submit("true")
        await stock.next()
        world.failure = ZeroDivisionError("secret")
        with refused(Code.INTERNAL, "its log says why"):
            await stock.init("1")
    assert [str(failure.value) for failure in flush_logged_errors(ZeroDivisionError)] == ["secret"]
