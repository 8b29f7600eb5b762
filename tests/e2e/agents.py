"""Agents of all kinds as processes of their own, for plain workers: each in its own directory, with its worker's password."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

BIN = Path(sys.executable).parent
GATEWAYS = Path(__file__).parents[1] / "gateways"
TAC = Path(__file__).parents[2] / "examples" / "buildbot-worker" / "buildbot.tac"

WOODPECKER = [sys.executable, str(GATEWAYS / "woodpecker" / "program.py")]
BOT = [sys.executable, str(GATEWAYS / "bots" / "program.py")]
BUILDBOT = [str(BIN / "twistd"), "--nodaemon", "--pidfile=", "--no_save", "--python", str(TAC)]
"""Commands of instances: these agents find in their environment where they are to attach, and as whom."""

Port = Callable[[str], int]


class Agent:
    """A process with what it writes in agent.log of its directory."""

    def __init__(self, directory: Path, command: Sequence[str], **variables: str) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LATENT_")}
        kept = {name: value for name, value in os.environ.items() if name.startswith("LATENT_TEST_")}
        with (directory / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env={**environment, **kept, **variables},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return (self.directory / "agent.log").read_text(errors="replace")

    def end(self) -> int:
        """SIGTERM; its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def ours(directory: Path, port: Port, name: str, password: str, capacity: int) -> Agent:
    """A `latent-agent`."""
    told = {"LATENT_SERVER": f"127.0.0.1:{port('peer')}", "LATENT_TOKEN": password, "LATENT_CAPACITY": str(capacity)}
    return Agent(directory, [str(BIN / "latent-agent")], **told, GRPC_ENABLE_FORK_SUPPORT="0")


def buildbot(directory: Path, port: Port, name: str, password: str, capacity: int) -> Agent:
    """A stock `buildbot-worker`, made and started by its own command."""
    command = str(BIN / "buildbot-worker")
    place = f"127.0.0.1:{port('pb')}"
    subprocess.run([command, "create-worker", "--quiet", str(directory), place, name, password], check=True)
    return Agent(directory, [command, "start", "--nodaemon", str(directory)])


def woodpecker(directory: Path, port: Port, name: str, password: str, capacity: int) -> Agent:
    """A Woodpecker agent, made from the description of its protocol."""
    told = {
        "WOODPECKER_SERVER": f"127.0.0.1:{port('peer')}",
        "WOODPECKER_AGENT_SECRET": password,
        "WOODPECKER_HOSTNAME": "a-host",
        "WOODPECKER_MAX_WORKFLOWS": str(capacity),
        "WOODPECKER_AGENT_CONFIG_FILE": str(directory / "agent.json"),
    }
    return Agent(directory, WOODPECKER, **told)


def bot(directory: Path, port: Port, name: str, password: str, capacity: int) -> Agent:
    """A bot of the Remote Workers API, made from the description of its protocol."""
    told = {
        "LATENT_BOTS_SERVER": f"127.0.0.1:{port('bots')}",
        "LATENT_BOTS_INSTANCE": "",
        "LATENT_BOT_TOKEN": password,
        "LATENT_WORKER": name,
        "LATENT_CAPACITY": str(capacity),
    }
    return Agent(directory, BOT, **told)


KINDS: Mapping[str, Callable[[Path, Port, str, str, int], Agent]] = {
    "ours": ours,
    "buildbot": buildbot,
    "woodpecker": woodpecker,
    "bot": bot,
}
"""Each starts an agent of its kind: directory, ports by protocol, the worker's name and password, how many builds at a time."""
