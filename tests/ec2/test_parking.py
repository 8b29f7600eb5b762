"""Instances that are stopped and started again, volumes and addresses that come with them, and what is left of these."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred

from latent.errors import LatentWorkerConfigurationError
from latent.model import Attempt
from latent.worker import Property, hooks
from latent_ec2 import extras
from tests.ec2.kit import CONTROLLER, Driven, declared, in_attempt, until

if TYPE_CHECKING:
    from latent.testing.ec2 import Cloud


async def forget(worker: Driven) -> None:
    """End what waits for the worker, as it would be at the end of its time."""
    for instance in await worker.region.find(controller=CONTROLLER):
        await worker.region.end(instance.id)
    if worker.garage._leaving is not None and worker.garage._leaving.active():
        worker.garage._leaving.cancel()


async def used(worker: Driven, **properties: Any) -> str:
    """Its id, once its agent has attached."""
    await worker.up(**properties)
    worker.agent_attached = True
    return str(worker.handle()["instance"])


@pytest.mark.parametrize("mode", ["stop", "hibernate"])
@ensureDeferred
async def test_a_warm_restart(cloud: Cloud, mode: str) -> None:
    """The next attempt gets the same instance, with its own token and tags."""
    worker = in_attempt(cloud, stop_mode=mode)
    first = await used(worker)
    await until(lambda: "agent of w 1 secret-w-1" in cloud.console(first))
    await worker.down()
    assert cloud.instance(first).state == "stopped"
    assert mode == "hibernate" or not cloud.processes(first)
    assert float(cloud.instance(first).tags["latent:expires"]) > time.time() + 80_000
    worker.begin(2)
    assert "it was stopped, and is started again" in await worker.up(), worker.told
    assert worker.handle()["instance"] == first
    assert worker.kept[-1]["instance"] == first
    assert cloud.instance(first).tags["latent:attempt"] == "2"
    assert float(cloud.instance(first).tags["latent:expires"]) < time.time() + 8_000
    await until(lambda: "agent of w 2 secret-w-2" in cloud.console(first))
    assert cloud.calls["RunInstances"] == 1
    worker.agent_attached = True
    await worker.down()
    await forget(worker)


@ensureDeferred
async def test_what_is_not_worth_keeping(cloud: Cloud) -> None:
    """An instance whose agent never attached, or that is impaired, is terminated."""
    worker = in_attempt(cloud, stop_mode="stop", check_instance_interval=0.1)
    await worker.up()
    await worker.down()
    worker.begin(2)
    cloud.set_status(await used(worker), instance="impaired")
    await worker.ill()
    await worker.down()
    assert not cloud.instances("pending", "running", "stopping", "stopped")


@ensureDeferred
async def test_one_that_waits_is_no_stray(cloud: Cloud) -> None:
    """Until its time is over."""
    worker = in_attempt(cloud, stop_mode="stop")
    there = await used(worker)
    await worker.down()
    assert await worker.all() == ()
    assert not await in_attempt(cloud, stop_mode="stop").resume(worker.kept[0])
    cloud.client().create_tags(Resources=[there], Tags=[{"Key": "latent:expires", "Value": "1000"}])
    (stray,) = await worker.all()
    assert stray.attempt == Attempt("w", 1)
    await hooks.call(worker.destroy_instance, stray.handle)
    assert not cloud.instances("stopped")
    await forget(worker)


@ensureDeferred
async def test_one_that_waits_is_found_after_a_restart(cloud: Cloud) -> None:
    """By its worker alone, and by no other."""
    worker = in_attempt(cloud, stop_mode="stop")
    there = await used(worker)
    await worker.down()
    other, later = in_attempt(cloud, "other", stop_mode="stop"), in_attempt(cloud, number=2, stop_mode="stop")
    await other.up()
    await later.up()
    assert later.handle()["instance"] == there != other.handle()["instance"]
    await other.down()
    await later.down()
    await forget(worker)


@ensureDeferred
async def test_one_that_does_not_fit(cloud: Cloud) -> None:
    """Where a build wants another image, what waits is terminated and another launched."""
    worker = in_attempt(cloud, stop_mode="stop", tags={"branch": Property("branch")})
    first = await used(worker, branch="main")
    await worker.down()
    worker.begin(2)
    second = await used(worker, branch="other")
    assert second != first
    await until(lambda: cloud.instance(first).state == "terminated")
    await worker.down()
    await forget(worker)


@ensureDeferred
async def test_one_that_does_not_start_again(cloud: Cloud) -> None:
    """It is terminated, and another is launched."""
    worker = in_attempt(cloud, stop_mode="stop")
    first = await used(worker)
    await worker.down()
    worker.begin(2)
    cloud.fail("StartInstances", status=400, code="InsufficientInstanceCapacity", message="no room", times=None)
    assert await used(worker) != first
    assert any("can't be started again" in line for line in worker.told)
    assert cloud.instance(first).state in ("shutting-down", "terminated")
    await worker.down()
    await forget(worker)


@pytest.mark.parametrize("point", ["tagged", "told", "started"])
@ensureDeferred
async def test_a_restart_that_is_repeated(cloud: Cloud, point: str) -> None:
    """After a crash at any point, it goes on with the same instance."""
    worker = in_attempt(cloud, stop_mode="stop")
    first = await used(worker)
    await worker.down()
    fault = {"tagged": "CreateTags", "told": "ModifyInstanceAttribute", "started": "StartInstances"}[point]
    worker.begin(2)
    cloud.hang(fault, when="after")
    starting = Deferred.fromCoroutine(worker.up())
    await until(lambda: cloud.calls[fault] >= (2 if point == "tagged" else 1))
    kept = worker.kept[-1]
    starting.cancel()
    with pytest.raises(CancelledError):
        await starting
    cloud.heal()
    later = in_attempt(cloud, number=2, kept=kept, stop_mode="stop")
    if not await later.resume(kept):
        await later.up()
    assert later.handle()["instance"] == first
    assert cloud.calls["RunInstances"] == 1
    if point == "started":  # what was cut is asked for again, on behalf of others that may have wanted the same
        await until(lambda: cloud.calls[fault] >= 2)
    later.agent_attached = True
    await later.down()
    await forget(worker)
    await forget(later)


@ensureDeferred
async def test_the_end_of_its_time(cloud: Cloud) -> None:
    """What nobody asks for is terminated by itself."""
    worker = in_attempt(cloud, stop_mode="stop", keep_stopped=0.5)
    there = await used(worker)
    await worker.down()
    await until(lambda: cloud.instance(there).state == "terminated")


# --- volumes and addresses --------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_volumes(cloud: Cloud) -> None:
    """They are attached before the start is answered, and stay when the instance goes."""
    client = cloud.client()
    zone = next(iter(cloud.subnets))
    volume = client.create_volume(AvailabilityZone=zone, Size=1)["VolumeId"]
    worker = in_attempt(cloud, placement=zone, volumes=[(volume, "/dev/xvdf")])
    await worker.up()
    (attached,) = client.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Attachments"]
    assert (attached["InstanceId"], attached["Device"]) == (worker.handle()["instance"], "/dev/xvdf")
    assert not await in_attempt(cloud, placement=zone, volumes=[(volume, "/dev/xvdf")]).resume(worker.kept[0])
    assert await in_attempt(cloud, placement=zone, volumes=[(volume, "/dev/xvdf")]).resume(worker.handle())
    await worker.down()
    assert client.describe_volumes(VolumeIds=[volume])["Volumes"]


@ensureDeferred
async def test_a_volume_that_is_not_there(cloud: Cloud) -> None:
    """The start fails with AWS's code, and the instance goes."""
    worker = in_attempt(cloud, volumes=[("vol-00000000", "/dev/xvdf")])
    with pytest.raises(LatentWorkerConfigurationError, match=r"InvalidVolume\.NotFound"):
        await worker.up()
    await worker.down()
    assert not cloud.instances("pending", "running")


@pytest.mark.parametrize("named", ["PublicIp", "AllocationId"])
@ensureDeferred
async def test_an_address_of_the_accounts(cloud: Cloud, named: str) -> None:
    """It is the instance's while that is up, and stays the account's."""
    client = cloud.client()
    address = client.allocate_address(Domain="vpc")
    worker = in_attempt(cloud, elastic_ip=address[named])
    assert f"it has the address {address['PublicIp']}" in await worker.up()
    (found,) = client.describe_addresses(AllocationIds=[address["AllocationId"]])["Addresses"]
    assert found["InstanceId"] == worker.handle()["instance"]
    await worker.down()
    assert client.describe_addresses(AllocationIds=[address["AllocationId"]])["Addresses"]


@ensureDeferred
async def test_an_address_of_its_own(cloud: Cloud) -> None:
    """Made for the instance, tagged, and given up with it; also by the reaper."""
    client = cloud.client()
    worker = in_attempt(cloud, elastic_ip=True)
    await worker.up()
    (found,) = client.describe_addresses()["Addresses"]
    assert {tag["Key"]: tag["Value"] for tag in found["Tags"]}["latent:worker"] == "w"
    handle = worker.handle()
    await worker.down()
    assert client.describe_addresses()["Addresses"] == []
    worker.begin(2)
    await worker.up()
    await hooks.call(declared(cloud, elastic_ip=True).destroy_instance, worker.handle())
    assert client.describe_addresses()["Addresses"] == []
    await hooks.call(worker.destroy_instance, handle)
    await worker.down()


@ensureDeferred
async def test_leftovers(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes and addresses whose instance is gone are found by their tags, but for those that the user keeps."""
    client = cloud.client()
    ours = {"latent:controller": CONTROLLER, "latent:worker": "gone", "latent:attempt": "3"}

    def tags(kind: str, **more: str) -> Any:
        every = {**ours, **{key.replace("_", ":"): value for key, value in more.items()}}
        return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in every.items()]}]

    zone = next(iter(cloud.subnets))

    def volume(**more: Any) -> str:
        return str(client.create_volume(AvailabilityZone=zone, Size=1, **more)["VolumeId"])

    left = volume(TagSpecifications=tags("volume"))
    kept = volume(TagSpecifications=tags("volume", latent_keep="1"))
    foreign = volume()
    address = client.allocate_address(Domain="vpc", TagSpecifications=tags("elastic-ip"))["AllocationId"]
    worker = declared(cloud)
    (found,) = await worker.all()
    assert found.handle["addresses"] == [address]
    assert "volumes" not in found.handle  # it is younger than a minute
    monkeypatch.setattr(extras, "YOUNG", -1.0)
    (found,) = await worker.all()
    assert (found.attempt, found.controller_id) == (Attempt("gone", 3), CONTROLLER)
    assert found.handle["volumes"] == [left]
    await hooks.call(worker.destroy_instance, found.handle)
    await hooks.call(worker.destroy_instance, found.handle)
    assert {one["VolumeId"] for one in client.describe_volumes()["Volumes"]} == {kept, foreign}
    assert await worker.all() == ()
    assert client.describe_addresses()["Addresses"] == []
    assert reactor is worker.reactor
