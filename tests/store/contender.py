"""A process that uses a store of runs together with others: ``python -m tests.store.contender ADDRESS MODE MACHINES``.

It says "ready" and waits for a line. Mode once: it prepares every machine twice, with two hashes, and reports all of it in a
line. Mode forever: it prepares, runs and ends runs, and reports each end. A report is a line of JSON.
"""

from __future__ import annotations

import json
import os
import random
import sys
from typing import Any

from attrs import evolve

from latent.model import Run, RunStatus
from latent.store.runs import PrepareOutcome, RunStore


def say(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def once(store: RunStore, machines: list[str]) -> None:
    report = []
    for hash in ("h1", "h2"):
        random.shuffle(machines)
        for machine in machines:
            run, outcome = store.prepare_atomic(machine, hash, lambda m=machine, h=hash: Run(id="", machine=m, test_dir_hash=h))
            report.append((hash, machine, run.id, outcome.name))
    say(report)


def forever(store: RunStore, machines: list[str]) -> None:
    owner = str(os.getpid())
    for count in range(sys.maxsize):
        machine = random.choice(machines)
        made = Run(id="", machine=machine, test_dir_hash=f"{owner}-{count}")
        run, outcome = store.prepare_atomic(machine, made.test_dir_hash, lambda made=made: made, owner=owner)
        if outcome is PrepareOutcome.CREATED:
            store.update(evolve(run, status=RunStatus.RUNNING))
            status = random.choice([status for status in RunStatus if status.is_terminal])
            store.update(evolve(run, status=status))
            say((run.id, status.value))


def main(address: str, mode: str, machines: int) -> None:
    store = RunStore.open(address)
    say("ready")
    sys.stdin.readline()
    {"once": once, "forever": forever}[mode](store, [f"m{n}" for n in range(machines)])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
