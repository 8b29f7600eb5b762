"""What stands for the provider's SDK: a shop whose machines are programs of this host. Its calls block, as most SDKs' do.

Take your provider's SDK in its place; this module is no part of what a plugin needs.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

SIZES = ("small", "large")

RUN = 'cd "$0" && exec "$@" </dev/null >output 2>&1 & echo $!'
"""The program goes on when the shell that started it ends; nobody has to wait for it."""

PATIENCE = 5.0
"""Seconds that a machine gets to end by itself."""


class ShopError(Exception):
    """The shop refuses; its words say why."""


class UnknownSize(ShopError):
    """There are no machines of that size."""


class Machine(NamedTuple):
    """``state``: "up", "suspended" or "ended". ``created``: POSIX seconds."""

    id: str
    tags: Mapping[str, str]
    created: float
    state: str


class Shop:
    """Its books are in a directory. Every method may be called from any thread and any process."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory).absolute()

    def rent(self, size: str, tags: Mapping[str, str], command: Sequence[str], environment: Mapping[str, str], once: str) -> str:
        """A machine, by its id. Whoever asks again with the same ``once`` gets the same."""
        if size not in SIZES:
            raise UnknownSize(f"there are no machines of size {size!r}")
        with self._books():
            place = self.directory / f"m-{once}"
            if not (place / "machine.json").exists():
                place.mkdir(exist_ok=True)
                try:
                    started = subprocess.run(
                        ["/bin/sh", "-c", RUN, str(place), *command],
                        env={**os.environ, **environment},
                        stdout=subprocess.PIPE,
                        start_new_session=True,
                        check=True,
                    )
                except (OSError, subprocess.CalledProcessError) as error:
                    raise ShopError(f"the machine does not start: {error}") from error
                pid = int(started.stdout)
                record = {"tags": dict(tags), "pid": pid, "born": _born(pid), "created": time.time()}
                (place / "new.json").write_text(json.dumps(record))
                (place / "new.json").rename(place / "machine.json")
            return place.name

    def machines(self) -> list[Machine]:
        """All that are rented, whoever did it."""
        return [found for path in self.directory.glob("m-*") if (found := self.machine(path.name)) is not None]

    def machine(self, id: str) -> Machine | None:
        """None if there is none of that id."""
        try:
            record = json.loads((self.directory / id / "machine.json").read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        program = _program(record["pid"], record["born"])
        state = "ended" if program is None else "suspended" if program.status() == psutil.STATUS_STOPPED else "up"
        return Machine(id, record["tags"], record["created"], state)

    def program(self, id: str) -> psutil.Process | None:
        """What runs in it."""
        try:
            record = json.loads((self.directory / id / "machine.json").read_text())
        except FileNotFoundError:
            return None
        return _program(record["pid"], record["born"])

    def give_back(self, id: str) -> None:
        """When this returns the machine is gone; if it was already, that is no error."""
        program = self.program(id)
        if program is not None:
            running = [*program.children(recursive=True), program]
            for one in running:
                one.terminate()
                one.resume()
            for one in psutil.wait_procs(running, PATIENCE)[1]:
                one.kill()
            psutil.wait_procs(running, PATIENCE)
        shutil.rmtree(self.directory / id, ignore_errors=True)

    @contextmanager
    def _books(self) -> Iterator[None]:
        """One at a time."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.directory / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _born(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0


def _program(pid: int, born: float) -> psutil.Process | None:
    """The process, if it is still the same and has not ended."""
    try:
        found = psutil.Process(pid)
        alive = found.create_time() == born and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return found if alive else None
