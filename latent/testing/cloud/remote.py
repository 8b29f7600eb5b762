"""A cloud that is a process of its own, as a test has it: orders that block until they are carried out."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from latent.testing.cloud.orders import Orders
from latent.testing.cloud.values import CloudError, Instance

PATIENCE = 60.0
"""Seconds that the process may take to start, to answer and to end."""


class RemoteCloud(Orders):
    """The cloud at ``address`` ("host:port"). Any thread may give it orders."""

    def __init__(self, address: str, *, seed: int = 0) -> None:
        self.address = address
        self.seed = seed

    def order(self, what: str, /, **arguments: Any) -> Any:
        host, _, port = self.address.rpartition(":")
        message = json.dumps({"order": what, "arguments": arguments})
        try:
            with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
                connection.sendall(message.encode() + b"\n")
                with connection.makefile("rb") as answers:
                    line = answers.readline()
        except OSError as error:
            raise CloudError("unreachable", f"no cloud answers at {self.address}: {error}") from error
        if not line:
            raise CloudError("unreachable", f"the cloud at {self.address} broke the connection off")
        answer = json.loads(line)
        if "error" in answer:
            raise CloudError(answer["error"], answer["message"])
        return answer["answer"]

    def wait(self, until: Callable[[list[Instance]], object], *, seconds: float = 60, what: str = "it") -> list[Instance]:
        """Look at the instances until ``until`` says yes; what they were then. AssertionError after ``seconds``. Blocks."""
        end = time.monotonic() + seconds
        while True:
            found = self.instances()
            if until(found):
                return found
            if time.monotonic() > end:
                raise AssertionError(f"{what} did not come to be within {seconds:g} s; what happened:\n{self.transcript()}")
            threading.Event().wait(0.05)


class CloudProcess(RemoteCloud):
    """Starts one, in ``directory``; it ends with the ``with``, with `close`, or with the process that started it.

    ``options``: of ``python -m latent.testing.cloud``, boot=0.5 for ``--boot 0.5``, empty=True for ``--empty``.
    """

    def __init__(self, directory: Path, *, seed: int = 0, **options: float | bool) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        port_file = directory / "cloud.port"
        port_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "latent.testing.cloud", "--tied", "--seed", str(seed)]
        command += ["--port-file", str(port_file), "--directory", str(directory / "instances")]
        for name, value in options.items():
            if value is not False:
                command.append(f"--{name.replace('_', '-')}" + ("" if value is True else f"={value:g}"))
        self._log = directory / "cloud.log"
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"}
            )
        try:
            super().__init__(self._address(port_file), seed=seed)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End it with all its instances."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _address(self, port_file: Path) -> str:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                return port_file.read_text().strip()
            threading.Event().wait(0.02)
        raise CloudError("unreachable", f"the cloud did not start: {self._log.read_text(errors='replace')[-2000:]}")
