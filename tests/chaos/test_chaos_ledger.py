"""A ledger that does not add up says what is wrong."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from attrs import evolve

from benchmarks.chaos.ledger import Asked, AttemptRow, BuildRow, Facts, RunRow, StepLine, balance


def line(what: str, run: int, token: str = "t0") -> StepLine:
    return StepLine(what, token, run)


ATTEMPT = AttemptRow(worker="cloud-1", number=1, stopped=True, condemned=False, gone=False)
BUILD = BuildRow(id=1, token="t0", state="finished", result="success", runs=(RunRow(4, "interrupted"), RunRow(5, "completed")))
GOOD = Facts(
    asked=[Asked(token="t0", results=("success",), build=1), Asked(token="t1", results=("success",))],
    builds=[BUILD],
    attempts=[ATTEMPT, evolve(ATTEMPT, number=2, stopped=False, condemned=True, gone=True)],
    steps=[line("begun", 4), line("begun", 5), line("ended", 5)],
    births={"cloud": Counter({"cloud-1#1": 1, "cloud-1#2": 1})},
    left={"cloud": []},
)


def test_it_adds_up() -> None:
    """A build that was tried twice and one that was never taken are as they should be."""
    ledger = balance(GOOD)
    assert ledger["disagreements"] == []
    assert ledger["builds"] == {"asked": 1, "ended": {"success": 1}, "lost": 0, "doubled": 0}
    assert ledger["runs"] == {"all": 2, "interrupted": 1, "completed": 1, "begun": 2}
    assert ledger["instances"] == {"cloud": {"attempts": 2, "stopped": 1, "destroyed": 1, "started": 2, "leaked": 0}}
    assert ledger["leaked"] == 0


@pytest.mark.parametrize(
    ("changes", "count", "said"),
    [
        ({"builds": [], "steps": []}, "lost", "build 1 (t0) was taken and is not there"),
        ({"builds": [evolve(BUILD, state="queued", result="", reason="it waits")]}, "lost", "build 1 is queued: it waits"),
        ({"asked": [], "builds": [BUILD]}, "lost", "nobody asked for build 1 (t0)"),
        (
            {"builds": [evolve(BUILD, result="exception", reason="worn out")]},
            None,
            "ended with exception (worn out), not with success",
        ),
        ({"steps": [line("begun", 5)]}, None, "the step of its last run never ended"),
        (
            {"steps": [*GOOD.steps, line("begun", 9)]},
            "doubled",
            "a step of run 9 of build t0 began, which the store knows nothing of",
        ),
        ({"steps": [*GOOD.steps, line("at-once", 5)]}, "doubled", "run 5 of build t0 began while another one ran"),
        ({"steps": [*GOOD.steps, line("begun", 5)]}, "doubled", "run 5 of build t0 began 2 times"),
        (
            {"builds": [evolve(BUILD, runs=(RunRow(4, "completed"), RunRow(5, "completed")))]},
            "doubled",
            "build 1 was carried out 2 times",
        ),
        ({"builds": [BUILD, evolve(BUILD, id=2, runs=())]}, "doubled", "t0 is there as 2 builds"),
        ({"left": {"cloud": ["i-1 (running)"]}}, "leaked", "cloud: i-1 (running) is left"),
        ({"attempts": [ATTEMPT, evolve(ATTEMPT, number=2, stopped=False)]}, "leaked", "cloud-1#2 was never stopped"),
        (
            {"attempts": [ATTEMPT, evolve(ATTEMPT, number=2, stopped=False, condemned=True)]},
            "leaked",
            "cloud-1#2 was never destroyed",
        ),
        ({"attempts": [ATTEMPT]}, "leaked", "an instance of cloud-1#2, which the store knows nothing of"),
        ({"wrong": ["the controller ended by itself"]}, None, "the controller ended by itself"),
    ],
)
def test_it_does_not(changes: dict[str, Any], count: str | None, said: str) -> None:
    """Each thing that is wrong is said, and counted where it belongs."""
    ledger = balance(evolve(GOOD, **changes))
    assert said in "\n".join(ledger["disagreements"])
    counts = {"lost": ledger["builds"]["lost"], "doubled": ledger["builds"]["doubled"], "leaked": ledger["leaked"]}
    if count is not None:
        assert counts[count] > 0
