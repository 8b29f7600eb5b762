"""Agents that behave well beside those that don't: their builds and their sessions are not to notice anything."""

import asyncio

from twisted.internet.defer import Deferred

from latent.wire import peer_pb2 as pb
from tests.fuzz.banana import Obedient, client
from tests.fuzz.buildbot import ObedientMsgpack, msgpack_client
from tests.fuzz.site import WELL, password
from tests.gateways.bots.client import Bot
from tests.gateways.stock_agent import StockAgent

MSGPACK = "msgpack_experimental_v7"


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


class Well:
    """One on each gateway. ``ports`` by protocol."""

    def __init__(self, ports):
        self._ports = ports

    async def start(self):
        """To be awaited in asyncio."""
        self._peer = WellPeer(self._ports["peer"], password(WELL["peer"]))
        await self._peer.start()
        self._pb = await future(client(self._ports["pb"], Obedient))
        assert await future(self._pb.login(WELL["pb"], password(WELL["pb"]))) is not None
        self._msgpack = await future(
            msgpack_client(self._ports[MSGPACK], WELL[MSGPACK], password(WELL[MSGPACK]), ObedientMsgpack)
        )
        assert await future(self._msgpack.until_open())
        self._bot = Bot(self._ports["bots"], _work, bot_id=WELL["bots"], token=password(WELL["bots"]))
        await self._bot.__aenter__()
        await self._bot.attached.wait()

    async def stop(self):
        """What went wrong with them."""
        found = await self._peer.stop()
        found += ["its connection was lost" for agent in (self._pb, self._msgpack) if agent.gone]
        found += [self._bot.ended] if self._bot.ended else []
        await self._bot.die()
        await future(self._pb.close())
        await future(self._msgpack.close())
        return found


async def _work(lease):
    return "type.googleapis.com/some.Result", b"y"


def future(awaited):
    """What Twisted's side does, awaited from asyncio."""
    return Deferred.fromCoroutine(awaited).asFuture(asyncio.get_running_loop())
