"""Latent workers whose agents are stock ones: each attempt has its password, and a stale agent stays outside."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import psutil
import pytest
import pytest_twisted
from twisted.cred.error import UnauthorizedLogin

from latent.core import events as ev
from latent.model import Result, RunStatus
from tests.e2e.site import Site as Processes
from tests.gateways.buildbot.raw import PbAgent
from tests.gateways.buildbot.site import PB, Site, until

EXAMPLE = Path(__file__).parents[3] / "examples" / "buildbot-worker"


def configured(folder, protocol, monkeypatch):
    """The example's master.cfg with another protocol."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    shutil.copy(EXAMPLE / "buildbot.tac", folder)
    master = (EXAMPLE / "master.cfg").read_text()
    assert '{"pb": {}}' in master
    return master.replace('{"pb": {}}', f'{{"{protocol}": {{"keepalive_interval": 0.5}}}}')


@pytest_twisted.async_yield_fixture
async def latent_site(tmp_path, protocol, monkeypatch):
    site = Site(tmp_path, configured(tmp_path, protocol, monkeypatch))
    await site.start()
    yield site
    await site.stop()


@pytest_twisted.ensureDeferred
async def test_the_example(latent_site):
    """Builds run on instances that are started for them, and the instances are gone afterwards."""
    site = latent_site
    builds = [await site.submit("echo $LATENT_WORKER/$LATENT_ATTEMPT; env") for _ in range(4)]
    for build in builds:
        assert (await site.finished(build)).result is Result.SUCCESS
    lines = [site.lines(await site.run_of(build)) for build in builds]
    assert {found[0] for found in lines} <= {"stock-1/1", "stock-2/1"}
    assert not [line for found in lines for line in found if line.startswith(("WORKERPASS=", "LATENT_TOKEN="))]
    await site.stop(fast=False)
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(site.folder) in " ".join(p.info["cmdline"] or [])]


@pytest_twisted.ensureDeferred
async def test_an_agent_that_dies_with_its_instance(latent_site):
    """The build is carried out by another attempt."""
    site = latent_site
    go = site.folder / "go"
    pid = site.folder / "pid"
    build = await site.submit(f"test -e {go} || {{ echo $PPID $$ >{pid}; exec sleep 1000; }}")
    await until(lambda: pid.exists() and pid.read_text())
    agent, step = map(int, pid.read_text().split())
    go.touch()
    psutil.Process(agent).kill()
    psutil.Process(step).kill()
    done = await site.finished(build)
    assert (done.result, [run.run.status for run in await site.runs(build)]) == (
        Result.SUCCESS,
        [RunStatus.INTERRUPTED, RunStatus.COMPLETED],
    )


def test_the_controller_is_killed_over_its_instances(tmp_path, protocol, monkeypatch):
    """The instance is adopted and its agent comes back with the same password; the build that it ran is tried again on it."""
    site = Processes(tmp_path, configured(tmp_path, protocol, monkeypatch).replace("from latent.plugins import util, worker", ""))
    go, pid = tmp_path / "go", tmp_path / "pid"
    try:
        site.latent("start")
        build = site.submit(f"test -e {go} || {{ echo $$ >{pid}; exec sleep 1000; }}; echo $LATENT_WORKER/$LATENT_ATTEMPT")
        site.wait("the step", lambda: pid.exists() and pid.read_text())
        site.kill_controller()
        go.touch()
        site.latent("start")
        site.wait_for_all()
        assert site.build(build)["result"] == "success"
        assert "stock-1/1" in site.latent("logs", str(build)).splitlines()
        site.wait("the end of the step", lambda: not psutil.pid_exists(int(pid.read_text())))
    finally:
        site.end()


@pytest.mark.parametrize("protocol", [PB], indirect=True)
@pytest_twisted.ensureDeferred
async def test_stale_agents_and_wrong_ones(latent_site):
    """The password of an attempt that is over, of another worker, or of one whose agent is there opens nothing."""
    site = latent_site
    for worker in ("stock-1", "stock-2"):
        assert (await site.finished(await site.submit("true", worker=worker))).result is Result.SUCCESS
    identity = site.controller.identity
    tokens = {}
    for post in site.controller.roster.latent():
        tokens[post.name] = identity.agent_token(post.attempt)
    for name, password in (("stock-1", tokens["stock-1"]), ("stock-1", tokens["stock-2"]), ("stock-2", "x")):
        await refused(site, name, password)
    post = site.controller.roster.get("stock-1")
    post.apply(ev.Insubstantiate("the test says so"))
    await site.detached("stock-1")
    await refused(site, "stock-1", tokens["stock-1"])
    assert (await site.finished(await site.submit("true", worker="stock-1"))).result is Result.SUCCESS
    await refused(site, "stock-1", tokens["stock-1"])


async def refused(site, name, password):
    agent = PbAgent(site.port(PB), name, password)
    assert (await agent.refusal()).check(UnauthorizedLogin)
    await agent.close()
