"""A Docker daemon of the tests' own: its data, sockets and processes are below one directory and go with it."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from docker import APIClient
from docker.errors import DockerException

from tests.house.guards import MARK_NAME
from tests.requires import require

ROOT = Path(__file__).resolve().parents[2]

PATIENCE = 120.0
"""Seconds after which something that was waited for counts as never coming."""

BASE = "base:1"
PYTHON = sys.executable
AGENT = [PYTHON, "-P", "-m", "latent.agent.main"]

# What a container needs of this machine to run Python with the packages of this environment.
_SHARED = ("/usr", "/lib", "/lib64", sys.prefix, sys.base_prefix, str(ROOT))
VOLUMES = [f"{path}:{path}:ro" for path in dict.fromkeys(_SHARED) if os.path.exists(path)]


def require_engine() -> None:
    """Skip the tests of the module that says so, unless a daemon can be started here."""
    remedy = "run scripts/install_real_parts.sh as root on Debian (docker.io, busybox-static)"
    require(shutil.which("dockerd"), "a Docker daemon (dockerd)", remedy)
    require(os.path.exists("/bin/busybox"), "busybox", remedy)
    require(os.geteuid() == 0, "the right to start a Docker daemon", "run the tests as root")


class Engine:
    """``url`` is where it listens. It has no network of its own for containers: they use the machine's."""

    def __init__(self, *options: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="latent-docker-"))
        self.socket = self.directory / "docker.sock"
        self.url = f"unix://{self.socket}"
        self._options = options
        self._client: APIClient | None = None
        self._process: subprocess.Popen[bytes] | None = None
        (self.directory / "daemon.json").write_text("{}")

    def start(self) -> Engine:
        """Answers when the daemon does. One that ends at once is started again, as a service manager would: what a daemon leaves
        that was killed is in the way of the next for a moment."""
        deadline = time.monotonic() + PATIENCE
        self._launch()
        while time.monotonic() < deadline:
            time.sleep(0.05)
            assert self._process is not None
            if self._process.poll() is not None:
                self._launch()
            # docker-py would leave a socket to the garbage collector for each time that nobody answers.
            with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError, DockerException):
                probe.connect(str(self.socket))
                APIClient(self.url, version="auto", timeout=int(PATIENCE)).close()
                return self
        raise AssertionError(f"dockerd did not start:\n{self.log()}")

    def _launch(self) -> None:
        with (self.directory / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("dockerd", "--config-file", str(self.directory / "daemon.json"), "--host", self.url),
                    *("--data-root", str(self.directory / "data"), "--exec-root", str(self.directory / "exec")),
                    *("--pidfile", str(self.directory / "dockerd.pid")),
                    # Nothing of this machine's network is touched.
                    *("--bridge", "none", "--iptables=false", "--ip6tables=false", *self._options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # Its processes outlive the test that they are started in, for the length of a session.
                env={name: value for name, value in os.environ.items() if name != MARK_NAME},
            )

    def log(self) -> str:
        return (self.directory / "dockerd.log").read_text()[-3000:]

    def client(self) -> APIClient:
        """The same for all who ask: each would keep a connection open."""
        if self._client is None:
            self._client = APIClient(self.url, version="auto", timeout=60)
        return self._client

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """`kill -9`. Its containers' processes may go on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Remove all containers, then the daemon and whatever it has left."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(Exception):
                client = self.client()
                for container in client.containers(all=True):
                    with contextlib.suppress(Exception):
                        client.remove_container(container["Id"], v=True, force=True)
                for name in self.networks():  # each is a device of this machine
                    with contextlib.suppress(Exception):
                        client.remove_network(name)
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._client is not None:
            self._client.close()
        for _ in range(50):
            left = list(self._processes())
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            if not psutil.wait_procs(left, timeout=1)[1]:
                break
        self._unmount()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _processes(self) -> Iterator[psutil.Process]:
        """containerd and the shims have the directory in their arguments; what runs in containers descends from shims."""
        for process in psutil.process_iter(["cmdline"]):
            if process.pid != os.getpid() and any(str(self.directory) in word for word in process.info["cmdline"] or ()):
                with contextlib.suppress(psutil.NoSuchProcess):
                    yield from process.children(recursive=True)
                yield process

    def _unmount(self) -> None:
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(str(self.directory))), reverse=True):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)

    # --- what is on it -------------------------------------------------------------------------------------------------------

    def load_base(self) -> None:
        """The image ``base:1``: a shell, and places for what is mounted."""
        self.client().import_image_from_data(rootfs(), repository="base", tag="1")

    def containers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client().containers(all=True)
        return found

    def names(self) -> list[str]:
        return sorted(name.lstrip("/") for container in self.containers() for name in container["Names"])

    def volumes(self) -> list[str]:
        return [volume["Name"] for volume in self.client().volumes()["Volumes"] or ()]

    def networks(self) -> list[str]:
        return sorted(
            network["Name"] for network in self.client().networks() if network["Name"] not in ("none", "host", "bridge")
        )

    def container_of(self, worker: str) -> dict[str, Any]:
        (found,) = self.client().containers(all=True, filters={"label": f"latent.worker={worker}"})
        document: dict[str, Any] = self.client().inspect_container(found["Id"])
        return document


@contextmanager
def running(*options: str) -> Iterator[Engine]:
    engine = Engine(*options)
    try:
        yield engine.start()
    finally:
        engine.stop()


def rootfs(links: Iterable[str] = ("sh", "sleep", "echo", "cat", "env", "false", "true", "ls", "kill", "mkdir")) -> bytes:
    """A tar archive of a root directory with busybox in it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name in ("bin", "tmp", "etc", "usr", "lib", "lib64", "proc", "sys", "dev", "var", "root"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(directory)
        archive.add("/bin/busybox", "bin/busybox")
        for name in links:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        passwd = tarfile.TarInfo("etc/passwd")
        content = b"root:x:0:0:root:/root:/bin/sh\n"
        passwd.size = len(content)
        archive.addfile(passwd, io.BytesIO(content))
    return data.getvalue()
