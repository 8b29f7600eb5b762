"""A real controller whose machine's clock is set by an hour: while it runs, and while it is down."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.site import Site

HOUR = 3600.0
ROOT = Path(__file__).parents[2]

MASTER = """
c["workers"] = [
    worker.ProcessLatentWorker("long", build_wait_timeout=1),
    worker.ProcessLatentWorker("short", build_wait_timeout=1),
]
"""


class ClockSite(Site):
    """Its controller believes the clock that `set` sets."""

    def __init__(self, directory: Path, config: str) -> None:
        super().__init__(directory, config)
        self.shift = directory / "shift"
        self.process: subprocess.Popen[bytes] | None = None
        self.set(0)

    def set(self, seconds: float) -> None:
        with open(self.shift, "r+b" if self.shift.exists() else "wb") as file:
            file.write(struct.pack("d", seconds))

    def start(self) -> None:
        state = self.directory / "state"
        state.mkdir(exist_ok=True)
        told, report = os.pipe()
        with open(told, encoding="utf-8") as told_file, open(state / "latent.log", "ab") as log:
            words = [sys.executable, "-m", "tests.faults.shifted", str(self.directory), str(self.shift), str(report)]
            self.process = subprocess.Popen(
                words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=[report]
            )
            os.close(report)
            said = told_file.readline()
        assert said, self.log()
        assert json.loads(said)["code"] == 0, said

    def kill_controller(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        super().end()
        if self.process is not None:
            self.kill_controller()

    def state_of(self, worker: str) -> str:
        return str(next(one["state"] for one in self.workers() if one["name"] == worker))

    def finished(self, number: int) -> dict[str, Any]:
        build: dict[str, Any] = self.wait(f"the end of build {number}", lambda: self._if_finished(number))
        return build

    def _if_finished(self, number: int) -> dict[str, Any]:
        build = self.build(number)
        return build if build["state"] == "finished" else {}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ClockSite]:
    made = ClockSite(tmp_path, MASTER)
    yield made
    made.end()


def test_a_clock_that_is_set(site: ClockSite, tmp_path: Path) -> None:
    """By an hour, controller up or down: no lease, session or build is over because of it, and nothing waits an hour more."""
    go = tmp_path / "go"
    site.start()
    long = site.submit(f"until test -e {go}; do sleep 0.1; done", labels={"worker": "long"})
    site.wait("the long build to begin", lambda: site.build(long)["state"] == "running")
    since = site.build(long)["started_at"]

    def used() -> None:
        """Its instance is idle from now on, for a second."""
        assert site.finished(site.submit("true", labels={"worker": "short"}))["result"] == "success"

    def goes_on() -> None:
        site.wait("the idle instance to be stopped", lambda: site.state_of("short") == "NOT_SUBSTANTIATED")
        build = site.build(long)
        assert (build["state"], len(build["runs"]), build["started_at"]) == ("running", 1, since), site.log()

    for wrong in (HOUR, -HOUR):
        used()
        site.set(wrong)
        goes_on()
        used()
        site.kill_controller()
        site.start()
        goes_on()
    go.touch()
    done = site.finished(long)
    assert (done["result"], [run["status"] for run in done["runs"]]) == ("success", ["completed"])
    site.wait("the last instance to be stopped", lambda: not list(site.instances()))
    log = site.log()
    assert "clock was set forward by 3600 s" in log
    assert "clock was set back by 3600 s" in log
