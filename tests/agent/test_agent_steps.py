"""What our agent makes of a build, against a real gateway."""

import os
import signal

import pytest
from twisted.internet.defer import Deferred

from latent.model import Result, Step, StepStatus
from tests.agent.agents import Alive, running
from tests.gateways.peer_fakes import on_loop, twisted


@on_loop
async def test_a_build_succeeds(gateway, world, tmp_path):
    """Steps run in order in one folder; output, states and the result arrive."""
    run = world.submit("echo one > file; echo out; echo err >&2", ("cat", "file"))
    async with running(gateway, tmp_path):
        outcome = await twisted(run.over)
    assert (outcome.result, outcome.exit_code) == (Result.SUCCESS, 0)
    assert run.texts() == ["out", "one"]
    assert run.texts("stderr") == ["err"]
    assert run.texts("header")[0] == "$ echo one > file; echo out; echo err >&2"
    assert run.statuses("s0") == [StepStatus.RUNNING, StepStatus.SUCCESS]
    assert run.statuses("s1") == [StepStatus.RUNNING, StepStatus.SUCCESS]
    assert run.activations == 1
    assert list(tmp_path.iterdir()) == []


@on_loop
async def test_a_failing_step_fails_the_build(gateway, world, tmp_path):
    """The first failed step's exit code counts; later steps are skipped, but for those that always run."""
    run = world.submit(
        "exit 3",
        "echo never",
        Step(name="cleanup", command="echo always; exit 4", always_run=True),
    )
    async with running(gateway, tmp_path):
        outcome = await twisted(run.over)
    assert (outcome.result, outcome.exit_code) == (Result.FAILURE, 3)
    assert outcome.error == "step s0: exit code 3"
    assert run.texts() == ["always"]
    assert run.statuses("s1") == [StepStatus.SKIPPED]
    assert run.steps["uuid-1-2"].exit_code == 4


@on_loop
async def test_a_command_line_ends_at_its_first_failing_command(gateway, world, tmp_path):
    """As with a stock agent's shell."""
    run = world.submit("false; echo not reached")
    async with running(gateway, tmp_path):
        outcome = await twisted(run.over)
    assert outcome.exit_code == 1
    assert run.texts() == []


@on_loop
async def test_a_step_that_dies_by_a_signal_says_which(gateway, world, tmp_path):
    """Signal N is exit code 128 + N."""
    run = world.submit("kill -SEGV $$")
    async with running(gateway, tmp_path):
        outcome = await twisted(run.over)
    assert outcome.exit_code == 128 + signal.SIGSEGV
    assert outcome.error == "step s0: ended by SIGSEGV"


@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        (("no-such-program-here",), 127, "No such file"),
        (("/etc/passwd",), 126, "Permission denied"),
        ("no-such-program-here", 127, "exit code 127"),
        ("nul\0", 126, "null byte"),
    ],
)
@on_loop
async def test_a_program_that_can_not_be_started_fails_its_step(gateway, world, tmp_path, command, code, error):
    """With the exit code that a shell would give, and the reason."""
    run = world.submit(command)
    async with running(gateway, tmp_path):
        outcome = await twisted(run.over)
    assert (outcome.result, outcome.exit_code) == (Result.FAILURE, code)
    assert error in outcome.error


@on_loop
async def test_the_environment_of_a_step(gateway, world, tmp_path):
    """The agent's, without its secrets; the build's; the step's own; and the mark of the instance, which nobody can change."""
    names = "WOODPECKER_AGENT_SECRET LATENT_TOKEN LATENT_SERVER LATENT_SECRET_THING"
    names += " LATENT_BUILD_ID LATENT_RUN_ID LATENT_WORKER LATENT_ATTEMPT"
    command = f"for n in {names} LATENT_INSTANCE OURS MINE CI_REPO GRPC_ENABLE_FORK_SUPPORT; do echo $n=${{!n-unset}}; done"
    run = world.submit(command, env={"MINE": "step", "LATENT_INSTANCE": "forged"})
    environ = {
        "PATH": os.environ["PATH"],
        "LATENT_TOKEN": "secret",
        "WOODPECKER_AGENT_SECRET": "secret",
        "LATENT_SECRET_THING": "secret",
        "LATENT_INSTANCE": "i-1",
        "OURS": "agent",
        "GRPC_ENABLE_FORK_SUPPORT": "0",
    }
    async with running(gateway, tmp_path, environ):
        await twisted(run.over)
    assert run.texts() == [
        "WOODPECKER_AGENT_SECRET=unset",
        "LATENT_TOKEN=unset",
        "LATENT_SERVER=unset",
        "LATENT_SECRET_THING=unset",
        "LATENT_BUILD_ID=101",
        "LATENT_RUN_ID=1",
        "LATENT_WORKER=w",
        "LATENT_ATTEMPT=1",
        "LATENT_INSTANCE=i-1",
        "OURS=agent",
        "MINE=step",
        "CI_REPO=b",
        "GRPC_ENABLE_FORK_SUPPORT=unset",
    ]


@on_loop
async def test_a_steps_working_directory_is_made(gateway, world, tmp_path):
    """Relative to the run's folder."""
    run = world.submit("pwd", workdir="a/b")
    async with running(gateway, tmp_path):
        await twisted(run.over)
    assert run.texts() == [str(tmp_path / "run-1" / "a" / "b")]


@on_loop
async def test_silence_ends_a_step(gateway, world, tmp_path):
    """No output for as long as the step allows is a timeout, and its whole process group ends."""
    alive = Alive(tmp_path)
    run = world.submit(Step(name="s0", command=f"{alive.hold} echo begun; sleep 1000 & sleep 1000", timeout=1.0), "echo never")
    async with running(gateway, tmp_path / "work"):
        await alive.begun()
        outcome = await twisted(run.over)
        await alive.gone()
    assert outcome.result is Result.TIMEOUT
    assert outcome.exit_code == 128 + signal.SIGTERM
    assert outcome.error == "step s0: no output for 1 s"
    assert run.texts() == ["begun"]
    assert run.statuses("s1") == [StepStatus.SKIPPED]


@on_loop
async def test_a_step_may_take_no_longer_than_its_limit(gateway, world, tmp_path):
    """Output does not help against max_time; what must always run still runs."""
    run = world.submit(
        Step(name="s0", command="while true; do echo tick; sleep 0.05; done", max_time=0.3),
        Step(name="cleanup", command="echo cleaned", always_run=True),
    )
    async with running(gateway, tmp_path):
        outcome = await twisted(run.over)
    assert outcome.result is Result.TIMEOUT
    assert "took longer than 0.3 s" in outcome.error
    assert run.texts()[-1] == "cleaned"


@on_loop
async def test_a_build_may_take_no_longer_than_its_limit(gateway, world, tmp_path):
    """The build's own time limit ends it as a timeout."""
    run = world.submit("sleep 1000", "echo never", timeout=0.3)
    async with running(gateway, tmp_path):
        outcome = await twisted(run.over)
    assert outcome.result is Result.TIMEOUT
    assert "the build took longer than 0.3 s" in outcome.error
    assert run.statuses("s0") == [StepStatus.RUNNING, StepStatus.KILLED]


@on_loop
async def test_a_cancelled_build_ends(gateway, world, tmp_path):
    """Cancellation reaches the step's whole group, and is reported as one."""
    alive = Alive(tmp_path)
    run = world.submit(f"{alive.hold} sleep 1000 & sleep 1000", Step(name="c", command="true", always_run=True))
    async with running(gateway, tmp_path / "work"):
        await alive.begun()
        world.cancel(run)
        outcome = await twisted(run.over)
        await alive.gone()
    assert outcome.result is Result.CANCELLED
    assert run.statuses("s0") == [StepStatus.RUNNING, StepStatus.KILLED]
    assert run.statuses("c") == [StepStatus.SKIPPED]


@on_loop
async def test_a_step_that_ignores_sigterm_is_killed(gateway, world, tmp_path):
    """After the grace comes SIGKILL."""
    alive = Alive(tmp_path)
    run = world.submit(f"trap '' TERM; {alive.hold} while true; do sleep 1000; done")
    async with running(gateway, tmp_path / "work", grace=0.2):
        await alive.begun()
        world.cancel(run)
        outcome = await twisted(run.over)
        await alive.gone()
    assert outcome.exit_code == 128 + signal.SIGKILL


@on_loop
async def test_a_step_has_time_to_clean_up(gateway, world, tmp_path):
    """Between SIGTERM and SIGKILL its children too may finish what they do."""
    alive = Alive(tmp_path)
    run = world.submit(f"(trap 'echo cleaned >&9; exit' TERM; {alive.hold} while true; do sleep 0.02; done) & wait")
    async with running(gateway, tmp_path / "work"):
        await alive.begun()
        world.cancel(run)
        await twisted(run.over)
        assert await alive.gone() == "cleaned\n"


@on_loop
async def test_what_a_step_leaves_in_its_group_is_killed(gateway, world, tmp_path):
    """A step is over when its own process is; background processes neither hold it up nor survive it."""
    alive = Alive(tmp_path)
    run = world.submit(f"{alive.hold} sleep 1000 & echo done")
    async with running(gateway, tmp_path / "work"):
        await alive.begun()
        outcome = await twisted(run.over)
        await alive.gone()
    assert outcome.result is Result.SUCCESS
    assert run.texts() == ["done"]


@on_loop
async def test_a_lost_run_is_dropped(gateway, world, tmp_path):
    """When the run was given to somebody else its steps are killed, nothing more is said of it, and the agent goes on."""
    alive = Alive(tmp_path)
    run = world.submit(f"{alive.hold} sleep 1000")
    async with running(gateway, tmp_path / "work"):
        await alive.begun()
        world.lose(run)
        await alive.gone()
        after = world.submit("true")
        assert (await twisted(after.over)).result is Result.SUCCESS
    assert run.outcomes == []


@on_loop
async def test_leases_are_extended(gateway, world, tmp_path):
    """While a run goes on its lease is extended again and again."""
    alive = Alive(tmp_path)
    run = world.submit(f"{alive.hold} sleep 1000")
    async with running(gateway, tmp_path / "work"):
        await alive.begun()
        await world.until(lambda: run.renewals >= 3)
        world.cancel(run)
        await alive.gone()


@on_loop
async def test_capacity_is_builds_at_a_time(gateway, world, tmp_path):
    """An agent with room for two runs two side by side, each in its own folder."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = Alive(tmp_path / "a"), Alive(tmp_path / "b")
    first = world.submit(f"pwd; {one.hold} sleep 1000")
    second = world.submit(f"pwd; {two.hold} sleep 1000")
    async with running(gateway, tmp_path / "work", capacity=2):
        await one.begun()
        await two.begun()
        assert world.sessions[1].capacity == 2
        world.cancel(first)
        world.cancel(second)
        await twisted(first.over)
        await twisted(second.over)
        await one.gone()
        await two.gone()
    assert first.texts() + second.texts() == [str(tmp_path / "work" / "run-1"), str(tmp_path / "work" / "run-2")]


@on_loop
async def test_an_unreadable_payload_is_an_exception(gateway, world, tmp_path):
    """A build that the agent does not understand ends, with the reason."""
    run = world.submit("")
    async with running(gateway, tmp_path):
        outcome = await twisted(run.over)
    assert outcome.result is Result.EXCEPTION
    assert "has no command" in outcome.error


# --- output ----------------------------------------------------------------------------------------------------------------


@on_loop
async def test_output_of_all_kinds_arrives(gateway, world, tmp_path):
    """A line without an end, bytes that are no text, an empty line, a carriage return."""
    run = world.submit(r"printf 'a\r\n\n\xff\xfe\nwithout end'")
    async with running(gateway, tmp_path):
        await twisted(run.over)
    assert run.texts() == ["a", "", "\ufffd\ufffd", "without end"]
    assert [line.line for line in run.lines] == list(range(len(run.lines)))


@on_loop
async def test_a_huge_line_comes_in_pieces(gateway, world, tmp_path):
    """10 MB without a line's end."""
    run = world.submit("head -c 10000000 /dev/zero | tr '\\0' x")
    async with running(gateway, tmp_path):
        await twisted(run.over)
    assert "".join(run.texts()) == "x" * 10_000_000
    assert max(len(text) for text in run.texts()) == 256 * 1024


@on_loop
async def test_a_slow_controller_slows_the_step_down(gateway, world, tmp_path):
    """While logs are not taken the step's pipe stays full; nothing is lost, and that is no silence."""
    count = tmp_path / "count"
    lines = 300_000
    run = world.submit(
        Step(name="s0", command=f"for i in $(seq 30); do seq -f '%049.0f' {lines // 30}; echo $i > {count}; done", timeout=0.5)
    )
    world.logging = Deferred()
    async with running(gateway, tmp_path / "work"):
        await world.until(lambda: run.activations)
        # The extensions go on meanwhile: enough of them, and longer than the silence that the step is allowed.
        begun = run.renewals
        await world.until(lambda: run.renewals >= begun + 8)
        assert int(count.read_text()) < 30
        logging, world.logging = world.logging, None
        logging.callback(None)
        outcome = await twisted(run.over)
    assert outcome.result is Result.SUCCESS
    assert len(run.texts()) == lines


@on_loop
async def test_a_stopped_agent_ends_its_steps(gateway, world, tmp_path):
    """Told to stop, it ends its steps, says so, unregisters, and exits with 0."""
    alive = Alive(tmp_path)
    run = world.submit(f"{alive.hold} sleep 1000")
    async with running(gateway, tmp_path / "work") as task:
        await alive.begun()
    await alive.gone()
    assert task.result() == 0
    assert run.outcomes[0].result is Result.CANCELLED
    assert run.outcomes[0].error == "the agent was told to stop"
    assert world.sessions[1].reason == "its agent has unregistered"
