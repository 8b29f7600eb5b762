"""What starts and stops machines: commands, Wake-on-LAN and HTTP, each against the real thing on loopback."""

from __future__ import annotations

import os
import socket
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

from latent.errors import MachineError
from latent.plugins import machine as machines
from latent.worker import commands
from latent.worker.machine import AbstractLatentMachine
from latent.worker.machine_actions import magic_packet
from tests.machines.kit import MAC, generic, start, stop

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
