"""A controller as a user has it: a directory with a master.cfg, the `latent` command, real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

LATENT = str(Path(sys.executable).with_name("latent"))

PATIENCE = 300.0
"""Seconds after which something that was waited for counts as never coming."""


class Site:
    def __init__(self, directory: Path, config: str) -> None:
        self.directory = directory
        self.configure(config)

    def configure(self, config: str) -> None:
        (self.directory / "master.cfg").write_text("from latent.plugins import util, worker\n\n" + config)

    # --- the command ---------------------------------------------------------------------------------------------------------

    def command(self, *args: str) -> list[str]:
        return [LATENT, "-C", str(self.directory), *args]

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*args),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "160"},
        )

    def latent(self, *args: str) -> str:
        done = self.run(*args)
        assert done.returncode == 0, f"latent {' '.join(args)}: {done.returncode}\n{done.stdout}{done.stderr}\n{self.log()}"
        return done.stdout

    def log(self) -> str:
        logs = list((self.directory / "state").glob("*.log"))
        return "\n".join(path.read_text()[-5000:] for path in logs)

    # --- the API -------------------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, **body: Any) -> httpx.Response:
        state = self.directory / "state"
        address = json.loads((state / "api.json").read_text())
        token = (state / "token").read_text().strip()
        # To load the certificates of the world's authorities takes longer than most calls.
        transport = httpx.HTTPTransport(uds=address["socket"], verify=False)
        with httpx.Client(transport=transport, base_url="http://latent", timeout=30, trust_env=False) as client:
            answer = client.request(method, f"/api/v1/{path}", headers={"Authorization": f"Bearer {token}"}, json=body or None)
        return answer.raise_for_status()

    def call(self, method: str, path: str, **body: Any) -> Any:
        return self.answer(method, path, **body).json()

    def lines(self, number: int) -> list[dict[str, Any]]:
        """The log lines of a build."""
        return [json.loads(line) for line in self.answer("GET", f"builds/{number}/logs?format=json").text.splitlines()]

    def port(self, protocol: str) -> int:
        """Where agents of this protocol attach, if master.cfg leaves that open."""
        return int((self.directory / "state" / f"{protocol}.port").read_text())

    def submit(self, command: str, **more: Any) -> int:
        return int(self.call("POST", "builds", command=command, **more)["id"])

    def builds(self) -> dict[int, dict[str, Any]]:
        return {build["id"]: build for build in self.call("GET", "builds?limit=1000")["builds"]}

    def build(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"builds/{number}")
        return found

    def workers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", "workers")["workers"]
        return found

    def wait(self, what: str, ready: Callable[[], Any]) -> Any:
        """Ask until the answer is true; fails after PATIENCE seconds with the controller's log."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            answer = ready()
            if answer:
                return answer
            time.sleep(0.1)
        raise AssertionError(f"never came: {what}\n{self.builds()}\n{self.log()}")

    def wait_for_all(self) -> dict[int, dict[str, Any]]:
        self.wait("the end of all builds", lambda: all(b["state"] == "finished" for b in self.builds().values()))
        return self.builds()

    # --- the plug ------------------------------------------------------------------------------------------------------------

    def controller_pid(self) -> int:
        return int(json.loads((self.directory / "state" / "api.json").read_text())["pid"])

    def kill_controller(self) -> None:
        pid = self.controller_pid()
        os.kill(pid, signal.SIGKILL)
        self.wait_gone(pid)

    def wait_gone(self, pid: int) -> None:
        try:
            psutil.Process(pid).wait(timeout=PATIENCE)
        except psutil.NoSuchProcess:
            return

    def instances(self) -> Iterator[psutil.Process]:
        """Every process of an instance of this site."""
        below = str(self.directory / "state")
        for process in psutil.process_iter(["environ"]):
            environment = process.info["environ"] or {}
            if "LATENT_INSTANCE" in environment and any(value.startswith(below) for value in environment.values()):
                yield process

    def agents(self) -> list[psutil.Process]:
        """The leading process of each instance: it leads its session."""
        return [
            process for process in self.instances() if os.getsid(process.pid) == process.pid and process.pid in _agents(process)
        ]

    def end(self) -> None:
        """Whatever a test left is ended, by pid."""
        self.run("stop", "--fast")
        for process in self.instances():
            process.kill()


def _agents(process: psutil.Process) -> set[int]:
    return {process.pid} if "latent.agent.main" in " ".join(process.cmdline()) else set()
