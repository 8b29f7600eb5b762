"""What befalls the controller follows from the seed, and from nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.chaos.schedule import KINDS, PARTS, asks, faults

SEEDS = st.integers(0, 10_000)
SECONDS = st.floats(0, 4000)


@given(SEEDS, SECONDS, SECONDS)
def test_a_longer_day_begins_like_a_shorter_one(seed: int, one: float, other: float) -> None:
    """The same seed gives the same faults and builds, however long the day is to be."""
    for of in (faults, asks):
        shorter, longer = sorted((of(seed, one), of(seed, other)), key=len)
        assert longer[: len(shorter)] == shorter
        assert all(event.at >= min(one, other) for event in longer[len(shorter) :])
        assert [event.at for event in longer] == sorted(event.at for event in longer)


@given(SEEDS)
def test_faults_are_as_their_kinds_say(seed: int) -> None:
    """Each lasts as long as its kind may; its lot picks one of however many there are."""
    for fault in faults(seed, 1800):
        kind = KINDS[fault.kind]
        assert kind.shortest <= fault.seconds <= kind.longest
        assert 0 <= fault.lot <= 1
        assert fault.part in ("controller", *PARTS)


def test_another_process_has_the_same_day() -> None:
    """Nothing of the process that asks goes into it: neither its hash seed nor anything that was drawn before."""
    command = [sys.executable, "-m", "benchmarks.chaos", "--minutes", "30", "--seed", "3", "--plan"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}).stdout.splitlines()
    assert said == [str(fault) for fault in faults(3, 1800)]


def test_seeds_differ_and_half_an_hour_has_everything() -> None:
    """Three days of half an hour each have every kind of fault between them, and no two are alike."""
    days = [faults(seed, 1800) for seed in (1, 2, 3)]
    assert len(set(days)) == 3
    assert Counter(fault.kind for day in days for fault in day).keys() == KINDS.keys()
    wanted = [ask for seed in (1, 2, 3) for ask in asks(seed, 1800)]
    assert {ask.part for ask in wanted} == {"", *PARTS}
    assert {ask.results for ask in wanted} >= {("success",), ("failure",), ("success", "cancelled")}
