"""A region with its own threads and boto3, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from attrs import evolve
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.task import deferLater

from latent.errors import LatentWorkerCapacityError, LatentWorkerConfigurationError
from latent.model import Attempt
from latent_ec2.account import Account
from latent_ec2.calls import Calls
from latent_ec2.faults import CredentialsRefused, Unanswered
from latent_ec2.instances import Instance
from latent_ec2.launches import Wish
from latent_ec2.region import Region
from tests.ec2.fake_ec2 import CONTROLLER, table
from tests.requires import require

if TYPE_CHECKING:
    from latent.testing.ec2 import Cloud


@pytest.fixture(scope="module")
def whole_cloud() -> Iterator[Cloud]:
    require(find_spec("moto") and find_spec("boto3"), "moto", "pip install 'latent[testing-ec2]'")
    from latent.testing.ec2 import Cloud

    with Cloud() as cloud:
        yield cloud


@pytest.fixture
def cloud(whole_cloud: Cloud) -> Iterator[Cloud]:
    whole_cloud.reset()
    yield whole_cloud
    whole_cloud.reset()


def account_of(cloud: Cloud, **more: Any) -> Account:
    asked = {"region": cloud.region, "endpoint_url": cloud.endpoint_url, "key_id": cloud.key_id, "secret": cloud.secret}
    return Account(**{**asked, "session_token": cloud.session_token or None, **more})


def region_of(cloud: Cloud, **more: Any) -> Region:
    return Region(account_of(cloud, **more), reactor)


def wish(cloud: Cloud, worker: str, *, shape: str = "t3.small", kept: dict[str, Any] | None = None, **more: Any) -> Wish:
    return Wish(
        member=Attempt(worker, 1),
        controller_id=CONTROLLER,
        request={"ImageId": cloud.image, "InstanceType": shape, **more},
        user_data=table,
        shape=repr((shape, more)),
        keep=partial(_keep, {} if kept is None else kept, worker),
    )


def _keep(kept: dict[str, Any], worker: str, document: Any) -> Deferred[None]:
    kept[worker] = document
    return succeed(None)


async def until(what: Any) -> None:
    while not what():
        await deferLater(reactor, 0.05)


@pytest_twisted.ensureDeferred
async def test_a_hundred_workers(cloud: Cloud) -> None:
    """Started at once, watched until they run, terminated: counted at the server, with far fewer calls than they may make."""
    region = region_of(cloud)
    instances: list[Instance] = await gatherResults([region.launch(wish(cloud, f"w{n}")) for n in range(100)])
    seen: dict[str, Instance | None] = {}
    listeners = {one.id: partial(seen.__setitem__, one.id) for one in instances}
    for one, heard in listeners.items():
        region.watch(one, heard)
    await until(lambda: len(seen) == 100)
    assert {one.state for one in seen.values() if one} == {"running"}
    for n, instance in enumerate(instances):
        found = seen[instance.id]
        assert found is not None
        assert found.attempt == instance.attempt == Attempt(f"w{n}", 1)
        assert found.controller_id == CONTROLLER
        assert found.volumes
        region.unwatch(instance.id, listeners[instance.id])
    await gatherResults([region.end(one.id) for one in instances])
    assert {one.state for one in cloud.instances()} <= {"shutting-down", "terminated"}
    assert sum(cloud.calls.values()) <= 5, cloud.calls
    assert sum(region.status().calls.values()) == sum(cloud.calls.values())


@pytest_twisted.ensureDeferred
async def test_throttled(cloud: Cloud) -> None:
    """With two calls a second allowed, all start, none twice, and nobody hears an error."""
    region = region_of(cloud)
    cloud.throttle(rate=2, burst=1)
    instances = await gatherResults([region.launch(wish(cloud, f"w{n}", shape=f"t3.{size}")) for n, size in enumerate(
        ("nano", "micro", "small", "medium", "large", "xlarge"))])  # fmt: skip
    assert len({one.id for one in instances}) == 6
    assert len(cloud.instances()) == 6
    status = region.status()
    assert status.throttles == cloud.calls["RunInstances"] - 6 > 0


@pytest.mark.parametrize("fault", ["fail", "cut", "hang", "duplicate"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest_twisted.ensureDeferred
async def test_calls_that_get_lost(cloud: Cloud, fault: str, when: Any) -> None:
    """They are repeated with the same ClientToken: there is one instance for each."""
    region = region_of(cloud, timeout=2.0)
    if fault == "duplicate":
        cloud.duplicate("RunInstances")
    else:
        getattr(cloud, fault)("RunInstances", when=when)
    instances = await gatherResults([region.launch(wish(cloud, f"w{n}")) for n in range(3)])
    assert sorted(one.id for one in cloud.instances()) == sorted(one.id for one in instances)
    assert [one.attempt for one in instances] == [Attempt(f"w{n}", 1) for n in range(3)]
    assert len({call.parameters["ClientToken"] for call in cloud.log}) == 1
    cloud.heal()


@pytest_twisted.ensureDeferred
async def test_after_a_crash(cloud: Cloud) -> None:
    """Another process finds what was made, by the launch's token, and ends one of it by that alone."""
    kept: dict[str, Any] = {}
    region = Region(account_of(cloud), reactor)
    instances = await gatherResults([region.launch(wish(cloud, f"w{n}", kept=kept)) for n in range(3)])
    another = Region(account_of(cloud), reactor)
    again = await gatherResults([another.relaunch(kept[f"w{n}"], wish(cloud, f"w{n}")) for n in range(2)])
    assert [one.id for one in again] == [one.id for one in instances[:2]]
    await another.destroy(kept["w2"])
    assert sorted(one.id for one in await another.find(controller=CONTROLLER)) == sorted(one.id for one in instances[:2])
    assert cloud.calls["RunInstances"] == 1


@pytest_twisted.ensureDeferred
async def test_one_that_vanishes(cloud: Cloud) -> None:
    """An end of what is gone already is no error, and keeps no other from ending."""
    region = region_of(cloud)
    instances = await gatherResults([region.launch(wish(cloud, f"w{n}")) for n in range(3)])
    another = Region(account_of(cloud), reactor)
    cloud.vanish(instances[1].id)
    assert await another.look(instances[1].id) is None
    await gatherResults([another.end(one.id) for one in instances])
    assert cloud.calls["TerminateInstances"] == 2
    assert {one.state for one in cloud.instances()} <= {"shutting-down", "terminated"}


@pytest_twisted.ensureDeferred
async def test_stopped_and_started(cloud: Cloud) -> None:
    """It is the same instance."""
    region = region_of(cloud)
    instance = await region.launch(wish(cloud, "w1"))
    cloud.wait(lambda found: found[0].state == "running")
    await region.end(instance.id, "stop")
    assert cloud.instance(instance.id).state == "stopped"
    again = await region.restart(instance.id)
    assert (again.id, again.state) == (instance.id, "pending")


@pytest_twisted.ensureDeferred
async def test_spot(cloud: Cloud) -> None:
    """A launch of the spot market is tagged like any other; without room it is told at once."""
    region = region_of(cloud)
    spot = {"InstanceMarketOptions": {"MarketType": "spot"}}
    instance = await region.launch(wish(cloud, "w1", **spot))
    seen = await region.look(instance.id)
    assert seen is not None
    assert (seen.market, seen.attempt) == ("spot", Attempt("w1", 1))
    cloud.insufficient(market="spot")
    with pytest.raises(LatentWorkerCapacityError, match="InsufficientInstanceCapacity"):
        await region.launch(wish(cloud, "w2", **spot))


@pytest_twisted.ensureDeferred
async def test_room_for_some(cloud: Cloud) -> None:
    """The others are told so."""
    region = region_of(cloud)
    cloud.insufficient(instance_type="t3.small", left=2)
    waiting = [region.launch(wish(cloud, f"w{n}")) for n in range(3)]
    assert [(await one).index for one in waiting[:2]] == [0, 1]
    with pytest.raises(LatentWorkerCapacityError, match="2 of 3"):
        await waiting[2]


@pytest_twisted.ensureDeferred
async def test_what_is_wrong_is_told_with_its_code(cloud: Cloud) -> None:
    """An AMI that does not exist, credentials that are wrong, expired, or not allowed to."""
    region = region_of(cloud)
    with pytest.raises(LatentWorkerConfigurationError, match=r"InvalidAMIID\.NotFound: .*correct ami"):
        await region.launch(wish(cloud, "w1", ImageId="ami-0123456789abcdef0"))
    with pytest.raises(CredentialsRefused, match=r"AuthFailure.*secret_identifier"):
        await region_of(cloud, secret="wrong").look("i-1")
    cloud.deny("TerminateInstances")
    with pytest.raises(LatentWorkerConfigurationError, match=r"UnauthorizedOperation.*IAM policy"):
        await region.end("i-0123456789abcdef0")
    cloud.expire_credentials()
    with pytest.raises(CredentialsRefused, match=r"RequestExpired.*renew"):
        await region.look("i-1")
    assert "RequestExpired" in region.status().down
    cloud.renew_credentials()
    assert await region_of(cloud).look("i-1") is None


@pytest_twisted.ensureDeferred
async def test_nobody_listens_there(cloud: Cloud) -> None:
    """It is known that nothing was sent, so nothing has to be looked for."""
    account = evolve(account_of(cloud), endpoint_url="http://127.0.0.1:9", timeout=2.0)
    with pytest.raises(Unanswered, match="see that the endpoint can be reached") as caught:
        await Calls(account, reactor).ask("describe_images", {}, patience=0.0)
    assert not caught.value.sent


@pytest_twisted.ensureDeferred
async def test_expiry_is_pushed_forward(cloud: Cloud) -> None:
    """In one call for all, seen by every process."""
    region = region_of(cloud)
    instances = await gatherResults([region.launch(evolve(wish(cloud, f"w{n}"), expiry=8.0)) for n in range(3)])
    before = instances[0].expires
    for one in instances:
        region.watch(one.id, lambda _: None, every=1.0, expiry=8.0)
    await until(lambda: cloud.calls["CreateTags"])
    for one in instances:
        region.unwatch(one.id)
    found = await region.find(controller=CONTROLLER)
    assert before is not None
    assert all(one.expires is not None and one.expires > before for one in found)
    assert cloud.calls["CreateTags"] == 1
