"""The server's rules of the peer protocol over real gRPC on loopback: leases, runs, steps."""

import asyncio
import json

from twisted.internet.defer import Deferred

from latent.model import Result, Step, StepStatus
from latent.wire import peer_pb2 as pb
from tests.gateways.peer_fakes import on_loop, twisted
from tests.gateways.stock_agent import Code, agent, answer, refused

# --- Next ------------------------------------------------------------------------------------------------------------------


@on_loop
async def test_next_parks_until_there_is_work(gateway, world):
    """A parked Next is answered by the next build."""
    async with agent(gateway) as stock:
        await stock.attach()
        parked = stock.next()
        await world.until(lambda: world.parked)
        world.submit("true")
        assert (await parked).workflow.id == "1"


@on_loop
async def test_next_tells_the_labels_once(gateway, world):
    """The filter's labels are added to the registered ones."""
    async with agent(gateway) as stock:
        await stock.attach(labels={"disk": "ssd"})
        world.submit("true")
        await stock.next()
        assert world.sessions[1].labels == {
            "platform": "linux/amd64",
            "backend": "local",
            "hostname": "host-1",
            "disk": "ssd",
            "repo": "*",
        }
        assert world.sessions[1].info["version"] == "3.17.0"


@on_loop
async def test_a_cancelled_next_takes_nothing(gateway, world):
    """When the client of a parked Next goes, the build is left for the next one."""
    async with agent(gateway) as stock:
        await stock.attach()
        parked = stock.next()
        await world.until(lambda: world.parked)
        removed = world.parked[0][1]
        gone = asyncio.get_running_loop().create_future()
        removed.addBoth(gone.set_result)
        parked.cancel()
        await gone
        run = world.submit("true")
        assert list(world.queue) == [run]
        assert (await stock.next()).workflow.id == "1"


@on_loop
async def test_a_lease_whose_answer_got_lost_is_given_again(gateway, world):
    """A lease that was not acknowledged comes with the next Next."""
    async with agent(gateway) as stock:
        await stock.attach()
        world.submit("true")
        assert (await stock.next()).workflow.id == "1"
        assert (await stock.next()).workflow.id == "1"


@on_loop
async def test_next_is_answered_empty_after_the_longest_wait(world):
    """A client that never times out is made to ask again."""
    gateway = world.gateway(longest_wait=0.05)
    await twisted(gateway.start())
    try:
        async with agent(gateway) as stock:
            await stock.attach()
            assert not (await stock.next()).HasField("workflow")
            assert not world.parked
            world.submit("true")
            await stock.next()
            with refused(Code.DEADLINE_EXCEEDED):
                await stock.wait("1")
    finally:
        await twisted(gateway.stop(0))


@on_loop
async def test_the_payload_is_what_a_stock_agent_reads(gateway, world):
    """One stage a step, an environment that is never null, shell commands; the rest is in objects that it skips."""
    world.submit(
        "make all",
        Step(
            name="argv",
            command=("printf", "a b", "$x"),
            env={"X": "1"},
            workdir="sub dir",
            timeout=5.0,
            max_time=9.0,
            always_run=True,
        ),
        timeout=61.0,
        builder="project",
    )
    async with agent(gateway) as stock:
        await stock.attach()
        workflow = (await stock.next()).workflow
    assert (workflow.id, workflow.timeout) == ("1", 2)
    payload = json.loads(workflow.payload)
    assert (payload["network"], payload["volume"], payload["secrets"]) == ("", "", [])
    (first,), (second,) = (stage["steps"] for stage in payload["pipeline"])
    assert (first["name"], first["uuid"], first["type"], first["image"]) == ("s0", "uuid-1-0", "commands", "bash")
    assert first["commands"] == ["make all"]
    assert first["on_success"] is True
    assert first["on_failure"] is False
    assert first["environment"]["CI_REPO"] == "project"
    assert first["environment"]["CI_PIPELINE_NUMBER"] == "101"
    assert first["environment"]["LATENT_RUN_ID"] == "1"
    assert first["environment"]["LATENT_ATTEMPT"] == "1"
    assert second["commands"] == ["mkdir -p -- 'sub dir'", "cd -- 'sub dir'", "printf 'a b' '$x'"]
    assert second["environment"]["X"] == "1"
    assert second["on_failure"] is True
    assert second["latent"] == {
        "command": ["printf", "a b", "$x"],
        "env": {"X": "1"},
        "workdir": "sub dir",
        "timeout": 5.0,
        "max_time": 9.0,
        "always_run": True,
    }
    assert payload["latent"] == {
        "run_id": 1,
        "build_id": 101,
        "builder": "project",
        "worker": "w",
        "attempt": 1,
        "timeout": 61.0,
    }


@on_loop
async def test_a_build_too_big_for_a_message_ends_as_an_exception(gateway, world):
    """A build that no agent can be given ends with a reason, and the agent gets the next one."""
    big = world.submit("x" * (5 * 1024 * 1024))
    world.submit("true")
    async with agent(gateway) as stock:
        await stock.attach()
        assert (await stock.next()).workflow.id == "2"
    assert big.outcomes[0].result is Result.EXCEPTION
    assert "bytes" in big.outcomes[0].error


# --- a run -----------------------------------------------------------------------------------------------------------------


@on_loop
async def test_init_that_no_agent_means_is_refused(gateway, world):
    """Init without a start time, or cancelled, or of an id that is no number."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        with refused(Code.INVALID_ARGUMENT):
            await stock.init("1", started=0)
        with refused(Code.INVALID_ARGUMENT):
            await stock.init("1", canceled=True)
        for wrong in ("", "one", "9" * 30, "1.0"):
            with refused(Code.INVALID_ARGUMENT, "workflow id"):
                await stock.init(wrong)
        assert run.activations == 0


@on_loop
async def test_another_sessions_run_is_refused(gateway, world):
    """Init, Extend, Update, Log, Done and Wait of somebody else's run."""
    async with agent(gateway) as owner, agent(gateway, "two") as other:
        await owner.attach()
        await other.attach()
        run = world.submit("true")
        await owner.next()
        other.started = 1
        with refused(Code.PERMISSION_DENIED):
            await other.init("1")
        with refused(Code.PERMISSION_DENIED):
            await other.call("Extend", pb.ExtendRequest(id="1"))
        with refused(Code.PERMISSION_DENIED):
            await other.wait("1")
        with refused(Code.PERMISSION_DENIED):
            await other.done("1")
        with refused(Code.INVALID_ARGUMENT):
            await other.step("1", "uuid-1-0")
        with refused(Code.NOT_FOUND):
            await other.log("uuid-1-0", "hello")
        assert (run.changes, run.lines, run.outcomes, run.activations) == ([], [], [], 0)


@on_loop
async def test_init_of_a_finished_run_is_refused(gateway, world):
    """A run that is over does not begin again."""
    async with agent(gateway) as stock:
        await stock.attach()
        world.submit("true")
        await stock.next()
        await stock.init("1")
        await stock.done("1")
        with refused(Code.PERMISSION_DENIED, "over"):
            await stock.init("1")


@on_loop
async def test_wait_comes_before_init_and_hears_of_the_end(gateway, world):
    """Wait may precede Init; it ends with the run."""
    async with agent(gateway) as stock:
        await stock.attach()
        world.submit("true")
        await stock.next()
        waiting = asyncio.ensure_future(answer(stock.wait("1")))
        await world.until(lambda: world.runs[1].waiting)
        await stock.init("1")
        await stock.done("1")
        assert (await waiting).canceled is False


@on_loop
async def test_wait_for_an_unknown_run_returns_at_once(gateway, world):
    """Nobody waits for what nobody knows."""
    async with agent(gateway) as stock:
        await stock.attach()
        assert (await stock.wait("99")).canceled is False


@on_loop
async def test_wait_ends_with_an_error_when_the_lease_is_lost(gateway, world):
    """An expired lease is an error, not a cancellation."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        waiting = asyncio.ensure_future(answer(stock.wait("1")))
        await world.until(lambda: run.waiting)
        world.lose(run)
        with refused(Code.PERMISSION_DENIED, "expired"):
            await waiting


@on_loop
async def test_a_steps_update_must_name_a_step_of_the_run(gateway, world):
    """A step of another run is refused."""
    async with agent(gateway) as stock:
        await stock.attach()
        world.submit("true")
        await stock.next()
        await stock.init("1")
        with refused(Code.INVALID_ARGUMENT, "not a step of run 1"):
            await stock.update("1", "uuid-7-0")


@on_loop
async def test_an_update_that_comes_twice_counts_once(gateway, world):
    """Updates sent again, or overtaken by later ones, change nothing."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        await stock.init("1")
        await stock.step("1", "uuid-1-0")
        await stock.step("1", "uuid-1-0")
        assert run.statuses("s0") == [StepStatus.RUNNING, StepStatus.SUCCESS]


@on_loop
async def test_after_the_end_only_ends_of_steps_are_taken(gateway, world):
    """A step can't start to run when its run is over."""
    async with agent(gateway) as stock:
        await stock.attach()
        world.submit("true")
        await stock.next()
        await stock.init("1")
        await stock.done("1")
        await stock.update("1", "uuid-1-0", skipped=True)


@on_loop
async def test_steps_still_running_at_the_end_are_killed(gateway, world):
    """Done ends the steps that nobody ended: killed if they ran, skipped if not."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true", "true")
        await stock.next()
        await stock.init("1")
        await stock.update("1", "uuid-1-0")
        await stock.done("1", canceled=True)
        assert run.statuses("s0") == [StepStatus.RUNNING, StepStatus.KILLED]
        assert run.statuses("s1") == [StepStatus.SKIPPED]


@on_loop
async def test_done_said_twice_counts_once(gateway, world):
    """Done is idempotent."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        await stock.init("1")
        await stock.step("1", "uuid-1-0")
        await stock.done("1")
        await stock.done("1")
        assert {outcome.result for outcome in run.outcomes} == {Result.SUCCESS}
        assert run.statuses("s0") == [StepStatus.RUNNING, StepStatus.SUCCESS]


@on_loop
async def test_done_cancelled_but_never_started_is_refused(gateway, world):
    """No agent can cancel what it has not begun."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        with refused(Code.INVALID_ARGUMENT):
            await stock.done("1", started=0, canceled=True)
        assert not run.outcomes


@on_loop
async def test_a_change_is_made_though_its_client_hangs_up(gateway, world):
    """What was asked for is done; only the answer is lost."""
    async with agent(gateway) as stock:
        await stock.attach()
        run = world.submit("true")
        await stock.next()
        await stock.init("1")
        world.logging = Deferred()
        call = asyncio.ensure_future(stock.log("uuid-1-0", "kept"))
        world.changed.clear()
        await world.changed.wait()
        call.cancel()
        await asyncio.wait([call])
        world.logging.callback(None)
        await world.until(lambda: run.lines)
        assert run.texts() == ["kept"]
