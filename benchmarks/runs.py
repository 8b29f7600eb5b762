"""Many processes at one store of runs, some of them killed with -9: what `latent.store.runs` promises holds, and how fast it is.

    python -m benchmarks.runs --processes 32 --machines 20 --seconds 10 --kills 8

Both backends, one after the other, in folders of their own (``--backend sql|json`` for one, ``--url`` for another database).
Prints a JSON object for each, with its ``violations``, and ends with 1 if there are any.

First every process prepares every machine at once for the same hash: exactly one of them may create each run. Then each prepares
runs on machines at random, carries them out and ends them, while some are killed. Whoever has created a run also takes a lock
on a file of its machine: a second witness, apart from the store, that no two have a machine. What each was told it notes down,
and all that was told must be in the store in the end.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from attrs import evolve

from latent.model import Run, RunStatus
from latent.store.run_stores import open_runs
from latent.store.runs import PrepareOutcome, RunStore

TERMINAL = [status for status in RunStatus if status.is_terminal]
HASHES = ["h1", "h2"]


# --- one of the processes ------------------------------------------------------------------------------------------------------


def contend(address: str, folder: Path, machines: list[str], seconds: float, seed: int) -> None:
    """Use the store until the time is over. Each line of the notes is a JSON list; the first word says what happened."""
    store = open_runs(address)
    dice = random.Random(seed)
    owner = str(os.getpid())
    with (folder / f"{owner}.notes").open("w", buffering=1) as notes:
        print("ready", flush=True)
        sys.stdin.readline()
        for machine in dice.sample(machines, len(machines)):
            run, outcome = store.prepare_atomic(machine, "same", lambda m=machine: Run(id="", machine=m))
            note(notes, "together", machine, run.id, outcome.value)
        print("met", flush=True)
        sys.stdin.readline()
        begun = time.monotonic()
        while (spent := time.monotonic() - begun) < seconds:
            once(store, notes, folder, dice.choice(machines), dice, owner)
        note(notes, "over", len(os.listdir("/proc/self/fd")), spent)


def once(store: RunStore, notes: TextIO, folder: Path, machine: str, dice: random.Random, owner: str) -> None:
    hash, made = dice.choice(HASHES), []

    def mk() -> Run:
        made.append(machine)
        return Run(id="to be overwritten", machine=machine, test_dir_hash=hash)

    before = time.perf_counter()
    run, outcome = store.prepare_atomic(machine, hash, mk, owner=owner)
    note(notes, "prepared", outcome.value, time.perf_counter() - before)
    created = outcome is PrepareOutcome.CREATED
    wrong = [
        name
        for name, holds in {
            "mk is called once, and only to create": len(made) == created,
            "the run is the machine's": run.machine == machine and run.id.isdigit(),
            "it is live": not run.status.is_terminal,
            "another hash is busy": (outcome is PrepareOutcome.BUSY) == (run.test_dir_hash != hash),
        }.items()
        if not holds
    ]
    for each in wrong:
        note(notes, "violation", each, machine, run.id)
    if not created:
        return
    with (folder / f"{machine}.lock").open("w") as witness:
        try:
            fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(notes, "violation", "two have a machine", machine, run.id)
        note(notes, "said", run.id, "pending")
        store.update(evolve(run, status=RunStatus.RUNNING, started_at=time.time()))
        note(notes, "said", run.id, "running")
        # From before the run ends in the store: from then on the machine is another's.
        fcntl.flock(witness, fcntl.LOCK_UN)
        end = dice.choice(TERMINAL)
        store.update(evolve(run, status=end, exit_code=0, ended_at=time.time()))
        note(notes, "said", run.id, end.value)


def note(notes: TextIO, *words: Any) -> None:
    notes.write(json.dumps(words) + "\n")


# --- all of them ---------------------------------------------------------------------------------------------------------------


def hammer(address: str, folder: Path, *, processes: int, machines: int, seconds: float, kills: int) -> dict[str, Any]:
    """Let the processes loose on an empty store; returns the figures. ``folder``: for their notes."""
    names = [f"m{n}" for n in range(machines)]
    store = open_runs(address)
    with started(address, folder, processes, machines, seconds) as children:
        tell(children)
        for child in children:
            read(child, "met")
        first = store.list()
        for run in first:
            store.update(evolve(run, status=RunStatus.COMPLETED))
        killed: set[str] = set()
        interrupted, crowded = 0, 0
        tell(children)
        for number in range(kills):
            time.sleep(seconds / (kills + 1))
            victim = children[number]
            victim.kill()
            victim.wait()
            killed.add(str(victim.pid))
            live = [run.machine for run in store.list() if not run.status.is_terminal]
            crowded += len(live) - len(set(live))
            interrupted += len(store.reconcile(time.time(), lambda owner: owner not in killed))
        for child in children[kills:]:
            child.communicate(timeout=600)
        interrupted += len(store.reconcile(time.time(), lambda owner: owner not in killed))
    figures = judged(store, folder, names, first, processes)
    figures["violations"] += ["two live runs on a machine"] * crowded
    figures |= {"processes": processes, "machines": machines, "killed": len(killed), "interrupted": interrupted}
    if figures["not over"] or figures["ends that were not told"] > len(killed):
        figures["violations"].append("runs of nobody were left")
    store.close()
    return figures


@contextlib.contextmanager
def started(address: str, folder: Path, processes: int, machines: int, seconds: float) -> Iterator[list[subprocess.Popen[str]]]:
    arguments = ["--contend", address, "--folder", str(folder), "--machines", str(machines), "--seconds", str(seconds)]
    command = [sys.executable, "-m", "benchmarks.runs", *arguments]
    children = [
        subprocess.Popen(
            [*command, "--seed", str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        for seed in range(processes)
    ]
    try:
        for child in children:
            read(child, "ready")
        yield children
    finally:
        for child in children:
            child.kill()
            child.communicate()


def read(child: subprocess.Popen[str], word: str) -> None:
    assert child.stdout is not None
    said = child.stdout.readline().strip()
    if said != word:
        raise RuntimeError(f"process {child.pid} did not come to say {word!r}, but {said!r}")


def tell(children: list[subprocess.Popen[str]]) -> None:
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()


def judged(store: RunStore, folder: Path, machines: list[str], first: list[Run], processes: int) -> dict[str, Any]:
    """What the notes say, held against what is in the store."""
    outcomes: Counter[str] = Counter()
    together: Counter[tuple[str, str]] = Counter()
    times: list[float] = []
    told: dict[str, str] = {}
    violations: list[str] = []
    descriptors: list[int] = []
    wall = 0.0
    ids = {run.machine: run.id for run in first}
    for path in folder.glob("*.notes"):
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):  # the last line of one that was killed may be cut
                match json.loads(line):
                    case ["together", machine, id, outcome]:
                        together[machine, outcome] += 1
                        if ids.get(machine) != id:
                            violations.append(f"{machine} was run {id} for one, run {ids.get(machine)} for others")
                    case ["prepared", outcome, took]:
                        outcomes[outcome] += 1
                        times.append(took)
                    case ["said", id, status]:
                        told[id] = status
                    case ["violation", *what]:
                        violations.append(" ".join(what))
                    case ["over", count, spent]:
                        descriptors.append(count)
                        wall = max(wall, spent)
    for machine in machines:
        if (together[machine, "created"], together[machine, "reuse"]) != (1, processes - 1):
            violations.append(f"{machine} was not created once and then found by all others")
    runs = {run.id: run for run in store.list()}
    if [*runs] != sorted(runs, key=int) or len(runs) != len(store.list()):
        violations.append("the order of creation was not kept")
    for id, status in told.items():
        # What was killed before it could say more is as it said last, or was ended by reconcile.
        now = runs[id].status.value if id in runs else "lost"
        if now != status and not (status in ("pending", "running") and now != "lost"):
            violations.append(f"run {id} was told to be {status} and is {now}")
    times.sort()
    return {
        "prepares a second": round(len(times) / wall) if wall else None,
        "prepare p50 ms": round(times[len(times) // 2] * 1000, 2),
        "prepare p99 ms": round(times[len(times) * 99 // 100] * 1000, 2),
        "outcomes": dict(sorted(outcomes.items())),
        "created together": sum(count for (_, outcome), count in together.items() if outcome == "created"),
        "reused together": sum(count for (_, outcome), count in together.items() if outcome == "reuse"),
        "runs": len(runs),
        "not over": sum(not run.status.is_terminal for run in runs.values()),
        "ends that were not told": sum(told.get(run.id) in (None, "pending", "running") for run in runs.values()) - len(first),
        "descriptors": max(descriptors, default=0),
        "violations": violations,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=32)
    parser.add_argument("--machines", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--backend", choices=["sql", "json"], action="append")
    parser.add_argument("--url", help="an empty database, in place of a new SQLite file")
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contend:
        contend(given.contend, given.folder, [f"m{n}" for n in range(given.machines)], given.seconds, given.seed)
        return 0
    wrong = False
    for backend in given.backend or ["sql", "json"]:
        with tempfile.TemporaryDirectory(prefix="latent-runs-") as folder:
            notes = Path(folder) / "notes"
            notes.mkdir()
            address = given.url or f"sqlite:///{folder}/runs.sqlite" if backend == "sql" else f"{folder}/runs"
            kills = min(given.kills, given.processes)
            settings = {"processes": given.processes, "machines": given.machines, "seconds": given.seconds, "kills": kills}
            figures = hammer(address, notes, **settings)
        print(json.dumps({"backend": backend, **figures}, indent=2))
        wrong = wrong or bool(figures["violations"])
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
