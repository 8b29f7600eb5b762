"""What chaos needs to know of each kind of worker, and does to its provider behind the controller's back."""

from __future__ import annotations

import shlex
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import psutil

T = TypeVar("T")

AGENT = [sys.executable, "-P", "-m", "latent.agent.main", "--orphan-timeout", "600"]

# The first thing that an agent does is to write itself down. The lock is its own as long as it lives.
_BIRTH = """exec 9>>{directory}/agent.$LATENT_WORKER-$LATENT_ATTEMPT
flock -n 9 || echo "$LATENT_WORKER#$LATENT_ATTEMPT" >> {directory}/twins
echo "$LATENT_WORKER#$LATENT_ATTEMPT" >> {directory}/births.{part}
exec {agent}
"""

Later = Callable[[float, Callable[[], object]], None]


class Unavailable(Exception):
    """The part can't be played on this machine; the message says why."""


class Part(Protocol):
    """One kind of workers and their provider. ``name``: one of `PARTS`.

    Attempts are written as WORKER#NUMBER.
    """

    name: str

    def declared(self, variant: int) -> str:
        """Its pool, as a master.cfg has it. Variants differ in how many there are, and how long they are kept."""
        ...

    def strike(self, what: str, seconds: float, lot: float) -> str:
        """Have the fault happen, and end after so many seconds; what was struck, "" if there was nothing to strike."""
        ...

    def mend(self) -> None:
        """Nothing is wrong any more."""
        ...

    def births(self) -> Counter[str]:
        """How many instances each attempt has had."""
        ...

    def left(self) -> list[str]:
        """What is there now, by the provider itself."""
        ...

    def wrong(self) -> list[str]:
        """What may never be, whatever goes wrong."""
        ...

    def close(self) -> None:
        """End everything, whatever is left."""
        ...


def drawn(lot: float, among: Sequence[T]) -> T | None:
    """The one that the lot falls on; None if there is none."""
    return among[min(int(lot * len(among)), len(among) - 1)] if among else None


def declaration(kind: str, part: str, variant: int, **keywords: Any) -> str:
    given = {
        "count": 2 + variant % 2,
        "labels": {"part": part},
        "check_instance_interval": 3,
        "start_timeout": 40,
        "stop_timeout": 25,
        "missing_timeout": 60,
        "reattach_timeout": 15,
        **keywords,
    }
    told = "".join(f", {name}={value!r}" for name, value in given.items())
    return f"{kind}('{part}-{{n}}'{told})"


def born(directory: Path, part: str, agent: Sequence[str] = AGENT) -> list[str]:
    """The command of an agent that writes itself down."""
    return ["sh", "-c", _BIRTH.format(directory=shlex.quote(str(directory)), part=part, agent=shlex.join(agent))]


def births(directory: Path, part: str) -> Counter[str]:
    return Counter(lines(directory / f"births.{part}"))


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def freeze(pids: Sequence[int], seconds: float, later: Later) -> None:
    """Suspend these processes for a while; who has ended by then is passed over, and so is who took its number."""
    frozen = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            process.send_signal(signal.SIGSTOP)
        except psutil.NoSuchProcess:
            continue
        frozen.append(process)

    def thaw() -> None:
        for process in frozen:
            try:
                process.send_signal(signal.SIGCONT)
            except psutil.NoSuchProcess:
                continue

    later(seconds, thaw)


def _is_agent(process: psutil.Process) -> bool:
    try:
        return "latent.agent.main" in process.cmdline()
    except psutil.Error:
        return False


class Processes:
    """Instances that are processes of this machine; their directories are below ``directory``."""

    name = "process"

    def __init__(self, directory: Path, later: Later) -> None:
        self._directory = directory
        self._below = directory / "instances"
        self._later = later

    def declared(self, variant: int) -> str:
        given = {"basedir": str(self._below), "command": born(self._directory, self.name), "stop_grace": 2}
        return declaration("worker.ProcessLatentWorker", self.name, variant, build_wait_timeout=8 * (variant % 2), **given)

    def strike(self, what: str, seconds: float, lot: float) -> str:
        agent = drawn(lot, self._agents())
        if agent is None:
            return ""
        if what == "kill":
            agent.kill()
        else:
            whole = [one.pid for one in self._processes() if self._marker(one) == self._marker(agent)]
            freeze(whole, seconds, self._later)
        return f"the agent {agent.pid}"

    def mend(self) -> None:
        """What was suspended goes on by itself."""

    def births(self) -> Counter[str]:
        return births(self._directory, self.name)

    def left(self) -> list[str]:
        running = [f"process {one.pid} of {self._marker(one)}" for one in self._processes()]
        return running + [f"the directory {path}" for path in self._below.glob("*")]

    def wrong(self) -> list[str]:
        return [f"{attempt} had two agents at once" for attempt in lines(self._directory / "twins")]

    def close(self) -> None:
        for process in self._processes():
            process.kill()

    @staticmethod
    def _marker(process: psutil.Process) -> str:
        try:
            return str(process.environ().get("LATENT_INSTANCE", ""))
        except psutil.Error:
            return ""

    def _agents(self) -> list[psutil.Process]:
        """The guard of an agent has the same command line, and is its child."""
        agents = [process for process in self._processes() if _is_agent(process)]
        return [process for process in agents if process.ppid() not in {one.pid for one in agents}]

    def _processes(self) -> list[psutil.Process]:
        """All of its instances; the dead are none."""
        found = []
        for process in psutil.process_iter(["environ", "status"]):
            environment = process.info["environ"] or {}
            lives = process.info["status"] != psutil.STATUS_ZOMBIE
            if lives and environment.get("LATENT_INSTANCE_DIR", "").startswith(str(self._below)):
                found.append(process)
        return found
