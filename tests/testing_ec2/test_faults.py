"""What goes wrong does so as it was told to, and is counted."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError, ReadTimeoutError

from latent.testing.ec2 import Cloud, CloudError
from latent.testing.ec2.faults import Bucket
from tests.testing_ec2.conftest import client_of
from tests.testing_ec2.kit import described, launch, refused


def test_calls_are_counted_with_what_was_sent(cloud: Cloud, ec2: Any) -> None:
    """The log has the parameters, the answer and the order."""
    (one,) = launch(cloud, ec2)
    ec2.describe_instances(InstanceIds=[one])
    with refused("InvalidInstanceID.NotFound"):
        ec2.terminate_instances(InstanceIds=["i-00000000000000000"])
    assert [(call.action, call.status, call.error) for call in cloud.log] == [
        ("RunInstances", 200, ""),
        ("DescribeInstances", 200, ""),
        ("TerminateInstances", 400, "InvalidInstanceID.NotFound"),
    ]
    assert cloud.log[1].values("InstanceId") == [one]
    assert [call.number for call in cloud.log] == sorted(call.number for call in cloud.log)
    cloud.forget_calls()
    assert cloud.calls == {}


def test_calls_are_throttled(cloud: Cloud, ec2: Any) -> None:
    """What exceeds the burst is told to slow down, and counted."""
    cloud.throttle(rate=0.001, burst=2)
    ec2.describe_instances()
    ec2.describe_instances()
    with refused("RequestLimitExceeded"):
        ec2.describe_instances()
    assert [call.status for call in cloud.log] == [200, 200, 503]
    cloud.heal()
    ec2.describe_instances()


def test_one_action_is_throttled(cloud: Cloud, ec2: Any) -> None:
    """Others go on."""
    cloud.throttle(rate=0.001, burst=0, action="RunInstances")
    with refused("RequestLimitExceeded"):
        launch(cloud, ec2)
    ec2.describe_instances()
    assert cloud.instances() == []


def test_instances_are_throttled(cloud: Cloud, ec2: Any) -> None:
    """RunInstances has a second bucket, of what it launches."""
    cloud.throttle_instances(rate=0.001, burst=5)
    launch(cloud, ec2, 4)
    with refused("RequestLimitExceeded"):
        launch(cloud, ec2, 2)
    assert len(cloud.instances()) == 4


def test_a_bucket_is_refilled() -> None:
    """At its rate, and never above its burst."""
    bucket = Bucket.full(2, 4, 0)
    assert [bucket.take(1, 0) for _ in range(5)] == [True] * 4 + [False]
    assert bucket.take(1, 0.5)
    assert not bucket.take(1, 0.5)
    assert [bucket.take(1, 100) for _ in range(5)] == [True] * 4 + [False]


def test_botocore_tries_again(cloud: Cloud) -> None:
    """As it does with AWS: a call that fails twice comes three times."""
    cloud.fail("DescribeInstances", times=2)
    client = client_of(cloud, retries={"total_max_attempts": 4, "mode": "standard"})
    client.describe_instances()
    client.close()
    assert [call.status for call in cloud.log] == [500, 500, 200]


@pytest.mark.parametrize(("when", "launched"), [("before", 0), ("after", 1)])
def test_a_failure_before_and_after_the_effect(cloud: Cloud, ec2: Any, when: Any, launched: int) -> None:
    """What the client cannot tell apart."""
    cloud.fail("RunInstances", when=when)
    with refused("InternalError"):
        launch(cloud, ec2, ClientToken="t")
    assert len(cloud.instances()) == launched
    launch(cloud, ec2, ClientToken="t")
    assert len(cloud.instances()) == 1


@pytest.mark.parametrize(("when", "launched"), [("before", 0), ("after", 1)])
def test_a_connection_is_cut(cloud: Cloud, ec2: Any, when: Any, launched: int) -> None:
    """Without an answer; the next call is answered."""
    cloud.cut("RunInstances", when=when)
    with pytest.raises(ConnectionClosedError):
        launch(cloud, ec2)
    assert len(cloud.instances()) == launched
    ec2.describe_instances()
    assert [(call.action, call.status) for call in cloud.log] == [("RunInstances", 0), ("DescribeInstances", 200)]


@pytest.mark.parametrize(("when", "launched"), [("before", 0), ("after", 1)])
def test_a_call_hangs(cloud: Cloud, when: Any, launched: int) -> None:
    """Until the client gives up. Others are answered meanwhile."""
    cloud.hang("RunInstances", when=when)
    client = client_of(cloud, read_timeout=0.5)
    with pytest.raises(ReadTimeoutError):
        launch(cloud, client)
    client.describe_instances()
    client.close()
    assert len(cloud.instances()) == launched


def test_what_hangs_is_cut_by_heal(cloud: Cloud, ec2: Any) -> None:
    """So that a test can let go of it."""
    cloud.hang("DescribeInstances")
    found: list[BaseException] = []

    def call() -> None:
        try:
            ec2.describe_instances()
        except BotoCoreError as error:
            found.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    cloud.wait(lambda _: cloud.calls["DescribeInstances"] == 1)
    cloud.heal()
    thread.join()
    assert [type(error) for error in found] == [ConnectionClosedError]


def test_a_call_is_delivered_twice(cloud: Cloud, ec2: Any) -> None:
    """Without a token it has its effect twice; with one, which botocore adds to launches, it does not. It counts once."""
    cloud.duplicate(times=2)
    ec2.allocate_address(Domain="vpc")
    launch(cloud, ec2)
    assert cloud.calls == {"AllocateAddress": 1, "RunInstances": 1}
    assert len(ec2.describe_addresses()["Addresses"]) == 2
    assert len(cloud.instances()) == 1


def test_an_answer_is_late(cloud: Cloud, ec2: Any) -> None:
    """The call has had its effect by then."""
    cloud.delay("RunInstances", 0.2, times=1, when="after")
    launch(cloud, ec2)
    assert len(cloud.instances()) == 1


def test_a_policy_that_lacks_an_action(cloud: Cloud, ec2: Any) -> None:
    cloud.deny("CreateTags")
    with refused("UnauthorizedOperation"):
        ec2.create_tags(Resources=[], Tags=[{"Key": "a", "Value": "b"}])
    ec2.describe_instances()


def test_a_new_instance_is_not_found(cloud: Cloud, ec2: Any) -> None:
    """For a while no other call knows it, by its id or by a filter; a repeated launch does."""
    cloud.not_found_for(3600)
    (one,) = launch(cloud, ec2, ClientToken="t")
    assert described(ec2) == []
    assert described(ec2, Filters=[{"Name": "client-token", "Values": ["t"]}]) == []
    assert described(ec2, Filters=[{"Name": "instance-id", "Values": [one]}]) == []
    for call in (
        lambda: ec2.describe_instances(InstanceIds=[one]),
        lambda: ec2.terminate_instances(InstanceIds=[one]),
        lambda: ec2.create_tags(Resources=[one], Tags=[{"Key": "a", "Value": "b"}]),
        lambda: ec2.describe_instance_status(InstanceIds=[one]),
        lambda: ec2.get_console_output(InstanceId=one),
    ):
        with refused("InvalidInstanceID.NotFound"):
            call()
    assert launch(cloud, ec2, ClientToken="t") == [one]
    assert [seen.id for seen in cloud.instances()] == [one]


def test_it_is_found_in_the_end(cloud: Cloud, ec2: Any) -> None:
    cloud.not_found_for(0.5)
    (one,) = launch(cloud, ec2)
    cloud.wait(lambda _: described(ec2))
    ec2.terminate_instances(InstanceIds=[one])


def test_orders_that_are_not_understood(cloud: Cloud) -> None:
    """They are told, and nothing happens."""
    with pytest.raises(CloudError, match="there is no order"):
        cloud.control("dance")
    with pytest.raises(CloudError, match="vanish"):
        cloud.control("vanish", instance="i-1")
    with pytest.raises(CloudError, match="there is no instance"):
        cloud.vanish("i-00000000000000000")


def test_many_calls_side_by_side(cloud: Cloud) -> None:
    """Each on a connection of its own."""
    client = client_of(cloud, max_pool_connections=50)
    failed: list[ClientError] = []

    def call() -> None:
        try:
            client.describe_instances()
        except ClientError as error:
            failed.append(error)

    threads = [threading.Thread(target=call) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    assert failed == []
    assert cloud.calls == {"DescribeInstances": 100}
