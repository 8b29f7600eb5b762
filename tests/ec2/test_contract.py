"""The EC2 worker keeps its promises, against an EC2 on loopback whose instances run their user data."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from latent.model import JSON
from latent.testing.contract import Mistake, Provider, make_latent_worker_tests
from latent.worker import AbstractLatentWorker
from latent_ec2 import EC2LatentWorker
from tests.ec2.kit import AGENT

if TYPE_CHECKING:
    from latent.testing.ec2 import Cloud


ENDED = ("shutting-down", "terminated")


class Loopback(Provider):
    """An instance is named by its id."""

    reactor = reactor
    quiet = 0.5
    mistakes = (
        Mistake("instance_type", keywords={"instance_type": 3}),
        Mistake("ami", keywords={"ami": 3}),
        Mistake("region", keywords={"region": 3}),
        Mistake("max_spot_price", keywords={"max_spot_price": "cheap", "spot_instance": True}),
        Mistake("stop_mode", keywords={"stop_mode": "sometimes"}),
        Mistake("tags", keywords={"tags": 3}),
        Mistake("expiry", keywords={"expiry": -1}),
    )
    failing = MappingProxyType({"ami": "ami-00000000000000000"})

    def __init__(self, case: TestEC2LatentWorker) -> None:
        self.cloud: Cloud = case.cloud

    def make_worker(self, name: str, **keywords: Any) -> AbstractLatentWorker:
        cloud = self.cloud
        given = {
            "instance_type": "m5.large",
            "ami": cloud.image,
            "region": cloud.region,
            "endpoint_url": cloud.endpoint_url,
            "identifier": cloud.key_id,
            "secret_identifier": cloud.secret,
            "agent_command": AGENT,
            "check_instance_interval": 0.1,
            **keywords,
        }
        return EC2LatentWorker(name, None, **given)

    def existing(self) -> Any:
        """One that is shutting down is gone: nothing can keep it any more, and it costs nothing."""
        return deferToThread(lambda: [one.id for one in self.cloud.instances() if one.state not in ENDED])

    def vanish(self, instance: str) -> Any:
        return deferToThread(self.cloud.vanish, instance)

    def exit(self, instance: str) -> Any:
        """It shuts itself down, which terminates it."""
        return deferToThread(self.cloud.interrupt, instance, code="Client.InstanceInitiatedShutdown")

    def hang(self, instance: str) -> Any:
        return deferToThread(self.cloud.set_status, instance, instance="impaired")

    def plant(self) -> Any:
        return deferToThread(self._plant)

    def is_of(self, handle: JSON, instance: str) -> bool:
        return bool(handle.get("instance") == instance)

    def hold_starts(self) -> Callable[[], object]:
        self.cloud.hang("RunInstances", times=None, when="after")
        return self.cloud.heal

    def clean_up(self) -> Any:
        return deferToThread(self.cloud.heal)

    def _plant(self) -> str:
        """The same image, and the worker's name; only no controller has made it."""
        tags = [{"Key": "Name", "Value": "kit"}, {"Key": "latent:worker", "Value": "kit"}]
        made = self.cloud.client().run_instances(
            ImageId=self.cloud.image,
            InstanceType="m5.large",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        )
        return str(made["Instances"][0]["InstanceId"])


class TestEC2LatentWorker(make_latent_worker_tests(Loopback)):  # type: ignore[misc]
    """Every promise, none skipped."""

    cloud: Cloud

    @pytest.fixture(autouse=True)
    def has_cloud(self, cloud: Cloud) -> None:
        self.cloud = cloud
