"""Agents that fall silent, whatever they speak; docs/agents.md has the table that these tests fill."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted

from latent.agent.options import Options
from latent.config.settings import Limits
from latent.controller.sessions import HEARTBEATS, MISSED, SWEEP
from latent.gateways.bots.patience import due_in
from latent.gateways.buildbot.attendance import MISSED as PINGS_MISSED
from latent.model import Result, RunStatus
from latent.testing.harness import ControllerHarness
from tests.agents.site import BEAT, PROTOCOLS, SCRIPT, KeptUp, Site, start
from tests.controller.kit import obliging
from tests.gateways.buildbot.site import until
from tests.gateways.network import Network


@pytest_twisted.async_yield_fixture
async def site(tmp_path):
    site = Site(tmp_path)
    await site.start()
    yield site
    await site.stop()


@pytest.mark.parametrize("kind", PROTOCOLS)
@pytest_twisted.ensureDeferred
async def test_a_connection_that_is_only_half_open(site, tmp_path, kind):
    """The agent's machine is cut off and nobody is told: after three heartbeats the run is lost. When the network is back the
    agent is told so, ends what it ran, and has the build again: never twice at once."""
    places = {name: tmp_path / name for name in ("lock", "twice", "pid", "go")}
    async with Network(lambda: site.port(PROTOCOLS[kind])) as network:
        agent = KeptUp(lambda: start(kind, tmp_path / "agent", network.port))
        try:
            build = await site.ask(kind, SCRIPT.format(**places))
            await until(places["pid"].exists)
            pid = int(places["pid"].read_text())
            network.freeze()
            lost = await site.interrupted(build)
            assert f"its agent was silent for {3 * BEAT:g} s" in lost.error_msg
            places["go"].touch()
            network.cut()
            await agent.step_gone(pid)
            done = await site.carried_out(build, agent)
        finally:
            agent.end()
    assert done.result is Result.SUCCESS, agent.log
    assert [run.run.status for run in await site.runs(build)] == [RunStatus.INTERRUPTED, RunStatus.COMPLETED]
    assert not places["twice"].exists()
    assert len(agent.agents) <= 2, agent.log


def test_three_heartbeats_as_it_comes():
    """Whatever they speak, agents are missed when three heartbeats in a row are; who gives them more time gets more."""
    ours = Options(server="s:1", token="t", workdir=Path("w")).health
    busy_bot = due_in(600.0, min(Limits().session_timeout, Limits().lease_seconds))
    assert {"peer": ours, "bots": busy_bot} == HEARTBEATS
    assert (MISSED, PINGS_MISSED, Limits().session_timeout) == (3, 3, 60)


@pytest.mark.parametrize(("protocol", "patience"), [("peer", 30), ("bots", 30), ("in-process", 60)])
def test_silence_is_seen_in_time(tmp_path, protocol, patience):
    """A sweep after the third heartbeat its session is closed. After a restart it has longer: until it has been heard again."""
    with ControllerHarness(tmp_path, [obliging()]) as harness:
        build = harness.submit()
        harness.agent("w").attach()
        sessions = harness.controller.dispatcher.sessions
        known = sessions.of_worker("w")
        known.protocol = protocol
        assert sessions.patience(known) == patience
        harness.advance(patience - 1)
        assert not known.closed
        harness.advance(1 + SWEEP)
        assert f"silent for {patience} s" in known.close_reason
        harness.cancel(build)


def test_after_a_restart_agents_have_longer(tmp_path):
    """A stock agent whose controller was away tries again only now and then."""
    with ControllerHarness(tmp_path, [obliging()]) as harness:
        build = harness.submit()
        harness.agent("w").attach()
        harness.restart()
        (known,) = harness.controller.dispatcher.sessions
        known.protocol = "peer"
        harness.advance(59)
        assert not known.closed
        harness.controller.dispatcher.sessions.touch(known)
        assert harness.controller.dispatcher.sessions.patience(known) == 30
        harness.cancel(build)
