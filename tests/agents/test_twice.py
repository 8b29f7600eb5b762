"""Two agents that say that they are the same one. Buildbot's: `test_stock_losses.py`, `test_stock_latent.py` of that gateway."""

from __future__ import annotations

import grpc
import pytest_twisted

from latent.model import Result
from tests.gateways.bots.kit import MASTER, Site, Stepped, refused
from tests.gateways.bots.test_whole import token_of
from tests.gateways.peer_fakes import on_loop
from tests.gateways.stock_agent import StockAgent
from tests.gateways.stock_agent import refused as call_refused

Code = grpc.StatusCode


@pytest_twisted.async_yield_fixture
async def site(tmp_path):
    site = Site(tmp_path, MASTER.replace('"bots": {', '"peer": {}, "bots": {'))
    await site.start()
    yield site
    await site.stop()


def attached(site, worker="plain"):
    return site.controller.dispatcher.sessions.of_worker(worker)


@on_loop
async def test_peer_agents_of_an_attempt(site):
    """The second is told that the token is used; who says the first one's number is the first one, and has its session."""
    async with StockAgent(site.assembly.peer_port, await steps_token(site)) as first:
        await first.attach()
        known = attached(site, "steps")
        async with StockAgent(site.assembly.peer_port, first.token) as second:
            with call_refused(Code.UNAUTHENTICATED, "used already"):
                await second.auth()
        async with StockAgent(site.assembly.peer_port, first.token, agent_id=first.agent_id) as again:
            await again.attach()
            assert attached(site, "steps") is known
        await site.cancel(site.wanted)


async def steps_token(site):
    from latent.model import BuildRequest, Requirements, Step
    from tests.gateways.peer_fakes import twisted

    request = BuildRequest(
        builder="b", steps=(Step(name="s", command="true"),), requirements=Requirements(labels={"steps": "yes"})
    )
    site.wanted = await twisted(site.controller.submit(request))
    return await token_of(site, worker="steps")


@on_loop
async def test_peer_agents_of_a_plain_worker(site):
    """The newest is the worker's."""
    async with StockAgent(site.assembly.peer_port, "plain-password") as first:
        await first.attach()
        async with StockAgent(site.assembly.peer_port, "plain-password") as second:
            await second.attach()
            assert attached(site).id == second.agent_id != first.agent_id


@on_loop
async def test_bots(site):
    """The newest is the worker's, an attempt's too: the one before may have died. What that says then is refused."""
    build = await site.submit(labels={"lasting": "yes"})
    token = await token_of(site, worker="lasting")
    async with Stepped(site, bot_id="lasting", token=token) as first, Stepped(site, bot_id="lasting", token=token) as second:
        await first.create(timeout=10)
        await first.say(2).update()
        await second.create(timeout=10)
        with refused(Code.INVALID_ARGUMENT):
            await first.update()
        await second.say(2).update()
        await second.say(4).update()
        done = await site.finished(build)
    assert (done.result, done.attempts) == (Result.SUCCESS, 2)
