"""A latent worker whose agent is a Woodpecker agent: it enrols with its attempt's token, and is worth nothing afterwards."""

import sys
from pathlib import Path

import pytest_twisted

from latent.model import Attempt, BuildRequest, LeaseState, Result, Step, StepStatus
from tests.gateways.peer_fakes import on_loop, twisted
from tests.gateways.stock_agent import Code, StockAgent, refused
from tests.gateways.woodpecker.site import Site
from tests.gateways.woodpecker.test_rules import until

PROGRAM = Path(__file__).parent / "program.py"
MASTER = """
from latent.plugins import util, worker

command = [{python!r}, {program!r}]
c["workers"] = [worker.ProcessLatentWorker("w", command=command, max_builds=2, build_wait_timeout={wait})]
c["builders"] = [util.Builder("b", ["true"])]
c["protocols"] = {{"peer": {{"version": {version}}}}}
"""


@pytest_twisted.async_yield_fixture
async def site(tmp_path):
    site = Site(tmp_path, MASTER)
    yield site
    await site.stop()


async def begin(site, *, wait):
    site.configure(python=sys.executable, program=str(PROGRAM), wait=wait)
    await twisted(site.start())


async def built(site, *commands):
    steps = tuple(Step(name=f"s{n}", command=command) for n, command in enumerate(commands))
    build = await twisted(site.controller.submit(BuildRequest(builder="b", steps=steps)))
    return await twisted(site.controller.when_finished(build.id))


async def lines(site, build):
    details = await twisted(site.controller.build(build.id))
    found, _ = site.controller.store.logs.read(int(details.runs[-1].run.id))
    return [line.text for line in found if line.stream == "stdout"], details.runs[-1].steps


@on_loop
async def test_builds_on_an_instance(site):
    """Two builds on one instance: output, exit codes, a skipped step; then one that is cancelled."""
    await begin(site, wait=60)
    good = await built(site, "echo $LATENT_WORKER $LATENT_ATTEMPT", "mkdir x; echo done")
    said, _ = await lines(site, good)
    assert (good.result, said) == (Result.SUCCESS, ["w 1", "done"])
    bad = await built(site, "echo oh; exit 7", "true")
    said, steps = await lines(site, bad)
    assert (bad.result, said) == (Result.FAILURE, ["oh"])
    assert [step.status for step in steps] == [StepStatus.FAILURE, StepStatus.SKIPPED]
    slow = (Step(name="slow", command="sleep 1000"),)
    build = await twisted(site.controller.submit(BuildRequest(builder="b", steps=slow)))
    await until(lambda: active(site, build))
    await twisted(site.controller.cancel(build.id, "not wanted"))
    assert (await twisted(site.controller.when_finished(build.id))).result is Result.CANCELLED
    (status,) = site.controller.workers()
    assert (status.attempt, status.session["protocol"], status.session["info"]["version"]) == (1, "peer", "3.17.0")


@on_loop
async def test_a_zombie_does_not_harm_its_successor(site, tmp_path):
    """What knows the first attempt's token, number and access token can do nothing while the second is up."""
    await begin(site, wait=0)
    first = await built(site, "true")
    assert first.result is Result.SUCCESS
    await until(lambda: site.controller.workers()[0].state == "NOT_SUBSTANTIATED")
    token = site.controller.identity.enrolment(Attempt("w", 1)).agent_token
    go = tmp_path / "go"
    steps = (Step(name="s", command=f"while test ! -e {go}; do sleep 0.1; done"),)
    build = await twisted(site.controller.submit(BuildRequest(builder="b", steps=steps)))
    await until(lambda: active(site, build))
    run = str(site.controller.dispatcher.run_of_build(build.id).id)
    session = site.controller.dispatcher.sessions.of_worker("w")
    assert session.attempt == 2
    for agent_id in (-1, 1, session.id):
        async with StockAgent(site.port, token, agent_id=agent_id) as zombie:
            with refused(Code.UNAUTHENTICATED):
                await zombie.auth()
            zombie.access = site.assembly._gateways["peer"]._handlers._tokens.issue(1)
            with refused(Code.UNAUTHENTICATED):
                await zombie.next()
            with refused(Code.UNAUTHENTICATED):
                await zombie.done(run, started=1)
    go.touch()
    assert (await twisted(site.controller.when_finished(build.id))).result is Result.SUCCESS


def active(site, build):
    run = site.controller.dispatcher.run_of_build(build.id)
    return run is not None and run.state.lease is LeaseState.ACTIVE
