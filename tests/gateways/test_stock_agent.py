"""What a stock agent says, call by call in its own order, from its start to its end."""

import asyncio

import pytest

from latent.model import Result, StepStatus
from latent.wire import peer_pb2 as pb
from tests.gateways.peer_fakes import on_loop, twisted
from tests.gateways.stock_agent import StockAgent, answer


async def begin(stock, world, run):
    """Next, then Wait beside Init. Returns the parked Wait."""
    number = (await stock.next()).workflow.id
    waiting = stock.wait(number)
    await world.until(lambda: run.waiting)
    await stock.init(number)
    return waiting


@on_loop
async def test_a_build_that_succeeds(gateway, world):
    """Auth, Version, RegisterAgent, Next, Wait, Init, two Updates a step, Log, Done, Next."""
    run = world.submit("true", "true")
    async with StockAgent(gateway.port) as stock:
        await stock.attach()
        waiting = await begin(stock, world, run)
        for uuid in ("uuid-1-0", "uuid-1-1"):
            await stock.update("1", uuid)
            await stock.log(uuid, "+ true", "output")
            await stock.call("Extend", pb.ExtendRequest(id="1"))
            await stock.step("1", uuid)
        await stock.done("1")
        assert (await waiting).canceled is False
        stock.next()
        await world.until(lambda: world.parked)
    assert run.outcomes[0].result is Result.SUCCESS
    assert run.outcomes[0].exit_code == 0
    assert run.statuses("s0") == run.statuses("s1") == [StepStatus.RUNNING, StepStatus.SUCCESS]
    assert run.texts() == ["+ true", "output"] * 2
    assert run.renewals == 2


@pytest.mark.parametrize("error", ["", "uuid=uuid-1-0: exit code 9"], ids=["3.16", "older"])
@on_loop
async def test_a_step_that_fails(gateway, world, error):
    """The result is the first failed step's, whether or not the agent calls that a workflow error; the rest is skipped."""
    run = world.submit("false", "true")
    async with StockAgent(gateway.port) as stock:
        await stock.attach()
        await begin(stock, world, run)
        await stock.step("1", "uuid-1-0", exit_code=9)
        await stock.update("1", "uuid-1-1", skipped=True)
        await stock.done("1", error=error)
    assert (run.outcomes[0].result, run.outcomes[0].exit_code) == (Result.FAILURE, 9)
    assert run.statuses("s0") == [StepStatus.RUNNING, StepStatus.FAILURE]
    assert run.statuses("s1") == [StepStatus.SKIPPED]


@on_loop
async def test_a_step_that_can_not_start(gateway, world):
    """No shell on the agent is its fault, not the build's."""
    run = world.submit("true")
    async with StockAgent(gateway.port) as stock:
        await stock.attach()
        await begin(stock, world, run)
        await stock.step("1", "uuid-1-0", error='exec: "bash": executable file not found in $PATH')
        await stock.done("1", error="exec failed")
    assert run.outcomes[0].result is Result.EXCEPTION
    assert "bash" in run.outcomes[0].error


@on_loop
async def test_an_agent_that_fails(gateway, world):
    """A workflow error without a failed step is the agent's failure."""
    run = world.submit("true")
    async with StockAgent(gateway.port) as stock:
        await stock.attach()
        await begin(stock, world, run)
        await stock.done("1", error="no space left on device")
    assert (run.outcomes[0].result, run.outcomes[0].error) == (Result.EXCEPTION, "no space left on device")


@on_loop
async def test_a_cancellation(gateway, world):
    """Wait is answered with true; the step is reported cancelled, then the workflow."""
    run = world.submit("sleep 1000")
    async with StockAgent(gateway.port) as stock:
        await stock.attach()
        waiting = await begin(stock, world, run)
        await stock.update("1", "uuid-1-0")
        world.cancel(run)
        assert (await waiting).canceled is True
        await stock.step("1", "uuid-1-0", exit_code=-1, error="canceled", canceled=True)
        await stock.done("1", canceled=True)
    assert run.outcomes[0].result is Result.CANCELLED
    assert run.statuses("s0") == [StepStatus.RUNNING, StepStatus.KILLED]


@on_loop
async def test_a_build_that_runs_out_of_time(gateway, world):
    """To a stock agent that is a cancellation too; its duration tells."""
    run = world.submit("sleep 1000", timeout=120.0)
    async with StockAgent(gateway.port) as stock:
        await stock.attach()
        await begin(stock, world, run)
        await stock.update("1", "uuid-1-0")
        await stock.done("1", duration=120, canceled=True)
    assert run.outcomes[0].result is Result.TIMEOUT


@on_loop
async def test_sigterm_without_work(gateway, world):
    """Next is cancelled, then UnregisterAgent."""
    async with StockAgent(gateway.port) as stock:
        await stock.attach()
        parked = stock.next()
        await world.until(lambda: world.parked)
        parked.cancel()
        await stock.call("UnregisterAgent", pb.Empty())
        assert world.sessions[1].closed
        assert world.parked == []


@on_loop
async def test_sigterm_during_a_build(gateway, world):
    """UnregisterAgent comes before Done, and the session lives as long: the run is not given away while it still runs."""
    run = world.submit("sleep 1000")
    async with StockAgent(gateway.port) as stock:
        await stock.attach()
        await begin(stock, world, run)
        await stock.call("UnregisterAgent", pb.Empty())
        await stock.step("1", "uuid-1-0", exit_code=-1, error="canceled", canceled=True)
        await stock.done("1", canceled=True)
    assert run.outcomes[0].result is Result.CANCELLED


@on_loop
async def test_logs_after_done(gateway, world):
    """A batch may come a second after the end."""
    run = world.submit("true")
    async with StockAgent(gateway.port) as stock:
        await stock.attach()
        await begin(stock, world, run)
        await stock.step("1", "uuid-1-0")
        await stock.done("1")
        await stock.log("uuid-1-0", "late")
    assert run.texts() == ["late"]


@on_loop
async def test_another_version(world):
    """An agent that does not tell its version gets the configured one, and exits by itself if that is not its own."""
    gateway = world.gateway(version=15)
    await twisted(gateway.start())
    try:
        async with StockAgent(gateway.port, version=None) as stock:
            await stock.auth()
            assert (await stock.call("Version", pb.Empty())).grpc_version == 15
    finally:
        await twisted(gateway.stop(0))


@on_loop
async def test_four_workflows_at_a_time(gateway, world):
    """An agent with capacity 4 parks four times."""
    async with StockAgent(gateway.port) as stock:
        await stock.attach(capacity=4)
        parked = [stock.next() for _ in range(4)]
        await world.until(lambda: len(world.parked) == 4)
        for _ in range(4):
            world.submit("true")
        answers = await asyncio.gather(*(answer(call) for call in parked))
    assert sorted(answer.workflow.id for answer in answers) == ["1", "2", "3", "4"]
