"""Instances that were given up and come back, as bots and as Woodpecker agents: all that they know of attempts is their token."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e import agents
from tests.e2e.site import Site

MakeSite = Callable[[str], Site]

LABELS = {"woodpecker": {}, "bot": {"agent": "bot"}}

# The agent is none of the instance's processes, so that it outlives it as one does whose machine can't be reached.
LAUNCHER = """
cd "$0"
setsid --fork env -u LATENT_INSTANCE PROGRAM_HEALTH=1 sh -c 'echo $$ > new; mv new pid.$LATENT_ATTEMPT; exec "$@"' - "$@" \
    > agent.$LATENT_ATTEMPT.log 2>&1
exec sleep 100000
"""

MASTER = """
command = ["sh", "-c", {launcher!r}, {folder!r}, *{command!r}]
c["workers"] = [worker.ProcessLatentWorker("w", command=command, labels={labels!r}, build_wait_timeout=60, stop_grace=0)]
c["protocols"] = {{"peer": {{}}, "bots": {{"keep_alive": 5}}}}
c["limits"] = {{"session_timeout": 4}}
"""

SCRIPT = (
    "try=$(ls {folder}/began.* 2>/dev/null | wc -l); echo $$ > {folder}/began.$try; echo try $try; "
    "while test ! -e {folder}/go.$try; do sleep 0.1; done; echo end $try; exit $((7 * (1 - try)))"
)
"""The first try, once it may go on, would fail; the second succeeds."""


@pytest.mark.parametrize("kind", list(LABELS))
def test_a_zombie_does_not_harm_its_successor(site: MakeSite, tmp_path: Path, kind: str) -> None:
    """An agent is frozen until its worker is on its next attempt. What it says then of the build changes nothing, and it ends."""
    folder = tmp_path / "seen"
    folder.mkdir()
    command = agents.BOT if kind == "bot" else agents.WOODPECKER
    about = {"launcher": LAUNCHER, "folder": str(folder), "command": command, "labels": LABELS[kind]}
    one = site(MASTER.format(**about))
    one.latent("start")
    script = SCRIPT.format(folder=folder)
    pids: list[int] = []
    try:
        build = submit(one, kind, script)
        pids.append(one.wait("the first agent", lambda: read(folder / "pid.1")))
        zombie, first = psutil.Process(pids[0]), psutil.Process(one.wait("the first try", lambda: read(folder / "began.0")))
        zombie.suspend()
        pids.append(one.wait("the second agent", lambda: read(folder / "pid.2")))
        one.wait("the second try", lambda: read(folder / "began.1"))
        (folder / "go.0").touch()
        one.wait("the end of the first try", lambda: gone(first))
        assert zombie.status() == psutil.STATUS_STOPPED
        zombie.resume()
        one.wait("the zombie to be gone", lambda: gone(zombie))
        assert one.build(build)["state"] == "running"
        (worker,) = one.workers()
        assert (worker["attempt"], worker["state"]) == (2, "SUBSTANTIATED")
        (folder / "go.1").touch()
        done = one.wait("the end of the build", lambda: finished(one, build))
        assert (done["result"], [run["status"] for run in done["runs"]]) == ("success", ["interrupted", "completed"])
        assert [run["attempt"] for run in done["runs"]] == [1, 2]
        if kind == "woodpecker":
            assert [line["text"] for line in one.lines(build) if line["stream"] == "stdout"] == ["try 1", "end 1"]
        else:
            answer = one.call("GET", f"builds/{build}/answer")
            assert b"try 1\nend 1\n" in base64.b64decode(answer["value"])
        (folder / "go.2").touch()
        last = submit(one, kind, script.replace("exit $((7 * (1 - try)))", "true"))
        after = one.wait("a build on the same instance", lambda: finished(one, last))
        assert (after["result"], [run["attempt"] for run in after["runs"]]) == ("success", [2])
        told = (folder / "agent.1.log").read_text()
        assert ("gone:" if kind == "bot" else "refused:") in told
    finally:
        for pid in pids:
            end(pid)


def submit(one: Site, kind: str, script: str) -> int:
    if kind == "woodpecker":
        return one.submit(script)
    payload = {"type_url": "type.googleapis.com/tests.Script", "value": base64.b64encode(script.encode()).decode()}
    return int(one.call("POST", "builds", payload=payload)["id"])


def read(path: Path) -> int:
    """A pid that somebody has written, 0 if nobody has."""
    return int(path.read_text().strip() or 0) if path.exists() else 0


def finished(one: Site, number: int) -> dict[str, Any]:
    build = one.build(number)
    return build if build["state"] == "finished" else {}


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def end(pid: int) -> None:
    """The agent and what it runs: each leads a session."""
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
