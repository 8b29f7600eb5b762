"""A real sshd on loopback, which knows one key and runs what it is told to as the user of the tests."""

from __future__ import annotations

import contextlib
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

import psutil

SSHD = shutil.which("sshd") or ("/usr/sbin/sshd" if Path("/usr/sbin/sshd").exists() else None)

_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/authorized
PidFile {directory}/pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
AcceptEnv LATENT_*
MaxStartups 50
"""


class Prepared:
    """A server that can be started and stopped. ``host``: as `ssh` takes it. ``key``: the file of the private key that is let in.
    ``host_key``: the server's public one."""

    def __init__(self, directory: Path) -> None:
        for name in ("host", "user"):
            made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a test", "-f", str(directory / name)]
            subprocess.run(made, check=True)
        (directory / "authorized").write_text((directory / "user.pub").read_text())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.host = f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"
        self.key = directory / "user"
        self.host_key = " ".join((directory / "host.pub").read_text().split()[:2])
        self.pid_file = directory / "pid"
        self._config = directory / "config"
        self._config.write_text(_CONFIG.format(port=self.port, directory=directory))
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert SSHD is not None
        # It insists on this one, whoever it runs as.
        Path("/run/sshd").mkdir(exist_ok=True)
        self._process = subprocess.Popen([SSHD, "-D", "-f", str(self._config), "-E", str(self._log)], stdin=subprocess.DEVNULL)
        for _ in range(600):
            assert self._process.poll() is None, self._log.read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(self._log.read_text())

    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def cut(self) -> None:
        """Cut off whoever is connected, as a machine does that is gone."""
        assert self._process is not None
        for child in psutil.Process(self._process.pid).children():
            child.kill()

    def stop(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._process.pid).children(recursive=True):
                child.terminate()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGTERM)
        self._process.wait()


@contextmanager
def running(directory: Path) -> Iterator[Prepared]:
    server = Prepared(directory)
    server.start()
    try:
        yield server
    finally:
        server.stop()
