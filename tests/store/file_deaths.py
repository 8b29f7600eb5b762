"""Deaths while the runs' file is written, and a child that outlives the call: ``python -m tests.store.file_deaths FOLDER``.

For every step of writing, a child is killed just before or just after it; then what is in the file is told, a line each.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve

from latent.model import Run, RunStatus
from latent.store.runs_json import JsonRunStore


def forked(work: Callable[[], Any]) -> int:
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return child


def die(store: JsonRunStore, run: Run, function: str, after: bool) -> None:
    real = getattr(os, function)

    def killed(*args: Any) -> None:
        if after:
            real(*args)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(os, function, killed)
    store.update(run)


def deaths(folder: Path) -> None:
    for function, after in (("fsync", False), ("fsync", True), ("replace", False), ("replace", True)):
        store = JsonRunStore(folder / f"{function}-{after}")
        changed = evolve(store.create(Run(id="", machine="m1", logs_path="x" * 10_000)), status=RunStatus.FAILED)
        child = forked(lambda store=store, run=changed, f=function, a=after: die(store, run, f, a))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        [found] = store.list()
        store.create(Run(id="", machine="m2"))
        print("after" if after else "before", function, found.status.value, *sorted(os.listdir(folder / f"{function}-{after}")))


def outlived(folder: Path) -> None:
    """A child is forked while the lock is held, and lives on."""
    store = JsonRunStore(folder / "forked")
    reading, writing = os.pipe()
    children = []

    def mk() -> Run:
        children.append(forked(lambda: os.read(reading, 1)))
        return Run(id="", machine="m1")

    store.prepare_atomic("m1", "h1", mk)
    print("forked", store.create(Run(id="", machine="m2")).id)
    os.write(writing, b"x")
    os.waitpid(children[0], 0)


if __name__ == "__main__":
    deaths(Path(sys.argv[1]))
    outlived(Path(sys.argv[1]))
