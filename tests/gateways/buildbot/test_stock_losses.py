"""Stock agents that go, fall silent, come back, come twice, or should not come at all."""

from __future__ import annotations

import asyncio
import random
import signal

import psutil
import pytest_twisted
from twisted.internet.defer import Deferred

from latent.model import BuildState, Result, RunStatus, StepStatus
from tests.gateways.buildbot.network import Network
from tests.gateways.buildbot.site import StockAgent, sleep, until


async def on(site, build):
    """Until an agent has begun the build: the run."""
    while True:
        runs = await site.runs(build)
        if runs and runs[-1].steps:
            return runs[-1]
        await sleep()


def gone(path):
    """Until the process whose pid is in the file has ended."""
    return until(lambda: not psutil.pid_exists(int(path.read_text())))


@pytest_twisted.ensureDeferred
async def test_an_agent_is_killed_while_it_builds(site, agent, tmp_path):
    """Its run is interrupted at once, and says why; the next agent carries the build out."""
    go = tmp_path / "go"
    build = await site.submit(f"test -e {go} || {{ echo $$ >{tmp_path}/pid; exec sleep 1000; }}")
    async with agent() as first:
        await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        await first.kill()
        await site.detached("plain")
    psutil.Process(int((tmp_path / "pid").read_text())).kill()  # nobody else does, now that its agent is dead
    go.touch()
    async with agent():
        done = await site.finished(build)
    lost, good = await site.runs(build)
    assert (done.result, done.attempts) == (Result.SUCCESS, 2)
    assert (lost.run.status, good.run.status) == (RunStatus.INTERRUPTED, RunStatus.COMPLETED)
    assert "connection to its agent" in lost.run.error_msg
    assert (lost.steps[0].status, bool(lost.steps[0].error)) == (StepStatus.KILLED, True)


@pytest_twisted.ensureDeferred
async def test_an_agent_stands_still_for_a_moment(site, agent, tmp_path):
    """Less than the keepalives allow: its build goes on."""
    go = tmp_path / "go"
    build = await site.submit(f"until [ -e {go} ]; do sleep 0.1; done")
    async with agent() as stock:
        await on(site, build)
        session = site.status("plain").session["id"]
        stock.tell(signal.SIGSTOP)
        await sleep(0.7)
        stock.tell(signal.SIGCONT)
        go.touch()
        assert (await site.finished(build)).attempts == 1
        assert site.status("plain").session["id"] == session


@pytest_twisted.ensureDeferred
async def test_an_agent_stands_still_for_long(site, agent, tmp_path):
    """It counts as dead after three keepalives. When it wakes up it ends what it ran, comes back, and gets the build again."""
    go = tmp_path / "go"
    build = await site.submit(f"test -e {go} || {{ echo $$ >{tmp_path}/pid; exec sleep 1000; }}")
    async with agent() as stock:
        await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        stock.tell(signal.SIGSTOP)
        await site.detached("plain")
        await site.ended(build)
        assert (await site.runs(build))[0].run.status is RunStatus.INTERRUPTED
        assert "was silent for 1.5 s" in (await site.runs(build))[0].run.error_msg
        go.touch()
        stock.tell(signal.SIGCONT)
        assert (await site.finished(build)).result is Result.SUCCESS
        await gone(tmp_path / "pid")
    assert [run.run.status for run in await site.runs(build)] == [RunStatus.INTERRUPTED, RunStatus.COMPLETED]


@pytest_twisted.ensureDeferred
async def test_an_agent_logs_in_twice(site, agent):
    """The second is refused while the first answers, does not end because of it, and takes over when the first has gone."""
    async with agent("first") as first:
        session = (await site.attached("plain"))["id"]
        async with agent("second") as second:
            await until(lambda: "unauthorized login" in second.log() or "401" in second.log())
            assert site.status("plain").session["id"] == session
            assert (await site.finished(await site.submit("true"))).result is Result.SUCCESS
            await first.kill()
            await until(lambda: (now := site.status("plain").session) and now["id"] != session)
            assert (await site.finished(await site.submit("true"))).result is Result.SUCCESS


@pytest_twisted.ensureDeferred
async def test_an_agent_comes_back_before_its_old_connection_is_known_to_be_dead(site, tmp_path, protocol):
    """The old connection does not answer, so it is replaced; what ran over it is tried again."""
    go = tmp_path / "go"
    build = await site.submit(f"test -e {go} || exec sleep 1000")
    async with Network(lambda: site.port(protocol)) as network:
        async with StockAgent(tmp_path / "first", network.port, protocol):
            await on(site, build)
            network.freeze()
            go.touch()
            async with StockAgent(tmp_path / "second", site.port(protocol), protocol):
                assert (await site.finished(build)).result is Result.SUCCESS
        runs = await site.runs(build)
    assert [run.run.status for run in runs] == [RunStatus.INTERRUPTED, RunStatus.COMPLETED]


@pytest_twisted.ensureDeferred
async def test_a_wrong_password(site, agent):
    """The agent is refused in the way that makes it try again; it does not end."""
    for changes in ({"password": "wrong"}, {"name": "stranger"}):
        async with agent(str(len(changes)) + next(iter(changes)), **changes) as stock:
            await until(lambda stock=stock: "unauthorized login" in stock.log() or "401" in stock.log())
            await sleep(0.3)
            assert stock.process.returncode is None
            assert site.status("plain").session is None


@pytest_twisted.ensureDeferred
async def test_the_controller_is_restarted(site, agent, tmp_path):
    """The agent comes back to the same port; what it ran is dead and is tried again, without waiting for a session to lapse."""
    go = tmp_path / "go"
    build = await site.submit(f"test -e {go} || {{ echo $$ >{tmp_path}/pid; exec sleep 1000; }}")
    async with agent():
        await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        await site.stop()
        go.touch()
        await site.start()
        done = await site.finished(build)
        await gone(tmp_path / "pid")
    runs = await site.runs(build)
    assert (done.result, len(runs)) == (Result.SUCCESS, 2)
    assert (runs[0].run.status, runs[1].run.status) == (RunStatus.INTERRUPTED, RunStatus.COMPLETED)


@pytest_twisted.ensureDeferred
async def test_builds_are_waited_for(site, agent, tmp_path):
    """A controller that stops, not fast, lets the build of a stock agent end."""
    go = tmp_path / "go"
    build = await site.submit(f"until [ -e {go} ]; do sleep 0.1; done; echo done")
    async with agent():
        await on(site, build)
        stopped = Deferred.fromCoroutine(site.stop(fast=False))
        await sleep(0.2)
        go.touch()
        await stopped
    await site.start()
    assert (await site.controller.build(build.id)).build.result is Result.SUCCESS


@pytest_twisted.ensureDeferred
async def test_an_agent_is_told_to_stop(site, tmp_path):
    """SIGHUP lets a PB agent ask to be let go: its build ends, it gets no more, and it is told to end."""
    go = tmp_path / "go"
    build = await site.submit(f"until [ -e {go} ]; do sleep 0.1; done")
    async with StockAgent(tmp_path / "agent", site.port("pb"), "pb") as stock:
        await on(site, build)
        stock.tell(signal.SIGHUP)
        await until(lambda: "shutdown after any running builds" in stock.log())
        later = await site.submit("true")
        go.touch()
        assert (await site.finished(build)).result is Result.SUCCESS
        await until(lambda: stock.process.returncode is not None)
        await site.detached("plain")
        assert (await site.controller.build(later.id)).build.state is BuildState.QUEUED


@pytest_twisted.ensureDeferred
async def test_a_hundred_builds_while_the_network_is_cut(site, tmp_path, protocol):
    """None is lost, none is done twice: each ends well once, and each run is one line in a file of what was done."""
    random.seed(1)
    written = tmp_path / "written"
    builds = []
    async with Network(lambda: site.port(protocol)) as network, StockAgent(tmp_path / "agent", network.port, protocol):
        await site.attached("plain")
        builds = [await site.submit(f"echo $LATENT_BUILD_ID/$LATENT_RUN_ID >>{written}; sleep 0.1") for _ in range(100)]
        ended = [site.finished(build) for build in builds]
        futures = [asyncio.ensure_future(as_future(one)) for one in ended]
        cuts = 0
        while not all(future.done() for future in futures):
            await sleep(random.uniform(0.5, 2))
            if cuts < 8:
                network.cut()
                cuts += 1
        results = [future.result() for future in futures]
    assert cuts == 8
    assert [done.result for done in results] == [Result.SUCCESS] * 100
    assert {done.attempts for done in results} <= set(range(1, 6))
    done = [line.split("/") for line in written.read_text().splitlines()]
    completed = {}
    interrupted = 0
    for build in builds:
        runs = await site.runs(build)
        good = [run for run in runs if run.run.status is RunStatus.COMPLETED]
        interrupted += len(runs) - 1
        assert len(good) == 1
        assert runs[-1] is good[0]
        completed[str(build.id)] = good[0].run.id
        # What a lost run had done before it was lost it may have written too, but no run writes twice.
    assert len({run for _, run in done}) == len(done)
    assert interrupted
    print(f"{len(builds)} builds, {cuts} cuts, {interrupted} runs interrupted, {len(done)} runs wrote")
    assert set(completed.items()) <= {(build, run) for build, run in done}


def as_future(coroutine):
    return Deferred.fromCoroutine(coroutine).asFuture(asyncio.get_event_loop())
