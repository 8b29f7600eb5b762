"""Launches are AWS's: tokens, counts, indexes, room."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from latent.testing.ec2 import Cloud
from tests.testing_ec2.conftest import client_of
from tests.testing_ec2.kit import METADATA, described, launch, printed, refused, tags


def test_a_token_stands_for_one_launch(cloud: Cloud, ec2: Any) -> None:
    """The same call with the same token answers the same instances, with what has become of them."""
    first = launch(cloud, ec2, 2, ClientToken="t1", TagSpecifications=tags(a="b"))
    ec2.terminate_instances(InstanceIds=first[:1])
    cloud.wait(lambda found: [one.state for one in found] == ["terminated", "running"])
    whole = {"ImageId": cloud.image, "MinCount": 2, "MaxCount": 2, "ClientToken": "t1", "TagSpecifications": tags(a="b")}
    again = ec2.run_instances(**whole)["Instances"]
    assert [one["InstanceId"] for one in again] == first
    assert [one["State"]["Name"] for one in again] == ["terminated", "running"]
    assert len(cloud.instances()) == 2
    assert cloud.calls["RunInstances"] == 2


def test_a_token_with_other_parameters_is_refused(cloud: Cloud, ec2: Any) -> None:
    """A token is not for another launch; nothing is launched."""
    launch(cloud, ec2, ClientToken="t1")
    with refused("IdempotentParameterMismatch"):
        launch(cloud, ec2, 2, ClientToken="t1")
    assert len(cloud.instances()) == 1
    assert cloud.log[-1].error == "IdempotentParameterMismatch"


def test_the_same_token_sent_at_once_launches_once(cloud: Cloud, ec2: Any) -> None:
    """Calls side by side are one after the other."""
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda _: launch(cloud, ec2, 3, ClientToken="t1"), range(20)))
    assert all(one == found[0] for one in found)
    assert len(cloud.instances()) == 3


def test_as_many_as_there_is_room_for(cloud: Cloud, ec2: Any) -> None:
    """MaxCount are launched, or as many as there is room for, if that is MinCount; each has its index."""
    cloud.insufficient(instance_type="c7g.large", left=3)
    one = {"InstanceType": "c7g.large"}
    first = launch(cloud, ec2, MinCount=1, MaxCount=5, ClientToken="t1", **one)
    assert len(first) == 3
    assert [one.index for one in cloud.instances()] == [0, 1, 2]
    assert [one["AmiLaunchIndex"] for one in described(ec2)] == [0, 1, 2]
    with refused("InsufficientInstanceCapacity"):
        launch(cloud, ec2, **one)
    assert cloud.log[-1].status == 500
    assert launch(cloud, ec2, MinCount=1, MaxCount=5, ClientToken="t1", **one) == first
    assert len(launch(cloud, ec2, 5, InstanceType="c7g.xlarge")) == 5


def test_room_is_looked_for_in_other_zones(cloud: Cloud, ec2: Any) -> None:
    """A launch that names no zone goes where there is room; one that names a subnet of a full zone does not."""
    first, second, *_ = cloud.subnets
    cloud.insufficient(zone=first)
    launch(cloud, ec2)
    assert cloud.instances()[0].zone == second
    with refused("InsufficientInstanceCapacity"):
        launch(cloud, ec2, SubnetId=cloud.subnets[first])
    launch(cloud, ec2, SubnetId=cloud.subnets[second])


def test_capacity_comes_back(cloud: Cloud, ec2: Any) -> None:
    """A shortage may last for some launches; heal ends those that do not."""
    cloud.insufficient(market="on-demand", times=1)
    with refused("InsufficientInstanceCapacity"):
        launch(cloud, ec2)
    launch(cloud, ec2)
    cloud.insufficient(subnet=cloud.subnets["eu-west-1a"])
    cloud.heal()
    launch(cloud, ec2, SubnetId=cloud.subnets["eu-west-1a"])


@pytest.mark.parametrize("code", ["InstanceLimitExceeded", "VcpuLimitExceeded"])
def test_the_quota_is_kept(cloud: Cloud, ec2: Any, code: str) -> None:
    """Terminated instances do not count."""
    cloud.quota(3, code=code)
    first = launch(cloud, ec2, MinCount=1, MaxCount=10)
    assert len(first) == 3
    with refused(code):
        launch(cloud, ec2)
    ec2.terminate_instances(InstanceIds=first[:1])
    launch(cloud, ec2)


def test_spot_is_a_market_of_its_own(cloud: Cloud, ec2: Any) -> None:
    """A spot instance has its request, with its tags; where none is ever fulfilled there is no capacity."""
    spot = {"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.1"}}}
    specification = [*tags(a="b"), {"ResourceType": "spot-instances-request", "Tags": [{"Key": "c", "Value": "d"}]}]
    launch(cloud, ec2, TagSpecifications=specification, **spot)
    (instance,) = described(ec2, Filters=[{"Name": "instance-lifecycle", "Values": ["spot"]}])
    (request,) = ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    assert instance["SpotInstanceRequestId"] == request["SpotInstanceRequestId"]
    assert request["Tags"] == [{"Key": "c", "Value": "d"}]
    assert request["InstanceId"] == instance["InstanceId"]
    cloud.spot_never_fulfilled()
    with refused("InsufficientInstanceCapacity"):
        launch(cloud, ec2, **spot)
    launch(cloud, ec2)


def test_spot_prices(cloud: Cloud, ec2: Any) -> None:
    """Who offers less than the price gets nothing."""
    cloud.spot_price(0.2)
    cloud.spot_price(0.1, instance_type="c7g.large", zone="eu-west-1b")
    asked = {"InstanceTypes": ["c7g.large"], "ProductDescriptions": ["Linux/UNIX"]}
    history = ec2.describe_spot_price_history(**asked)["SpotPriceHistory"]
    prices = {one["AvailabilityZone"]: one["SpotPrice"] for one in history}
    assert prices == {"eu-west-1a": "0.200000", "eu-west-1b": "0.100000", "eu-west-1c": "0.200000"}
    (one,) = ec2.describe_spot_price_history(AvailabilityZone="eu-west-1b", **asked)["SpotPriceHistory"]
    assert (one["InstanceType"], one["ProductDescription"]) == ("c7g.large", "Linux/UNIX")

    def spot(price: str, zone: str) -> list[str]:
        market = {"MarketType": "spot", "SpotOptions": {"MaxPrice": price}}
        return launch(cloud, ec2, InstanceType="c7g.large", SubnetId=cloud.subnets[zone], InstanceMarketOptions=market)

    spot("0.1", "eu-west-1b")
    with refused("SpotMaxPriceTooLow"):
        spot("0.1", "eu-west-1a")
    (request,) = ec2.request_spot_instances(SpotPrice="0.1", LaunchSpecification={"ImageId": cloud.image})["SpotInstanceRequests"]
    assert (request["State"], request["Status"]["Code"]) == ("open", "price-too-low")
    assert len(cloud.instances()) == 1


def test_a_spot_request_that_stays_open(cloud: Cloud, ec2: Any) -> None:
    """RequestSpotInstances, as Buildbot calls it: fulfilled, or open for ever and to be cancelled."""
    asked = {"SpotPrice": "0.1", "LaunchSpecification": {"ImageId": cloud.image, "InstanceType": "c7g.large"}}
    (request,) = ec2.request_spot_instances(**asked)["SpotInstanceRequests"]
    assert request["State"] == "active"
    assert len(cloud.instances()) == 1
    cloud.spot_never_fulfilled()
    (request,) = ec2.request_spot_instances(**asked)["SpotInstanceRequests"]
    assert request["State"] == "open"
    assert "InstanceId" not in request
    assert len(cloud.instances()) == 1
    ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=[request["SpotInstanceRequestId"]])


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "nonsense"}, "InvalidAMIID.Malformed"),
        ({"KeyName": "nobody"}, "InvalidKeyPair.NotFound"),
        ({"SubnetId": "subnet-00000000"}, "InvalidSubnetID.NotFound"),
        ({"SecurityGroupIds": ["sg-00000000"]}, "InvalidGroup.NotFound"),
        ({"SecurityGroups": ["nobody"]}, "InvalidGroup.NotFound"),
        ({"InstanceType": "huge.1"}, "InvalidParameterValue"),
        ({"UserData": "x" * 16_385}, "InvalidParameterValue"),
        ({"MinCount": 3, "MaxCount": 2}, "InvalidParameterValue"),
        ({"ClientToken": "x" * 65}, "InvalidParameterValue"),
        ({"LaunchTemplate": {"LaunchTemplateName": "nobody"}}, "InvalidLaunchTemplateName.NotFoundException"),
        ({"TagSpecifications": tags(**{"aws:x": "y"})}, "InvalidParameterValue"),
        ({"TagSpecifications": tags(x="y" * 257)}, "InvalidParameterValue"),
        ({"TagSpecifications": tags(**{f"t{n}": "" for n in range(51)})}, "TagLimitExceeded"),
        ({"IamInstanceProfile": {"Name": "nobody"}}, "InvalidParameterValue"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_what_aws_does_not_take(cloud: Cloud, ec2: Any, parameters: dict[str, Any], code: str) -> None:
    """Bad input is answered by AWS's code, and nothing is launched."""
    with refused(code):
        launch(cloud, ec2, **parameters)
    assert cloud.instances() == []


def test_launch_templates(cloud: Cloud, ec2: Any) -> None:
    """What a template says holds where the call says nothing, for room as well."""
    data = {"ImageId": cloud.image, "InstanceType": "c7g.large", "KeyName": cloud.key_name}
    ec2.create_launch_template(LaunchTemplateName="t", LaunchTemplateData=data)
    template = {"LaunchTemplate": {"LaunchTemplateName": "t", "Version": "$Latest"}, "MinCount": 1, "MaxCount": 1}
    ec2.run_instances(**template)
    assert cloud.instances()[0].type == "c7g.large"
    cloud.insufficient(instance_type="c7g.large")
    with refused("InsufficientInstanceCapacity"):
        ec2.run_instances(**template)
    ec2.run_instances(**template, InstanceType="c7g.xlarge")


def test_other_calls_with_a_token_are_idempotent(cloud: Cloud, ec2: Any) -> None:
    """CreateVolume, say."""
    asked = {"AvailabilityZone": "eu-west-1a", "Size": 1, "ClientToken": "v1"}
    assert ec2.create_volume(**asked)["VolumeId"] == ec2.create_volume(**asked)["VolumeId"]
    with refused("IdempotentParameterMismatch"):
        ec2.create_volume(**{**asked, "Size": 2})


def test_a_hundred_in_one_launch(cloud: Cloud, ec2: Any) -> None:
    """Each boots, learns its index from its metadata, and ends: three calls in all."""
    script = METADATA + 'echo "index=$(ask meta-data/ami-launch-index)."; sleep 600'
    ids = launch(cloud, ec2, MinCount=1, MaxCount=100, UserData=script)
    assert len(ids) == 100
    for index, one in enumerate(ids):
        printed(cloud, one, f"index={index}.")
    assert len(described(ec2, Filters=[{"Name": "instance-state-name", "Values": ["running"]}])) == 100
    ec2.terminate_instances(InstanceIds=ids)
    cloud.wait(lambda found: all(one.state == "terminated" for one in found))
    assert cloud.processes() == []
    assert cloud.calls == {"RunInstances": 1, "DescribeInstances": 1, "TerminateInstances": 1}


def test_another_region_has_its_own_instances(cloud: Cloud, ec2: Any) -> None:
    """Signatures say which region is meant. One that is not there does not know the credentials, as with AWS."""
    launch(cloud, ec2)
    other = cloud.client(region_name="us-east-1")
    assert described(other) == []
    other.close()
    nowhere = cloud.client(region_name="eu-nowhere-9")
    with refused("AuthFailure"):
        nowhere.describe_instances()
    nowhere.close()


def test_wrong_credentials(cloud: Cloud, ec2: Any) -> None:
    """Neither an unknown key nor a wrong secret may call."""
    for wrong in ({"aws_access_key_id": "AKIAAAAAAAAAAAAAAAAA"}, {"aws_secret_access_key": "wrong"}):
        client = cloud.client(**wrong)
        with refused("AuthFailure"):
            client.describe_instances()
        client.close()
    cloud.expire_credentials()
    with refused("RequestExpired"):
        ec2.describe_instances()
    cloud.renew_credentials()
    assert cloud.session_token
    fresh = client_of(cloud)
    fresh.describe_instances()
    fresh.close()
