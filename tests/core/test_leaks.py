"""Which instance has leaked, and when that is certain."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latent.core.leaks import Local, Rules, Sight, Standing, Verdict, judge
from latent.model import Attempt

OURS, THEIRS = "ours", "theirs"
ATTEMPT = Attempt("w", 7)
RULES = Rules(min_age=60, apart=60, grace=600)
NOW = 10_000.0


def judged(*, local: dict[str, Any] | None = None, rules: Rules = RULES, now: float = NOW, **seen: Any) -> Verdict:
    sight = Sight(**{"attempt": ATTEMPT, "controller_id": OURS, "created_at": NOW - 1000, **seen})
    return judge(sight, Local(**{"controller_id": OURS, "expected": (), **(local or {})}), rules, now)


@pytest.mark.parametrize(
    ("seen", "local", "standing"),
    [
        ({}, {"expected": [ATTEMPT]}, Standing.EXPECTED),
        ({"protected": True}, {"expected": [ATTEMPT]}, Standing.EXPECTED),
        ({"first_seen": 0.0}, {"expected": [Attempt("w", 8)]}, Standing.LEAKED),
        ({}, {}, Standing.SUSPECT),
        ({"first_seen": NOW - 59}, {}, Standing.SUSPECT),
        ({"first_seen": NOW - 60}, {}, Standing.LEAKED),
        ({"first_seen": 0.0, "created_at": NOW - 10}, {}, Standing.LEAKED),
        ({"first_seen": 0.0, "protected": True}, {}, Standing.PROTECTED),
        ({"first_seen": 0.0}, {"condemned": [(OURS, ATTEMPT)]}, Standing.CONDEMNED),
        ({"first_seen": 0.0, "protected": True}, {"condemned": [(OURS, ATTEMPT)]}, Standing.PROTECTED),
        ({"controller_id": THEIRS, "first_seen": 0.0}, {}, Standing.FOREIGN),
        ({"controller_id": THEIRS, "first_seen": 0.0}, {"expected": [ATTEMPT]}, Standing.FOREIGN),
        ({"controller_id": THEIRS, "first_seen": 0.0}, {"condemned": [(OURS, ATTEMPT)]}, Standing.FOREIGN),
        ({"controller_id": THEIRS, "first_seen": 0.0, "expires_at": NOW - 599}, {}, Standing.FOREIGN),
        ({"controller_id": THEIRS, "first_seen": 0.0, "expires_at": NOW - 600}, {}, Standing.LEAKED),
        ({"controller_id": THEIRS, "expires_at": NOW - 600}, {}, Standing.SUSPECT),
        ({"controller_id": THEIRS, "first_seen": 0.0, "expires_at": NOW - 600, "protected": True}, {}, Standing.PROTECTED),
        ({"controller_id": THEIRS, "first_seen": 0.0, "protected": True}, {}, Standing.FOREIGN),
        ({"controller_id": THEIRS, "protected": True}, {"forsaken": [THEIRS]}, Standing.PROTECTED),
        ({"controller_id": THEIRS, "first_seen": 0.0, "expires_at": NOW + 600}, {"forsaken": [THEIRS]}, Standing.LEAKED),
        ({"controller_id": THEIRS}, {"forsaken": [THEIRS], "condemned": [(THEIRS, ATTEMPT)]}, Standing.CONDEMNED),
        ({"first_seen": 0.0}, {"forsaken": [OURS], "expected": [ATTEMPT]}, Standing.LEAKED),
    ],
)  # fmt: skip
def test_standing(seen: dict[str, Any], local: dict[str, Any], standing: Standing) -> None:
    """Each combination of whose it is, who expects it, how it is marked, and how often it was seen."""
    assert judged(local=local, **seen).standing is standing


def test_how_old_it_is() -> None:
    """By its provider's clock, or since it was first seen where the provider tells nothing, or a time in the future."""
    assert judged(first_seen=NOW - 70, created_at=None).standing is Standing.LEAKED
    assert judged(first_seen=NOW - 70, created_at=NOW + 5000).standing is Standing.LEAKED
    quick = Rules(min_age=60, apart=10)
    assert judged(first_seen=NOW - 20, created_at=NOW - 30, rules=quick) == Verdict(
        standing=Standing.SUSPECT, why="no worker accounts for it; it is only 30 s old", certain_at=NOW + 30
    )
    assert judged(first_seen=NOW - 20, created_at=NOW - 60, rules=quick).standing is Standing.LEAKED


@given(
    st.one_of(st.none(), st.floats(0, 20_000)), st.floats(0, 20_000), st.floats(0, 500), st.floats(0, 500),
    st.sampled_from([OURS, THEIRS]),
)  # fmt: skip
def test_a_suspect_is_certain_when_it_says(
    created_at: float | None, first_seen: float, min_age: float, apart: float, forsaken: str
) -> None:
    """Whatever the clocks say, one that is still there at ``certain_at`` has leaked, and one that is seen for the first time has
    not."""
    rules, local = Rules(min_age=min_age, apart=apart), {"forsaken": [forsaken]}
    seen = {"created_at": created_at, "controller_id": OURS, "rules": rules, "local": local}
    first = judged(now=first_seen, **seen)
    assert first.standing is Standing.SUSPECT
    assert first.certain_at is not None
    assert judged(now=first.certain_at + 1e-6, first_seen=first_seen, **seen).standing is Standing.LEAKED
