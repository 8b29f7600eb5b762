"""Whatever happens, in whatever order: every build ends once, no instance is left, and no promise is broken on the way."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.controller.lives import MOVES, live

LIVES = st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 5)), max_size=60)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(LIVES)
def test_whatever_happens_every_build_ends_once_and_no_instance_is_left(moves: list[tuple[str, int]]) -> None:
    """Starts and stops that fail, agents that come and go, cancellations, new configurations, crashes: in any order."""
    live([("submit", 0), *moves])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(LIVES)
def test_whatever_happens_while_writes_are_on_their_way_to_a_slow_disk_it_is_the_same(moves: list[tuple[str, int]]) -> None:
    """The same, when all of it happens before what came earlier is answered."""
    live([("submit", 0), *moves], 0.25)
