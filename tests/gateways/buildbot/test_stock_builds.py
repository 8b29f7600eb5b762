"""Builds on real `buildbot-worker` processes, over both protocols, before a whole controller."""

from __future__ import annotations

import pytest
import pytest_twisted

from latent.model import Result, RunStatus, Step, StepStatus
from tests.gateways.buildbot.site import MSGPACK, until


def how(run):
    return [(step.name, step.status, step.exit_code) for step in run.steps]


@pytest_twisted.ensureDeferred
async def test_a_build_succeeds(site, agent):
    """Steps run in order in one directory, and their output is in the log."""
    build = await site.submit("echo one; echo two >&2", ["touch", "made here"], "ls; printf 'no end'")
    async with agent():
        done = await site.finished(build)
        run = await site.run_of(build)
    assert (done.result, run.run.status, run.run.exit_code) == (Result.SUCCESS, RunStatus.COMPLETED, 0)
    assert how(run) == [(f"s{number}", StepStatus.SUCCESS, 0) for number in range(3)]
    assert site.lines(run) == ["one", "made here", "no end"]
    assert site.lines(run, "stderr") == ["two"]
    assert any("made here" in line for line in site.lines(run, "header"))


@pytest_twisted.ensureDeferred
async def test_a_build_fails(site, agent):
    """The first failure ends it, with its exit code; only steps that always run come after."""
    build = await site.submit(
        "echo one", "false; exit 0", "echo three", Step(name="s3", command="echo four; exit 4", always_run=True), "echo five"
    )
    async with agent():
        done = await site.finished(build)
        run = await site.run_of(build)
    assert (done.result, run.run.status, run.run.exit_code) == (Result.FAILURE, RunStatus.FAILED, 1)
    assert how(run) == [
        ("s0", StepStatus.SUCCESS, 0),
        ("s1", StepStatus.FAILURE, 1),
        ("s2", StepStatus.SKIPPED, None),
        ("s3", StepStatus.FAILURE, 4),
        ("s4", StepStatus.SKIPPED, None),
    ]
    assert site.lines(run) == ["one", "four"]
    assert done.reason == "step s1: exit code 1"


@pytest_twisted.ensureDeferred
async def test_steps_find_what_they_are_told(site, agent, monkeypatch):
    """Environment and directory are as with our own agent: values are not changed, secrets are not there."""
    odd = "${HOME} $HOME ${} $${x} a\\b 'q'"
    steps = (
        Step(name="env", command="env", env={"ODD": odd, "CI_STEP_NAME": "mine"}),
        Step(name="dir", command="pwd; echo $CI_WORKSPACE", workdir="sub/dir"),
        Step(name="elsewhere", command="pwd", workdir="/"),
        Step(name="argv", command=("printf", "%s|", "$HOME", "*", "a b")),
    )
    build = await site.submit(*steps)
    async with agent(WORKERPASS="secret", LATENT_TOKEN="secret", KEPT="kept") as stock:
        assert (await site.finished(build)).result is Result.SUCCESS
        run = await site.run_of(build)
        lines = site.lines(run)
        assert f"ODD={odd}" in lines
        assert {"KEPT=kept", f"LATENT_BUILD_ID={build.id}", f"LATENT_RUN_ID={run.run.id}", "LATENT_WORKER=plain"} <= set(lines)
        assert "CI_STEP_NAME=mine" in lines
        assert not [line for line in lines if "secret" in line]
        assert lines[-4:] == [
            str(stock.folder / "latent-0" / "build" / "sub" / "dir"),
            str(stock.folder / "latent-0" / "build"),
            "/",
            "$HOME|*|a b|",
        ]


@pytest_twisted.ensureDeferred
async def test_each_build_finds_an_empty_directory(site, agent):
    """Also the first of an agent that was killed while it built."""
    async with agent() as stock:
        left = stock.folder / "latent-0" / "build" / "left"
        left.parent.mkdir(parents=True)
        left.touch()
        for _ in range(2):
            build = await site.submit("ls; touch .hidden left")
            assert (await site.finished(build)).result is Result.SUCCESS
            assert site.lines(await site.run_of(build)) == []
        await until(lambda: not left.parent.exists())


@pytest.mark.parametrize(
    ("limits", "error"),
    [({"timeout": 0.5}, "no output for 0.5 s"), ({"max_time": 0.5}, "took longer than 0.5 s")],
    ids=["silent", "long"],
)
@pytest_twisted.ensureDeferred
async def test_a_step_runs_into_its_limit(site, agent, limits, error):
    """The build ends as a timeout that says which."""
    build = await site.submit(Step(name="long", command="sleep 1000", **limits))
    async with agent():
        done = await site.finished(build)
        run = await site.run_of(build)
    assert (done.result, run.run.status) == (Result.TIMEOUT, RunStatus.TIMEOUT)
    assert [(step.status, step.exit_code, step.error) for step in run.steps] == [(StepStatus.FAILURE, -1, error)]
    assert done.reason == f"step long: {error}"


@pytest_twisted.ensureDeferred
async def test_a_build_runs_into_its_limit(site, agent):
    """The step is interrupted, and the build ends as a timeout."""
    build = await site.submit("sleep 1000", "true", timeout=1.0)
    async with agent():
        done = await site.finished(build)
        run = await site.run_of(build)
    assert (done.result, run.run.status) == (Result.TIMEOUT, RunStatus.TIMEOUT)
    assert [step.status for step in run.steps] == [StepStatus.KILLED, StepStatus.SKIPPED]


@pytest_twisted.ensureDeferred
async def test_a_build_is_cancelled(site, agent):
    """The agent kills the step (-1), and takes the next build."""
    async with agent():
        build = await site.submit("echo begun; sleep 1000", Step(name="after", command="echo after", always_run=True))
        # PB's agent keeps output for five seconds.
        await until(lambda: site.controller.dispatcher.run_of_build(build.id))
        await site.attached("plain")
        while not (run := await site.runs(build)) or not run[-1].steps:
            await until(lambda: True)
        await site.controller.cancel(build.id, "not wanted")
        done = await site.finished(build)
        run = await site.run_of(build)
        assert (done.result, run.run.status) == (Result.CANCELLED, RunStatus.INTERRUPTED)
        assert [(step.status, step.exit_code) for step in run.steps] == [(StepStatus.KILLED, -1), (StepStatus.SKIPPED, None)]
        assert (await site.finished(await site.submit("true"))).result is Result.SUCCESS


@pytest_twisted.ensureDeferred
async def test_a_program_that_is_not_there(site, agent):
    """A failed step, not a broken agent."""
    build = await site.submit(["no-such-program", "x"])
    async with agent():
        done = await site.finished(build)
        run = await site.run_of(build)
    assert done.result is Result.FAILURE
    assert run.steps[0].status is StepStatus.FAILURE
    assert run.steps[0].exit_code


@pytest_twisted.ensureDeferred
async def test_a_directory_that_can_not_be(site, agent, tmp_path):
    """A failed step too: the agent could not start it."""
    (tmp_path / "file").touch()
    build = await site.submit(Step(name="s", command="true", workdir=str(tmp_path / "file" / "below")))
    async with agent():
        done = await site.finished(build)
        run = await site.run_of(build)
    assert (done.result, run.steps[0].status, run.steps[0].exit_code) == (Result.FAILURE, StepStatus.FAILURE, 126)
    assert "can't be carried out" in run.steps[0].error


@pytest_twisted.ensureDeferred
async def test_a_step_that_is_too_long_to_send(site, agent):
    """More than a message of either protocol holds: the step fails, the agent stays."""
    build = await site.submit(Step(name="s", command="true", env={"X": "x" * 5_000_000}))
    async with agent():
        done = await site.finished(build)
        assert done.result is Result.FAILURE
        assert (await site.finished(await site.submit("true"))).result is Result.SUCCESS


@pytest_twisted.ensureDeferred
async def test_a_killed_step(site, agent):
    """Its exit code is the agent's, its error names the signal."""
    build = await site.submit("kill -TERM $$")
    async with agent():
        done = await site.finished(build)
        run = await site.run_of(build)
    assert (done.result, run.steps[0].exit_code, run.steps[0].error) == (Result.FAILURE, -1, "killed by signal 15")


@pytest_twisted.ensureDeferred
async def test_a_step_that_speaks_of_signals(site, agent):
    """What its command says, and the agent repeats, is not taken for what the agent says of its end."""
    said = "process killed by signal 9"
    build = await site.submit(f"exit 2\n{said}\n", Step(name="s1", command=f"kill -TERM $$\n{said}\n", always_run=True))
    async with agent():
        await site.finished(build)
        run = await site.run_of(build)
    assert [(step.exit_code, step.error) for step in run.steps] == [(2, ""), (-1, "killed by signal 15")]


@pytest_twisted.ensureDeferred
async def test_much_output(site, agent):
    """Twenty thousand lines arrive once each, in order, however they were cut."""
    build = await site.submit("seq 20000; seq 3 >&2")
    async with agent():
        assert (await site.finished(build)).result is Result.SUCCESS
        run = await site.run_of(build)
    assert site.lines(run) == [str(number) for number in range(1, 20001)]
    assert site.lines(run, "stderr") == ["1", "2", "3"]


@pytest_twisted.ensureDeferred
async def test_odd_output(site, agent):
    """Bytes that are no text, carriage returns, NUL, and a line longer than an agent's buffer."""
    program = (
        "import sys; w = sys.stdout.buffer.write;"
        "w(b'\\xff\\xfe\\x00 caf\\xc3\\xa9\\r\\n'); w(b'10%\\r20%\\n'); w('\\u2028x\\n'.encode()); w(b'y' * 100000 + b'\\n')"
    )
    build = await site.submit(["python3", "-c", program])
    async with agent() as stock:
        assert (await site.finished(build)).result is Result.SUCCESS
        lines = site.lines(await site.run_of(build))
    assert lines[0] == "\ufffd\ufffd\x00 café"
    assert lines[1:3] == ["10%", "20%"]
    assert lines[3] == "\u2028x"
    if stock.protocol == MSGPACK:
        # Over PB the agent itself loses parts of lines of more than 4096 characters.
        assert "".join(lines[4:]) == "y" * 100000


@pytest_twisted.ensureDeferred
async def test_lines_of_nearly_a_million_characters(site, agent):
    """They arrive in pieces, wherever the agent's buffers end; so do longer ones of four bytes each, though not all of them."""
    program = "print('x' * 101); print('y' * {0}); print(chr(0x1f600) * 1_300_000)"
    build = await site.submit(*(["python3", "-c", program.format(count)] for count in (262_500, 999_000)))
    async with agent() as stock:
        done = await site.finished(build)
        run = await site.run_of(build)
    assert (done.result, done.attempts) == (Result.SUCCESS, 1)
    if stock.protocol == MSGPACK:
        found = "".join(site.lines(run))
        assert (found.count("x"), found.count("y")) == (202, 262_500 + 999_000)


@pytest_twisted.ensureDeferred
async def test_two_builds_at_once(site, agent):
    """A worker with max_builds=2 runs them side by side, each in a directory of its own."""
    meet = "touch {0}; n=0; until [ -e {1} ]; do sleep 0.1; n=$((n+1)); [ $n -lt 300 ]; done; ls"
    one, two = site.folder / "one", site.folder / "two"
    builds = [
        await site.submit("touch one", meet.format(one, two), worker="twice"),
        await site.submit("touch two", meet.format(two, one), worker="twice"),
    ]
    async with agent(name="twice", password="twice-password"):
        for build, name in zip(builds, ["one", "two"], strict=True):
            assert (await site.finished(build)).result is Result.SUCCESS
            assert site.lines(await site.run_of(build)) == [name]
