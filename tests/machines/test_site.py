"""Machines as a user has them: a master.cfg, the `latent` command, real commands, a real SSH server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from latent.worker.machine_actions import magic_packet
from tests.e2e.site import Site
from tests.machines import sshd
from tests.requires import require

MAC = "00:1b:21:3c:9d:0e"


@contextmanager
def site(directory: Path, config: str) -> Iterator[Site]:
    directory.mkdir()
    made = Site(directory, "from latent.plugins import machine\n" + config)
    try:
        yield made
    finally:
        made.end()


def machine(made: Site) -> dict[str, Any]:
    (found,) = made.call("GET", "workers")["machines"]
    return dict(found)


GATED = """
def says(what, gate):
    return ["sh", "-c", f"echo {what} >> {basedir}/told; read line < {basedir}/{gate}; echo {what} is done >> {basedir}/told"]

wake = machine.LocalWakeAction(says("wake", "gate"))
suspend = machine.LocalSuspendAction(["sh", "-c", f"echo suspend >> {basedir}/told"])
c["machines"] = [machine.GenericLatentMachine("vm", wake, suspend)]
c["workers"] = [worker.ProcessLatentWorker("w", machine_name="vm", build_wait_timeout=600)]
"""


def test_a_controller_that_is_killed_while_its_machine_starts(tmp_path: Path) -> None:
    """The next one waits for what the first still does, starts it again, runs the build, and stops it when nobody builds."""
    with site(tmp_path / "site", GATED) as made:
        gate, told = made.directory / "gate", made.directory / "told"
        os.mkfifo(gate)
        made.latent("start")
        build = made.submit("echo hello")
        made.wait("the wake", told.exists)
        assert machine(made)["state"] == "STARTING"
        assert "(w is SUBSTANTIATING, its machine vm is STARTING)" in made.latent("why", str(build))
        made.kill_controller()
        made.latent("start")
        assert machine(made)["state"] == "STARTING"
        gate.write_text("go\n")  # the wake that the first has left
        made.wait("the second wake", lambda: told.read_text().splitlines()[:3] == ["wake", "wake is done", "wake"])
        gate.write_text("go\n")
        assert made.wait_for_all()[build]["result"] == "success"
        made.wait("the stop", lambda: machine(made)["state"] == "STOPPED")
        assert told.read_text().splitlines() == ["wake", "wake is done", "wake", "wake is done", "suspend"]
        assert [line.split()[3:5] for line in made.latent("history", "vm").splitlines()[1:3]] == [
            ["Wanted", "STARTING"],
            ["Recovered", "STARTING"],
        ]


class Host:
    """A machine in the network: a Wake-on-LAN packet starts its SSH server; suspending it ends that."""

    def __init__(self, server: sshd.Prepared) -> None:
        self.server = server
        self.woken = 0
        self._card = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._card.bind(("127.0.0.1", 0))
        self.port = self._card.getsockname()[1]
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while (packet := self._card.recv(1000)) != b"off":
            if packet == magic_packet(MAC) and not self.server.is_up():
                self.server.start()
                self.woken += 1

    def close(self) -> None:
        self._card.sendto(b"off", ("127.0.0.1", self.port))
        self._thread.join()
        self._card.close()
        self.server.stop()


IN_THE_NETWORK = """
ssh = {{"sshKey": {key!r}, "sshHostKey": {host_key!r}}}
c["machines"] = [
    machine.GenericLatentMachine(
        "builder-1",
        machine.LocalWOLAction({mac!r}, address="127.0.0.1", port={wol}),
        machine.RemoteSshSuspendAction({host!r}, {suspend!r}, **ssh),
        wait_for="127.0.0.1:{port}",
    )
]
known = ["-o", "UserKnownHostsFile={known}", "-i", {key!r}, "-o", "BatchMode=yes"]
agent = ["ssh", "-tt", "-o", "SendEnv=LATENT_*", *known, {host!r}, "exec {python} -P -m latent.agent.main"]
c["workers"] = [worker.ProcessLatentWorker("w", command=agent, machine_name="builder-1")]
"""


def test_a_machine_is_woken_by_a_packet_and_its_agent_is_started_over_ssh(tmp_path: Path) -> None:
    """As in the documentation: Wake-on-LAN, `latent-agent` through ssh, and a suspend that cuts its own connection off."""
    require(sshd.SSHD and os.getuid() == 0, "an SSH server", "apt-get install openssh-server, and run the tests as root")
    (tmp_path / "host").mkdir()
    server = sshd.Prepared(tmp_path / "host")
    known = tmp_path / "known_hosts"
    known.write_text(f"* {server.host_key}\n")
    host = Host(server)
    config = IN_THE_NETWORK.format(
        key=str(server.key),
        host_key=server.host_key,
        mac=MAC,
        host=server.host,
        port=server.port,
        known=known,
        python=sys.executable,
        wol=host.port,
        # The server goes, and with it the connection that the command came over.
        suspend=f"sleep 1; kill $(cat {server.pid_file}) $PPID",
    )
    try:
        with site(tmp_path / "site", config) as made:
            made.latent("start")
            build = made.submit("echo SSH_CONNECTION=$SSH_CONNECTION")
            assert made.wait_for_all()[build]["result"] == "success"
            assert any(line["text"].startswith("SSH_CONNECTION=127.0.0.1") for line in made.lines(build))
            made.wait("the suspend", lambda: machine(made)["state"] == "STOPPED")
            made.wait("its end", lambda: not server.is_up())
            assert (machine(made)["error"], host.woken) == ("", 1)
    finally:
        host.close()


def test_what_is_wrong_is_told_by_checkconfig(tmp_path: Path) -> None:
    """All at once, with lines and remedies; nothing is started."""
    config = (
        "up = machine.LocalWakeAction(['no-such-program'])\n"
        "down = machine.RemoteSshSuspendAction('vm', sshKey='keys/vm', sshBin='true')\n"
        "c['machines'] = [machine.GenericLatentMachine('vm', up, down)]\n"
        "c['workers'] = [worker.ProcessLatentWorker('w', machine_name='vn')]\n"
    )
    with site(tmp_path / "site", config) as made:
        done: subprocess.CompletedProcess[str] = made.run("checkconfig")
        assert done.returncode == 3
        for message in (
            "there is no program 'no-such-program'",
            "there is no file '",
            "worker 'w': machine_name is 'vn', which is no machine of c['machines']; did you mean 'vm'?",
            "machine 'vm' is used by no worker",
        ):
            assert message in done.stderr.replace("\n", " "), done.stderr


@pytest.fixture(autouse=True)
def _no_agents_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
