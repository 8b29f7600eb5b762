"""The controller under chaos: a process that is killed, suspended and started again, on a disk that may be full for a while."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from benchmarks.chaos.part import Later

DISK = 96 << 20
"""Bytes of the disk that the controller's state is on, where it has one of its own."""


class Away(Exception):
    """The controller did not answer; nobody knows whether it has done what was asked of it."""


class Refused(Exception):
    """The controller said no. ``passes``: that it can't do it now."""

    def __init__(self, message: str, passes: bool) -> None:
        super().__init__(message)
        self.passes = passes


class Controller:
    """Of ``directory``, where its master.cfg is. ``wrong``: what it did that it never may.

    ``lives``: how its processes came up and ended. ``stopping``: it was told to end.
    """

    def __init__(self, directory: Path, later: Later) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.log = directory / "latent.log"
        self.wrong: list[str] = []
        self.lives: Counter[str] = Counter()
        self._later = later
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False
        self._short_of_disk = False
        self.stopping = False
        self._filler = self.state / "filler"
        self.state.mkdir(mode=0o700)
        self._own_disk = os.geteuid() == 0 and _mount(self.state)

    # --- its lives -----------------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """None while there is none."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        self._wanted = True
        if self._process is not None:
            return
        command = [sys.executable, "-m", "latent.cli", "-C", str(self.directory), "start", "--foreground"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "NO_COLOR": "1"},
            )
        self.stopping = False
        self._short_of_disk = self._filler.exists()
        self.lives["started"] += 1

    def look(self) -> None:
        """See whether it has ended by itself: that it may only do when it was told to, or when its disk is full."""
        process = self._process
        if process is None or process.poll() is None:
            return
        self._process = None
        if self.stopping and process.returncode in (0, -signal.SIGTERM):
            # The signal, where it came before the controller knew what to do about it, or had done all there was to do.
            self.lives["stopped"] += 1
        elif self._short_of_disk:
            self.lives["ended for want of disk"] += 1
        else:
            self.lives["ended by itself"] += 1
            self.wrong.append(f"controller {process.pid} ended by itself with code {process.returncode}\n{self.tail()}")
        if self._wanted:
            self._later(1.0, self.start)

    def kill(self) -> None:
        """`kill -9`. It is not started again by itself."""
        self._wanted = False
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            self.lives["killed"] += 1

    def stop(self) -> None:
        """Tell it to end: fast, in order, with all its instances."""
        self._wanted, self.stopping = False, True
        process = self._process
        if process is not None:
            with contextlib.suppress(Away, Refused):
                self.call("POST", "stop", fast=True)
                return
            process.send_signal(signal.SIGTERM)

    def ended(self, seconds: float) -> bool:
        """Wait for it to end, once it was told to."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        self.look()
        return self._process is None

    # --- what befalls it -----------------------------------------------------------------------------------------------------

    def strike(self, what: str, seconds: float) -> str:
        """As `Part.strike`."""
        process = self._process
        if process is None or process.poll() is not None or self.stopping:
            return ""
        match what:
            case "kill":
                self.kill()
                self._later(seconds, self.start)
            case "freeze":
                process.send_signal(signal.SIGSTOP)
                self._later(seconds, lambda: process.send_signal(signal.SIGCONT))
            case "stop":
                self.stop()
                self._later(seconds, lambda: self._again(process))
            case "disk":
                if not self._own_disk:
                    return ""
                self._fill()
                self._later(seconds, self.mend)
        return f"controller {process.pid}"

    def _again(self, process: subprocess.Popen[bytes]) -> None:
        """Once the one that stops has ended."""
        if self._process is process and process.poll() is None:
            self._later(1.0, lambda: self._again(process))
        else:
            self.start()

    def _fill(self) -> None:
        """To the last byte."""
        self._short_of_disk = True
        with self._filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 10, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)):
                        pass

    def mend(self) -> None:
        """There is room on its disk."""
        self._filler.unlink(missing_ok=True)

    # --- asking it -----------------------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, **body: Any) -> Any:
        """What the API answers. Raises Away, or Refused for what it can't or will not do."""
        try:
            address = json.loads((self.state / "api.json").read_text())
            token = (self.state / "token").read_text().strip()
            connection = _Connection(address["socket"])
            try:
                headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
                connection.request(method, f"/api/v1/{path}", json.dumps(body).encode() if body else None, headers)
                answer = connection.getresponse()
                text = answer.read().decode()
            finally:
                connection.close()
        except (OSError, ValueError, HTTPException) as error:
            raise Away(repr(error)) from error
        if answer.status >= 400:
            raise Refused(f"{method} {path}: {answer.status} {text[:300]}", passes=answer.status == 503)
        return json.loads(text)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def close(self) -> None:
        self.kill()
        if self._own_disk:
            subprocess.run(["umount", "--lazy", str(self.state)], check=False, capture_output=True)


class _Connection(HTTPConnection):
    """To a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("latent", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _mount(place: Path) -> bool:
    """A small disk in memory; whether there is one now."""
    options = f"size={DISK},mode=0700"
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "latent-chaos", str(place)], check=False, capture_output=True
        )
    except OSError:
        return False
    return done.returncode == 0
