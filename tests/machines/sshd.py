"""A real sshd on loopback, which knows one key and runs what it is told to as the user of the tests."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

SSHD = shutil.which("sshd") or ("/usr/sbin/sshd" if Path("/usr/sbin/sshd").exists() else None)

_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/authorized
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
MaxStartups 50
"""


@frozen
class Sshd:
    """``host``: as `ssh` takes it. ``key``: the file of the private key that is let in. ``host_key``: the server's public one."""

    host: str
    port: int
    key: Path
    host_key: str
    process: subprocess.Popen[bytes]
    log: Path

    def cut(self) -> None:
        """Cut off whoever is connected, as a machine does that is gone."""
        for pid in _children(self.process.pid):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def running(directory: Path) -> Iterator[Sshd]:
    assert SSHD is not None
    # It insists on this one, whoever it runs as.
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a test", "-f", str(directory / name)], check=True)
    (directory / "authorized").write_text((directory / "user.pub").read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = directory / "config"
    config.write_text(_CONFIG.format(port=port, directory=directory))
    log = directory / "log"
    process = subprocess.Popen([SSHD, "-D", "-f", str(config), "-E", str(log)], stdin=subprocess.DEVNULL)
    try:
        _wait_for(port, process, log)
        host_key = " ".join((directory / "host.pub").read_text().split()[:2])
        yield Sshd(f"ssh://{getpass.getuser()}@127.0.0.1:{port}", port, directory / "user", host_key, process, log)
    finally:
        for pid in [*_children(process.pid), process.pid]:
            os.kill(pid, signal.SIGTERM)
        process.wait()


def _children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(log.read_text())
