"""How long a worker is left alone after failures."""

from __future__ import annotations

import pytest

from latent.core import quarantine as q
from latent.core.quarantine import Quarantine


def test_each_failure_doubles_the_wait_up_to_an_hour() -> None:
    """10, 20, ... 2560, 3600, 3600."""
    state, now, waits = Quarantine(), 0.0, []
    for _ in range(11):
        state = q.failed(state, "no capacity", now)
        waits.append(state.until - now)
        now = state.until
    assert waits == [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]


def test_a_failure_during_the_back_off_changes_nothing() -> None:
    """Neither the end nor the next step nor the reason."""
    state = q.failed(Quarantine(), "first", 0.0)
    assert q.failed(state, "second", 9.0) == state
    assert q.failed(state, "third", 10.0).until == 30.0


def test_a_good_build_resets_all_but_the_pause() -> None:
    """What an operator asked for stays."""
    state = q.pause(q.failed(q.failed(Quarantine(), "x", 0.0), "x", 10.0))
    assert q.good_build(state) == Quarantine(paused=True)


def test_unpausing_ends_the_back_off_and_keeps_the_step() -> None:
    """The next failure counts as the next one."""
    state = q.unpause(q.pause(q.failed(Quarantine(), "x", 0.0)))
    assert q.why_closed(state, 1.0) == ""
    assert q.failed(state, "x", 1.0).until == 21.0


@pytest.mark.parametrize(("jitter", "until"), [(-1.0, 9.0), (0.0, 10.0), (1.0, 11.0)])
def test_jitter_moves_the_end_by_a_tenth_of_the_step_at_most(jitter: float, until: float) -> None:
    """So that workers that failed together do not return together."""
    assert q.failed(Quarantine(), "x", 0.0, jitter).until == until


def test_a_worker_says_why_it_takes_no_builds() -> None:
    """Paused, or for how long it is left alone and why."""
    state = q.failed(Quarantine(), "no capacity", 0.0)
    assert q.why_closed(state, 4.0) == "backs off for 6 s more: no capacity"
    assert q.why_closed(state, 10.0) == ""
    assert q.why_closed(q.pause(state), 10.0) == "paused"
