"""Starts controllers as real processes, fast: it has imported what a controller needs, and forks.

`python -m tests.killpoints.zygote [MODULE...]` reads orders from its standard input, a JSON document a line:

    {"life": 1, "basedir": "/...", "at": "lifecycle.start.before", "passes": 0, "constants": {"module:NAME": 0.3}}

and tells on its standard output, likewise, that the controller of a life is {"up": "..."} (what the command line would be told)
and how it {"ended": 77} (its exit code). A controller that comes to the point in ``at``, after ``passes`` other times, ends
there by `os._exit`. At the end of its input it kills what it started, and ends.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

DIED = 77
"""The exit code of a controller that died at its point."""

_REACTOR = "twisted.internet.reactor"


def main() -> None:
    _import_all()
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    _Zygote(woken).run()


class _Zygote:
    def __init__(self, woken: int) -> None:
        self._woken = woken
        self._lives: dict[int, int] = {}
        self._reports: dict[int, int] = {}

    def run(self) -> None:
        _tell(ready=os.getpid())
        rest = b""
        while True:
            readable, _, _ = select.select([0, self._woken, *self._reports], [], [])
            for fd in readable:
                data = os.read(fd, 65536)
                if fd == self._woken:
                    self._bury()
                elif fd != 0:
                    self._forward(fd, data)
                elif not data:
                    self._end()
                    return
                else:
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        self._start(json.loads(line))

    def _start(self, order: Mapping[str, Any]) -> None:
        report, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for fd in (self._woken, report, *self._reports):
                    os.close(fd)
                _live(order, told)
            finally:
                traceback.print_exc()
                os._exit(1)
        os.close(told)
        self._lives[pid] = order["life"]
        self._reports[report] = order["life"]
        _tell(life=order["life"], pid=pid)

    def _forward(self, fd: int, data: bytes) -> None:
        if data:
            _tell(life=self._reports[fd], up=data.decode())
        else:
            os.close(fd)
            del self._reports[fd]

    def _bury(self) -> None:
        for pid in list(self._lives):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                _tell(life=self._lives.pop(pid), ended=os.waitstatus_to_exitcode(status))

    def _end(self) -> None:
        for pid in self._lives:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _tell(**what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def _import_all() -> None:
    """klein wants a reactor when it is imported; the real one is each controller's own, and comes after the fork."""
    sys.modules[_REACTOR] = ModuleType(_REACTOR)
    for name in (
        "alembic.runtime.migration",
        "grpc.aio",
        "latent.cli.assembly",
        "latent.cli.run",
        "latent.config.loader",
        "latent.testing.cloud.worker",
        "sqlalchemy.dialects.sqlite",
        "tests.killpoints.workers",
        "twisted.internet.asyncioreactor",
        *sys.argv[1:],
    ):
        importlib.import_module(name)


def _live(order: Mapping[str, Any], told: int) -> None:
    """The controller, until it ends or dies."""
    import klein._app
    import twisted.internet

    from latent import killpoints
    from latent.cli.exits import CliError
    from latent.cli.place import Place
    from latent.cli.reactor import install
    from latent.cli.run import run

    place = Place(Path(order["basedir"]))
    os.setsid()
    place.state.mkdir(mode=0o700, exist_ok=True)
    nothing, log = os.open(os.devnull, os.O_RDONLY), os.open(place.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for fd, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(fd, target)
    del sys.modules[_REACTOR]
    vars(twisted.internet).pop("reactor", None)
    klein._app.reactor = install()
    for name, value in order.get("constants", {}).items():
        module, _, constant = name.partition(":")
        setattr(importlib.import_module(module), constant, value)
    killpoints.arm(_Death(place.basedir, order["at"], order["passes"]))
    code = 0
    try:
        run(place, told)
    except CliError as error:
        print(error, flush=True)
        code = error.code
    sys.stdout.flush()
    os._exit(code)


class _Death:
    """Comes at a point. The file ``passed`` of the directory has, in order, the points that this life came to first."""

    def __init__(self, basedir: Path, at: str | None, passes: int) -> None:
        self._at = at
        self._left = passes
        self._seen: set[str] = set()
        self._passed = os.open(basedir / "passed", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._lock = threading.Lock()

    def __call__(self, point: str) -> None:
        with self._lock:
            if point not in self._seen:
                self._seen.add(point)
                os.write(self._passed, f"{point}\n".encode())
            if point != self._at:
                return
            if self._left == 0:
                os._exit(DIED)
            self._left -= 1


if __name__ == "__main__":
    main()
