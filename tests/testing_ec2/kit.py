"""What the tests of the cloud share."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from latent.testing.ec2 import Cloud

METADATA = """#!/bin/sh
token=$(curl -s -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" $AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/api/token)
ask() { curl -s -H "X-aws-ec2-metadata-token: $token" $AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/$1; }
"""


def launch(cloud: Cloud, ec2: Any, count: int = 1, **parameters: Any) -> list[str]:
    """The ids of new instances, in the order of their index."""
    whole = {"ImageId": cloud.image, "MinCount": count, "MaxCount": count, **parameters}
    return [one["InstanceId"] for one in ec2.run_instances(**whole)["Instances"]]


def described(ec2: Any, **parameters: Any) -> list[Any]:
    """Instances as DescribeInstances tells them."""
    return [one for each in ec2.describe_instances(**parameters)["Reservations"] for one in each["Instances"]]


def refused(code: str) -> Any:
    """The call inside answers this code of AWS's."""
    return pytest.raises(ClientError, match=rf"\({code}\)")


def tags(**given: str) -> list[dict[str, Any]]:
    return [{"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in given.items()]}]


def printed(cloud: Cloud, instance_id: str, text: str) -> None:
    """Wait until the instance has printed it."""
    cloud.wait(lambda _: text in cloud.console(instance_id), what=f"{text!r} on the console of {instance_id}")
