"""What is seen of instances: filters, pages, states, status, tags."""

from __future__ import annotations

from typing import Any

import pytest

from latent.testing.ec2 import Cloud
from tests.testing_ec2.kit import described, launch, refused, tags


def test_pages_are_of_instances(cloud: Cloud, ec2: Any) -> None:
    """A reservation may go on on the next page; nobody is left out, nobody comes twice."""
    ids = [*launch(cloud, ec2, 7), *launch(cloud, ec2, 5), *launch(cloud, ec2)]
    pages = list(ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5}))
    found = [[one["InstanceId"] for each in page["Reservations"] for one in each["Instances"]] for page in pages]
    assert found == [ids[:5], ids[5:10], ids[10:]]
    assert cloud.calls["DescribeInstances"] == 3


def test_more_reservations_than_moto_has_on_a_page(cloud: Cloud, ec2: Any) -> None:
    """All are in one answer, as AWS has it up to 1,000."""
    for _ in range(101):
        launch(cloud, ec2)
    assert len(described(ec2)) == 101
    ids = [one.id for one in cloud.instances()]
    assert len(described(ec2, InstanceIds=ids)) == 101


def test_what_aws_does_not_take_of_pages(cloud: Cloud, ec2: Any) -> None:
    (one,) = launch(cloud, ec2)
    with refused("InvalidParameterCombination"):
        ec2.describe_instances(InstanceIds=[one], MaxResults=5)
    with refused("InvalidParameterValue"):
        ec2.describe_instances(MaxResults=4)
    with refused("InvalidParameterValue"):
        ec2.describe_instances(NextToken="nonsense")
    with refused("InvalidInstanceID.Malformed"):
        ec2.describe_instances(InstanceIds=["nonsense"])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("client-token", "t1", [0, 1]),
        ("client-token", "t*", [0, 1, 2]),
        ("launch-index", "1", [1]),
        ("instance-lifecycle", "spot", [2]),
        ("instance-state-name", "pending", [0, 1, 2]),
        ("instance-state-name", "running", []),
        ("tag:a", "x", [0, 1]),
        ("tag-key", "b", [2]),
        ("instance-type", "c7g.*", [0, 1]),
        ("availability-zone", "eu-west-1b", [2]),
    ],
)
def test_filters(cloud: Cloud, ec2: Any, name: str, value: str, expected: list[int]) -> None:
    """Those that moto knows, and those that it does not; wildcards in all."""
    cloud.slow(pending=60)
    spot = {"InstanceMarketOptions": {"MarketType": "spot"}, "SubnetId": cloud.subnets["eu-west-1b"]}
    ids = launch(cloud, ec2, 2, ClientToken="t1", InstanceType="c7g.large", TagSpecifications=tags(a="x"))
    ids += launch(cloud, ec2, ClientToken="t2", TagSpecifications=tags(b="y"), **spot)
    found = described(ec2, Filters=[{"Name": name, "Values": [value, "nothing"]}])
    assert [one["InstanceId"] for one in found] == [ids[number] for number in expected]


def test_filters_are_all_to_pass(cloud: Cloud, ec2: Any) -> None:
    ids = launch(cloud, ec2, 2, ClientToken="t1", TagSpecifications=tags(a="x"))
    filters = [{"Name": "tag:a", "Values": ["x"]}, {"Name": "launch-index", "Values": ["1"]}]
    assert [one["InstanceId"] for one in described(ec2, Filters=filters)] == ids[1:]


def test_states_take_time(cloud: Cloud, ec2: Any) -> None:
    """Pending, running; stopping, stopped; pending again; shutting down, terminated."""
    (one,) = launch(cloud, ec2)
    assert described(ec2)[0]["State"] == {"Code": 0, "Name": "pending"}
    cloud.wait(lambda found: found[0].state == "running")
    (stopping,) = ec2.stop_instances(InstanceIds=[one])["StoppingInstances"]
    assert (stopping["PreviousState"]["Name"], stopping["CurrentState"]["Name"]) == ("running", "stopping")
    with refused("IncorrectInstanceState"):
        ec2.start_instances(InstanceIds=[one])
    cloud.wait(lambda found: found[0].state == "stopped")
    ec2.start_instances(InstanceIds=[one])
    cloud.wait(lambda found: found[0].state == "running")
    (ending,) = ec2.terminate_instances(InstanceIds=[one])["TerminatingInstances"]
    assert ending["PreviousState"]["Name"] == "running"
    cloud.wait(lambda found: found[0].state == "terminated")
    (again,) = ec2.terminate_instances(InstanceIds=[one])["TerminatingInstances"]
    assert again["PreviousState"]["Name"] == "terminated"
    with refused("IncorrectInstanceState"):
        ec2.start_instances(InstanceIds=[one])
    (seen,) = described(ec2)
    assert seen["State"] == {"Code": 48, "Name": "terminated"}
    assert seen["StateReason"]["Code"] == "Client.UserInitiatedShutdown"


def test_one_unknown_id_fails_the_call(cloud: Cloud, ec2: Any) -> None:
    """Nothing is ended, as with AWS."""
    (one,) = launch(cloud, ec2)
    for call in (ec2.terminate_instances, ec2.stop_instances, ec2.describe_instances, ec2.reboot_instances):
        with refused("InvalidInstanceID.NotFound"):
            call(InstanceIds=[one, "i-00000000000000000"])
    assert cloud.instance(one).is_up


def test_a_one_time_spot_instance_can_not_be_stopped(cloud: Cloud, ec2: Any) -> None:
    """A persistent one can."""
    (once,) = launch(cloud, ec2, InstanceMarketOptions={"MarketType": "spot"})
    persistent = {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"}
    (lasting,) = launch(cloud, ec2, InstanceMarketOptions={"MarketType": "spot", "SpotOptions": persistent})
    cloud.wait(lambda found: all(one.state == "running" for one in found))
    with refused("UnsupportedOperation"):
        ec2.stop_instances(InstanceIds=[once])
    ec2.stop_instances(InstanceIds=[lasting])


def test_status_checks(cloud: Cloud, ec2: Any) -> None:
    """They are well unless they are said not to be."""
    ids = launch(cloud, ec2, 6)
    assert ec2.describe_instance_status()["InstanceStatuses"] == []
    cloud.wait(lambda found: all(one.state == "running" for one in found))
    cloud.set_status(ids[2], instance="impaired")
    pages = ec2.get_paginator("describe_instance_status").paginate(PaginationConfig={"PageSize": 5})
    found = {
        one["InstanceId"]: (one["InstanceStatus"]["Status"], one["SystemStatus"]["Status"])
        for page in pages
        for one in page["InstanceStatuses"]
    }
    assert found == {one: ("impaired" if one == ids[2] else "ok", "ok") for one in ids}
    filters = [{"Name": "instance-status.status", "Values": ["impaired"]}]
    (impaired,) = ec2.describe_instance_status(Filters=filters)["InstanceStatuses"]
    assert impaired["InstanceId"] == ids[2]
    ec2.terminate_instances(InstanceIds=ids[:1])
    assert len(ec2.describe_instance_status()["InstanceStatuses"]) == 5
    assert len(ec2.describe_instance_status(IncludeAllInstances=True)["InstanceStatuses"]) == 6


def test_tags_are_changed(cloud: Cloud, ec2: Any) -> None:
    ids = launch(cloud, ec2, 2, TagSpecifications=tags(a="x"))
    ec2.create_tags(Resources=ids, Tags=[{"Key": "b", "Value": "y"}])
    ec2.delete_tags(Resources=ids[:1], Tags=[{"Key": "a"}])
    assert [dict(one.tags) for one in cloud.instances()] == [{"b": "y"}, {"a": "x", "b": "y"}]
    assert len(described(ec2, Filters=[{"Name": "tag:b", "Values": ["y"]}])) == 2


def test_an_instance_gets_older(cloud: Cloud, ec2: Any) -> None:
    (one,) = launch(cloud, ec2)
    before = described(ec2)[0]["LaunchTime"]
    cloud.age(one, 3600)
    assert (before - described(ec2)[0]["LaunchTime"]).total_seconds() == 3600


def test_what_there_is_from_the_start(cloud: Cloud, ec2: Any) -> None:
    """A default VPC with a subnet in three zones, its group, a key pair, images of one's own."""
    assert len(cloud.subnets) >= 3
    subnets = ec2.describe_subnets(SubnetIds=list(cloud.subnets.values()))["Subnets"]
    assert {one["VpcId"] for one in subnets} == {cloud.vpc}
    assert ec2.describe_security_groups(GroupIds=[cloud.security_group])["SecurityGroups"][0]["GroupName"] == cloud.security_name
    assert ec2.describe_key_pairs(KeyNames=[cloud.key_name])["KeyPairs"]
    images = ec2.describe_images(Owners=["self"])["Images"]
    assert sorted(one["ImageId"] for one in images) == sorted(cloud.images)
    assert all(one["ImageLocation"].startswith(f"{cloud.account_id}/") for one in images)
    whole = {"KeyName": cloud.key_name, "SecurityGroupIds": [cloud.security_group], "SubnetId": cloud.subnets["eu-west-1c"]}
    launch(cloud, ec2, **whole)
    assert cloud.instances()[0].zone == "eu-west-1c"


def test_what_goes_with_an_instance(cloud: Cloud, ec2: Any) -> None:
    """Its address is free, its root volume and its interface are gone, its other volume is left."""
    device = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "DeleteOnTermination": False}}
    (one,) = launch(cloud, ec2, BlockDeviceMappings=[device])
    address = ec2.allocate_address(Domain="vpc")["PublicIp"]
    cloud.wait(lambda found: found[0].state == "running")
    ec2.associate_address(InstanceId=one, PublicIp=address)
    (associated,) = ec2.describe_addresses()["Addresses"]
    assert associated["InstanceId"] == one
    assert described(ec2)[0]["SecurityGroups"][0]["GroupId"] == cloud.security_group
    ec2.terminate_instances(InstanceIds=[one])
    cloud.wait(lambda found: found[0].state == "terminated")
    (free,) = ec2.describe_addresses()["Addresses"]
    assert "AssociationId" not in free
    assert not free.get("InstanceId")
    assert [volume["State"] for volume in ec2.describe_volumes()["Volumes"]] == ["available"]
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []


def test_profiles(cloud: Cloud, ec2: Any) -> None:
    """All instances of a launch have theirs, when it is repeated and not yet seen as well."""
    iam = cloud.client("iam")
    iam.create_instance_profile(InstanceProfileName="builders")
    iam.close()
    cloud.not_found_for(0.3)
    launched = launch(cloud, ec2, 3, ClientToken="t", IamInstanceProfile={"Name": "builders"})
    assert launch(cloud, ec2, 3, ClientToken="t", IamInstanceProfile={"Name": "builders"}) == launched
    cloud.wait(lambda _: described(ec2))
    assert all(one["IamInstanceProfile"]["Arn"].endswith("/builders") for one in described(ec2))
    assert cloud.calls["iam.CreateInstanceProfile"] == 1


def test_what_moto_can_not_do_is_told(cloud: Cloud, ec2: Any) -> None:
    """In words, and not as an error that is tried again."""
    launch(cloud, ec2)
    with refused("Unsupported"):
        ec2.describe_instances(Filters=[{"Name": "network-interface.status", "Values": ["x"]}])
