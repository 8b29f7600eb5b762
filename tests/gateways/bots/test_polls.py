"""Calls that wait for work."""

import asyncio

import grpc
import pytest

from latent.gateways.bots.errors import DuplicateBotSessionError
from latent.model import BuildState
from tests.gateways.bots.client import ACTIVE, CANCELLED, COMPLETED, PENDING, UNHEALTHY
from tests.gateways.bots.kit import Stepped, refused
from tests.gateways.peer_fakes import on_loop, twisted

Code = grpc.StatusCode


async def parked(site, name="plain", instance=""):
    """The bot's call waits for work."""
    while not any(bot.poll and bot.session.worker == name for bot in site.gateway.instances[instance]._bots.values()):
        await asyncio.sleep(0.005)


@on_loop
async def test_a_call_waits_for_work(site):
    """Answered as soon as there is some."""
    async with Stepped(site) as bot:
        await bot.create()
        waiting = asyncio.ensure_future(bot.update(timeout=100))
        await parked(site)
        await site.submit(b"late")
        assert (await waiting).leases[0].payload.value == b"late"


@on_loop
async def test_a_call_without_a_deadline_waits_too(site):
    """For so long as is good for it."""
    async with Stepped(site) as bot:
        await bot.create()
        waiting = asyncio.ensure_future(bot.update(timeout=None))
        await parked(site)
        await site.submit()
        assert len((await waiting).leases) == 1


@on_loop
async def test_a_call_waits_for_less_than_it_has(site):
    """It is answered in time without a lease, not cut off; one that would have to wait for less than 3 s does not."""
    async with Stepped(site) as bot:
        await bot.create()
        long = asyncio.ensure_future(bot.update(timeout=4))
        await parked(site)
        assert not (await long).leases
        short = site.bots.update_bot_session(_copied(bot.session), None, 3.0)
        site.bots.job_assignment_interval = 600.0
        assert not (await short)[0].leases


@on_loop
async def test_a_client_that_hangs_up_takes_nothing(site):
    """The build goes to who asks next."""
    async with Stepped(site) as gone, Stepped(site, bot_id="second:second-password") as bot:
        await gone.create()
        call = gone.wire.update(gone.session, 100)
        await parked(site)
        call.cancel()
        while site.bots._bots[gone.session.name].poll:
            await asyncio.sleep(0.005)
        gone_session = next(session for session in site.controller.sessions if session.worker == "plain")
        assert not gone_session.parked
        gone_session.asks_until = 0.0
        build = await site.submit()
        assert (await site.build(build)).state is BuildState.QUEUED
        assert len((await bot.create(timeout=10)).leases) == 1


@on_loop
async def test_a_bot_that_does_not_ask_gets_nothing(site):
    """Its lease would lie about, while others could have it."""
    async with Stepped(site, status=UNHEALTHY) as bot:
        await bot.create()
        build = await site.submit()
        await twisted(site.controller.scheduler.when_planned())
        assert "not asking" in (await twisted(site.controller.build(build.id))).why


@on_loop
async def test_a_second_call_takes_the_place_of_the_first(site):
    """Which is answered ABORTED; a bot does so to report what it has done."""
    async with Stepped(site) as bot:
        await bot.create()
        first = bot.wire.update(bot.session, 100)
        waiting = asyncio.ensure_future(_answer(first))
        await parked(site)
        await bot.update()
        with refused(Code.ABORTED, "another call"):
            await waiting


@on_loop
async def test_calls_that_overtake_one_another_leave_one(site):
    """The newest, whichever of them is through with its leases first; what the others said is done."""
    build = await site.submit()
    async with Stepped(site, bot_id="wide:wide-password", capacity=3) as bot:
        await bot.create()
        bot.lease.state = ACTIVE
        calls = [asyncio.ensure_future(site.bots.update_bot_session(_copied(bot.session), None, 100.0)) for _ in range(2)]
        await parked(site, "wide")
        with pytest.raises(DuplicateBotSessionError):
            await calls[0]
        (session,) = site.controller.sessions
        assert len(session.parked) == 1
        await site.submit(b"next")
        assert len((await calls[1])[0].leases) == 2
    assert (await site.build(build)).attempts == 1


async def _answer(call):
    return await call


@on_loop
async def test_a_new_session_ends_the_old_ones_call(site):
    """With a status that says that it is closed."""
    async with Stepped(site) as old, Stepped(site) as bot:
        await old.create()
        waiting = asyncio.ensure_future(old.update(timeout=100))
        await parked(site)
        await bot.create()
        with refused(Code.INVALID_ARGUMENT, "closed"):
            await waiting


@on_loop
async def test_calls_that_wait_are_let_go_when_the_controller_stops(site):
    """UNAVAILABLE, which means again."""
    async with Stepped(site) as bot:
        await bot.create()
        waiting = asyncio.ensure_future(bot.update(timeout=100))
        await parked(site)
        await twisted(site.stop())
        with refused(Code.UNAVAILABLE):
            await waiting


@on_loop
async def test_a_bot_that_waits_hears_of_a_cancellation(site):
    """Of a lease that it works on, while it waits for another."""
    build = await site.submit()
    async with Stepped(site, bot_id="wide:wide-password", capacity=2) as bot:
        await bot.create()
        await bot.say(ACTIVE).update()
        waiting = asyncio.ensure_future(bot.update(timeout=100))
        await parked(site, "wide")
        await site.cancel(build)
        answer = await waiting
        assert [lease.state for lease in answer.leases] == [CANCELLED]
        await bot.say(CANCELLED, 1).update()
    await site.finished(build)


@on_loop
async def test_a_bot_that_waits_is_alive(site):
    """Its session and its leases are renewed; when its machine is said to be gone, it is asked to show itself."""
    await site.submit()
    async with Stepped(site, bot_id="wide:wide-password", capacity=2) as bot:
        await bot.create()
        await bot.say(ACTIVE).update()
        waiting = asyncio.ensure_future(bot.update(timeout=100))
        await parked(site, "wide")
        (session,) = site.controller.sessions
        (run,) = site.controller.dispatcher.live()
        session.last_seen, before = 0.0, run.state.expires
        site.bots._pulse.cancel()
        site.bots._beat()
        assert session.last_seen > 0
        assert run.state.expires > before
        site.controller.sessions.suspect(session.key, "it does not answer")
        site.bots._pulse.cancel()
        site.bots._beat()
        assert [lease.state for lease in (await waiting).leases] == [ACTIVE]
        await bot.say(COMPLETED).update()
        assert not session.suspected


@on_loop
async def test_a_lease_that_was_answered_to_nobody_is_sent_again(site):
    """The call was cut off just when it was answered."""
    async with Stepped(site) as bot:
        await bot.create()
        await site.submit()
        await site.bots.update_bot_session(_copied(bot.session), None, 10.0)
        assert (await bot.update()).leases[0].state == PENDING


@on_loop
async def test_a_bot_with_a_new_lease_is_not_kept_waiting_for_another(site):
    """Its call is answered with what there is; it was given to a call that was cut off, for example."""
    async with Stepped(site, bot_id="wide:wide-password", capacity=3) as bot:
        await bot.create()
        await site.submit()
        await site.bots.update_bot_session(_copied(bot.session), None, 10.0)
        begun = asyncio.get_running_loop().time()
        assert [lease.state for lease in (await bot.update(timeout=200)).leases] == [PENDING]
        assert asyncio.get_running_loop().time() - begun < 100


@on_loop
async def test_a_call_that_is_cut_off_while_it_is_answered_loses_nothing(site):
    """The lease is the bot's from the moment that it is given; the next call has it."""
    async with Stepped(site, bot_id="wide:wide-password", capacity=2) as bot:
        await bot.create()
        call = asyncio.ensure_future(site.bots.update_bot_session(_copied(bot.session), None, 100.0))
        await parked(site, "wide")
        (known,) = site.bots._bots.values()
        known.poll._deferred.addCallback(lambda _: call.cancel())
        await site.submit()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert [lease.state for lease in (await bot.update(timeout=200)).leases] == [PENDING]


def _copied(session):
    from latent.wire import bots_pb2 as pb

    return pb.BotSession.FromString(session.SerializeToString())


@on_loop
async def test_a_bot_that_begins_is_not_kept_waiting_for_another(site):
    """Stock bots begin when the call in which they say so has been answered."""
    async with Stepped(site, bot_id="wide:wide-password", capacity=3) as bot:
        await bot.create()
        await site.submit()
        await bot.update()
        async with asyncio.timeout(12):  # one that waits for another is kept for 16
            assert [lease.state for lease in (await bot.say(ACTIVE).update(timeout=200)).leases] == [ACTIVE]
        waiting = asyncio.ensure_future(bot.update(timeout=200))
        await parked(site, "wide")
        await site.submit()
        assert sorted(lease.state for lease in (await waiting).leases) == [PENDING, ACTIVE]
