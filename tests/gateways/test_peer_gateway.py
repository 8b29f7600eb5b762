"""The gateway's own life: its port, its end, its return."""

import asyncio
import re

import grpc
import pytest

from latent.errors import ConfigError
from latent.wire import peer_pb2 as pb
from tests.gateways.peer_fakes import on_loop, twisted
from tests.gateways.stock_agent import StockAgent, answer


@on_loop
async def test_a_port_in_use_is_a_configuration_error(gateway, world):
    """The second one on a port is told which, why, and what to do."""
    second = world.gateway(bind=f"127.0.0.1:{gateway.port}")
    with pytest.raises(ConfigError, match=rf"127.0.0.1:{gateway.port} \(Address already in use\).*protocols"):
        await twisted(second.start())
    await twisted(second.stop())


@pytest.mark.parametrize("bind", ["nonsense", "127.0.0.1", "127.0.0.1:port", "127.0.0.1:70000", ":1", "no.such.host.invalid:1"])
@on_loop
async def test_an_address_that_is_none_is_a_configuration_error(world, bind):
    """Before anything is started."""
    with pytest.raises(ConfigError, match=re.escape(bind)):
        await twisted(world.gateway(bind=bind).start())


@on_loop
async def test_parked_calls_are_answered_at_once_when_it_stops(gateway, world):
    """Next and Wait are UNAVAILABLE, which means: try again; nothing is taken, nothing is cancelled."""
    async with StockAgent(gateway.port) as stock:
        await stock.attach(capacity=2)
        run = world.submit("true")
        await stock.next()
        await stock.init("1")
        calls = [asyncio.ensure_future(answer(call)) for call in (stock.next(), stock.wait("1"))]
        await world.until(lambda: run.waiting and world.parked)
        await twisted(gateway.stop(30))
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert run.waiting == []
        assert world.parked == []


@on_loop
async def test_a_session_outlives_the_gateway(gateway, world):
    """An access token is good for the next gateway too."""
    port = gateway.port
    async with StockAgent(port) as stock:
        await stock.attach()
        await twisted(gateway.stop(0))
        back = world.gateway(bind=f"127.0.0.1:{port}")
        await twisted(back.start())
        try:
            call = stock.call("ReportHealth", pb.ReportHealthRequest(status="I am alive!"), wait_for_ready=True, timeout=20)
            await call
        finally:
            await twisted(back.stop(0))


@on_loop
async def test_a_burst_of_calls_is_answered(gateway, world):
    """Two thousand calls at once, none refused."""
    async with StockAgent(gateway.port, "plain-password") as stock:
        await stock.attach()
        alive = pb.ReportHealthRequest(status="I am alive!")
        await asyncio.gather(*(answer(stock.call("ReportHealth", alive)) for _ in range(2000)))
