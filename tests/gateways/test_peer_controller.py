"""The gateway in front of the real sessions, dispatcher and store."""

import asyncio
import json

import pytest
import pytest_twisted

from latent.model import BuildRequest, Result, RunStatus, Step, StepStatus
from tests.agent.agents import Alive, running
from tests.gateways.peer_fakes import on_loop, twisted
from tests.gateways.site import Site
from tests.gateways.stock_agent import StockAgent

MASTER = """
from latent.plugins import util, worker

c["workers"] = [worker.Worker("plain", "plain-password")]
c["builders"] = [util.Builder("b", ["true"])]
"""


class OneWorker(Site):
    """A controller with one plain worker; ``port`` is where its agent finds it."""

    @property
    def port(self):
        return self.assembly.peer_port

    async def submit(self, *commands, **more):
        steps = tuple(Step(name=f"s{index}", command=command) for index, command in enumerate(commands))
        return await twisted(self.assembly.controller.submit(BuildRequest(builder="b", steps=steps, **more)))

    async def finished(self, build):
        return await twisted(self.assembly.controller.when_finished(build.id))

    async def run_of(self, build):
        details = await twisted(self.assembly.controller.build(build.id))
        return details.runs[-1]

    async def text(self, run):
        lines, _ = self.assembly.controller.store.logs.read(int(run.run.id))
        return [line.text for line in lines if line.stream == "stdout"]


@pytest_twisted.async_yield_fixture
async def site(tmp_path):
    site = OneWorker(tmp_path, MASTER)
    await site.start()
    yield site
    await site.stop()


@on_loop
async def test_our_agent_runs_a_build(site, tmp_path):
    """Result, steps and logs end up in the store."""
    build = await site.submit("echo one", "echo two; exit 3", "true")
    async with running(site, tmp_path / "work", token="plain-password"):
        done = await site.finished(build)
        run = await site.run_of(build)
    assert (done.result, run.run.status, run.run.exit_code) == (Result.FAILURE, RunStatus.FAILED, 3)
    assert [(step.name, step.status) for step in run.steps] == [
        ("s0", StepStatus.SUCCESS),
        ("s1", StepStatus.FAILURE),
        ("s2", StepStatus.SKIPPED),
    ]
    assert await site.text(run) == ["one", "two"]


@on_loop
async def test_a_stock_agent_runs_a_build(site):
    """Call by call as it makes them."""
    build = await site.submit("true")
    async with StockAgent(site.port, "plain-password") as stock:
        await stock.attach()
        workflow = (await stock.next()).workflow
        uuid = json.loads(workflow.payload)["pipeline"][0]["steps"][0]["uuid"]
        waiting = stock.wait(workflow.id)
        await stock.init(workflow.id)
        await stock.step(workflow.id, uuid)
        await stock.done(workflow.id)
        assert (await waiting).canceled is False
        await stock.log(uuid, "late")
        await stock.done(workflow.id)
        assert (await site.finished(build)).result is Result.SUCCESS
        run = await site.run_of(build)
    assert [(step.name, step.status) for step in run.steps] == [("s0", StepStatus.SUCCESS)]
    assert await site.text(run) == ["late"]


@on_loop
async def test_a_cancellation_reaches_our_agent(site, tmp_path):
    """From the controller to the process group and back."""
    alive = Alive(tmp_path)
    build = await site.submit(f"{alive.hold} sleep 1000")
    async with running(site, tmp_path / "work", token="plain-password"):
        await alive.begun()
        await twisted(site.assembly.controller.cancel(build.id, "not wanted"))
        assert (await site.finished(build)).result is Result.CANCELLED
        await alive.gone()


@on_loop
async def test_an_agent_that_is_stopped_gives_its_build_back(site, tmp_path):
    """The build is tried again by the next agent, and counts as two attempts."""
    alive = Alive(tmp_path)
    go = tmp_path / "go"
    build = await site.submit(f"test -e {go} || {{ {alive.hold} sleep 1000; }}")
    async with running(site, tmp_path / "work", token="plain-password"):
        await alive.begun()
    await alive.gone()
    go.touch()
    async with running(site, tmp_path / "work", token="plain-password"):
        done = await site.finished(build)
    assert (done.result, done.attempts) == (Result.SUCCESS, 2)


@pytest.mark.parametrize("token", ["wrong", ""])
@on_loop
async def test_a_wrong_token_is_refused(site, tmp_path, token):
    """The agent ends with code 3."""
    async with running(site, tmp_path / "work", token=token or "x") as task:
        await asyncio.wait([task])
    assert task.result() == 3
