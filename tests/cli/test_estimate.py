"""How long something will still take."""

from __future__ import annotations

import pytest

from latent.cli.estimate import MOST, Estimate


def after(steps: list[tuple[float, int]]) -> Estimate:
    estimate = Estimate()
    for at, finished in steps:
        estimate.note(at, finished)
    return estimate


def test_nobody_knows_before_the_first_is_finished():
    """Neither at the beginning, nor while nothing is finished."""
    estimate = after([(100.0, 0), (150.0, 0)])
    assert Estimate().left(100.0, 0, 10) is None
    assert estimate.left(150.0, 0, 10) is None


def test_all_done_is_no_time():
    """Whatever the rate was."""
    assert after([(100.0, 0)]).left(100.0, 10, 10) == 0.0


def test_a_steady_rate():
    """One a second, 90 of 100 left."""
    estimate = after([(float(at), at) for at in range(11)])
    assert estimate.left(10.0, 10, 100) == pytest.approx(90.0)


def test_the_later_half_counts():
    """What began slowly and is fast now will soon be over."""
    slow = [(float(at), at // 10) for at in range(0, 101, 5)]
    fast = [(100.0 + at, 10 + at) for at in range(0, 101, 5)]
    assert after(slow + fast).left(200.0, 110, 210) == pytest.approx(100.0)


def test_a_standstill_is_seen():
    """While nothing is finished the estimate grows."""
    estimate = after([(float(at), at) for at in range(41)])
    early, late = estimate.left(41.0, 40, 100), estimate.left(55.0, 40, 100)
    assert early is not None
    assert late is not None
    assert late > early


def test_long_work_keeps_few_samples():
    """A day of samples, four a second, is thinned out; the estimate stays good."""
    estimate = Estimate()
    for step in range(4 * 86400):
        estimate.note(step / 4, step // 40)
    assert len(estimate._samples) <= MOST + 1
    assert estimate.left(86400.0, 8640, 17280) == pytest.approx(86400.0, rel=0.02)
