"""The controller as a process: started, asked, signalled, killed, stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from attrs import define, field

from latent.cli.exits import ExitCode
from latent.cli.place import Place

CONFIG = """
from latent.plugins import util, worker
c["workers"] = [worker.ProcessLatentWorker("local", build_wait_timeout=0)]
c["builders"] = [util.Builder("hello", ["echo hello"])]
"""


@define
class Shell:
    """A directory with a master.cfg, and the command line in it."""

    basedir: Path
    foreground: list[subprocess.Popen[str]] = field(factory=list)

    @property
    def environment(self):
        mine = {name: value for name, value in os.environ.items() if not name.startswith("LATENT_") or name == "LATENT_TEST_RUN"}
        root = str(Path(__file__).parents[2])
        return {**mine, "PYTHONPATH": root, "LATENT_BASEDIR": str(self.basedir), "NO_COLOR": "1"}

    def words(self, *words):
        return [sys.executable, "-m", "latent.cli", *words]

    def run(self, *words):
        return subprocess.run(
            self.words(*words), env=self.environment, capture_output=True, text=True, check=False, timeout=60, cwd="/"
        )

    def start_in_foreground(self):
        """The process, once it is up."""
        process = subprocess.Popen(
            self.words("start", "--foreground"), env=self.environment, stdout=subprocess.PIPE, text=True, cwd="/"
        )
        self.foreground.append(process)
        assert self.read_until(process, "the controller is up")
        return process

    def read_until(self, process, text):
        """Read its output until a line has the text; whether one had."""
        return any(text in line for line in process.stdout)

    def configure(self, more=""):
        (self.basedir / "master.cfg").write_text(CONFIG + more)

    def pid(self):
        return Place(self.basedir).holder()

    def log(self):
        return (self.basedir / "state" / "latent.log").read_text()


@pytest.fixture
def shell(tmp_path):
    made = Shell(tmp_path)
    made.configure()
    yield made
    for process in made.foreground:
        process.kill()
        process.wait()
        process.stdout.close()
    if made.pid():
        made.run("stop", "--fast")
    if pid := made.pid():
        psutil.Process(pid).kill()


def test_a_controller_is_started_asked_and_stopped(shell):
    """Start returns when the controller answers; stop when it is gone, and leaves no trace but its state."""
    started = shell.run("start")
    assert (started.returncode, started.stderr) == (0, "")
    assert started.stdout.startswith("the controller is up\n")
    assert "1 NOT_SUBSTANTIATED" in started.stdout
    pid = shell.pid()
    assert (shell.basedir / "state" / "latent.pid").read_text() == f"{pid}\n"
    built = shell.run("submit", "hello", "--follow")
    assert built.returncode == 0
    assert "hello" in built.stdout.splitlines()
    again = shell.run("start")
    assert again.returncode == ExitCode.RUNNING
    assert f"running already (process {pid})" in again.stderr
    stopped = shell.run("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "the controller is stopped\n")
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    left = {path.name for path in (shell.basedir / "state").iterdir()}
    assert not left & {"api.json", "api.sock", "latent.pid"}
    assert shell.run("builds").returncode == ExitCode.NOT_RUNNING


def test_a_killed_controller_is_started_again(shell):
    """What a killed controller left behind is in nobody's way."""
    assert shell.run("start").returncode == 0
    first = shell.pid()
    os.kill(first, signal.SIGKILL)
    for _ in range(2):  # the first may still see it die
        assert shell.run("workers").returncode == ExitCode.NOT_RUNNING
    assert shell.run("start").returncode == 0
    assert shell.pid() != first
    assert shell.run("health").returncode == 0


def test_a_wrong_configuration_does_not_start(shell):
    """Every mistake is told to who started it, in the background or not."""
    shell.configure('c["titel"] = 1\nc["workers"].append(worker.Nothing())\n')
    for words in (["start"], ["start", "--foreground"]):
        result = shell.run(*words)
        assert result.returncode == ExitCode.CONFIG
        assert "did you mean 'title'?" in result.stderr
        assert "master.cfg:6" in result.stderr
    (shell.basedir / "master.cfg").unlink()
    result = shell.run("start")
    assert result.returncode == ExitCode.CONFIG
    assert "there is no master.cfg" in result.stderr


@pytest.mark.parametrize("place", ['c["www"] = {"port": PORT}', 'c["protocols"] = {"peer": {"port": PORT}}'])
def test_a_port_in_use_does_not_start(shell, place):
    """A port that somebody else has is named, with the setting to change."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        shell.configure(place.replace("PORT", str(port)) + "\n")
        result = shell.run("start")
    assert result.returncode == ExitCode.START_FAILED
    assert str(port) in result.stderr
    assert "or choose another in c['" in result.stderr
    assert shell.pid() is None


def test_a_database_that_can_not_be_opened_does_not_start(shell):
    """A corrupt database is told with what to do, and is left as it is."""
    (shell.basedir / "state").mkdir()
    database = shell.basedir / "state" / "latent.sqlite"
    database.write_text("not a database, but long enough to be looked at " * 50)
    result = shell.run("start")
    assert result.returncode == ExitCode.START_FAILED
    assert "latent.sqlite" in result.stderr
    assert database.read_text().startswith("not a database")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_controller(shell, number):
    """SIGTERM and Ctrl-C end it cleanly."""
    process = shell.start_in_foreground()
    process.send_signal(number)
    assert shell.read_until(process, "the controller has stopped")
    assert process.wait() == 0


def test_a_second_signal_does_not_wait_for_builds(shell):
    """The first signal lets builds end, the second one queues them again."""
    process = shell.start_in_foreground()
    shell.run("submit", "--", "echo begun; sleep 600")
    following = subprocess.Popen(
        shell.words("logs", "1", "--follow"), env=shell.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert shell.read_until(following, "begun")
    following.kill()
    following.wait()
    following.stdout.close()
    process.send_signal(signal.SIGTERM)
    assert shell.read_until(process, "stopping")
    process.send_signal(signal.SIGTERM)
    assert shell.read_until(process, "the controller has stopped")
    assert process.wait() == 0
    shell.start_in_foreground()
    assert json.loads(shell.run("build", "1", "--json").stdout)["state"] != "finished"
    shell.run("cancel", "1")


def test_a_hangup_reads_the_configuration_again(shell):
    """SIGHUP applies a changed master.cfg; a wrong one is logged and changes nothing."""
    process = shell.start_in_foreground()
    shell.configure('c["workers"].append(worker.ProcessLatentWorker("second"))\n')
    process.send_signal(signal.SIGHUP)
    assert shell.read_until(process, "reconfig: ")
    assert len(json.loads(shell.run("workers", "--json").stdout)["workers"]) == 2
    shell.configure('c["titel"] = 1\n')
    process.send_signal(signal.SIGHUP)
    assert shell.read_until(process, "did you mean 'title'?")
    assert len(json.loads(shell.run("workers", "--json").stdout)["workers"]) == 2
    refused = shell.run("reconfig")
    assert refused.returncode == ExitCode.CONFIG
    assert "did you mean 'title'?" in refused.stderr


def test_a_directory_too_deep_for_a_socket_works_all_the_same(shell):
    """Where the path is too long for a socket, clients find it elsewhere."""
    deep = shell.basedir / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    there = Shell(deep)
    there.configure()
    try:
        assert there.run("start").returncode == 0
        assert there.run("status").returncode == 0
    finally:
        assert there.run("stop").returncode == 0


@pytest.mark.parametrize("words", [["--help"], ["builds"], ["submit", "--", "x"]])
def test_a_client_command_loads_nothing_heavy(shell, words):
    """Client commands import neither Twisted nor gRPC nor SQLAlchemy: they are quick to start."""
    program = (
        "import sys\n"
        "from latent.cli.main import cli\n"
        "try: cli(sys.argv[1:])\n"
        "finally: print('loaded:', sorted({'twisted', 'grpc', 'sqlalchemy', 'klein', 'rich'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *words], env=shell.environment, capture_output=True, text=True, check=False
    )
    assert result.stdout.splitlines()[-1] == "loaded: []"
