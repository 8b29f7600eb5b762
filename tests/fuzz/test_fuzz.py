"""Agents that say anything: nothing breaks, and those that behave well are served. `benchmarks.fuzz` does it for longer."""

import asyncio

import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from latent.cli.assembly import Assembly
from latent.model import Result
from tests.fuzz.bots import BotsFuzzer
from tests.fuzz.buildbot import MsgpackFuzzer, PbFuzzer, turn
from tests.fuzz.noise import Noise
from tests.fuzz.peer import PeerFuzzer
from tests.fuzz.site import MASTER, WELL, fuzzed, password, request
from tests.fuzz.well import MSGPACK, Well

CALLERS = {"peer": PeerFuzzer, "bots": BotsFuzzer}
TALKERS = {"pb": PbFuzzer, MSGPACK: MsgpackFuzzer}
SOME = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


class Site:
    """A controller and the agents that behave well."""

    def __init__(self, folder):
        self.folder = folder

    async def start(self):
        from twisted.internet import reactor

        (self.folder / "master.cfg").write_text(MASTER)
        self.assembly = Assembly(self.folder / "master.cfg", self.folder / "state", reactor=reactor, ended=lambda: None)
        await self.assembly.start()
        self.well = Well({protocol: self.port(protocol) for protocol in WELL})
        await on_loop(self.well.start())
        while None in (sessions := self._sessions()).values():
            await turn()
        self.sessions = sessions

    async def stop(self):
        assert await on_loop(self.well.stop()) == []
        await self.assembly.stop(fast=True)

    def port(self, protocol):
        return self.assembly.port(protocol)

    def _sessions(self):
        found = {worker.name: worker.session for worker in self.assembly.controller.workers()}
        return {name: found[name] and found[name]["id"] for name in WELL.values()}

    async def is_well(self):
        """Every agent that behaves well has its session still, and carries out a build."""
        builds = [await self.assembly.controller.submit(request(worker)) for worker in WELL.values()]
        for build in builds:
            done = await self.assembly.controller.when_finished(build.id)
            assert (done.result, done.attempts) == (Result.SUCCESS, 1), done.reason
        assert self._sessions() == self.sessions


def on_loop(coroutine):
    return Deferred.fromFuture(asyncio.ensure_future(coroutine))


@pytest_twisted.async_yield_fixture
async def site(tmp_path):
    site = Site(tmp_path)
    try:
        await site.start()
    except BaseException:
        await site.assembly.stop(fast=True)
        raise
    yield site
    await site.stop()


async def fuzz(site, protocol, seed):
    worker, noise = fuzzed(protocol), Noise(seed)
    for _ in range(3):
        await site.assembly.controller.submit(request(worker))
    if protocol in CALLERS:
        fuzzer = CALLERS[protocol](site.port(protocol), password(worker), noise)
        try:
            await on_loop(fuzzer.play(200))
        finally:
            await on_loop(fuzzer.close())
    else:
        fuzzer = TALKERS[protocol](site.port(protocol), worker, password(worker), noise)
        await fuzzer.play(200)
    assert fuzzer.broken == []
    await site.is_well()


@SOME
@given(seed=st.integers(0, 2**32))
@pytest_twisted.ensureDeferred
async def test_peer(site, seed):
    """No call ends in an error of ours, nothing is logged as one, and the agents that behave well are not disturbed."""
    await fuzz(site, "peer", seed)


@SOME
@given(seed=st.integers(0, 2**32))
@pytest_twisted.ensureDeferred
async def test_pb(site, seed):
    """Nothing is logged as an error, and the agents that behave well are not disturbed."""
    await fuzz(site, "pb", seed)


@SOME
@given(seed=st.integers(0, 2**32))
@pytest_twisted.ensureDeferred
async def test_msgpack(site, seed):
    """The same."""
    await fuzz(site, MSGPACK, seed)


@SOME
@given(seed=st.integers(0, 2**32))
@pytest_twisted.ensureDeferred
async def test_bots(site, seed):
    """As for peer."""
    await fuzz(site, "bots", seed)
