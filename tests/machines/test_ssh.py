"""Machines that are started and stopped over SSH: how `ssh` is called, and what a real server does."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.task import deferLater

from latent.errors import MachineError
from latent.plugins import machine as machines
from tests.machines import sshd
from tests.machines.kit import MAC, generic, start, stop
from tests.requires import require

# --- with a stand-in for `ssh` ------------------------------------------------------------------------------------------------


def stand_in(tmp_path: Path, script: str = "") -> str:
    """A program called as `ssh` is, that writes down how, with the files that it was given."""
    program = tmp_path / "ssh"
    program.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib, sys\n"
        f"told = pathlib.Path({str(tmp_path / 'told')!r})\n"
        "keys = [arg for arg in sys.argv if arg.startswith('/') and pathlib.Path(arg).is_file() and arg != sys.argv[0]]\n"
        "known = [a.split('\"')[1] for a in sys.argv if a.startswith('UserKnownHostsFile=')]\n"
        "files = {p: pathlib.Path(p).read_text() for p in keys + known}\n"
        "modes = {p: pathlib.Path(p).stat().st_mode & 0o777 for p in files}\n"
        "told.write_text(json.dumps([sys.argv[1:], files, modes]))\n" + script
    )
    program.chmod(0o755)
    return str(program)


def told(tmp_path: Path) -> tuple[list[str], dict[str, str], dict[str, int]]:
    import json

    argv, files, modes = json.loads((tmp_path / "told").read_text())
    return argv, files, modes


@ensureDeferred
async def test_arguments_arrive_as_they_are(tmp_path: Path) -> None:
    """A list is quoted for the shell over there, a line is left to it; and nobody is asked for a password."""
    program = stand_in(tmp_path)
    await start(generic(tmp_path, machines.RemoteSshWakeAction("host", ["virsh", "start", "a b; c"], sshBin=program)))
    argv, _, _ = told(tmp_path)
    assert argv[-3:] == ["--", "host", "virsh start 'a b; c'"]
    assert "BatchMode=yes" in argv
    await start(generic(tmp_path, machines.RemoteSshWakeAction("me@host", "cd /x && ./up", sshBin=program)))
    assert told(tmp_path)[0][-3:] == ["--", "me@host", "cd /x && ./up"]
    await start(generic(tmp_path, machines.RemoteSshWOLAction("host", MAC, sshBin=program)))
    assert told(tmp_path)[0][-3:] == ["--", "host", f"wakeonlan {MAC}"]


@ensureDeferred
async def test_keys_that_are_given_as_text_are_files_for_a_moment(tmp_path: Path) -> None:
    """That nobody else can read, and that are gone afterwards."""
    key = "-----BEGIN OPENSSH PRIVATE KEY-----\nxyz\n-----END OPENSSH PRIVATE KEY-----"
    action = machines.RemoteSshWakeAction("h", ["up"], sshBin=stand_in(tmp_path), sshKey=key, sshHostKey="ssh-ed25519 AAAA")
    assert "xyz" not in repr(action)
    await start(generic(tmp_path, action))
    argv, files, modes = told(tmp_path)
    assert set(files.values()) == {key + "\n", "* ssh-ed25519 AAAA\n"}
    assert set(modes.values()) == {0o600}
    assert "StrictHostKeyChecking=yes" in argv
    assert not any(Path(path).exists() for path in files)


@pytest.mark.parametrize(
    ("script", "fails"),
    [
        ("", False),
        ("print('latent-has-begun'); sys.exit(255)", False),
        ("sys.exit(255)", True),
        ("print('latent-has-begun'); sys.exit(1)", True),
    ],
    ids=["done", "cut off", "never there", "refused"],
)
@ensureDeferred
async def test_a_machine_that_suspends_itself_may_be_gone_before_it_answers(tmp_path: Path, script: str, fails: bool) -> None:
    """A connection that is lost once the command has begun is a success; one that never was, or a command that fails, is none."""
    machine = generic(tmp_path, machines.RemoteSshSuspendAction("host", sshBin=stand_in(tmp_path, script)))
    if fails:
        with pytest.raises(MachineError, match="systemctl suspend"):
            await stop(machine)
    else:
        await stop(machine)
    assert told(tmp_path)[0][-1] == "echo latent-has-begun && systemctl suspend"


# --- the real one ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Prepared]:
    require(sshd.SSHD and os.getuid() == 0, "an SSH server", "apt-get install openssh-server, and run the tests as root")
    with sshd.running(tmp_path_factory.mktemp("sshd")) as found:
        yield found


@pytest.mark.parametrize("as_text", [False, True])
@ensureDeferred
async def test_a_real_ssh_server_runs_the_command(tmp_path: Path, server: sshd.Prepared, as_text: bool) -> None:
    """With a key that is given as a file or as text, and the server known by its key."""
    key: Any = server.key.read_text() if as_text else server.key
    action = machines.RemoteSshWakeAction(
        server.host, ["sh", "-c", f"echo started > '{tmp_path}/a file'"], sshKey=key, sshHostKey=server.host_key
    )
    await start(generic(tmp_path, action))
    assert (tmp_path / "a file").read_text() == "started\n"


@ensureDeferred
async def test_a_server_that_is_not_the_one_it_should_be_gets_nothing(tmp_path: Path, server: sshd.Prepared) -> None:
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4m9vGBaYyr0lrGZbJnGXoQNgyqCxLNzrXvQkUaGmXu"
    action = machines.RemoteSshWakeAction(server.host, ["touch", f"{tmp_path}/x"], sshKey=server.key, sshHostKey=other)
    with pytest.raises(MachineError, match="Host key verification failed"):
        await start(generic(tmp_path, action))
    assert not (tmp_path / "x").exists()


@ensureDeferred
async def test_a_remote_command_that_fails_says_why(tmp_path: Path, server: sshd.Prepared) -> None:
    action = machines.RemoteSshWakeAction(
        server.host, "echo no such domain >&2; exit 7", sshKey=server.key, sshHostKey=server.host_key
    )
    with pytest.raises(MachineError, match="ended with exit code 7: no such domain"):
        await start(generic(tmp_path, action))


@ensureDeferred
async def test_a_real_machine_that_goes_in_the_middle_has_been_stopped(tmp_path: Path, server: sshd.Prepared) -> None:
    """Its connection is cut while the suspend command runs."""
    suspend = f"echo $$ > {tmp_path}/pid; mv {tmp_path}/pid {tmp_path}/begun; exec sleep 600"
    action = machines.RemoteSshSuspendAction(server.host, suspend, sshKey=server.key, sshHostKey=server.host_key)
    stopping = stop(generic(tmp_path, action))
    while not (tmp_path / "begun").exists():
        await deferLater(reactor, 0.02)
    server.cut()
    assert await stopping is True
    left = int((tmp_path / "begun").read_text())
    if psutil.pid_exists(left):
        os.kill(left, signal.SIGKILL)
