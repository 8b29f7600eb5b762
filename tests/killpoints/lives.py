"""The lives of controllers, as a test sees them: started by the zygote, up, and ended."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import define, field

from tests.house.guards import MARK_NAME
from tests.killpoints.zygote import DIED

ROOT = Path(__file__).resolve().parents[2]

PATIENCE = 60.0
"""Seconds after which something that was waited for counts as never coming."""


@define(eq=False)
class Life:
    """One controller process. ``at``: where it is to die; None: nowhere. ``code``: how it ended."""

    at: str | None
    up: threading.Event = field(factory=threading.Event)
    ended: threading.Event = field(factory=threading.Event)
    changed: threading.Event = field(factory=threading.Event)
    pid: int = 0
    said: str = ""
    code: int | None = None

    @property
    def died(self) -> bool:
        """Whether it came to its point."""
        return self.code == DIED

    def wait_up(self) -> bool:
        """Whether it came up, rather than ending before that."""
        assert self.changed.wait(PATIENCE), "a controller neither came up nor ended"
        return self.up.is_set()

    def wait_ended(self) -> None:
        assert self.ended.wait(PATIENCE), f"the controller {self.pid} does not end (it is to die at {self.at})"


class Zygote:
    """The process that controllers are forked from; a context. ``modules``: what it is to import beside what all need."""

    def __init__(self, modules: Iterable[str] = ()) -> None:
        self._modules = modules
        self._lives: dict[int, Life] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def __enter__(self) -> Zygote:
        # What it starts outlives the test that happens to be under way.
        environment = {name: value for name, value in os.environ.items() if name != MARK_NAME}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.killpoints.zygote", *self._modules],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**environment, "GRPC_ENABLE_FORK_SUPPORT": "0", "NO_COLOR": "1"},
        )
        assert self._process.stdout is not None
        assert "ready" in json.loads(self._process.stdout.readline() or "{}"), "the zygote did not start"
        self._reader = threading.Thread(target=self._read, name="zygote")
        self._reader.start()
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._reader.join()
        self._process.stdout.close()

    def start(self, basedir: Path, at: str | None, passes: int = 0, constants: Mapping[str, Any] | None = None) -> Life:
        life = Life(at)
        order = {"basedir": str(basedir), "at": at, "passes": passes, "constants": constants or {}}
        assert self._process.stdin is not None
        with self._lock:
            number = next(self._numbers)
            self._lives[number] = life
            self._process.stdin.write(json.dumps({"life": number, **order}).encode() + b"\n")
            self._process.stdin.flush()
        return life

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            doc = json.loads(line)
            life = self._lives[doc["life"]]
            match doc:
                case {"pid": pid}:
                    life.pid = pid
                case {"up": said}:
                    life.said = said
                    if json.loads(said)["code"] == 0:
                        life.up.set()
                        life.changed.set()
                case {"ended": code}:
                    life.code = code
                    life.ended.set()
                    life.changed.set()
