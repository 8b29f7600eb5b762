"""Agents that behave well beside those that don't: their builds and their sessions are not to notice anything."""

import asyncio

from latent.wire import peer_pb2 as pb
from tests.fuzz.banana import Obedient, client
from tests.fuzz.buildbot import ObedientMsgpack, msgpack_client
from tests.gateways.stock_agent import StockAgent


class WellPeer:
    """Takes builds one after the other; each succeeds."""

    def __init__(self, port, password):
        self._agent = StockAgent(port, password)
        self._working = None

    async def start(self):
        await self._agent.attach()
        self._working = [asyncio.ensure_future(work) for work in (self._work(), self._live())]

    async def stop(self):
        for task in self._working:
            task.cancel()
        ended = await asyncio.gather(*self._working, return_exceptions=True)
        await self._agent.__aexit__()
        return [error for error in ended if not isinstance(error, asyncio.CancelledError)]

    async def _work(self):
        while True:
            workflow = (await self._agent.next()).workflow
            if workflow.id:
                await self._agent.init(workflow.id)
                await self._agent.step(workflow.id, f"{workflow.id}.0")
                await self._agent.log(f"{workflow.id}.0", "well")
                await self._agent.done(workflow.id)

    async def _live(self):
        while True:
            await self._agent.call("ReportHealth", pb.ReportHealthRequest(status="I am alive!"))
            await asyncio.sleep(5)


async def well_pb(port, name, password):
    agent = await client(port, Obedient)
    assert await agent.login(name, password) is not None
    return agent


async def well_msgpack(port, name, password):
    agent = await msgpack_client(port, name, password, ObedientMsgpack)
    assert await agent.until_open()
    return agent
