"""The server's rules of specs/peer.md that need the real controller: what is accepted when, labels, room, pausing, identity."""

import asyncio
import json

import grpc
import pytest
import pytest_twisted
from attrs import evolve

from latent.model import BuildRequest, BuildState, Requirements, Result, Step
from latent.wire import peer_pb2 as pb
from tests.gateways.peer_fakes import on_loop, twisted
from tests.gateways.stock_agent import Code, StockAgent, answer, refused
from tests.gateways.woodpecker.site import Site

MASTER = """
from latent.plugins import util, worker

c["workers"] = [
    worker.Worker("one", "password-one", max_builds=3, labels={{"disk": "ssd", "server": "yes"}}),
    worker.Worker("two", "password-two"),
]
c["builders"] = [util.Builder("b", ["true"])]
c["protocols"] = {{"peer": {{"version": {version}}}}}
"""

OK = None
DENIED = Code.PERMISSION_DENIED


@pytest_twisted.async_yield_fixture
async def site(tmp_path):
    site = Site(tmp_path, MASTER)
    site.configure()
    await site.start()
    yield site
    await site.stop()


async def submit(site, *, labels=None, worker=None, steps=("true", "true"), **more):
    named = tuple(Step(name=f"s{n}", command=command) for n, command in enumerate(steps))
    requirements = Requirements(labels=labels or {}, workers=None if worker is None else frozenset({worker}))
    return await twisted(site.controller.submit(BuildRequest(builder="b", steps=named, requirements=requirements, **more)))


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def lapse(site, run):
    """Its lease was not renewed in time."""
    dispatcher = site.controller.dispatcher
    live = dispatcher.get(int(run))
    live.state = evolve(live.state, expires=0.0)
    dispatcher._tick(live)


async def why(site, build):
    return (await twisted(site.controller.build(build.id))).why


# --- what is accepted when ---------------------------------------------------------------------------------------------------

PHASES = ("offered", "running", "cancelling", "done", "lost", "foreign", "unknown")

ANSWERS = {
    "Init": (OK, OK, OK, DENIED, DENIED, DENIED, DENIED),
    "Extend": (OK, OK, OK, DENIED, DENIED, DENIED, DENIED),
    "Wait": ("parks", "parks", True, False, DENIED, DENIED, False),
    "Update begins": (OK, OK, OK, DENIED, DENIED, DENIED, DENIED),
    "Update ends": (OK, OK, OK, OK, OK, DENIED, DENIED),
    "Log": (OK, OK, OK, OK, OK, DENIED, DENIED),
    "Done": (OK, OK, OK, OK, DENIED, DENIED, DENIED),
}
"""For each call what it is answered with in each phase of the run."""


async def run_in(site, phase, stock, other):
    """A build in this phase: it, the number of its run, and the uuid of its second step."""
    if phase == "unknown":
        return None, "999", "999.1"
    agent = other if phase == "foreign" else stock
    build = await submit(site, worker="two" if phase == "foreign" else "one")
    workflow = (await agent.next()).workflow
    if phase != "offered":
        await agent.init(workflow.id)
    if phase == "cancelling":
        await twisted(site.controller.cancel(build.id, "not wanted"))
    if phase == "done":
        await agent.done(workflow.id)
    if phase == "lost":
        lapse(site, workflow.id)
    return build, workflow.id, json.loads(workflow.payload)["pipeline"][1]["steps"][0]["uuid"]


async def clear(site, agent, build, run):
    """See that nobody has the build any more."""
    await twisted(site.controller.cancel(build.id, "tested"))
    if site.controller.dispatcher.get(int(run)) is not None:
        await agent.done(run, started=1)
    if (live := site.controller.dispatcher.run_of_build(build.id)) is not None:
        lapse(site, live.id)
    await twisted(site.controller.when_finished(build.id))


async def say(stock, call, run, uuid):
    match call:
        case "Init":
            await stock.init(run)
        case "Wait":
            return await wait(stock, run)
        case "Update begins":
            await stock.update(run, uuid, started=1)
        case "Update ends":
            await stock.update(run, uuid, started=1, finished=2, exited=True)
        case "Log":
            await stock.log(uuid, "a line")
        case "Done":
            await stock.done(run, started=1)
        case "Extend":
            await stock.call("Extend", pb.ExtendRequest(id=run))
    return None


async def wait(stock, run):
    waiting = asyncio.ensure_future(answer(stock.wait(run)))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    if done:
        return waiting.result().canceled
    waiting.cancel()
    await asyncio.wait([waiting])
    return "parks"


@pytest.mark.parametrize("phase", PHASES)
@on_loop
async def test_what_is_accepted_in_which_phase_of_a_run(site, phase):
    """Each call in each phase: accepted, or refused with the one status."""
    async with StockAgent(site.port, "password-one") as stock, StockAgent(site.port, "password-two") as other:
        await stock.attach()
        await other.attach()
        found = {}
        for call in ANSWERS:
            build, run, uuid = await run_in(site, phase, stock, other)
            try:
                found[call] = await say(stock, call, run, uuid)
            except grpc.aio.AioRpcError as error:
                found[call] = error.code()
            if build is not None:
                await clear(site, other if phase == "foreign" else stock, build, run)
        assert found == {call: answers[PHASES.index(phase)] for call, answers in ANSWERS.items()}


@on_loop
async def test_a_batch_six_minutes_after_the_end_is_refused(site):
    """Five are allowed; also an agent that kept its session through a restart of the controller is told so."""
    async with StockAgent(site.port, "password-one") as stock:
        await stock.attach()
        _, _, uuid = await run_in(site, "done", stock, None)
        await stock.log(uuid, "in time")
        aftermath = site.controller.dispatcher.aftermath
        aftermath._clock = Later(aftermath._clock, 360)
        aftermath._sweep()
        with refused(DENIED, "over"):
            await stock.log(uuid, "too late", first=1)


class Later:
    def __init__(self, clock, seconds):
        self._clock = clock
        self._ahead = seconds

    def seconds(self):
        return self._clock.seconds() + self._ahead

    def __getattr__(self, name):
        return getattr(self._clock, name)


@on_loop
async def test_a_build_whose_lease_lapsed_goes_before_all_that_wait(site):
    """Back to the front of the queue."""
    async with StockAgent(site.port, "password-one") as stock:
        await stock.attach()
        first = await submit(site)
        run = (await stock.next()).workflow.id
        await stock.init(run)
        await submit(site)
        lapse(site, run)
        workflow = (await stock.next()).workflow
        assert json.loads(workflow.payload)["latent"]["build_id"] == first.id


# --- labels ------------------------------------------------------------------------------------------------------------------


async def offers(site, stock, **labels):
    """Attach, with what the agent says of itself in its filter."""
    await stock.attach(capacity=3)
    parked = stock.call("Next", pb.NextRequest(filter=pb.Filter(labels={k.replace("not_", "!"): v for k, v in labels.items()})))
    await until(lambda: any(session.parked for session in site.controller.sessions))
    return parked


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        ({}, True),
        ({"os": "linux"}, True),
        ({"os": "bsd"}, False),
        ({"repo": "whatever"}, True),
        ({"gpu": "x"}, False),
        ({"gpu": ""}, True),
        ({"os": "linux", "repo": "r", "cpu": "8"}, False),
        ({"disk": "ssd"}, True),
        ({"disk": "tape"}, False),
    ],
    ids=str,
)
@on_loop
async def test_labels(site, wanted, taken):
    """Exact, any for `*`, all of them; an empty value says nothing; what is declared overrides what the agent says (disk)."""
    async with StockAgent(site.port, "password-one") as stock:
        parked = await offers(site, stock, os="linux", repo="*", disk="tape", empty="")
        build = await submit(site, labels=wanted)
        if taken:
            assert (await parked).workflow.id
        else:
            assert "is not offered" in await why(site, build)
            assert not parked.done()
            parked.cancel()


@on_loop
async def test_a_label_that_must_be_required(site):
    """`!gpu` on the agent: it is kept for builds that ask for one; also a build without labels does not go there."""
    async with StockAgent(site.port, "password-one") as stock:
        parked = await offers(site, stock, not_gpu="a100")
        unlabelled = await submit(site, worker="one")
        assert "gpu=a100" in await why(site, unlabelled)
        other = await submit(site, worker="one", labels={"gpu": "h100"})
        assert "gpu" in await why(site, other)
        wanted = await submit(site, labels={"gpu": "a100"})
        payload = json.loads((await parked).workflow.payload)
        assert payload["latent"]["build_id"] == wanted.id


@on_loop
async def test_the_agent_that_fits_best_gets_the_build(site):
    """Both offer the label, one of them by `*`."""
    async with StockAgent(site.port, "password-one") as any_os, StockAgent(site.port, "password-two") as linux:
        parked = await offers(site, any_os, os="*")
        await linux.attach()
        exact = linux.call("Next", _filter(os="linux"))
        await until(lambda: sum(bool(session.parked) for session in site.controller.sessions) == 2)
        await submit(site, labels={"os": "linux"})
        assert (await exact).workflow.id
        assert not parked.done()
        parked.cancel()


def _filter(**labels):
    return pb.NextRequest(filter=pb.Filter(labels=labels))


# --- room, pausing -------------------------------------------------------------------------------------------------------------


@on_loop
async def test_an_agent_with_room_for_three(site):
    """It has three builds at once, each with calls of its own, and no fourth, whatever room it says it has."""
    async with StockAgent(site.port, "password-one") as stock:
        await stock.attach(capacity=5)
        parked = [asyncio.ensure_future(answer(stock.next())) for _ in range(5)]
        builds = [await submit(site, worker="one") for _ in range(4)]
        await until(lambda: sum(call.done() for call in parked) == 3)
        assert "busy" in await why(site, builds[3])
        runs = sorted(call.result().workflow.id for call in parked if call.done())
        assert len(set(runs)) == 3
        for run in runs:
            await stock.init(run)
        await twisted(site.controller.cancel(builds[1].id, "not wanted"))
        for run in runs:
            asked = await wait(stock, run)
            assert asked in (True, "parks")
            await stock.done(run, canceled=asked is True)
        ended = [await twisted(site.controller.when_finished(build.id)) for build in builds[:3]]
        assert [build.result for build in ended] == [Result.SUCCESS, Result.CANCELLED, Result.SUCCESS]
        await until(lambda: sum(call.done() for call in parked) == 4)
        for call in parked:
            call.cancel()
        await asyncio.wait(parked)


@on_loop
async def test_a_paused_worker_gets_no_builds(site):
    """Its agent stays attached and its Next parked, what it runs goes on; taken back, it has the next build at once."""
    async with StockAgent(site.port, "password-one") as stock:
        await stock.attach(capacity=3)
        running = await submit(site, worker="one")
        run = (await stock.next()).workflow.id
        await stock.init(run)
        parked = asyncio.ensure_future(answer(stock.next()))
        site.controller.pause("one", True)
        build = await submit(site, worker="one")
        assert "paused" in await why(site, build)
        await stock.done(run)
        assert (await twisted(site.controller.when_finished(running.id))).result is Result.SUCCESS
        await site.restart()
        with refused(Code.UNAVAILABLE):
            await parked
        again = asyncio.ensure_future(answer(stock.next()))
        await until(lambda: any(session.parked for session in site.controller.sessions))
        assert "paused" in await why(site, build)
        site.controller.pause("one", False)
        assert json.loads((await again).workflow.payload)["latent"]["build_id"] == build.id


# --- who is who ----------------------------------------------------------------------------------------------------------------


@on_loop
async def test_an_agent_of_another_worker_sees_nothing_of_a_run(site):
    """Not even that it exists: what it says is refused, and changes nothing."""
    async with StockAgent(site.port, "password-one") as stock, StockAgent(site.port, "password-two") as other:
        await stock.attach()
        await other.attach()
        build = await submit(site, worker="one")
        run = (await stock.next()).workflow.id
        await stock.init(run)
        for call in ANSWERS:
            with refused(DENIED):
                await say(other, call, run, f"{run}.0")
        await stock.done(run)
        ended = await twisted(site.controller.build(build.id))
        assert (ended.build.state, ended.build.result, ended.build.attempts) == (BuildState.FINISHED, Result.SUCCESS, 1)
