from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from tests.requires import require

if TYPE_CHECKING:
    from latent.testing.ec2 import Cloud


@pytest.fixture(scope="session")
def whole_cloud() -> Iterator[Cloud]:
    """One for all tests that leave it as it is."""
    require(find_spec("moto") and find_spec("boto3"), "moto", "pip install 'latent[testing-ec2]'")
    from latent.testing.ec2 import Cloud, Hypervisor

    with Cloud(hypervisor=Hypervisor()) as cloud:
        yield cloud


@pytest.fixture
def cloud(whole_cloud: Cloud) -> Iterator[Cloud]:
    """The same, with nothing in it."""
    whole_cloud.reset()
    yield whole_cloud
    whole_cloud.reset()


@pytest.fixture
def ec2(cloud: Cloud) -> Iterator[Any]:
    """boto3's client, which tries once."""
    client = client_of(cloud)
    yield client
    client.close()


def client_of(cloud: Cloud, **config: Any) -> Any:
    """Without retries: a test sees each answer."""
    from botocore.config import Config

    return cloud.client(config=Config(**{"retries": {"total_max_attempts": 1, "mode": "standard"}, **config}))
