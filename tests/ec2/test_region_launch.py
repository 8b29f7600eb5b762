"""Starts of a region: one call for many, never two instances for one attempt, and nothing left of what nobody wants."""

from __future__ import annotations

from typing import Any

import botocore.exceptions
import pytest
from twisted.internet.defer import CancelledError, Deferred, fail

from latent.errors import (
    LatentWorkerCapacityError,
    LatentWorkerConfigurationError,
    LatentWorkerFailedToSubstantiate,
    LatentWorkerQuotaError,
)
from latent_ec2.faults import Unanswered
from latent_ec2.gate import INSTANCES
from tests.ec2.fake_ec2 import Site, client_error, error_of, result_of

THROTTLED = client_error("RequestLimitExceeded", "Request limit exceeded.", 503)
BROKEN = client_error("InternalError", "An internal error has occurred", 500)
LOST = botocore.exceptions.ReadTimeoutError(endpoint_url="http://ec2")


def tokens(site: Site) -> set[str]:
    return {asked["ClientToken"] for asked in site.ec2.asked("run_instances")}


# --- coalesced ----------------------------------------------------------------------------------------------------------------


def test_one_call_for_all_of_a_shape() -> None:
    """Each has the instance of its place in the launch."""
    site = Site()
    instances = site.launched(100)
    assert site.ec2.calls == {"run_instances": 1}
    assert len({one.id for one in instances}) == 100
    assert [one.attempt.worker for one in instances if one.attempt] == [f"w{n}" for n in range(100)]


def test_wishes_within_a_moment() -> None:
    """Who comes while others still come goes with them, up to a quarter of a second; who comes later has a call of their own."""
    site = Site()
    waiting = []
    for n in range(10):
        waiting.append(site.region.launch(site.wish(f"w{n}")))
        site.pass_time(0.04, 0.01)
    site.pass_time(0.3, 0.01)
    assert [asked["MaxCount"] for asked in site.ec2.asked("run_instances")] == [7, 3]
    assert len({result_of(one).id for one in waiting}) == 10


def test_other_shapes_are_other_calls() -> None:
    """Who wants something else is not served with it."""
    site = Site()
    small = [site.region.launch(site.wish(f"s{n}")) for n in range(3)]
    large = [site.region.launch(site.wish(f"l{n}", shape="large")) for n in range(2)]
    site.pass_time(0.1)
    assert sorted((asked["InstanceType"], asked["MaxCount"]) for asked in site.ec2.asked("run_instances")) == [
        ("t3.large", 2),
        ("t3.small", 3),
    ]
    assert len({result_of(one).id for one in (*small, *large)}) == 5


def test_more_than_a_launch_can_hold() -> None:
    """They are split, and all have their own."""
    site = Site()
    instances = site.launched(450)
    assert site.ec2.calls["run_instances"] == 4
    assert len({one.id for one in instances}) == 450
    assert [one.attempt.worker for one in instances if one.attempt] == [f"w{n}" for n in range(450)]


def test_one_that_can_not_be_asked_for() -> None:
    """User data over 16 KiB are told before EC2 is asked; the others are started."""
    site = Site()
    good = site.region.launch(site.wish("w1"))
    bad = site.region.launch(site.wish("w2", shape="huge", user_data=lambda members: "x" * 16_385))
    site.pass_time(0.1)
    assert result_of(good).state == "pending"
    error = error_of(bad)
    assert isinstance(error, LatentWorkerConfigurationError)
    assert "user data is 16385 bytes, where EC2 takes 16384" in str(error)
    assert site.ec2.calls["run_instances"] == 1


def test_one_attempt_at_a_time() -> None:
    """An attempt that waits for its instance is not given a second one."""
    site = Site()
    first = site.region.launch(site.wish("w1"))
    assert "already" in str(error_of(site.region.launch(site.wish("w1"))))
    site.pass_time(0.1)
    assert result_of(first)
    assert len(site.ec2.there) == 1


# --- kept ---------------------------------------------------------------------------------------------------------------------


def test_kept_before_the_call() -> None:
    """Nothing is asked of EC2 until every member's document is on disk; it says all that a repetition needs."""
    site = Site()
    writing: list[Deferred[None]] = []

    def keep(document: Any) -> Deferred[None]:
        writing.append(Deferred())
        return writing[-1]

    waiting = [site.region.launch(site.wish(f"w{n}", keep=keep)) for n in range(3)]
    site.pass_time(1.0)
    writing[0].callback(None)
    writing[1].callback(None)
    assert site.ec2.calls == {}
    writing[2].callback(None)
    assert site.ec2.calls == {"run_instances": 1}
    assert all(result_of(one) for one in waiting)


def test_what_is_kept() -> None:
    """Each document has the launch's token and members, and the member's own place."""
    site = Site()
    site.launched(3)
    (token,) = tokens(site)
    assert [(member, document["index"]) for member, document in site.kept] == [("w0#1", 0), ("w1#1", 1), ("w2#1", 2)]
    for _, document in site.kept:
        assert document["launch"] == token
        assert document["members"] == ["w0#1", "w1#1", "w2#1"]
        assert document["request"] == {"ImageId": "ami-1", "InstanceType": "t3.small"}
        assert document["instance"] is None


def test_one_that_can_not_be_kept() -> None:
    """It fails alone; the others' documents are written anew, without it, before EC2 is asked."""
    site = Site()
    good = [site.region.launch(site.wish(f"w{n}")) for n in range(2)]
    bad = site.region.launch(site.wish("bad", keep=lambda document: fail(OSError("disk full"))))
    site.pass_time(0.1)
    assert "disk full" in str(error_of(bad))
    assert [result_of(one).index for one in good] == [0, 1]
    (asked,) = site.ec2.asked("run_instances")
    assert asked["MaxCount"] == 2
    assert dict(site.kept)["w1#1"]["launch"] == asked["ClientToken"]
    assert dict(site.kept)["w1#1"]["members"] == ["w0#1", "w1#1"]


def test_cancelled_while_it_is_kept() -> None:
    """It is left out of a call that was not made yet."""
    site = Site()
    writing: list[Deferred[None]] = []

    def keep(document: Any) -> Deferred[None]:
        writing.append(Deferred())
        return writing[-1]

    stays = site.region.launch(site.wish("w1", keep=keep))
    goes = site.region.launch(site.wish("w2", keep=keep))
    site.pass_time(0.1)
    goes.cancel()
    assert isinstance(error_of(goes), CancelledError)
    for one in list(writing):
        one.callback(None)
    writing[2].callback(None)
    assert result_of(stays).index == 0
    assert len(site.ec2.there) == 1


# --- refused ------------------------------------------------------------------------------------------------------------------


def test_room_for_some() -> None:
    """Who is left without an instance is told that there was no room, and the others have theirs."""
    site = Site()
    site.ec2.room = 3
    waiting = [site.region.launch(site.wish(f"w{n}")) for n in range(5)]
    site.pass_time(0.1)
    assert [result_of(one).index for one in waiting[:3]] == [0, 1, 2]
    for one in waiting[3:]:
        error = error_of(one)
        assert isinstance(error, LatentWorkerCapacityError)
        assert "3 of 5" in str(error)
    assert site.ec2.calls == {"run_instances": 1}


def test_no_room_is_told_at_once() -> None:
    """It is not asked again for what there is no room for: somebody else may have some."""
    site = Site()
    site.ec2.room = 0
    waiting = site.region.launch(site.wish("w1"))
    site.pass_time(0.1)
    error = error_of(waiting)
    assert isinstance(error, LatentWorkerCapacityError)
    assert "InsufficientInstanceCapacity" in str(error)
    assert site.ec2.calls == {"run_instances": 1}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("VcpuLimitExceeded", LatentWorkerQuotaError),
        ("InvalidAMIID.NotFound", LatentWorkerConfigurationError),
        ("AuthFailure", LatentWorkerConfigurationError),
        ("SomethingNew", LatentWorkerFailedToSubstantiate),
    ],
)
def test_refusals_reach_everybody(code: str, kind: type[Exception]) -> None:
    """With AWS's code; and it is known that nothing was made, so nothing has to be looked for."""
    site = Site()
    site.ec2.faults["run_instances"] = [client_error(code)]
    waiting = [site.region.launch(site.wish(f"w{n}")) for n in range(2)]
    site.pass_time(0.1)
    for one in waiting:
        error = error_of(one)
        assert type(error) is kind or isinstance(error, kind)
        assert code in str(error)
    result_of(site.region.destroy(dict(site.kept)["w0#1"]))
    assert site.ec2.calls == {"run_instances": 1}


def test_ended_before_it_was_answered() -> None:
    """An instance that came to nothing at once is a failure, with EC2's reason."""
    site = Site()
    site.threads.holding = True
    waiting = site.region.launch(site.wish("w1"))
    site.pass_time(0.1)
    site.ec2.run_instances = lambda **asked: {  # type: ignore[method-assign]
        "Instances": [{"InstanceId": "i-1", "State": {"Name": "terminated"}, "StateReason": {"Code": "Server.InternalError"}}]
    }
    site.threads.release()
    assert "i-1 is terminated: Server.InternalError" in str(error_of(waiting))


# --- repeated -----------------------------------------------------------------------------------------------------------------


def test_throttled_is_no_error() -> None:
    """It is asked again, later and later, with the same ClientToken, for as long as somebody waits."""
    site = Site()
    site.ec2.faults["run_instances"] = [THROTTLED] * 12
    waiting = [site.region.launch(site.wish(f"w{n}")) for n in range(5)]
    site.pass_time(600)
    assert len({result_of(one).id for one in waiting}) == 5
    assert site.ec2.calls["run_instances"] == 13
    assert len(tokens(site)) == 1
    assert len(site.ec2.there) == 5
    status = site.region.status()
    assert (status.throttles, status.waiting) == (12, 0)


def test_throttled_at_two_a_second() -> None:
    """All of a hundred workers of many shapes start, none twice, and no error reaches anybody."""
    site = Site()
    allowed = [2.0, 0.0]

    def throttle(_: str) -> bool:
        tokens, at = allowed
        allowed[:] = min(2.0, tokens + 2.0 * (site.clock.seconds() - at)), site.clock.seconds()
        if allowed[0] < 1:
            return True
        allowed[0] -= 1
        return False

    site.ec2.throttle = throttle
    waiting = [site.region.launch(site.wish(f"w{n}", shape=str(n))) for n in range(100)]
    site.pass_time(300)
    assert len({result_of(one).id for one in waiting}) == 100
    assert len(site.ec2.there) == 100
    status = site.region.status()
    assert status.throttles > 0
    assert site.ec2.calls["run_instances"] < 250
    assert (status.queued, status.slowed_since) == (0, None)


def test_more_come_along_while_the_budget_is_used_up() -> None:
    """A launch that waits for its turn takes in who comes meanwhile."""
    site = Site()
    for n in range(30):
        site.region.call("describe_images", Owners=[str(n)])
    waiting = []
    for n in range(20):
        waiting.append(site.region.launch(site.wish(f"w{n}")))
        site.pass_time(0.1)
    site.pass_time(5)
    assert len({result_of(one).id for one in waiting}) == 20
    assert site.ec2.calls["run_instances"] <= 2


@pytest.mark.parametrize("error", [BROKEN, LOST], ids=["500", "no answer"])
@pytest.mark.parametrize("effect", [False, True], ids=["before", "after"])
def test_unanswered_is_repeated(error: Exception, effect: bool) -> None:
    """Whether it was done or not: the same ClientToken makes one instance of two calls."""
    site = Site()
    (site.ec2.after if effect else site.ec2.faults)["run_instances"] = [error, error]
    waiting = [site.region.launch(site.wish(f"w{n}")) for n in range(3)]
    site.pass_time(30)
    assert len({result_of(one).id for one in waiting}) == 3
    assert site.ec2.calls["run_instances"] == 3
    assert len(tokens(site)) == 1
    assert len(site.ec2.there) == 3


def test_hung_is_repeated() -> None:
    """A call that never comes back is given up and made again; when it comes back after all, that changes nothing."""
    site = Site()
    site.threads.holding = True
    waiting = site.region.launch(site.wish("w1"))
    site.pass_time(70)
    assert len(site.threads.held) == 1
    site.threads.holding = False
    site.pass_time(30)
    instance = result_of(waiting)
    site.threads.release()
    assert len(tokens(site)) == 1
    assert site.ec2.alive() == [instance.id]


def test_nobody_answers_for_long() -> None:
    """In the end it is told; what may have been made is found and ended."""
    site = Site()
    site.ec2.after["run_instances"] = [LOST] * 100
    waiting = site.region.launch(site.wish("w1"))
    site.pass_time(400)
    error = error_of(waiting)
    assert isinstance(error, Unanswered)
    assert error.sent
    assert len(site.ec2.alive()) == 1
    ended = site.region.destroy(dict(site.kept)["w1#1"])
    site.pass_time(1)
    result_of(ended)
    assert site.ec2.alive() == []


# --- cancelled ----------------------------------------------------------------------------------------------------------------


def test_cancelled_before_it_is_asked_for() -> None:
    """Nothing is asked of EC2, and nothing waits any more."""
    site = Site()
    waiting = site.region.launch(site.wish("w1"))
    waiting.cancel()
    assert isinstance(error_of(waiting), CancelledError)
    site.pass_time(1)
    assert site.ec2.calls == {}
    assert site.clock.getDelayedCalls() == []
    assert site.region.status().waiting == 0


def test_cancelled_while_it_is_asked_for() -> None:
    """Its instance is terminated as soon as it comes; the others keep theirs."""
    site = Site()
    site.threads.holding = True
    waiting = [site.region.launch(site.wish(f"w{n}")) for n in range(3)]
    site.pass_time(0.1)
    waiting[1].cancel()
    assert isinstance(error_of(waiting[1]), CancelledError)
    site.threads.release()
    stay = {result_of(waiting[0]).id, result_of(waiting[2]).id}
    site.pass_time(1)
    assert set(site.ec2.alive()) == stay
    assert site.ec2.calls["terminate_instances"] == 1


def test_all_cancelled_while_it_is_asked_for() -> None:
    """What comes late is terminated, also when the first try does not succeed."""
    site = Site()
    site.threads.holding = True
    waiting = [site.region.launch(site.wish(f"w{n}")) for n in range(3)]
    site.pass_time(0.1)
    for one in waiting:
        one.cancel()
        assert isinstance(error_of(one), CancelledError)
    site.ec2.faults["terminate_instances"] = [client_error("UnauthorizedOperation")] * 5
    site.threads.release()
    assert len(site.ec2.alive()) == 3
    site.pass_time(30)
    assert site.ec2.alive() == []


def test_late_after_it_was_given_up_as_hung() -> None:
    """Its instance is terminated whenever it comes."""
    site = Site()
    site.threads.holding = True
    waiting = site.region.launch(site.wish("w1"))
    site.pass_time(76)
    waiting.cancel()
    assert isinstance(error_of(waiting), CancelledError)
    site.pass_time(60)
    site.threads.release()
    assert len(site.ec2.there) == 1
    site.pass_time(1)
    assert site.ec2.alive() == []


def test_cancelled_while_it_waits_to_be_repeated() -> None:
    """It is not asked for again, and nothing keeps waiting."""
    site = Site()
    site.ec2.faults["run_instances"] = [THROTTLED] * 100
    waiting = site.region.launch(site.wish("w1"))
    site.pass_time(3)
    waiting.cancel()
    assert isinstance(error_of(waiting), CancelledError)
    before = site.ec2.calls["run_instances"]
    site.pass_time(60)
    assert site.ec2.calls["run_instances"] == before
    assert site.clock.getDelayedCalls() == []


def test_throttled_after_it_was_cancelled() -> None:
    """A call that is on its way is not repeated for nobody."""
    site = Site()
    site.threads.holding = True
    waiting = site.region.launch(site.wish("w1"))
    site.pass_time(0.1)
    waiting.cancel()
    assert isinstance(error_of(waiting), CancelledError)
    site.ec2.faults["run_instances"] = [THROTTLED]
    site.threads.release()
    site.pass_time(60)
    assert site.ec2.calls == {"run_instances": 1}
    result_of(site.region.destroy(dict(site.kept)["w1#1"]))
    assert site.ec2.calls == {"run_instances": 1}


# --- the budget of instances --------------------------------------------------------------------------------------------------


def test_instances_have_a_budget_of_their_own() -> None:
    """A thousand may be asked for at once, then two in a second."""
    site = Site()
    assert (INSTANCES.burst, INSTANCES.usual) == (1000.0, 2.0)
    waiting = [site.region.launch(site.wish(f"w{n}")) for n in range(1100)]
    site.pass_time(1)
    assert 900 <= sum(one.called for one in waiting) <= 1002
    site.pass_time(60)
    assert sum(asked["MaxCount"] for asked in site.ec2.asked("run_instances")) == 1100
    assert len({result_of(one).id for one in waiting}) == 1100


@pytest.mark.parametrize(("throttles", "slowed"), [(2, False), (4, True)])
def test_throttled_again_and_again(throttles: int, slowed: bool) -> None:
    """It may be for the number of instances: then that budget is slowed, too. Once or twice it was the number of calls."""
    site = Site()
    site.ec2.faults["run_instances"] = [THROTTLED] * throttles
    waiting = site.region.launch(site.wish("w1"))
    site.pass_time(30)
    result_of(waiting)
    assert (site.calls.gate.instances.bucket().slowed_at is not None) is slowed
