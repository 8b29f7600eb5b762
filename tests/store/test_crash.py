"""kill -9 at any point leaves a store that opens and tells the truth."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from latent.model import Attempt, BuildState, RunStatus
from latent.store import attempts, builds, journal
from latent.store.database import Store
from tests.store.helpers import finish, open_inline, result

ROOT = Path(__file__).parents[2]
DEATHS = 5


def write_until_killed(state_dir: Path, facts: int) -> list[list[Any]]:
    """Let a process write until it has reported that many facts; returns all that it reported before its death."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.store.crasher", str(state_dir)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(facts)]
        process.kill()
        lines += process.stdout.readlines()
    assert process.returncode == -9
    return [json.loads(line) for line in lines if line.endswith("\n")]


def check(store: Store, facts: list[list[Any]]) -> None:
    """All that was reported is there, and what is there agrees with itself."""
    everything = {build.id: build for build in result(store.read(lambda conn: builds.list_builds(conn, limit=10**6)))}
    live = result(store.read(builds.live_runs))
    states, errors = result(store.read(journal.load))
    assert not errors
    for kind, *about in facts:
        match kind:
            case "build":
                assert about[0] in everything
            case "run" | "done":
                (details,) = result(store.read(lambda conn, id=about[1]: builds.runs_of(conn, id)))
                assert details.run.id == str(about[0])
                assert kind == "run" or details.run.status is RunStatus.COMPLETED
                lines, _ = store.logs.read(about[0])
                assert kind == "run" or [line.line for line in lines] == list(range(20))
            case "state":
                assert states[about[0]]["attempt"] >= about[1]
    # A build has a live run exactly while it is starting or running, and its run is as far as it is.
    of_build = {run.build_id: run for run in live}
    assert len(of_build) == len(live)
    for build in everything.values():
        expected = {RunStatus.PENDING: BuildState.STARTING, RunStatus.RUNNING: BuildState.RUNNING}
        run = of_build.get(build.id)
        if run is not None:
            assert build.state is expected[run.status]
        else:
            assert build.state in (BuildState.QUEUED, BuildState.FINISHED)
    # Journal, attempts and runs were written together.
    for worker, state in states.items():
        history = result(store.read(lambda conn, name=worker: journal.history(conn, name, 10**6)))
        assert [entry.attempt for entry in history] == list(range(1, state["attempt"] + 1))
    running = {(each.attempt.worker, each.attempt.number) for each in result(store.read(attempts.live))}
    assert running == {(run.worker, run.attempt) for run in live}


def test_a_killed_writer_leaves_the_truth(tmp_path: Path) -> None:
    """Killed again and again at random points, the same store opens each time with all that it had answered."""
    facts: list[list[Any]] = []
    rng = random.Random()
    for _ in range(DEATHS):
        facts += write_until_killed(tmp_path, rng.randrange(1, 600))
        store = open_inline(tmp_path)
        check(store, facts)
        # As recovery would: the next controller finds the machines free.
        for run in result(store.read(builds.live_runs)):
            attempt = Attempt(run.worker, run.attempt)
            result(store.write(lambda conn, attempt=attempt: attempts.stopped(conn, attempt, 9.0)))
            result(store.write(lambda conn, run=run: finish(conn, run.run_id, requeue=True)))
        result(store.close())
    assert len(facts) > DEATHS


def test_a_death_while_the_store_is_made(tmp_path: Path) -> None:
    """Killed before any statement of its first opening, the store is complete after the next."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.store.early_death", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 20
