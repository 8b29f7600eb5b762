"""Workflows: how fast one is driven to its end, whether each task is done as often as it should be, and how large one may be.

    python -m benchmarks.workflows                      all three parts, a few minutes
    python -m benchmarks.workflows --only drive         only one: drive, kill or size
    python -m benchmarks.workflows --tasks 2000 --large 100000

drive   A layered DAG of 10,000 tasks by `latent workflow run`, a process of its own, against a controller process whose agents do
        nothing. Tasks a second: from the driver's start to its end, storing and reading FILE.py included, and of the run alone.
kill    The same with builds that take a moment; the driver is killed (SIGKILL) three times, and the workflow is resumed
        hot, cold and hot. Every task has to have exactly one build that succeeded. All its other builds were ended by a resume;
        those that a hot one ended had not begun.
size    1,000,000 tasks bound and rebuilt from the store in chunks: seconds, memory, and the longest time between two
        heartbeats. And a chain of 1,200 tasks whose ids cross powers of ten, of which one is ready.

Prints one JSON object. The exit code is 1 when a task was not done as often as it should be, or a budget is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

LATENT = str(Path(sys.executable).with_name("latent"))

FLOW = """
from benchmarks.workflows_shape import layered

wf = layered({name!r}, {tasks})
"""

LEAST_PER_SECOND = 500.0
LONGEST_REBUILD = 60.0
MOST_MB = 2560.0

HEARTBEAT = "2"

FEW_WORKERS, MOMENT = 8, 0.03
"""Where drivers are killed: so few that there are always builds that wait, and seconds of a build, that some always run."""


class Controller:
    """A controller process in a directory."""

    def __init__(self, directory: Path, workers: int, seconds: float) -> None:
        self.directory = directory
        self.state = directory / "state"
        self._log = (directory / "controller.log").open("wb")
        words = [sys.executable, "-m", "benchmarks.workflows_parts", "controller", str(directory), str(workers), str(seconds)]
        self.process = subprocess.Popen(words, stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL)
        while not (self.state / "api.json").exists():
            if self.process.poll() is not None:
                raise RuntimeError((directory / "controller.log").read_text())
            time.sleep(0.05)

    def get(self, path: str) -> Any:
        address = json.loads((self.state / "api.json").read_text())
        transport = httpx.HTTPTransport(uds=address["socket"], verify=False)
        token = (self.state / "token").read_text().strip()
        with httpx.Client(transport=transport, base_url="http://latent", trust_env=False, timeout=60) as client:
            answer = client.get(f"/api/v1/{path}", headers={"Authorization": f"Bearer {token}"})
        return answer.raise_for_status().json()

    def done(self) -> int:
        """How many tasks of the newest workflow are."""
        found = self.get("workflows?limit=1")["workflows"]
        return sum(array["counts"].get("D", 0) for array in found[0]["arrays"]) if found else 0

    def rows(self, statement: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(f"file:{self.state}/latent.sqlite?mode=ro", uri=True)) as db:
            return db.execute(statement).fetchall()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self._log.close()

    # --- drivers -------------------------------------------------------------------------------------------------------------

    def drive(self, *words: str) -> subprocess.Popen[str]:
        command = [LATENT, "-C", str(self.directory), "workflow", "run", *words, "--heartbeat", HEARTBEAT, "--json"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        with (self.directory / "drivers.log").open("ab") as log:
            return subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True, env=environment
            )

    def summary(self, driver: subprocess.Popen[str]) -> Any:
        """What the driver prints in the end."""
        printed = driver.communicate()[0]
        if not printed:
            raise RuntimeError(f"a driver ended without a word: {(self.directory / 'drivers.log').read_text()[-5000:]}")
        return json.loads(printed)

    def part(self, *words: str) -> Any:
        command = [sys.executable, "-m", "benchmarks.workflows_parts", words[0], str(self.directory), *words[1:]]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


@contextlib.contextmanager
def controller(workers: int, seconds: float = 0.0) -> Iterator[Controller]:
    with tempfile.TemporaryDirectory(prefix="latent-workflows-") as directory:
        made = Controller(Path(directory), workers, seconds)
        try:
            yield made
        finally:
            made.stop()


def flow(control: Controller, tasks: int) -> str:
    path = control.directory / "flow.py"
    path.write_text(FLOW.format(name="benchmark", tasks=tasks))
    return str(path)


def drive(tasks: int, workers: int) -> dict[str, Any]:
    with controller(workers) as control:
        file = flow(control, tasks)
        began = time.perf_counter()
        driver = control.drive(file)
        summary = control.summary(driver)
        whole = time.perf_counter() - began
        check = tally(control, tasks)
    return {
        "tasks": tasks,
        "seconds_of_the_run": round(summary["seconds"], 2),
        "tasks_per_second_of_the_run": round(tasks / summary["seconds"], 1),
        "seconds_from_start_to_end": round(whole, 2),
        "tasks_per_second_from_start_to_end": round(tasks / whole, 1),
        "check": check,
        "ok": check["ok"] and tasks / summary["seconds"] >= LEAST_PER_SECOND,
    }


def kill(tasks: int) -> dict[str, Any]:
    killed, seen = ["hot", "cold", "hot"], []
    with controller(FEW_WORKERS, MOMENT) as control:
        file = flow(control, tasks)
        began = time.perf_counter()
        driver = control.drive(file)
        for number, how in enumerate(killed, 1):
            while control.done() < tasks * number // 4:
                if driver.poll() is not None:
                    raise RuntimeError(f"the driver ended before it was killed: {control.summary(driver)}")
                time.sleep(0.05)
            driver.kill()
            driver.wait()
            seen.append({"done": control.done(), "then_resumed": how})
            driver = control.drive(file, "--resume", "1", f"--{how}")
        summary = control.summary(driver)
        whole = time.perf_counter() - began
        check = tally(control, tasks)
    # The builds of run N are ended by the resume that makes run N + 1.
    hot = [run for run in check["builds_cut_short_by_run"] if killed[run - 1] == "hot"]
    return {
        "tasks": tasks,
        "kills": seen,
        "seconds_with_all_kills": round(whole, 2),
        "status": summary["status"],
        "check": check,
        "cut_short_by_a_hot_resume": len(hot),
        "ok": check["ok"] and summary["status"] == "D" and not hot,
    }


def tally(control: Controller, tasks: int) -> dict[str, Any]:
    """How often each task was done, from the store."""
    builds = control.rows(
        "SELECT a.task_id, a.run_id, b.result, b.reason, (SELECT COUNT(*) FROM runs r WHERE r.build_id = b.id AND"
        " r.started_at IS NOT NULL) FROM workflow_builds a JOIN builds b ON b.id = a.build_id"
    )
    succeeded = Counter(task for task, _, result, _, _ in builds if result == "success")
    others = Counter(str(result) for _, _, result, _, _ in builds if result != "success")
    not_taken_over = sum(1 for _, _, result, reason, _ in builds if result != "success" and "taken over" not in reason)
    cut_short = Counter(run for _, run, result, _, began in builds if result != "success" and began)
    done = control.rows("SELECT COUNT(*) FROM workflow_tasks WHERE status = 'D'")[0][0]
    twice = {task: count for task, count in succeeded.items() if count != 1}
    return {
        "tasks_done": done,
        "builds": len(builds),
        "tasks_with_exactly_one_success": sum(1 for count in succeeded.values() if count == 1),
        "tasks_with_more": len(twice),
        "builds_ended_by_a_resume": dict(others),
        "builds_ended_by_anything_else": not_taken_over,
        "builds_cut_short_by_run": dict(sorted(cut_short.items())),
        "ok": done == tasks == len(succeeded) and not twice and not not_taken_over,
    }


def size(large: int, chain: int) -> dict[str, Any]:
    with controller(1) as control:
        links = control.part("chain", str(chain))
        bound = control.part("bind", str(large))
        rebuilt = control.part("rebuild", str(bound["workflow"]))
    in_time = all(one["longest_gap_seconds"] <= one["promised_within_seconds"] for one in (rebuilt, links))
    return {
        "bound": bound,
        "rebuilt": rebuilt,
        "chain": links,
        "heartbeats_as_promised": in_time,
        "ok": in_time
        and links["ready"] == 1
        and rebuilt["tasks"] == large
        and rebuilt["seconds_to_rebuild"] <= LONGEST_REBUILD
        and rebuilt["peak_rss_mb"] <= MOST_MB,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Workflows: speed, exactness, size.")
    parser.add_argument("--tasks", type=int, default=10_000, help="of the workflow that is driven (default 10000)")
    parser.add_argument("--workers", type=int, default=50, help="latent workers (default 50)")
    parser.add_argument("--large", type=int, default=1_000_000, help="tasks that are bound and rebuilt (default 1000000)")
    parser.add_argument("--chain", type=int, default=1200, help="tasks of the chain (default 1200)")
    parser.add_argument("--only", choices=["drive", "kill", "size"], help="this part alone")
    options = parser.parse_args()
    parts = {
        "drive": lambda: drive(options.tasks, options.workers),
        "kill": lambda: kill(options.tasks),
        "size": lambda: size(options.large, options.chain),
    }
    printed = {name: part() for name, part in parts.items() if options.only in (None, name)}
    print(json.dumps(printed, indent=2))
    return 0 if all(part["ok"] for part in printed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
