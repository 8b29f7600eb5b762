"""Bots as a whole: of latent workers, over restarts, beside one another."""

import asyncio
import contextlib
from collections import Counter

import grpc
import pytest

from latent.model import Payload, Result
from tests.gateways.bots.client import ACTIVE, COMPLETED, PENDING, Bot
from tests.gateways.bots.kit import TYPE, Stepped, refused
from tests.gateways.peer_fakes import on_loop, twisted

Code = grpc.StatusCode

CLOUD = {"cloud": "yes"}


async def until(ready):
    while not (found := ready()):
        await asyncio.sleep(0.005)
    return found


async def token_of(site, attempt=1, worker="cloud"):
    plugin = site.plugin(worker)
    await until(lambda: len(getattr(plugin, "tokens", ())) >= attempt)
    return plugin.tokens[attempt - 1]


async def echo(lease):
    return (TYPE, lease.payload.value[::-1])


@pytest.mark.parametrize("how", ["metadata", "bot_id", "bare"])
@on_loop
async def test_a_latent_workers_bot_shows_the_attempts_token(site, how):
    """As metadata, or as its bot_id; the instance is started for the build, and stopped after it."""
    build = await site.submit(b"abc", labels=CLOUD)
    token = await token_of(site)
    shown = {
        "metadata": {"bot_id": "host-1", "token": token},
        "bot_id": {"bot_id": f"cloud:{token}"},
        "bare": {"bot_id": token},
    }
    async with Bot(site.port, echo, **shown[how]):
        assert (await site.finished(build)).result is Result.SUCCESS
    assert await site.answer(build) == Payload(TYPE, b"cba")
    await until(lambda: site.plugin("cloud").up == 0)
    environment = site.plugin("cloud").environment
    assert environment == {
        "LATENT_BOTS_SERVER": f"127.0.0.1:{site.port}",
        "LATENT_BOTS_INSTANCE": "",
        "LATENT_BOT_TOKEN": token,
        "LATENT_WORKER": "cloud",
    }


@on_loop
async def test_the_bot_of_an_earlier_attempt_does_no_harm(site):
    """Neither its token nor its session is worth anything once the next attempt is there."""
    first = await site.submit(labels=CLOUD)
    token = await token_of(site)
    async with Stepped(site, bot_id="cloud", token=token) as zombie:
        await zombie.create(timeout=10)
        await zombie.say(COMPLETED).update()
        await site.finished(first)
        await until(lambda: site.plugin("cloud").up == 0)
        second = await site.submit(labels=CLOUD)
        async with Stepped(site, bot_id="cloud", token=await token_of(site, 2)) as bot:
            await bot.create(timeout=10)
            await bot.say(ACTIVE).update()
            with refused(Code.INVALID_ARGUMENT):
                await zombie.update()
            with refused(Code.UNAUTHENTICATED, "which is over"):
                await zombie.create()
            with refused(Code.UNAUTHENTICATED):
                await zombie.wire.create(bot.session)
            await bot.update()
            await bot.say(COMPLETED).update()
        assert (await site.finished(second)).attempts == 1


@on_loop
async def test_a_bot_that_starts_anew_has_the_same_token(site):
    """Its process died and was started again in the same instance: what it had is tried again."""
    build = await site.submit(labels={"lasting": "yes"})
    token = await token_of(site, worker="lasting")
    async with Stepped(site, bot_id="host", token=token) as bot:
        await bot.create(timeout=10)
        await bot.say(ACTIVE).update()
        bot.session.name = ""
        await bot.create(timeout=10)
        await bot.say(ACTIVE).update()
        await bot.say(COMPLETED).update()
    assert (await site.finished(build)).attempts == 2


@on_loop
async def test_a_latent_worker_says_that_it_has_a_bot(site):
    """The bot of one that does not is refused: it would be started for steps, and could run none."""
    from latent.model import BuildRequest, Requirements, Step

    steps = Requirements(labels={"steps": "yes"})
    request = BuildRequest(builder="b", steps=(Step(name="s", command="true"),), requirements=steps)
    build = await twisted(site.controller.submit(request))
    plugin = site.plugin("steps")
    await until(lambda: getattr(plugin, "tokens", ()))
    async with Stepped(site, bot_id="steps", token=plugin.tokens[0]) as bot:
        with refused(Code.UNAUTHENTICATED, "not declared to have a bot"):
            await bot.create()
    await site.cancel(build)
    await site.finished(build)


@on_loop
async def test_a_restart_is_not_noticed(site):
    """The session, its name and the lease that is worked on are there again."""
    build = await site.submit(b"before")
    async with Stepped(site) as bot:
        await bot.create()
        await bot.say(ACTIVE).update()
        await twisted(_crash(site))
        assert (site.bots.count_bots(), site.bots.count_bots_by_status(0)) == (1, 1)
        await until(lambda: bot.wire.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY)
        await bot.update()
        assert (bot.lease.state, bot.lease.payload.value) == (ACTIVE, b"before")
        stolen = bot.session.bot_id
        bot.session.bot_id = "another"
        with refused(Code.INVALID_ARGUMENT, "another bot's"):
            await bot.update()
        bot.session.bot_id = stolen
        await bot.say(COMPLETED, result=("t", b"v")).update()
        done = await site.finished(build)
        assert (done.result, done.attempts) == (Result.SUCCESS, 1)
        await site.submit(b"after")
        assert (await bot.update(timeout=10)).leases[0].state == PENDING


async def _crash(site):
    """The controller goes without a word to anybody, and comes back on the same state."""
    old, site.assembly = site.assembly, None
    old.controller.dispatcher.stop()
    old.controller.scheduler.stop()
    old.controller.leaks.stop()
    old.controller.reaper.stop()
    old.controller._housekeeping.stop()
    await old._close()
    await site.start()


@on_loop
async def test_many_bots_and_many_builds(site):
    """Each build is carried out once, by a bot that has what it needs, though bots die."""
    counts = Counter()

    async def work(lease):
        counts[lease.payload.value] += 1
        await asyncio.sleep(0.001)
        return await echo(lease)

    builds = [await site.submit(b"%d" % n, labels={"n": str(n % 2)}) for n in range(60)]
    async with contextlib.AsyncExitStack() as stack:
        for name, capacity, offered in (("plain", None, "0"), ("second", None, "1"), ("wide", 3, ["0", "1"])):
            bot = Bot(site.port, work, bot_id=f"{name}:{name}-password", capacity=capacity, n=offered)
            await stack.enter_async_context(bot)
        done = [await site.finished(build) for build in builds]
        answers = [await site.answer(build) for build in builds]
    assert {one.result for one in done} == {Result.SUCCESS}
    assert {one.attempts for one in done} == {1}
    assert [one.value for one in answers] == [(b"%d" % n)[::-1] for n in range(60)]
    assert set(counts.values()) == {1}


@on_loop
async def test_a_whole_bot_is_cancelled_and_terminated(site):
    """It stops what it does, goes on with the next, and leaves when it is told to."""
    begun = asyncio.Event()

    async def work(lease):
        if lease.payload.value == b"endless":
            begun.set()
            await asyncio.Event().wait()
        return await echo(lease)

    endless, short = await site.submit(b"endless"), await site.submit(b"short")
    async with Bot(site.port, work, bot_id="wide:wide-password", capacity=2) as bot:
        await begun.wait()
        assert (await site.finished(short)).result is Result.SUCCESS
        await site.cancel(endless)
        assert (await site.finished(endless)).result is Result.CANCELLED
        await bot.terminate()
    assert site.bots.count_bots() == 0
