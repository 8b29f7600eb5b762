"""What follows a failure, in every case there is."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latent.swarm.retries import Verdict, grown, judge
from latent.swarm.statuses import TaskStatus
from latent.swarm.values import ArrayDefinition, Resources, Trouble

G, A, F = TaskStatus.REGISTERING, TaskStatus.ADJUSTING_RESOURCES, TaskStatus.ERROR_FATAL
BIG, BIGGER = {"size": "big"}, {"size": "bigger"}


def array(scale: Resources | None = None, most: Resources | None = None, fallbacks: int = 0) -> ArrayDefinition:
    labels = (BIG, BIGGER)[:fallbacks]
    return ArrayDefinition(name="a", template="t", scale=scale or {}, most=most or {}, fallbacks=labels)


@pytest.mark.parametrize("trouble", [None, *Trouble])
def test_every_trouble_at_every_attempt(trouble: Trouble | None) -> None:
    """The last attempt and fatal trouble end a task; want of resources adjusts them; all else is tried again as it was."""
    kind = array({"memory": 0.5}, {"memory": 100}, 2)
    for attempts, most, level in itertools.product(range(1, 5), range(1, 5), range(3)):
        verdict = judge(trouble, attempts, most, {"memory": 10}, level, kind)
        if attempts >= most or trouble in (Trouble.CANCELLED, Trouble.REFUSED):
            assert verdict == Verdict(F, {"memory": 10}, level)
        elif trouble in (Trouble.MEMORY, Trouble.TIMEOUT):
            assert verdict == Verdict(A, {"memory": 15}, level)
        else:
            assert verdict == Verdict(G, {"memory": 10}, level)


def test_amounts_grow_then_labels_change_then_nothing_does() -> None:
    """A task climbs to the most there is, then from fallback to fallback, and stays with the last."""
    kind = array({"memory": 0.5, "timeout": 1}, {"memory": 5000}, 2)
    told = []
    resources: Resources = {"memory": 2048, "timeout": 0.5, "cpus": 2}
    kind = array({"memory": 0.5, "timeout": 1}, {"memory": 5000, "timeout": 1.5}, 2)
    level = 0
    for attempts in range(1, 7):
        verdict = judge(Trouble.MEMORY, attempts, 9, resources, level, kind)
        assert verdict.status is A
        resources, level = verdict.resources, verdict.level
        told.append((resources["memory"], resources["timeout"], resources["cpus"], level))
    assert told == [
        (3072, 1.0, 2, 0),
        (4608, 1.5, 2, 0),
        (5000, 1.5, 2, 0),
        (5000, 1.5, 2, 1),
        (5000, 1.5, 2, 2),
        (5000, 1.5, 2, 2),
    ]


def test_without_a_scale_the_fallbacks_are_next() -> None:
    """There is nothing that could grow first."""
    assert judge(Trouble.TIMEOUT, 1, 3, {"memory": 1}, 0, array(fallbacks=1)) == Verdict(A, {"memory": 1}, 1)
    assert judge(Trouble.TIMEOUT, 1, 3, {}, 0, array({"memory": 1}, fallbacks=1)) == Verdict(A, {}, 1)


def test_whole_numbers_stay_whole_and_are_rounded_up() -> None:
    """Not by the rounding error of a product, though."""
    assert grown({"x": 10, "y": 3, "z": 1}, array({"x": 0.1, "y": 0.1, "z": 0.01})) == {"x": 11, "y": 4, "z": 2}
    assert grown({"x": 0.5}, array({"x": 0.5})) == {"x": 0.75}
    assert grown({"x": 1 / 3}, array()) == {"x": 1 / 3}


amounts = st.one_of(st.integers(0, 10**6), st.floats(0, 1e6))
names = st.sampled_from(["memory", "timeout", "cpus"])


@given(
    st.dictionaries(names, amounts), st.dictionaries(names, st.floats(0, 10)), st.dictionaries(names, amounts), st.integers(0, 2)
)
def test_growth_never_shrinks_nor_oversteps_nor_goes_on_for_ever(
    resources: Resources, scale: Resources, most: Resources, fallbacks: int
) -> None:
    """Amounts only grow, by about their scale, up to the most; levels rise by one, and only when no amount grows."""
    kind = array(scale, most, fallbacks)
    level = 0
    for attempt in range(1, 30):
        verdict = judge(Trouble.MEMORY, attempt, 100, resources, level, kind)
        assert verdict.resources.keys() == resources.keys()
        for name, amount in resources.items():
            more = verdict.resources[name]
            assert amount <= more <= max(amount, most.get(name, math.inf))
            assert more <= math.ceil(amount * (1 + scale.get(name, 0)) + 1e-6)
            assert isinstance(more, int) or not isinstance(amount, int) or more == most.get(name)
        grew = verdict.resources != resources
        assert verdict.level == (level if grew else min(level + 1, fallbacks))
        resources, level = verdict.resources, verdict.level
