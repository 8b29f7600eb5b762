"""The token bucket of a region: never more than it may, slower when told, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from latent_ec2.budget import RECOVERY, Bucket
from latent_ec2.gate import Turns

BUCKET = Bucket.full(usual=4.0, burst=10.0, floor=0.25)

steps = st.lists(
    st.tuples(st.floats(0, 20), st.sampled_from(["take", "throttled", "look"]), st.floats(0.1, 30)), min_size=1, max_size=80
)


def taken(steps: list[tuple[float, str, float]]) -> list[tuple[float, float]]:
    """Times and counts of what is taken when these things happen, waiting for each as it says."""
    bucket, now, found = BUCKET, 0.0, []
    for pause, what, count in steps:
        now += pause
        match what:
            case "take":
                now += bucket.wait(now, count)
                assert bucket.wait(now, count) == pytest.approx(0, abs=1e-6)
                bucket = bucket.take(now, count)
                found.append((now, count))
            case "throttled":
                bucket = bucket.throttled(now, now)
            case _:
                bucket = bucket.upto(now)
        assert BUCKET.floor <= bucket.rate <= BUCKET.usual
        assert bucket.tokens <= BUCKET.burst
    return found


@given(steps)
def test_never_more_than_it_may(steps: list[tuple[float, str, float]]) -> None:
    """In any span of time, no more is taken than a full bucket and what comes in meanwhile, and one taking on credit."""
    found = taken(steps)
    for first, (start, _) in enumerate(found):
        total = 0.0
        for end, count in found[first:]:
            assert total <= BUCKET.burst + BUCKET.usual * (end - start) + 1e-6
            total += count


@given(st.floats(0, 1e6), st.floats(0.1, 100))
def test_the_wait_is_enough_and_finite(now: float, count: float) -> None:
    """After the time that it says, there are as many, also for more than the bucket holds."""
    empty = BUCKET.upto(now).take(now, 10)
    wait = empty.wait(now, count)
    assert 0 < wait <= 10 / 4 + 1e-6
    assert empty.wait(now + wait + 1e-6, count) == 0


@given(st.integers(1, 200))
def test_halved_and_never_under_its_floor(times: int) -> None:
    """Each throttled call halves the rate, down to the floor, which still lets calls through."""
    bucket = BUCKET
    for n in range(times):
        bucket = bucket.throttled(n * 0.001, n * 0.001)
    assert bucket.rate == pytest.approx(max(0.25, 4.0 / 2**times), abs=0.01)
    assert bucket.tokens <= 0.01
    assert bucket.wait(times * 0.001) <= 4.0


def test_one_slowing_for_calls_that_were_on_the_way() -> None:
    """Calls that were sent before it was slowed are refused for the same reason, which does not count again."""
    bucket = BUCKET.upto(10.0).throttled(10.0, 9.5)
    assert bucket.rate == 2.0
    assert bucket.throttled(10.1, 9.9).rate == pytest.approx(2.0, abs=0.01)
    assert bucket.throttled(11.0, 10.5).rate == pytest.approx(1.0, abs=0.05)


def test_it_recovers() -> None:
    """Left in peace, it has its usual rate again within its time, and says since when it is slower until then."""
    bucket = BUCKET
    for now in range(5):
        bucket = bucket.throttled(float(now), float(now))
    assert bucket.slowed_at == 4.0
    half = bucket.upto(4.0 + RECOVERY / 2)
    assert bucket.rate < half.rate < 4.0
    assert half.slowed_at == 4.0
    whole = bucket.upto(4.0 + RECOVERY)
    assert whole.rate == 4.0
    assert whole.slowed_at is None


@given(st.floats(-100, 0))
def test_a_clock_that_goes_back(step: float) -> None:
    """It changes nothing."""
    bucket = BUCKET.take(0.0, 3)
    assert bucket.upto(step) == bucket


def test_a_bucket_that_keeps_half() -> None:
    """Where being throttled need not be the bucket's fault, it loses half of its tokens only."""
    bucket = Bucket.full(usual=2.0, burst=1000.0, floor=0.2, keeps=0.5)
    assert bucket.throttled(0.0, 0.0).tokens == 500.0


# --- its queue ---------------------------------------------------------------------------------------------------------------


def test_first_come_first_served() -> None:
    """Who asks first has the first turn; nobody waits while there is enough."""
    clock, served = Clock(), list[int]()
    turns = Turns(clock, Bucket.full(usual=2.0, burst=3.0, floor=0.1))
    for n in range(6):
        turns.take().addCallback(lambda _, n=n: served.append(n))
    assert served == [0, 1, 2]
    assert len(turns) == 3
    clock.pump([0.1] * 5)
    assert served == [0, 1, 2, 3]
    clock.pump([0.1] * 20)
    assert served == [0, 1, 2, 3, 4, 5]
    assert clock.getDelayedCalls() == []


def test_leaving_the_queue() -> None:
    """Who is cancelled leaves, and who comes behind moves up."""
    clock, served = Clock(), list[str]()
    turns = Turns(clock, Bucket.full(usual=1.0, burst=4.0, floor=0.1))
    turns.take(4)
    large = turns.take(4)
    turns.take(1).addCallback(lambda _: served.append("small"))
    large.addErrback(lambda failure: failure.trap(CancelledError))
    large.cancel()
    clock.advance(1.1)
    assert served == ["small"]
    assert clock.getDelayedCalls() == []


def test_slower_while_somebody_waits() -> None:
    """Who waits when the budget is slowed waits longer."""
    clock, served = Clock(), list[float]()
    turns = Turns(clock, Bucket.full(usual=1.0, burst=1.0, floor=0.1))
    turns.take()
    turns.take().addCallback(served.append)
    turns.throttled(0.0)
    clock.advance(1.5)
    assert served == []
    clock.advance(1.0)
    assert len(served) == 1
