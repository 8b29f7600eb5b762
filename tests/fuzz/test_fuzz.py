"""Agents that say anything: nothing breaks, and those that behave well are served. `benchmarks.fuzz` does it for longer."""

import asyncio

import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from latent.cli.assembly import Assembly
from latent.model import BuildRequest, Requirements, Result, Step
from tests.fuzz.buildbot import MsgpackFuzzer, PbFuzzer, turn
from tests.fuzz.noise import Noise
from tests.fuzz.peer import PeerFuzzer
from tests.fuzz.site import MASTER, password
from tests.fuzz.well import WellPeer, well_msgpack, well_pb

MSGPACK = "msgpack_experimental_v7"
SOME = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


class Site:
    """A controller and the three agents that behave well."""

    def __init__(self, folder):
        self.folder = folder

    async def start(self):
        from twisted.internet import reactor

        (self.folder / "master.cfg").write_text(MASTER)
        self.assembly = Assembly(self.folder / "master.cfg", self.folder / "state", reactor=reactor, ended=lambda: None)
        await self.assembly.start()
        self.peer = WellPeer(self.assembly.port("peer"), password("well-peer"))
        await on_loop(self.peer.start())
        self.pb = await well_pb(self.assembly.port("pb"), "well-pb", password("well-pb"))
        self.msgpack = await well_msgpack(self.assembly.port(MSGPACK), "well-msgpack", password("well-msgpack"))
        while None in (sessions := self._sessions()).values():
            await turn()
        self.sessions = sessions

    async def stop(self):
        assert await on_loop(self.peer.stop()) == []
        await self.pb.close()
        await self.msgpack.close()
        await self.assembly.stop(fast=True)

    def _sessions(self):
        found = {worker.name: worker.session for worker in self.assembly.controller.workers()}
        return {name: found[name] and found[name]["id"] for name in ("well-peer", "well-pb", "well-msgpack")}

    async def submit(self, worker):
        request = BuildRequest(
            builder="b", steps=(Step(name="s", command="true"),), requirements=Requirements(workers=frozenset({worker}))
        )
        return await self.assembly.controller.submit(request)

    async def is_well(self):
        """Every agent that behaves well has its session still, and carries out a build."""
        for worker in ("well-peer", "well-pb", "well-msgpack"):
            build = await self.submit(worker)
            done = await self.assembly.controller.when_finished(build.id)
            assert (done.result, done.attempts) == (Result.SUCCESS, 1)
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


async def peer(site, seed, frames):
    fuzzer = PeerFuzzer(site.assembly.port("peer"), password("fuzz-peer"), Noise(seed))
    try:
        await on_loop(fuzzer.play(frames))
    finally:
        await on_loop(fuzzer.close())
    return fuzzer


async def pb(site, seed, frames):
    fuzzer = PbFuzzer(site.assembly.port("pb"), "fuzz-pb", password("fuzz-pb"), Noise(seed))
    await fuzzer.play(frames)
    return fuzzer


async def msgpack(site, seed, frames):
    fuzzer = MsgpackFuzzer(site.assembly.port(MSGPACK), "fuzz-msgpack", password("fuzz-msgpack"), Noise(seed))
    await fuzzer.play(frames)
    return fuzzer


async def fuzz(site, worker, play, seed):
    for _ in range(3):
        await site.submit(worker)
    fuzzer = await play(site, seed, 200)
    assert fuzzer.broken == []
    await site.is_well()


@SOME
@given(seed=st.integers(0, 2**32))
@pytest_twisted.ensureDeferred
async def test_peer(site, seed):
    """No call ends in an error of ours, nothing is logged as one, and the agents that behave well are not disturbed."""
    await fuzz(site, "fuzz-peer", peer, seed)


@SOME
@given(seed=st.integers(0, 2**32))
@pytest_twisted.ensureDeferred
async def test_pb(site, seed):
    """Nothing is logged as an error, and the agents that behave well are not disturbed."""
    await fuzz(site, "fuzz-pb", pb, seed)


@SOME
@given(seed=st.integers(0, 2**32))
@pytest_twisted.ensureDeferred
async def test_msgpack(site, seed):
    """The same."""
    await fuzz(site, "fuzz-msgpack", msgpack, seed)
