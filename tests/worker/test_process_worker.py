"""Instances that are processes of this machine."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from latent.errors import (
    ConfigError,
    LatentWorkerCannotSubstantiate,
    LatentWorkerConfigurationError,
    LatentWorkerFailedToSubstantiate,
    PluginError,
)
from latent.worker import Interpolate, Property, hooks, instances, processes, results
from latent.worker.process import ProcessLatentWorker
from tests.worker.conftest import BUILD, SLEEPER, Ear, Make, gone, python, started
from tests.worker.kit import PATIENCE, enrolment


def test_declaration() -> None:
    """Its keywords are checked, and its own command is our agent."""
    made = ProcessLatentWorker("w1", orphan_timeout=60, stop_grace=0, basedir="/var/tmp/x")
    assert (made.command, made.orphan_timeout, made.stop_grace) == (None, 60, 0)
    assert made.policy().check_instance_interval == 2
    with pytest.raises(ConfigError) as raised:
        ProcessLatentWorker("w1", command="latent-agent", orphan_timeout=0, basedir="", stop_grace=-1, comand=[])
    text = "\n".join(raised.value.errors)
    assert len(raised.value.errors) == 5
    assert "command is a str, 'latent-agent'; write a list of arguments" in text
    assert "did you mean 'command'?" in text
    for wrong in ([], [3], ["a\0b"], [""], {"a": 1}):
        with pytest.raises(ConfigError, match="write a list of arguments"):
            ProcessLatentWorker("w1", command=wrong)
    assert ProcessLatentWorker("w1", command=Property("x")).expand()


@ensureDeferred
async def test_start_and_stop(make: Make, ear: Ear, tmp_path: Path) -> None:
    """An instance is a process in a session of its own, with its identity in its environment; nothing is left of it."""
    worker = make(command=[*SLEEPER, ear.path], max_builds=3, orphan_timeout=60)
    agent = await started(worker)
    environment = agent.environ()
    assert environment["LATENT_INSTANCE"].endswith("/w1/1")
    assert environment["LATENT_SERVER"] == "127.0.0.1:9989"
    assert environment["LATENT_TOKEN"] == "secret-w1-1"
    assert (environment["LATENT_CAPACITY"], environment["LATENT_ORPHAN_TIMEOUT"]) == ("3", "60")
    assert environment["GRPC_ENABLE_FORK_SUPPORT"] == "0"
    assert environment["WOODPECKER_AGENT_SECRET"] == "secret-w1-1"
    assert environment["WOODPECKER_AGENT_CONFIG_FILE"].startswith(environment["LATENT_INSTANCE_DIR"])
    assert os.getsid(agent.pid) == agent.pid
    directory = Path(agent.cwd())
    assert directory.parent == tmp_path / "instances"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert await hooks.call(worker.check_instance) == (True, "")
    assert await ear.heard() == "ready"
    await hooks.call(worker.stop_instance)
    assert not agent.is_running()
    assert list((tmp_path / "instances").iterdir()) == []
    assert worker.log_tail == "ready"
    assert worker.instance_handle() is None


@ensureDeferred
async def test_secrets_of_the_controller_stay_there(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller's own LATENT_ variables are not the agent's; all others are."""
    monkeypatch.setenv("LATENT_API_TOKEN", "secret")
    monkeypatch.setenv("SOMETHING", "else")
    worker = make()
    environment = (await started(worker)).environ()
    assert "LATENT_API_TOKEN" not in environment
    assert environment["SOMETHING"] == "else"
    await hooks.call(worker.stop_instance)


@ensureDeferred
async def test_the_real_agent_is_started(make: Make) -> None:
    """Without a command it is latent-agent, with its time limit."""
    worker = make(command=None, orphan_timeout=77)
    agent = await started(worker)
    assert agent.cmdline()[1:] == ["-P", "-m", "latent.agent.main", "--orphan-timeout", "77"]
    await hooks.call(worker.stop_instance, True)


@ensureDeferred
async def test_rendered_command(make: Make) -> None:
    """The command may depend on the build; without a build, on the worker's own properties."""
    command = [*python("import signal; signal.pause()"), Interpolate("--image=%(prop:image)s")]
    worker = make(command=command, properties={"image": "mine"})
    assert (await started(worker)).cmdline()[-1] == "--image=img"
    await hooks.call(worker.stop_instance)
    worker.enrolment = enrolment("w1", 2, worker.enrolment.controller_id)  # type: ignore[union-attr]
    assert (await started(worker, None)).cmdline()[-1] == "--image=mine"
    await hooks.call(worker.stop_instance)


@pytest.mark.parametrize(
    ("command", "error", "message"),
    [
        ([Property("imgae")], LatentWorkerCannotSubstantiate, "no property 'imgae'"),
        (Property("image"), LatentWorkerCannotSubstantiate, "command is a str, 'img'"),
        (["/no/such/agent"], LatentWorkerConfigurationError, "'/no/such/agent' can't be started .No such file"),
        (["/etc/hostname"], LatentWorkerConfigurationError, "install the program"),
    ],
)
@ensureDeferred
async def test_failed_start(make: Make, tmp_path: Path, command: Any, error: type[Exception], message: str) -> None:
    """The error's type says whose fault it is; the stop that follows finds nothing to do."""
    worker = make(command=command)
    with pytest.raises(error, match=message):
        await hooks.call(worker.start_instance, BUILD)
    assert worker.instance_handle() is None
    good, why = await hooks.call(worker.check_instance)
    assert (good, why) == (False, "no process was started")
    await hooks.call(worker.stop_instance)
    assert not list(tmp_path.glob("instances/*"))


@ensureDeferred
async def test_no_place_for_the_directory(make: Make, tmp_path: Path) -> None:
    """A directory that can't be made is the infrastructure's fault, and says what to do."""
    (tmp_path / "instances").write_text("a file")
    with pytest.raises(LatentWorkerFailedToSubstantiate, match=r"can't be made .*set basedir to another place"):
        await hooks.call(make().start_instance, BUILD)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('first'); print('no server'); raise SystemExit(7)", "agent exited with code 7; last lines: first | no server"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "agent was ended by SIGKILL; it wrote nothing"),
    ],
)
@ensureDeferred
async def test_agent_that_exits(make: Make, code: str, message: str) -> None:
    """A bad check says how the agent ended, and what it wrote last."""
    worker = make(command=python(code))
    await hooks.call(worker.start_instance, BUILD)
    pid = worker.instance_handle()["pid"]
    seen = processes.Seen(pid, 0, 0, worker.instance_handle()["born"], 0.0)
    assert await worker._host().threads.run(processes.wait, (seen,), 30.0, adopt=lambda _: None) == ()
    assert results.check_result(worker, await hooks.call(worker.check_instance)) == (False, message)
    await hooks.call(worker.stop_instance)


@ensureDeferred
async def test_long_logs_are_cut(make: Make) -> None:
    """Only the end of a long log is shown."""
    worker = make(command=python("for n in range(5000): print('line', n)\nraise SystemExit(1)"))
    agent = await started_or_gone(worker)
    await gone(agent)
    _, message = await hooks.call(worker.check_instance)
    assert message.endswith("line 4998 | line 4999")
    assert message.count("|") == instances.TAIL_LINES - 1
    await hooks.call(worker.stop_instance)


async def started_or_gone(worker: ProcessLatentWorker) -> psutil.Process:
    """Like `started`, for an agent that may have ended by now; it stays a zombie until it is asked for."""
    await hooks.call(worker.start_instance, BUILD)
    return psutil.Process(worker.instance_handle()["pid"])


FAMILY = """
    import os, signal, subprocess, sys
    wait = "import signal; print('up', flush=True); signal.pause()"
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + wait
    def run(code, **how):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, **how)
        child.stdout.readline()
        return child.pid
    orphan = "import subprocess, sys; how = dict(stdout=subprocess.PIPE, start_new_session=True);"
    orphan += "c = subprocess.Popen([sys.executable, '-c', sys.argv[1]], **how); c.stdout.readline(); print(c.pid, flush=True)"
    pids = [run(wait), run(wait, start_new_session=True), run(stubborn, start_new_session=True), run(wait, env={})]
    made = subprocess.run([sys.executable, "-c", orphan, wait], stdout=subprocess.PIPE, text=True)
    pids.append(int(made.stdout))
    open(sys.argv[1], "w").write(" ".join(map(str, pids)))
    signal.pause()
"""


@ensureDeferred
async def test_stop_ends_all_that_descends(make: Make, ear: Ear) -> None:
    """Children, those with sessions or environments of their own, orphans, and those that ignore SIGTERM: all go."""
    worker = make(command=[*python(FAMILY), ear.path], stop_grace=0.1)
    agent = await started(worker)
    pids = [int(pid) for pid in (await ear.heard()).split()]
    assert len(pids) == 5
    assert all(processes.look(pid) for pid in pids)
    await hooks.call(worker.stop_instance)
    assert [pid for pid in [agent.pid, *pids] if processes.look(pid)] == []


@ensureDeferred
async def test_stop_after_the_agent_died(make: Make, ear: Ear) -> None:
    """What the agent started and left behind is found and ended without it."""
    worker = make(command=[*python(FAMILY), ear.path], stop_grace=0.1)
    agent = await started(worker)
    pids = [int(pid) for pid in (await ear.heard()).split()]
    agent.kill()
    await gone(agent)
    await hooks.call(worker.stop_instance)
    # One had neither the marker nor an ancestor that is left: nothing tells any more whose it is.
    (unmarked,) = [pid for pid in pids if processes.look(pid)]
    assert unmarked == pids[3]
    os.kill(unmarked, signal.SIGKILL)


@ensureDeferred
async def test_stop_twice_and_without_an_instance(make: Make) -> None:
    """A stop with nothing to stop is no error."""
    worker = make()
    await hooks.call(worker.stop_instance)
    await hooks.call(worker.stop_instance, fast=True)
    worker.enrolment = None
    await hooks.call(worker.stop_instance)


@ensureDeferred
async def test_directories_that_resist(make: Make, tmp_path: Path) -> None:
    """A build may leave a directory that nothing can be removed from: it goes all the same."""
    worker = make()
    agent = await started(worker)
    closed = Path(agent.cwd()) / "closed"
    closed.mkdir()
    (closed / "file").touch()
    closed.chmod(0)
    await hooks.call(worker.stop_instance)
    assert list((tmp_path / "instances").iterdir()) == []


@ensureDeferred
async def test_other_attempts_are_others(make: Make) -> None:
    """Stopping one attempt leaves the next one, and other workers, alone."""
    one, two, other = make("w1", 1), make("w1", 11), make("w", 1)
    agents = [await started(worker) for worker in (one, two, other)]
    await hooks.call(one.stop_instance)
    assert [agent.is_running() for agent in agents] == [False, True, True]
    await hooks.call(two.stop_instance)
    await hooks.call(other.stop_instance)


@ensureDeferred
async def test_cancelled_start(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that is cancelled while its thread runs answers at once; what it starts late is ended."""
    worker = make()
    begun, go = threading.Event(), threading.Event()
    late: list[instances.Handle] = []
    ended: Deferred[None] = Deferred()
    real_start, real_end = instances.start, worker._end

    def start(*args: Any) -> instances.Handle:
        begun.set()
        assert go.wait(PATIENCE)
        late.append(real_start(*args))
        return late[0]

    async def end(*args: Any) -> str:
        last = await real_end(*args)
        if late and not ended.called:
            ended.callback(None)
        return last

    monkeypatch.setattr(instances, "start", start)
    monkeypatch.setattr(worker, "_end", end)
    answer = hooks.call(worker.start_instance, BUILD)
    assert await worker._host().threads.run(begun.wait, PATIENCE, adopt=lambda _: None)
    answer.cancel()
    with pytest.raises(CancelledError):
        await answer
    await hooks.call(worker.stop_instance)
    go.set()
    await ended
    assert not psutil.pid_exists(late[0].pid)
    assert list(tmp_path.glob("instances/*")) == []


@ensureDeferred
async def test_command_that_clears_its_environment(make: Make) -> None:
    """The program that was started is known as long as its controller runs, also without its marker."""
    worker = make(command=["/usr/bin/env", "-i", *SLEEPER])
    agent = await started(worker)
    while agent.environ():  # until env has become the agent: it does not tell
        pass
    assert await hooks.call(worker.check_instance) == (True, "")
    await hooks.call(worker.stop_instance)
    assert not agent.is_running()


@ensureDeferred
async def test_many_at_once(make: Make) -> None:
    """Twenty start and stop side by side."""
    workers = [make(f"w{n}", 1, stop_grace=1) for n in range(20)]
    await gatherResults([hooks.call(worker.start_instance, BUILD) for worker in workers])
    assert len({worker.instance_handle()["pid"] for worker in workers}) == 20
    checks = await gatherResults([hooks.call(worker.check_instance) for worker in workers])
    assert checks == [(True, "")] * 20
    await gatherResults([hooks.call(worker.stop_instance) for worker in workers])


@ensureDeferred
async def test_without_a_reactor(make: Make) -> None:
    """A worker that nobody gave a reactor says so."""
    worker = make()
    worker.reactor = None
    with pytest.raises(PluginError, match=r"sets worker\.reactor first"):
        await hooks.call(worker.list_instances)
