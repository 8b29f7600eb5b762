"""What was asked for and what came of it, and whether the two agree: from the store, the steps' own lines and the providers."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import field, frozen

STEP = """exec 9>>{directory}/lock.$1
flock -n 9 || echo "at-once $1 $LATENT_RUN_ID" >> {directory}/steps
echo "begun $1 $LATENT_RUN_ID" >> {directory}/steps
sleep $2
echo "ended $1 $LATENT_RUN_ID" >> {directory}/steps
exit $3
"""
"""What each build runs: `sh FILE TOKEN SECONDS CODE`. The lock is held as long as any process of the step lives."""


@frozen
class StepLine:
    """``what``: begun, ended, or at-once: it began while another of the same build ran."""

    what: str
    token: str
    run: int


@frozen
class RunRow:
    id: int
    status: str


@frozen(kw_only=True)
class BuildRow:
    """A build as the store has it, with its runs."""

    id: int
    token: str
    state: str
    result: str
    reason: str = ""
    runs: tuple[RunRow, ...] = ()


@frozen(kw_only=True)
class AttemptRow:
    worker: str
    number: int
    stopped: bool
    condemned: bool
    gone: bool

    def __str__(self) -> str:
        return f"{self.worker}#{self.number}"


@frozen(kw_only=True)
class Asked:
    """A build that was asked for. ``build``: the id that was answered; None: nobody did, and it may be there or not."""

    token: str
    results: tuple[str, ...]
    build: int | None = None


@frozen(kw_only=True)
class Facts:
    """All that is known at the end. ``births``, ``left``, ``wrong``: by the parts' names."""

    asked: Sequence[Asked]
    builds: Sequence[BuildRow]
    attempts: Sequence[AttemptRow]
    steps: Sequence[StepLine]
    births: Mapping[str, Counter[str]]
    left: Mapping[str, Sequence[str]]
    wrong: Sequence[str] = field(factory=tuple)


def balance(facts: Facts) -> dict[str, Any]:
    """The ledger. ``disagreements`` is empty if it adds up."""
    builds = {build.token: build for build in facts.builds}
    lost, ends = list(_lost(facts, builds)), list(_ends(facts, builds))
    doubled, leaked = list(_doubled(facts, builds)), list(_leaked(facts))
    runs = [run for build in facts.builds for run in build.runs]
    return {
        "builds": {
            "asked": len(facts.builds),
            "ended": dict(Counter(build.result or build.state for build in facts.builds)),
            "lost": len(lost),
            "doubled": len(doubled),
        },
        "runs": {"all": len(runs), **Counter(run.status for run in runs), "begun": _count(facts.steps, "begun")},
        "instances": {part: _of_part(facts, part) for part in facts.births},
        "leaked": len(leaked),
        "disagreements": [*lost, *ends, *doubled, *leaked, *facts.wrong],
    }


def _count(steps: Iterable[StepLine], what: str) -> int:
    return sum(line.what == what for line in steps)


def _of_part(facts: Facts, part: str) -> dict[str, int]:
    mine = [attempt for attempt in facts.attempts if attempt.worker.startswith(f"{part}-")]
    return {
        "attempts": len(mine),
        "stopped": sum(attempt.stopped and not attempt.gone for attempt in mine),
        "destroyed": sum(attempt.gone for attempt in mine),
        "started": facts.births[part].total(),
        "leaked": len(facts.left[part]),
    }


def _lost(facts: Facts, builds: Mapping[str, BuildRow]) -> Iterator[str]:
    for asked in facts.asked:
        build = builds.get(asked.token)
        if build is None:
            if asked.build is not None:
                yield f"build {asked.build} ({asked.token}) was taken and is not there"
        elif build.state != "finished":
            yield f"build {build.id} is {build.state}: {build.reason}"
    strange = builds.keys() - {asked.token for asked in facts.asked}
    yield from (f"nobody asked for build {builds[token].id} ({token})" for token in sorted(strange))


def _ends(facts: Facts, builds: Mapping[str, BuildRow]) -> Iterator[str]:
    """Builds that ended otherwise than their steps did."""
    begun = {(line.token, line.run) for line in facts.steps if line.what == "begun"}
    ended = {(line.token, line.run) for line in facts.steps if line.what == "ended"}
    for asked in facts.asked:
        build = builds.get(asked.token)
        if build is None or build.state != "finished":
            continue
        if build.result not in asked.results:
            yield f"build {build.id} ended with {build.result} ({build.reason}), not with {' or '.join(asked.results)}"
        over = [run for run in build.runs if run.status in ("completed", "failed")]
        if build.result in ("success", "failure") and not any((build.token, run.id) in ended for run in over):
            yield f"build {build.id} ended with {build.result}, and the step of its last run never ended"
    known = {(build.token, run.id) for build in facts.builds for run in build.runs}
    yield from (f"a step of run {run} of build {token} began, which the store knows nothing of" for token, run in begun - known)


def _doubled(facts: Facts, builds: Mapping[str, BuildRow]) -> Iterator[str]:
    for line in facts.steps:
        if line.what == "at-once":
            yield f"run {line.run} of build {line.token} began while another one ran"
    begun = Counter((line.token, line.run) for line in facts.steps if line.what == "begun")
    yield from (f"run {run} of build {token} began {count} times" for (token, run), count in begun.items() if count > 1)
    for build in builds.values():
        over = [run.id for run in build.runs if run.status in ("completed", "failed")]
        if len(over) > 1:
            yield f"build {build.id} was carried out {len(over)} times"
        after = [run for token, run in begun if token == build.token and over and run > over[0]]
        if after:
            yield f"build {build.id} was over with run {over[0]}, and run {after[0]} began"
    twins = Counter(build.token for build in facts.builds)
    yield from (f"{token} is there as {count} builds" for token, count in twins.items() if count > 1)


def _leaked(facts: Facts) -> Iterator[str]:
    for part, left in facts.left.items():
        yield from (f"{part}: {what} is left" for what in left)
    for attempt in facts.attempts:
        if not attempt.stopped and not attempt.gone:
            yield f"{attempt} was never {'destroyed' if attempt.condemned else 'stopped'}, says the store"
    known = {str(attempt) for attempt in facts.attempts}
    for part, births in facts.births.items():
        yield from (f"{part}: an instance of {whose}, which the store knows nothing of" for whose in births if whose not in known)


# --- where the facts come from ------------------------------------------------------------------------------------------------


def stored(database: Path) -> tuple[list[BuildRow], list[AttemptRow]]:
    """What the store has, once its controller is gone."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        runs: dict[int, list[RunRow]] = {}
        for number, build, status in connection.execute("SELECT id, build_id, status FROM runs ORDER BY id"):
            runs.setdefault(build, []).append(RunRow(number, status))
        builds = [
            BuildRow(
                id=number,
                token=json.loads(request)["properties"].get("token", ""),
                state=state,
                result=result or "",
                reason=reason,
                runs=tuple(runs.get(number, ())),
            )
            for number, state, result, reason, request in connection.execute(
                "SELECT id, state, result, reason, request FROM builds ORDER BY id"
            )
        ]
        columns = "worker, number, stopped_at IS NOT NULL, condemned_at IS NOT NULL, gone_at IS NOT NULL"
        attempts = [
            AttemptRow(worker=worker, number=number, stopped=bool(stopped), condemned=bool(condemned), gone=bool(gone))
            for worker, number, stopped, condemned, gone in connection.execute(f"SELECT {columns} FROM attempts ORDER BY 1, 2")
        ]
    return builds, attempts


def step_lines(file: Path) -> list[StepLine]:
    found = []
    for line in file.read_text().splitlines() if file.exists() else ():
        what, token, run = line.split()
        found.append(StepLine(what, token, int(run)))
    return found
