"""What a scenario needs to know of a kind of instance, and do to one behind the controller's back."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from latent.testing.cloud.remote import CloudProcess
from latent.testing.cloud.values import EXITED, GONE, PENDING, RUNNING, STOPPING

_AGENT = [sys.executable, "-P", "-m", "latent.agent.main", "--orphan-timeout", "120"]

# The lock is the agent's as long as it lives: whoever comes while another has it is one too many.
_BIRTH = """exec 9>>{directory}/agent.$LATENT_WORKER.lock
flock -n 9 || echo "$LATENT_INSTANCE" >> {directory}/beside
echo "$LATENT_INSTANCE" >> {directory}/births
exec {agent}
"""


class Provider(Protocol):
    """Of one site. Attempts are written as WORKER#NUMBER."""

    def declared(self, name: str, **keywords: Any) -> str:
        """A worker, as a master.cfg has it."""
        ...

    def births(self) -> Counter[str]:
        """How many instances each attempt ever had."""
        ...

    def left(self) -> list[str]:
        """What is there now."""
        ...

    def doubled(self) -> list[str]:
        """Attempts that had several instances at once, in words."""
        ...

    def beside(self) -> list[str]:
        """Attempts whose instance came while another of the same worker was there."""
        ...

    def plant(self, controller_id: str, worker: str, number: int) -> None:
        """An instance that the controller's records know nothing of."""
        ...

    def close(self) -> None:
        """End what a failed test has left."""
        ...


def _keywords(keywords: dict[str, Any]) -> str:
    return "".join(f", {name}={value!r}" for name, value in keywords.items())


class Processes:
    """Instances that are processes. What each does first is to write itself down."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._planted: list[subprocess.Popen[bytes]] = []

    def declared(self, name: str, **keywords: Any) -> str:
        script = _BIRTH.format(directory=shlex.quote(str(self._directory)), agent=shlex.join(_AGENT))
        given = {"command": ["sh", "-c", script], "stop_grace": 0.5, **keywords}
        return f"workers.KilledProcessWorker({name!r}{_keywords(given)})"

    def births(self) -> Counter[str]:
        return Counter(self._lines("births"))

    def left(self) -> list[str]:
        directories = [str(path) for path in (self._directory / "state" / "instances").glob("*")]
        # To look at all processes costs more.
        return directories or [f"process {pid} of {marker}" for pid, marker in self._processes()]

    def doubled(self) -> list[str]:
        return [f"{attempt} had {count} instances" for attempt, count in self.births().items() if count > 1]

    def beside(self) -> list[str]:
        return self._lines("beside")

    def plant(self, controller_id: str, worker: str, number: int) -> None:
        directory = self._directory / "state" / "instances" / f"{worker}-{number}-{controller_id[:8]}"
        directory.mkdir(parents=True, exist_ok=True)
        marker = {"LATENT_INSTANCE": f"{controller_id}/{worker}/{number}", "LATENT_INSTANCE_DIR": str(directory)}
        self._planted.append(
            subprocess.Popen(["sleep", "600"], cwd=directory, env={**os.environ, **marker}, start_new_session=True)
        )

    def close(self) -> None:
        for pid, _ in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for planted in self._planted:
            planted.kill()
            planted.wait()

    def _lines(self, name: str) -> list[str]:
        """Attempts that instances have written into the file."""
        file = self._directory / name
        return ["#".join(line.split("/")[1:]) for line in file.read_text().splitlines()] if file.exists() else []

    def _processes(self) -> Iterator[tuple[int, str]]:
        """Those of this site's instances, with their markers; the dead have no environment."""
        below = f"LATENT_INSTANCE_DIR={self._directory}/state/instances".encode()
        for name in os.listdir("/proc"):
            with suppress(OSError, ValueError):
                environment = Path(f"/proc/{int(name)}/environ").read_bytes().split(b"\0")
                if any(entry.startswith(below) for entry in environment):
                    marker = next(entry for entry in environment if entry.startswith(b"LATENT_INSTANCE="))
                    yield int(name), marker.partition(b"=")[2].decode()


class InCloud:
    """Instances of a cloud that is a process of its own and that other sites use too: workers' names are this site's alone."""

    def __init__(self, cloud: CloudProcess, name: str) -> None:
        self._cloud = cloud
        self._name = name

    def declared(self, name: str, **keywords: Any) -> str:
        return f"workers.KilledCloudWorker({name!r}, cloud={self._cloud.address!r}{_keywords(keywords)})"

    def births(self) -> Counter[str]:
        return Counter(str(one.attempt) for one in self._mine(PENDING, RUNNING, STOPPING, EXITED, GONE))

    def left(self) -> list[str]:
        return [f"{one.id} of {one.attempt}, {one.state}" for one in self._mine(PENDING, RUNNING, STOPPING, EXITED)]

    def doubled(self) -> list[str]:
        twice = [f"{attempt} had {count} instances" for attempt, count in self.births().items() if count > 1]
        return [*twice, *(told for told in self._cloud.complaints() if told.startswith(self._name))]

    def beside(self) -> list[str]:
        return []  # nobody counts them

    def plant(self, controller_id: str, worker: str, number: int) -> None:
        self._cloud.plant(controller_id=controller_id, worker=worker, attempt=number, age=3600)

    def close(self) -> None:
        for one in self._mine(PENDING, RUNNING, STOPPING, EXITED):
            self._cloud.vanish(one.id)

    def _mine(self, *states: str) -> list[Any]:
        found = self._cloud.instances(*states)
        return [one for one in found if one.attempt is not None and one.attempt.worker.startswith(self._name)]
