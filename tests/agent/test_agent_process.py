"""Our agent as a process of its own: its options, its exit codes, its signals, and the controller's absence."""

import contextlib
import signal

import pytest

from latent.agent.main import main
from latent.agent.options import parse
from latent.errors import StoreError
from latent.model import Result, StepStatus
from tests.agent.agents import AgentProcess, Alive
from tests.gateways.peer_fakes import on_loop, twisted


@on_loop
async def test_a_build_on_an_agent_process(gateway, world, tmp_path):
    """It attaches as what its environment says, runs a build, and goes when told to."""
    run = world.submit("echo $LATENT_WORKER $LATENT_INSTANCE ${LATENT_TOKEN-none}; exit 5")
    async with AgentProcess(gateway.port, tmp_path, arguments=("--label", "disk=ssd", "--capacity", "2")) as agent:
        outcome = await twisted(run.over)
        agent.signal(signal.SIGTERM)
        assert await agent.exit_code() == 0
    assert (outcome.result, outcome.exit_code) == (Result.FAILURE, 5)
    assert run.texts() == ["w instance-1 none"]
    session = world.sessions[1]
    assert (session.capacity, session.labels["disk"]) == (2, "ssd")
    assert session.closed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@on_loop
async def test_a_signal_ends_the_steps_first(gateway, world, tmp_path, number):
    """SIGTERM and SIGINT: the steps end, the controller hears of it, the exit code is 0."""
    alive = Alive(tmp_path)
    run = world.submit(f"{alive.hold} sleep 1000 & sleep 1000")
    async with AgentProcess(gateway.port, tmp_path) as agent:
        await alive.begun()
        agent.signal(number)
        assert await agent.exit_code() == 0
        await alive.gone()
    assert run.outcomes[0].result is Result.CANCELLED
    assert run.statuses("s0") == [StepStatus.RUNNING, StepStatus.KILLED]
    assert world.sessions[1].closed


@on_loop
async def test_sigterm_ends_an_agent_that_waits_for_work(gateway, world, tmp_path):
    """A parked Next is let go."""
    async with AgentProcess(gateway.port, tmp_path) as agent:
        await world.until(lambda: world.parked)
        agent.signal(signal.SIGTERM)
        assert await agent.exit_code() == 0
    assert world.parked == []
    assert world.sessions[1].closed


@on_loop
async def test_sigterm_without_a_controller_takes_a_bounded_time(gateway, world, tmp_path):
    """With nobody to tell, the steps end all the same."""
    alive = Alive(tmp_path)
    world.submit(f"{alive.hold} sleep 1000")
    async with AgentProcess(gateway.port, tmp_path, LATENT_GRACE="1", LATENT_FAREWELL="1") as agent:
        await alive.begun()
        await twisted(gateway.stop(0))
        agent.signal(signal.SIGTERM)
        assert await agent.exit_code() == 0
        await alive.gone()


@on_loop
async def test_the_steps_of_a_killed_agent_die(gateway, world, tmp_path):
    """kill -9 leaves nothing behind."""
    alive = Alive(tmp_path)
    world.submit(f"{alive.hold} sleep 1000 & sleep 1000")
    async with AgentProcess(gateway.port, tmp_path) as agent:
        await alive.begun()
        agent.signal(signal.SIGKILL)
        assert await agent.exit_code() == -signal.SIGKILL
        await alive.gone()


@on_loop
async def test_a_step_that_left_its_group_dies_with_its_agent(gateway, world, tmp_path):
    """What a step started in a session of its own lives on for the next steps, but not longer than the agent."""
    alive = Alive(tmp_path)
    daemon = "setsid sh -c 'touch up; exec sleep 1000' > /dev/null 2>&1"
    run = world.submit(f"{alive.hold} {daemon} & while [ ! -e up ]; do sleep 0.01; done", "echo next")
    async with AgentProcess(gateway.port, tmp_path) as agent:
        await alive.begun()
        assert (await twisted(run.over)).result is Result.SUCCESS
        agent.signal(signal.SIGKILL)
        await agent.exit_code()
        await alive.gone()


@on_loop
async def test_a_wrong_token_ends_the_agent(gateway, world, tmp_path):
    """Exit code 3, with the controller's reason."""
    async with AgentProcess(gateway.port, tmp_path, token="wrong") as agent:
        assert await agent.exit_code() == 3
    assert b"unknown or was used" in agent.errors


@on_loop
async def test_a_stale_attempt_ends_the_agent(gateway, world, tmp_path):
    """Exit code 3, with the controller's reason."""
    world.attach_refused = "this agent belongs to attempt w#1, the worker is at w#2"
    async with AgentProcess(gateway.port, tmp_path) as agent:
        assert await agent.exit_code() == 3
    assert b"the worker is at w#2" in agent.errors


@on_loop
async def test_a_closed_session_ends_the_agent(gateway, world, tmp_path):
    """When the session is over for good the steps end, and the agent with code 3."""
    alive = Alive(tmp_path)
    world.submit(f"{alive.hold} sleep 1000")
    async with AgentProcess(gateway.port, tmp_path) as agent:
        await alive.begun()
        await twisted(world.close(world.sessions[1], "the attempt is over"))
        assert await agent.exit_code() == 3
        await alive.gone()


@on_loop
async def test_a_plain_agent_comes_back_with_a_new_session(gateway, world, tmp_path):
    """Its password is still good: it attaches again, drops what it had, and takes new work."""
    alive = Alive(tmp_path)
    lost = world.submit(f"{alive.hold} sleep 1000")
    async with AgentProcess(gateway.port, tmp_path, token="plain-password"):
        await alive.begun()
        await twisted(world.close(world.sessions[1], "its agent was silent"))
        await alive.gone()
        run = world.submit("true")
        assert (await twisted(run.over)).result is Result.SUCCESS
        await world.until(lambda: world.sessions[2].labels)
    assert lost.outcomes == []


@on_loop
async def test_an_orphan_ends(gateway, world, tmp_path):
    """Without a controller for as long as it is told, an agent ends its steps and exits with 4."""
    alive = Alive(tmp_path)
    world.submit(f"{alive.hold} sleep 1000")
    async with AgentProcess(gateway.port, tmp_path, arguments=("--orphan-timeout", "1")) as agent:
        await alive.begun()
        await twisted(gateway.stop(0))
        assert await agent.exit_code() == 4
        await alive.gone()
    assert b"no controller answered for 1 s" in agent.errors


@on_loop
async def test_an_agent_that_never_finds_a_controller_ends(gateway, world, tmp_path):
    """From its first try on it counts."""
    port = gateway.port
    await twisted(gateway.stop(0))
    async with AgentProcess(port, tmp_path, arguments=("--orphan-timeout", "0.5")) as agent:
        assert await agent.exit_code() == 4


@contextlib.asynccontextmanager
async def restarted(gateway, world):
    """The controller is away while the body runs; then it is back, on the same port."""
    port = gateway.port
    await twisted(gateway.stop(0))
    yield
    back = world.gateway(bind=f"127.0.0.1:{port}")
    await twisted(back.start())
    world.back = back


@on_loop
async def test_a_build_goes_on_while_the_controller_is_away(gateway, world, tmp_path):
    """What happened meanwhile arrives afterwards, once: logs, states, the result."""
    alive = Alive(tmp_path)
    finish = tmp_path / "finish"
    run = world.submit(
        f"{alive.hold} echo before; while [ ! -e {finish} ]; do sleep 0.05; done; echo after", "echo second; exit 7"
    )
    async with AgentProcess(gateway.port, tmp_path):
        await alive.begun()
        await world.until(lambda: run.texts() == ["before"])
        async with restarted(gateway, world):
            finish.touch()
            await alive.gone()
        try:
            outcome = await twisted(run.over)
            after = world.submit("true")
            assert (await twisted(after.over)).result is Result.SUCCESS
        finally:
            await twisted(world.back.stop(0))
    assert (outcome.result, outcome.exit_code) == (Result.FAILURE, 7)
    assert len(run.outcomes) == 1
    assert run.activations == 1
    assert run.texts() == ["before", "after", "second"]
    assert [(state.uuid, state.status) for state in run.changes] == [
        ("uuid-1-0", StepStatus.RUNNING),
        ("uuid-1-0", StepStatus.SUCCESS),
        ("uuid-1-1", StepStatus.RUNNING),
        ("uuid-1-1", StepStatus.FAILURE),
    ]


@on_loop
async def test_a_waiting_agent_comes_back_after_a_restart(gateway, world, tmp_path):
    """An agent that was parked is parked again, in the same session."""
    async with AgentProcess(gateway.port, tmp_path):
        await world.until(lambda: world.parked)
        async with restarted(gateway, world):
            assert world.parked == []
        try:
            await world.until(lambda: world.parked)
            run = world.submit("true")
            assert (await twisted(run.over)).result is Result.SUCCESS
        finally:
            await twisted(world.back.stop(0))
    assert len(world.sessions) == 1


@on_loop
async def test_a_cancellation_reaches_an_agent_after_a_restart(gateway, world, tmp_path):
    """Wait is asked again."""
    alive = Alive(tmp_path)
    run = world.submit(f"{alive.hold} sleep 1000")
    async with AgentProcess(gateway.port, tmp_path):
        await alive.begun()
        async with restarted(gateway, world):
            world.cancel(run)
        try:
            assert (await twisted(run.over)).result is Result.CANCELLED
            await alive.gone()
        finally:
            await twisted(world.back.stop(0))


@on_loop
async def test_a_controller_that_can_not_write_is_waited_for(gateway, world, tmp_path):
    """A full disk delays the build's end; it does not lose it."""
    alive = Alive(tmp_path)
    finish = tmp_path / "finish"
    run = world.submit(f"{alive.hold} while [ ! -e {finish} ]; do sleep 0.05; done; echo done")
    async with AgentProcess(gateway.port, tmp_path):
        await alive.begun()
        await world.until(lambda: run.changes)
        world.failure = StoreError("the disk is full")
        finish.touch()
        await alive.gone()
        await world.until(lambda: not run.outcomes)
        world.failure = None
        assert (await twisted(run.over)).result is Result.SUCCESS
    assert run.texts() == ["done"]


# --- options ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "controller's host:port"),
        (["--server", "somewhere"], "controller's host:port"),
        (["--server", "h:1"], "token is needed"),
        (["--server", "h:1", "--token", "t", "--capacity", "0"], "not a number above 0"),
        (["--server", "h:1", "--token", "t", "--orphan-timeout", "-3"], "not a number of seconds"),
        (["--server", "h:1", "--token", "t", "--orphan-timeout", "nan"], "not a number of seconds"),
        (["--server", "h:1", "--token", "t", "--label", "x"], "name=value"),
        (["--server", "h:1", "--token", "t", "--log-level", "loud"], "none of debug"),
    ],
)
def test_wrong_options_are_named(capsys, monkeypatch, arguments, message):
    """Exit code 2, and what is wrong."""
    for name in ("LATENT_SERVER", "LATENT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_line_goes_before_the_environment():
    """Options may come from either."""
    environ = {"LATENT_SERVER": "env:1", "LATENT_TOKEN": "t", "LATENT_CAPACITY": "3", "LATENT_ORPHAN_TIMEOUT": "7"}
    options = parse(["--server", "line:2", "--label", "a=b=c"], environ)
    assert (options.server, options.token, options.capacity, options.orphan_timeout) == ("line:2", "t", 3, 7.0)
    assert options.labels == {"a": "b=c"}
    assert "token" not in repr(options)


def test_help_names_the_exit_codes(capsys):
    """`latent-agent --help` documents them."""
    with pytest.raises(SystemExit) as error:
        main(["--help"])
    assert error.value.code == 0
    assert "exit codes:" in capsys.readouterr().out
