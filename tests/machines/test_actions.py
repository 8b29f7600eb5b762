"""What starts and stops machines: commands, SSH, Wake-on-LAN and HTTP, each against the real thing on loopback."""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from klein import Klein
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from twisted.web.server import Site

from latent.errors import ConfigError, MachineError
from latent.plugins import machine as machines
from latent.worker import commands, hooks
from latent.worker.machine import AbstractLatentMachine
from latent.worker.machine_actions import magic_packet
from tests.machines import sshd
from tests.requires import require

MAC = "00:1b:21:3c:9d:0e"


def generic(tmp_path: Path, start: Any, stop: Any = None, **kwargs: Any) -> AbstractLatentMachine:
    """A machine as the controller has it. ``stop``: None: as the start."""
    made: AbstractLatentMachine = machines.GenericLatentMachine("m1", start, stop or start, **kwargs)
    made.reactor, made.state_dir = reactor, tmp_path / "state"
    return made


def start(machine: AbstractLatentMachine) -> Deferred[Any]:
    return hooks.call(machine.start_machine)


def stop(machine: AbstractLatentMachine) -> Deferred[Any]:
    return hooks.call(machine.stop_machine)


# --- local commands -----------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_a_command_starts_the_machine_and_another_stops_it(tmp_path: Path) -> None:
    """Each is told in LATENT_MACHINE for whom it runs; it is over when the command is."""
    told = tmp_path / "told"
    machine = generic(
        tmp_path,
        machines.LocalWakeAction(["sh", "-c", f'echo "wake $LATENT_MACHINE" >> {told}']),
        machines.LocalSuspendAction(["sh", "-c", f'echo "suspend $LATENT_MACHINE" >> {told}']),
    )
    assert await start(machine) is True
    assert await stop(machine) is True
    assert told.read_text() == "wake m1\nsuspend m1\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no such domain >&2; exit 3", "ended with exit code 3: no such domain"),
        ("kill -9 $$", "was ended by signal 9"),
    ],
)
@ensureDeferred
async def test_a_command_that_fails_says_why(tmp_path: Path, script: str, message: str) -> None:
    """Its exit code or signal, and the last of what it said."""
    with pytest.raises(MachineError) as caught:
        await start(generic(tmp_path, machines.LocalWakeAction(["sh", "-c", script])))
    assert message in str(caught.value)


@ensureDeferred
async def test_a_program_that_is_gone_by_then_is_told(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="/no/such/program: No such file or directory"):
        await start(generic(tmp_path, machines.LocalWakeAction(["/no/such/program"])))


@ensureDeferred
async def test_much_output_is_no_burden(tmp_path: Path) -> None:
    """Only its end is kept."""
    with pytest.raises(MachineError) as caught:
        await start(generic(tmp_path, machines.LocalWakeAction(["sh", "-c", "yes x | head -c 3000000; echo the end; exit 1"])))
    assert str(caught.value).endswith("the end")
    assert len(str(caught.value)) < 1000


@ensureDeferred
async def test_what_a_command_leaves_running_stays(tmp_path: Path) -> None:
    """A virtual machine, say, that holds its output open: nobody waits for that."""
    machine = generic(tmp_path, machines.LocalWakeAction(["sh", "-c", f"sleep 600 & echo $! > {tmp_path}/pid"]))
    await start(machine)
    left = psutil.Process(int((tmp_path / "pid").read_text()))
    assert left.is_running()
    left.kill()


@pytest.mark.parametrize("stubborn", [False, True])
@ensureDeferred
async def test_a_command_that_is_cancelled_is_ended_with_its_children(
    tmp_path: Path, stubborn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By SIGTERM and, where that is ignored, by SIGKILL; not before it has ended is the cancellation over."""
    monkeypatch.setattr(commands, "KILL_GRACE", 0.2)
    trap = "trap '' TERM;" if stubborn else ""
    script = f"{trap} sleep 600 & echo $! > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; wait; sleep 600"
    starting = start(generic(tmp_path, machines.LocalWakeAction(["sh", "-c", script])))
    while not (tmp_path / "pid").exists():
        await deferLater(reactor, 0.01)
    pid = int((tmp_path / "pid").read_text())
    starting.cancel()
    with pytest.raises(CancelledError):
        await starting
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@ensureDeferred
async def test_what_a_controller_that_died_has_left_running_is_waited_for(tmp_path: Path) -> None:
    """A stop that it began must not take effect after the start of the next one."""
    told = tmp_path / "told"
    slow = generic(tmp_path, machines.LocalWakeAction(["sh", "-c", f"read line < {tmp_path}/fifo; echo slow >> {told}"]))
    os.mkfifo(tmp_path / "fifo")
    dying = start(slow)
    record = tmp_path / "state" / "machines" / "m1" / "command"
    while not record.exists():
        await deferLater(reactor, 0.01)
    starting = start(generic(tmp_path, machines.LocalWakeAction(["sh", "-c", f"echo next >> {told}"])))
    await deferLater(reactor, 0.2)
    assert not starting.called
    (tmp_path / "fifo").write_text("go\n")
    await dying
    await starting
    assert told.read_text() == "slow\nnext\n"
    record.write_text("[1, 0.")
    await start(generic(tmp_path, machines.LocalWakeAction(["true"])))


def test_a_machine_is_set_up_with_what_it_was_declared_with(tmp_path: Path) -> None:
    """Also with arguments that were given by position."""
    machine = generic(tmp_path, machines.LocalWakeAction(["true"]), build_wait_timeout=7)
    args, kwargs = machine.arguments
    machine.reconfigService(*args, **kwargs)
    assert machine.build_wait_timeout == 7


@ensureDeferred
async def test_an_action_of_ones_own(tmp_path: Path) -> None:
    """Anything with perform(machine); False is a failure."""

    class Own:
        answer: Any = None

        def perform(self, machine: AbstractLatentMachine) -> Any:
            assert machine.name == "m1"
            return self.answer

    own = Own()
    await start(generic(tmp_path, own))
    own.answer = False
    with pytest.raises(MachineError, match="Own answered False"):
        await start(generic(tmp_path, own))


# --- wait_for -----------------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_the_machine_counts_as_up_when_its_port_takes_connections(tmp_path: Path) -> None:
    """Not when it was only told to start; and it is asked again and again."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        machine = generic(tmp_path, machines.LocalWakeAction(["true"]), wait_for=f"127.0.0.1:{port}")
        starting = start(machine)
        await deferLater(reactor, 0.3)
        assert not starting.called
        listening.listen()
        assert await starting is True


@pytest.mark.parametrize("later", [0.0, 0.01, 0.2, 0.5])
@ensureDeferred
async def test_waiting_for_a_port_can_be_cancelled(tmp_path: Path, later: float) -> None:
    """Whatever it is at: looking a name up, connecting, pausing."""

    class Nothing:
        def perform(self, machine: AbstractLatentMachine) -> None:
            pass

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        starting = start(generic(tmp_path, Nothing(), wait_for=f"localhost:{listening.getsockname()[1]}"))
        await deferLater(reactor, later)
        starting.cancel()
        with pytest.raises(CancelledError):
            await starting


# --- Wake-on-LAN --------------------------------------------------------------------------------------------------------------


class Ear(DatagramProtocol):
    def __init__(self) -> None:
        self.heard: Deferred[bytes] = Deferred()
        self.count = 0

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.count += 1
        if not self.heard.called:
            self.heard.callback(datagram)


@pytest.mark.parametrize("mac", [MAC, "00-1B-21-3C-9D-0E", "001b213c9d0e"])
@ensureDeferred
async def test_the_magic_packet_goes_out(tmp_path: Path, mac: str) -> None:
    """Six bytes of ones and sixteen times the address, however that was written."""
    ear = Ear()
    listening = reactor.listenUDP(0, ear, interface="127.0.0.1")  # type: ignore[attr-defined]
    port = listening.getHost().port
    await start(generic(tmp_path, machines.LocalWOLAction(mac, address="127.0.0.1", port=port)))
    assert await ear.heard == b"\xff" * 6 + bytes.fromhex("001b213c9d0e") * 16
    await listening.stopListening()


@ensureDeferred
async def test_a_broadcast_is_allowed(tmp_path: Path) -> None:
    """The default address is everybody's: a socket that may not broadcast would fail with an error."""
    ear = Ear()
    listening = reactor.listenUDP(0, ear)  # type: ignore[attr-defined]
    action = machines.LocalWOLAction(MAC, address="127.255.255.255", port=listening.getHost().port)
    await start(generic(tmp_path, action))
    assert await ear.heard == magic_packet(MAC)
    await listening.stopListening()


@ensureDeferred
async def test_a_program_may_send_the_packet(tmp_path: Path) -> None:
    """wolBin, as in Buildbot."""
    program = tmp_path / "wakeonlan"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/woken\n')
    program.chmod(0o755)
    await start(generic(tmp_path, machines.LocalWOLAction(MAC, wolBin=str(program))))
    assert (tmp_path / "woken").read_text() == f"{MAC}\n"


# --- SSH, with a stand-in for `ssh` -------------------------------------------------------------------------------------------


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


# --- SSH, the real one --------------------------------------------------------------------------------------------------------


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


# --- HTTP ---------------------------------------------------------------------------------------------------------------------


class PowerSwitch:
    """An HTTP API that switches machines on and off."""

    app = Klein()

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[bytes, list[bytes]], bytes, Any]] = []

    @app.route("/power/<state>", methods=["POST", "PUT", "GET"])
    def power(self, request: Any, state: str) -> Any:
        body = request.content.read()
        self.asked.append((request.method.decode(), state, dict(request.args), body, request.requestHeaders))
        if state == "broken":
            request.setResponseCode(503)
            return b"the relay does not answer"
        if state == "elsewhere":
            request.redirect(b"/power/on")
            return b""
        if state == "silent":
            return Deferred()
        return b"ok"


@pytest.fixture
def switch() -> Iterator[tuple[PowerSwitch, str]]:
    here = PowerSwitch()
    listening = reactor.listenTCP(0, Site(here.app.resource()), interface="127.0.0.1")  # type: ignore[attr-defined]
    yield here, f"http://127.0.0.1:{listening.getHost().port}"
    import pytest_twisted

    pytest_twisted.blockon(listening.stopListening())


@ensureDeferred
async def test_an_http_request_starts_the_machine(tmp_path: Path, switch: tuple[PowerSwitch, str]) -> None:
    """With treq's arguments; 200 to 299 is a success."""
    here, url = switch
    action = machines.HttpAction(
        f"{url}/power/on", "POST", params={"id": "7"}, json={"delay": 0}, headers={"X-Who": "latent"}, auth=("me", "secret")
    )
    assert "secret" not in repr(action)
    await start(generic(tmp_path, action))
    ((method, state, args, body, headers),) = here.asked
    assert (method, state, args, body) == ("POST", "on", {b"id": [b"7"]}, b'{"delay":0}')
    assert headers.getRawHeaders("x-who") == ["latent"]
    assert headers.getRawHeaders("authorization") == ["Basic bWU6c2VjcmV0"]


@ensureDeferred
async def test_a_status_that_is_no_success_says_what_the_server_said(tmp_path: Path, switch: tuple[PowerSwitch, str]) -> None:
    _, url = switch
    with pytest.raises(MachineError, match=r"GET .*/power/broken was answered with 503: the relay does not answer"):
        await start(generic(tmp_path, machines.HttpAction(f"{url}/power/broken", "get")))


@ensureDeferred
async def test_redirects_are_followed_unless_told_otherwise(tmp_path: Path, switch: tuple[PowerSwitch, str]) -> None:
    here, url = switch
    await start(generic(tmp_path, machines.HttpAction(f"{url}/power/elsewhere", "GET")))
    assert [state for _, state, *_ in here.asked] == ["elsewhere", "on"]
    with pytest.raises(MachineError, match="302"):
        await start(generic(tmp_path, machines.HttpAction(f"{url}/power/elsewhere", "GET", allow_redirects=False)))


@ensureDeferred
async def test_a_server_that_does_not_answer_is_not_waited_for(tmp_path: Path, switch: tuple[PowerSwitch, str]) -> None:
    _, url = switch
    with pytest.raises(MachineError, match=r"no answer in 0.3 s"):
        await start(generic(tmp_path, machines.HttpAction(f"{url}/power/silent", "GET", timeout=0.3)))


@ensureDeferred
async def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        with pytest.raises(MachineError, match=r"GET http://127.0.0.1:\d+/: Connection was refused"):
            await start(generic(tmp_path, machines.HttpAction(url, "GET")))


# --- declarations -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: machines.LocalWakeAction("virsh start m"), "command is a str, 'virsh start m'; write a list"),
        (lambda: machines.LocalWakeAction([]), "command is a list, []; write a list"),
        (lambda: machines.LocalWakeAction(["a", 5]), "command has an int, 5, in it"),
        (lambda: machines.LocalWOLAction("00:11"), "wakeMac is '00:11', which is no hardware address; write six pairs"),
        (lambda: machines.RemoteSshWOLAction("h", "00:11"), "RemoteSshWOLAction: wakeMac is '00:11', which is no hardware"),
        (lambda: machines.LocalWOLAction(MAC, address="example"), "address is 'example', which is no IPv4 address"),
        (lambda: machines.LocalWOLAction(MAC, port=0), "port is 0, which is no port"),
        (lambda: machines.RemoteSshWakeAction("-oProxyCommand=x", ["a"]), "host is '-oProxyCommand=x'; write 'HOST'"),
        (lambda: machines.RemoteSshWakeAction("h", " "), "remoteCommand is empty"),
        (lambda: machines.RemoteSshWakeAction("", ["a"]), "host is ''"),
        (lambda: machines.HttpAction("ftp://h", "GET"), "url is 'ftp://h'; write 'http://HOST/PATH'"),
        (lambda: machines.HttpAction("http://h", "PSOT"), "method is 'PSOT'; did you mean 'POST'?"),
        (lambda: machines.HttpAction("http://h", "GET", timeout=0), "timeout is 0; write a number of seconds"),
        (lambda: machines.HttpAction("http://h", "GET", json={}, data=b""), "json goes with neither data nor files"),
        (lambda: machines.HttpAction("http://h", "GET", proxies={}), "proxies is not supported"),
        (lambda: machines.GenericLatentMachine("m"), "start_action is None, None, not an action"),
        (lambda: machines.GenericLatentMachine("m", "virsh", "x"), "start_action is a str, 'virsh', not an action"),
        (
            lambda: machines.GenericLatentMachine("m", machines.LocalWakeAction, machines.LocalWakeAction(["true"])),
            "start_action is the class LocalWakeAction, not an action",
        ),
        (lambda: machines.GenericLatentMachine("m 1", None, None), "the name of a machine is 'm 1'"),
        (lambda: ok(wait_for="host"), "wait_for is 'host'; write 'HOST:PORT'"),
        (lambda: ok(build_wait_timout=5), "has no keyword 'build_wait_timout'; did you mean 'build_wait_timeout'?"),
        (lambda: ok(missing_timeout=0), "missing_timeout is 0; write a number of seconds above 0"),
    ],
)
def test_a_wrong_declaration_is_told(make: Any, message: str) -> None:
    """What is wrong, and what to write."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert message in str(caught.value)
    assert "; " in str(caught.value)


def ok(**kwargs: Any) -> Any:
    return machines.GenericLatentMachine("m", machines.LocalWakeAction(["true"]), machines.LocalWakeAction(["true"]), **kwargs)


def test_what_is_missing_on_this_machine_is_told(tmp_path: Path) -> None:
    """Programs and files, before anything is started; paths begin at the directory of master.cfg."""
    (tmp_path / "up.sh").write_text("#!/bin/sh\n")
    (tmp_path / "key").write_text("a key")
    (tmp_path / "key").chmod(0o644)
    machine = machines.GenericLatentMachine(
        "m1",
        machines.LocalWakeAction(["no-such-program"]),
        machines.RemoteSshSuspendAction("h", sshBin="true", sshKey="no-key", sshHostKey="no-hosts"),
    )
    first, second, third = machine.mistakes(tmp_path)
    assert first.startswith(
        "machine 'm1': start_action: LocalWakeAction: command: there is no program 'no-such-program'; install"
    )
    assert second.startswith(f"machine 'm1': stop_action: RemoteSshSuspendAction: sshKey: there is no file '{tmp_path}/no-key'; ")
    assert third.startswith(
        f"machine 'm1': stop_action: RemoteSshSuspendAction: sshHostKey: there is no file '{tmp_path}/no-hosts'"
    )
    relative = machines.GenericLatentMachine(
        "m1", machines.LocalWakeAction(["./up.sh"]), machines.RemoteSshSuspendAction("h", sshBin="true", sshKey="key")
    )
    first, second = relative.mistakes(tmp_path)
    assert "there is no program './up.sh'; correct the path, or make it executable" in first
    assert "can be read by others, and ssh refuses such a key; chmod 600 it" in second
    (tmp_path / "up.sh").chmod(0o755)
    (tmp_path / "key").chmod(stat.S_IRUSR)
    assert list(relative.mistakes(tmp_path)) == []
