from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import pytest

from tests.requires import require

if TYPE_CHECKING:
    from latent.testing.ec2 import Cloud
    from tests.ec2.site import MakeSite


@pytest.fixture(scope="session")
def whole_cloud() -> Iterator[Cloud]:
    """One for all tests that leave it as it is."""
    require(find_spec("moto") and find_spec("boto3"), "moto", "pip install 'latent[testing-ec2]'")
    from latent.testing.ec2 import Cloud, Hypervisor

    with Cloud(hypervisor=Hypervisor()) as cloud:
        yield cloud


@pytest.fixture
def cloud(whole_cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """The same, with nothing in it, and with a region of the test's own, that looks at it more often than it would at EC2."""
    from latent_ec2 import batches, extras, poll, watched
    from latent_ec2.region import Region
    from latent_ec2.shelf import Shelf

    monkeypatch.setattr(Region, "_regions", WeakValueDictionary())
    monkeypatch.setattr(Shelf, "_shelves", WeakValueDictionary())
    monkeypatch.setitem(Region.__init__.__kwdefaults__, "settles", 2.0)
    monkeypatch.setattr(watched, "PACES", ((3600.0, 0.3),))
    monkeypatch.setattr(poll, "APART", 0.05)
    monkeypatch.setattr(batches, "FIRST_PACE", 0.1)
    monkeypatch.setattr(batches, "LAST_PACE", 0.3)
    monkeypatch.setattr(poll, "HEALTH", 0.5)
    monkeypatch.setattr(extras, "SECOND_LOOK", 0.1)
    monkeypatch.setattr(extras, "VOLUME_PAUSE", 0.1)
    whole_cloud.reset()
    yield whole_cloud
    whole_cloud.reset()


@pytest.fixture
def site(tmp_path: Path, cloud: Cloud) -> Iterator[MakeSite]:
    """Makes sites; whatever they do, the policy of docs/ec2-iam.md allows it."""
    from tests.ec2.site import check_allowed, sites

    with sites(tmp_path, cloud) as make:
        yield make
    for call in cloud.log:
        check_allowed(cloud, call)
