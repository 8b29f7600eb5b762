"""Ends and restarts of a region: asked for together, confirmed, and never refused for the fault of another."""

from __future__ import annotations

from itertools import pairwise

import pytest
from twisted.internet.defer import CancelledError

from latent.errors import LatentWorkerCapacityError, LatentWorkerConfigurationError
from latent_ec2.faults import Unanswered, WrongState
from tests.ec2.fake_ec2 import Site, client_error, error_of, result_of
from tests.ec2.test_region_watch import Ear


def up(site: Site, count: int) -> list[str]:
    """Instances that run and are no longer young."""
    instances = site.launched(count)
    site.ec2.run_all()
    site.pass_time(61, 1)
    site.ec2.log.clear()
    return [one.id for one in instances]


def test_terminates_are_batched() -> None:
    """All of a moment in one call, whose answer is the confirmation: nothing is looked at."""
    site = Site()
    ids = up(site, 100)
    ended = [site.region.end(one) for one in ids]
    site.pass_time(0.1)
    assert [result_of(one) for one in ended] == [None] * 100
    assert site.ec2.calls == {"terminate_instances": 1}
    assert site.ec2.alive() == []
    assert site.clock.getDelayedCalls() == []


def test_a_trickle_is_gathered() -> None:
    """The first goes at once; while more follow, each batch waits longer for them, up to a quarter of a minute."""
    site = Site()
    ids = up(site, 60)
    first = site.region.end(ids[0])
    site.pass_time(0.1)
    assert first.called
    ended = []
    for one in ids[1:]:
        ended.append(site.region.end(one))
        site.pass_time(1)
    site.pass_time(15)
    assert all(one.called for one in ended)
    assert site.ec2.calls["terminate_instances"] <= 8
    waits = [call.at for call in site.ec2.log]
    assert max(later - earlier for earlier, later in pairwise(waits)) <= 15.1


def test_no_wait_for_who_is_in_a_hurry() -> None:
    """A controller that shuts down does not wait for others; it takes along who waits already."""
    site = Site()
    ids = up(site, 4)
    for one in ids[:2]:
        site.region.end(one)
        site.pass_time(0.3)
    waiting = site.region.end(ids[2])
    site.pass_time(0.2)
    assert not waiting.called
    hurried = site.region.end(ids[3], soon=True)
    site.pass_time(0.1)
    assert waiting.called
    assert hurried.called


def test_hurry_for_one_that_waits_already() -> None:
    """Its batch goes at once."""
    site = Site()
    ids = up(site, 2)
    site.region.end(ids[0])
    site.pass_time(0.1)
    waiting = site.region.end(ids[1])
    site.pass_time(0.2)
    hurried = site.region.end(ids[1], soon=True)
    site.pass_time(0.1)
    assert waiting.called
    assert hurried.called
    assert site.ec2.calls == {"terminate_instances": 2}


def test_ended_twice_is_ended_once() -> None:
    """Whoever wants it is told; and one that is gone already is no error."""
    site = Site()
    (one,) = up(site, 1)
    both = [site.region.end(one), site.region.end(one)]
    site.pass_time(0.1)
    assert [result_of(each) for each in both] == [None, None]
    assert site.ec2.calls == {"terminate_instances": 1}
    site.pass_time(60)
    again = site.region.end(one)
    site.ec2.forget(one)
    site.pass_time(0.1)
    assert result_of(again) is None


def test_one_that_is_unknown_keeps_nobody_from_ending() -> None:
    """EC2 refuses the whole batch for it; the others are asked for without it, in one more call."""
    site = Site()
    ids = up(site, 50)
    site.ec2.forget(ids[20])
    site.ec2.forget(ids[30])
    ended = [site.region.end(one) for one in ids]
    site.pass_time(0.1)
    assert [result_of(one) for one in ended] == [None] * 50
    assert site.ec2.calls == {"terminate_instances": 2}
    assert site.ec2.alive() == []


def test_one_that_may_not_be_terminated() -> None:
    """It alone fails, with AWS's code; it is found by halving."""
    site = Site()
    ids = up(site, 16)
    site.ec2.there[ids[5]]["Protected"] = True
    ended = {one: site.region.end(one) for one in ids}
    site.pass_time(0.1)
    error = error_of(ended.pop(ids[5]))
    assert isinstance(error, LatentWorkerConfigurationError)
    assert "OperationNotPermitted" in str(error)
    assert all(result_of(one) is None for one in ended.values())
    assert site.ec2.alive() == [ids[5]]
    assert site.ec2.calls["terminate_instances"] <= 10


def test_a_new_instance_that_ec2_does_not_know_yet() -> None:
    """It is asked again until EC2 knows it: it is not taken for gone."""
    site = Site()
    (instance,) = site.launched(1)
    hidden = site.ec2.there.pop(instance.id)
    ended = site.region.end(instance.id)
    site.pass_time(12)
    assert not ended.called
    site.ec2.there[instance.id] = hidden
    site.pass_time(20)
    assert result_of(ended) is None
    assert site.ec2.alive() == []


def test_throttled_and_broken_ends() -> None:
    """They are repeated, and nobody is told; when EC2 answers nothing for long, that is told."""
    site = Site()
    ids = up(site, 2)
    site.ec2.faults["terminate_instances"] = [client_error("RequestLimitExceeded")] * 3 + [
        client_error("InternalError", status=500)
    ]
    ended = site.region.end(ids[0])
    site.pass_time(60)
    assert result_of(ended) is None
    site.ec2.faults["terminate_instances"] = [client_error("InternalError", status=500)] * 100
    ended = site.region.end(ids[1])
    site.pass_time(120)
    assert isinstance(error_of(ended), Unanswered)


def test_giving_up_the_wait_ends_it_all_the_same() -> None:
    """An end is never taken back."""
    site = Site()
    (one,) = up(site, 1)
    ended = site.region.end(one)
    ended.cancel()
    assert isinstance(error_of(ended), CancelledError)
    site.pass_time(0.1)
    assert site.ec2.alive() == []


def test_who_watches_hears_of_the_end() -> None:
    """At once, from the answer."""
    site = Site()
    (one,) = up(site, 1)
    ear = Ear()
    site.region.watch(one, ear)
    site.region.end(one)
    site.pass_time(0.1)
    assert ear.states == ["shutting-down"]
    assert site.clock.getDelayedCalls() == []


# --- stopped and started again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "hibernate"])
def test_stopped(how: str) -> None:
    """It is confirmed when EC2 says "stopped", which the shared look finds out."""
    site = Site()
    ids = up(site, 20)
    ended = [site.region.end(one, how) for one in ids]  # type: ignore[arg-type]
    site.pass_time(1)
    (asked,) = site.ec2.asked("stop_instances")
    assert asked.get("Hibernate", False) is (how == "hibernate")
    assert not any(one.called for one in ended)
    for one in ids:
        site.ec2.set(one, "stopped")
    site.pass_time(6)
    assert [result_of(one) for one in ended] == [None] * 20
    assert site.ec2.calls == {"stop_instances": 1, "describe_instances": 1}
    assert site.clock.getDelayedCalls() == []


def test_stopped_when_it_can_not_be_stopped_yet() -> None:
    """One that is pending is asked again; one that has ended meanwhile is no error."""
    site = Site()
    ids = up(site, 2)
    wrong = client_error("IncorrectInstanceState", "The instance is not in a state from which it can be stopped.")
    site.ec2.faults["stop_instances"] = [wrong, wrong]
    first = site.region.end(ids[0], "stop")
    site.pass_time(30)
    assert site.ec2.calls["stop_instances"] == 3
    site.ec2.set(ids[0], "stopped")
    site.pass_time(20)
    assert result_of(first) is None
    site.ec2.set(ids[1], "terminated")
    site.ec2.faults["stop_instances"] = [wrong]
    second = site.region.end(ids[1], "stop")
    site.pass_time(30)
    assert result_of(second) is None


def test_stopped_and_gone_meanwhile() -> None:
    """One that is terminated while it stops does not stop any more."""
    site = Site()
    (one,) = up(site, 1)
    ended = site.region.end(one, "stop")
    site.pass_time(1)
    site.ec2.forget(one)
    site.pass_time(10)
    assert result_of(ended) is None


def test_hibernation_that_is_not_possible() -> None:
    """It is told, with AWS's code."""
    site = Site()
    (one,) = up(site, 1)
    site.ec2.faults["stop_instances"] = [client_error("UnsupportedHibernationConfiguration")]
    ended = site.region.end(one, "hibernate")
    site.pass_time(1)
    error = error_of(ended)
    assert "UnsupportedHibernationConfiguration" in str(error)
    assert "stop_mode" in str(error)


def test_restarted() -> None:
    """All of a moment in one call; each answers with its instance, which can be watched from then on."""
    site = Site()
    ids = up(site, 10)
    for one in ids:
        site.ec2.set(one, "stopped")
    started = [site.region.restart(one) for one in ids]
    site.pass_time(2)
    assert {result_of(one).state for one in started} == {"pending"}
    assert site.ec2.calls["start_instances"] == 1
    assert site.ec2.calls["describe_instances"] <= 1
    ear = Ear()
    site.region.watch(ids[0], ear)
    site.ec2.run_all()
    site.pass_time(6)
    assert ear.states[-1] == "running"


def test_restarted_without_room() -> None:
    """Who there is no room for is told; the others start."""
    site = Site()
    ids = up(site, 2)
    for one in ids:
        site.ec2.set(one, "stopped")
    full = client_error("InsufficientInstanceCapacity", status=500)
    site.ec2.faults["start_instances"] = [full, full, None]
    started = [site.region.restart(one) for one in ids]
    site.pass_time(2)
    failed = [one for one in started if isinstance(_outcome(one), LatentWorkerCapacityError)]
    assert len(failed) == 1
    assert sum(doc["State"]["Name"] == "pending" for doc in site.ec2.there.values()) == 1


def test_restarted_in_the_wrong_state() -> None:
    """It is told, so that another instance is started instead."""
    site = Site()
    (one,) = up(site, 1)
    site.ec2.faults["start_instances"] = [client_error("IncorrectInstanceState")]
    started = site.region.restart(one)
    site.pass_time(1)
    assert isinstance(error_of(started), WrongState)


def _outcome(deferred: object) -> object:
    found: list[object] = []
    deferred.addBoth(lambda result: found.append(getattr(result, "value", result)))  # type: ignore[attr-defined]
    return found[0] if found else None
