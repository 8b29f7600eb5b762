"""Stock agents that go, fall silent, come back, come twice, or should not come at all."""

from __future__ import annotations

import asyncio
import random
import signal

import psutil
import pytest_twisted
from twisted.internet.defer import Deferred

from latent.model import BuildState, Result, RunStatus, StepStatus
from tests.gateways.buildbot.site import StockAgent, sleep, until
from tests.gateways.network import Network


async def on(site, build):
    """Until an agent has begun the build: the run."""
    while True:
        runs = await site.runs(build)
        if runs and runs[-1].steps:
            return runs[-1]
        await sleep()


async def interrupted(site, build):
    """Until a run of the build is lost: the run."""
    while True:
        for run in await site.runs(build):
            if run.run.status is RunStatus.INTERRUPTED:
                return run
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
        lost = await interrupted(site, build)
        assert "was silent for 1.5 s" in lost.run.error_msg
        assert site.status("plain").session is None
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
async def test_a_hundred_builds_and_a_bad_network(site, tmp_path, protocol):
    """Connections are cut or fall silent, the agent stands still: no build is lost, none is carried out twice, or by two at once.

    Each run writes a line when it begins and one when it ends, and holds a lock of its build's in between.
    """
    dice = random.Random(1)  # the same troubles each time
    written = tmp_path / "written"
    me = "$LATENT_BUILD_ID/$LATENT_RUN_ID"
    step = (
        f"exec 9>{tmp_path}/lock-$LATENT_BUILD_ID; flock -n 9 || echo twice >>{written};"
        f" echo begin/{me} >>{written}; sleep 0.1; echo end/{me} >>{written}"
    )
    async with Network(lambda: site.port(protocol)) as network, StockAgent(tmp_path / "agent", network.port, protocol) as agent:
        await site.attached("plain")
        builds = [await site.submit(step) for _ in range(100)]
        futures = [asyncio.ensure_future(as_future(site.finished(build))) for build in builds]
        for trouble in (cut, silence, stand_still, stand_still_for_a_moment) * 2:
            await sleep(dice.uniform(0.5, 2))
            await trouble(network, agent)
            await site.attached("plain")
        results = [await Deferred.fromFuture(future) for future in futures]
    assert [done.result for done in results] == [Result.SUCCESS] * 100
    lines = [line.split("/") for line in written.read_text().splitlines()]
    begun = [tuple(ids) for what, *ids in lines if what == "begin"]
    ended = {tuple(ids) for what, *ids in lines if what == "end"}
    assert len(lines) == len(begun) + sum(what == "end" for what, *_ in lines)  # none was carried out by two at once
    assert len(set(begun)) == len(begun)
    lost = 0
    for build in builds:
        runs = await site.runs(build)
        # What a lost run had done before it was lost it may have written too.
        assert [run.run.status for run in runs] == [RunStatus.INTERRUPTED] * (len(runs) - 1) + [RunStatus.COMPLETED]
        assert (str(build.id), str(runs[-1].run.id)) in ended
        lost += len(runs) - 1
    assert lost
    print(f"{len(builds)} builds, {lost} runs lost, {len(begun)} begun, {len(ended)} ended")


async def cut(network, agent):
    network.cut()


async def silence(network, agent):
    """For longer than the keepalives allow; then both ends are told."""
    network.freeze()
    await sleep(2)
    network.cut()


async def stand_still(network, agent):
    agent.tell(signal.SIGSTOP)
    await sleep(2)
    agent.tell(signal.SIGCONT)


async def stand_still_for_a_moment(network, agent):
    agent.tell(signal.SIGSTOP)
    await sleep(0.7)
    agent.tell(signal.SIGCONT)


def as_future(coroutine):
    return Deferred.fromCoroutine(coroutine).asFuture(asyncio.get_event_loop())
