"""The hooks of an EC2 worker, against an EC2 on loopback whose instances run their user data."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from latent.errors import (
    LatentWorkerCannotSubstantiate,
    LatentWorkerCapacityError,
    LatentWorkerConfigurationError,
    LatentWorkerFailedToSubstantiate,
    LatentWorkerQuotaError,
    PluginError,
)
from latent.model import Attempt
from latent.worker import Property, hooks
from latent.worker.base import BUILDBOT_PROTOCOLS
from latent_ec2.batches import Moment
from latent_ec2.enrolment import OWN
from tests.ec2.kit import CONTROLLER, Driven, declared, in_attempt, until

if TYPE_CHECKING:
    from latent.testing.ec2 import Cloud


def tagged(worker: Driven) -> dict[str, str]:
    assert worker._current is not None
    assert worker._current._seen is not None
    return dict(worker._current._seen.tags)


@ensureDeferred
async def test_a_life(cloud: Cloud) -> None:
    """Started, running with its agent, healthy, stopped; everything carries whose it is from the first call on."""
    worker = in_attempt(cloud, keypair_name=cloud.key_name, tags={"team": "ci"})
    detail = await worker.up()
    (there,) = cloud.instances("running")
    assert detail[:-1] == (there.id, "m5.large", there.zone, "on-demand", cloud.image)
    assert detail[-1].startswith("its agent is told to attach to 127.0.0.1, which there is the instance itself")
    assert await worker.check() == (True, "")
    await until(lambda: "agent of w 1 secret-w-1" in cloud.console(there.id))
    tags = dict(cloud.instance(there.id).tags)
    assert {tags["latent:controller"], tags["latent:worker"], tags["latent:attempt"]} == {CONTROLLER, "w", "1"}
    assert (tags["team"], tags["Name"]) == ("ci", "w")
    assert worker.handle()["instance"] == there.id
    await worker.down()
    await until(lambda: cloud.instance(there.id).state == "terminated")
    assert not cloud.processes()
    assert await worker.check() == (False, "no instance was started")


@ensureDeferred
async def test_what_is_on_disk_first(cloud: Cloud) -> None:
    """Before RunInstances is called the handle is kept, without a secret; the call is the one that the handle tells of."""
    worker = in_attempt(cloud)
    await worker.up()
    (kept,) = worker.kept
    (call,) = [call for call in cloud.log if call.action == "RunInstances"]
    assert kept["document"]["launch"] == call.parameters["ClientToken"]
    assert "secret-w-1" not in str(kept)
    assert call.parameters["MetadataOptions.HttpTokens"] == "required"
    assert call.parameters["InstanceInitiatedShutdownBehavior"] == "terminate"
    await worker.down()


def test_what_members_of_a_launch_share(cloud: Cloud) -> None:
    """Whatever protocols there are: the variables of two attempts differ in those alone that the launch's table tells."""
    told = []
    for n in (1, 2):
        worker = in_attempt(cloud, f"linux-{n}", n, labels={"agent": "bot"})
        assert worker.enrolment is not None
        servers = dict.fromkeys(("peer", "bots", *BUILDBOT_PROTOCOLS), "ci.example.org:9000")
        worker.enrolment = evolve(worker.enrolment, servers=servers)
        told.append(worker.createEnvironment())
    first, second = told
    assert first.keys() == second.keys() >= set(OWN)
    assert {name for name in first if first[name] != second[name]} == set(OWN)


@ensureDeferred
async def test_several_at_once(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of a pool share one launch, and each instance is its own worker's."""
    # A moment in which a busy machine gets through all five of them.
    monkeypatch.setattr(Moment.__init__, "__defaults__", (2.0,))
    workers = [in_attempt(cloud, f"linux-{n}", n) for n in range(1, 6)]
    await gatherResults([Deferred.fromCoroutine(worker.up()) for worker in workers])
    assert cloud.calls["RunInstances"] == 1
    for worker in workers:
        said = f"agent of {worker.name} {worker.name[-1]} secret-{worker.name}-{worker.name[-1]}"
        await until(lambda worker=worker, said=said: said in cloud.console(worker.handle()["instance"]))
    await gatherResults([Deferred.fromCoroutine(worker.down()) for worker in workers])
    assert cloud.calls["TerminateInstances"] == 1
    assert not cloud.instances("pending", "running")


@ensureDeferred
async def test_a_stop_without_a_start(cloud: Cloud) -> None:
    """Nothing was asked for, so nothing is."""
    await in_attempt(cloud).down()
    await declared(cloud).down()
    assert not cloud.calls


# --- choices ----------------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_no_room_at_the_first_two(cloud: Cloud) -> None:
    """The third choice is used, and for three minutes the first two are asked for by no worker of the region."""
    cloud.insufficient(instance_type="m5.large")
    cloud.insufficient(instance_type="m5a.large")
    types = ["m5.large", "m5a.large", "m4.large"]
    worker, other = in_attempt(cloud, instance_type=types), in_attempt(cloud, "other", instance_type=types)
    assert "m4.large" in await worker.up()
    assert any("m5.large (on-demand): " in line and "InsufficientInstanceCapacity" in line for line in worker.told)
    assert cloud.calls["RunInstances"] == 3
    await other.up()
    assert cloud.calls["RunInstances"] == 4
    status = worker.provider_status()
    assert status is not None
    assert "no room: m5.large on-demand, m5a.large on-demand" in status.message
    await worker.down()
    await other.down()


@ensureDeferred
async def test_no_room_anywhere(cloud: Cloud) -> None:
    """The build is told of every choice; asked again at once, EC2 is not."""
    cloud.insufficient()
    worker = in_attempt(cloud, subnet_id=list(cloud.subnets.values())[:2])
    with pytest.raises(LatentWorkerCapacityError, match=r"no choice has room: m5\.large in subnet-.*; m5\.large in subnet-"):
        await worker.up()
    await worker.down()
    worker.begin(2)
    before = cloud.calls["RunInstances"]
    with pytest.raises(LatentWorkerCapacityError, match=r"not asked for another \d+ s"):
        await worker.up()
    assert cloud.calls["RunInstances"] == before
    await worker.down()


@ensureDeferred
async def test_the_quota(cloud: Cloud) -> None:
    """A quota that is reached is told as one, with AWS's code."""
    cloud.quota(0)
    worker = in_attempt(cloud)
    with pytest.raises(LatentWorkerQuotaError, match="InstanceLimitExceeded"):
        await worker.up()
    await worker.down()


@ensureDeferred
async def test_spot_with_fallback(cloud: Cloud) -> None:
    """Where the spot market has none, one on demand is started."""
    cloud.spot_never_fulfilled()
    worker = in_attempt(cloud, spot_instance=True, spot_fallback=True, price_multiplier=None)
    assert "on-demand" in await worker.up()
    await worker.down()
    assert not cloud.calls["RequestSpotInstances"]


@ensureDeferred
async def test_spot_without_fallback(cloud: Cloud) -> None:
    """A request that is never fulfilled is refused at once, and none stays open."""
    cloud.spot_never_fulfilled()
    worker = in_attempt(cloud, spot_instance=True, price_multiplier=None)
    with pytest.raises(LatentWorkerCapacityError, match="no choice has room"):
        await worker.up()
    await worker.down()


@ensureDeferred
async def test_spot_instances_that_stay_pending(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not come to run in time is given up for the next choice."""
    worker = in_attempt(cloud, spot_instance=True, spot_fallback=True, price_multiplier=None, spot_timeout=0.01)
    assert "on-demand" in await worker.up()
    assert any("still pending after 0.01 s" in line for line in worker.told)
    spot, demand = cloud.instances()
    assert (spot.market, spot.state in ("shutting-down", "terminated"), demand.state) == ("spot", True, "running")
    await worker.down()


@ensureDeferred
async def test_prices(cloud: Cloud) -> None:
    """The offer is the last hour's average by price_multiplier; a market that asks for more than max_spot_price has no room."""
    worker = in_attempt(cloud, spot_instance=True, max_spot_price=None, price_multiplier=1.2)

    async def history(kind: str, zone: str | None, product: str) -> float:
        return {"m5.large": 0.1}[kind]

    worker.shelf._average = history  # type: ignore[method-assign]
    assert "spot" in await worker.up()
    (call,) = [call for call in cloud.log if call.action == "RunInstances"]
    assert call.parameters["InstanceMarketOptions.SpotOptions.MaxPrice"] == "0.1200"
    await worker.down()
    dear = in_attempt(cloud, number=2, spot_instance=True, max_spot_price=0.11)
    with pytest.raises(LatentWorkerCapacityError, match=r"costs 0\.1000 \$ an hour, and 0\.1200 \$ with price_multiplier"):
        await dear.up()
    await dear.down()


@ensureDeferred
async def test_the_price_history(cloud: Cloud) -> None:
    """EC2 is asked once for what many workers want to know."""
    workers = [in_attempt(cloud, f"w{n}", spot_instance=True) for n in range(3)]
    await gatherResults([Deferred.fromCoroutine(worker.up()) for worker in workers])
    assert cloud.calls["DescribeSpotPriceHistory"] == 1
    for worker in workers:
        await worker.down()


@ensureDeferred
async def test_images_by_owner(cloud: Cloud) -> None:
    """The newest image of an owner is looked up once."""
    workers = [in_attempt(cloud, f"w{n}", ami=None, valid_ami_location_regex=".*") for n in range(2)]
    await gatherResults([Deferred.fromCoroutine(worker.up()) for worker in workers])
    assert cloud.calls["DescribeImages"] == 1
    for worker in workers:
        await worker.down()
    nothing = in_attempt(cloud, ami=None, valid_ami_location_regex="^nothing is called this")
    with pytest.raises(LatentWorkerConfigurationError, match="there is no image whose location matches"):
        await nothing.up()
    await nothing.down()


# --- what goes wrong --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keywords", "code"),
    [
        ({"ami": "ami-00000000"}, "InvalidAMIID"),
        ({"keypair_name": "nokey"}, "InvalidKeyPair"),
        ({"subnet_id": "subnet-00000000"}, "InvalidSubnetID"),
        ({"security_group_ids": ["sg-00000000"]}, "InvalidGroup"),
        ({"secret_identifier": "wrong"}, "AuthFailure|SignatureDoesNotMatch"),
    ],
)
@ensureDeferred
async def test_mistakes_at_the_first_start(cloud: Cloud, keywords: dict[str, Any], code: str) -> None:
    """The declaration's, with AWS's code; checkconfig --live finds the same before any start."""
    worker = in_attempt(cloud, **keywords)
    found = await hooks.call(worker.check_live)
    assert len(found) == 1, found
    assert re.search(code, found[0])
    with pytest.raises(LatentWorkerConfigurationError, match=code):
        await worker.up()
    await worker.down()
    assert not cloud.instances()


@ensureDeferred
async def test_mistakes_of_a_build(cloud: Cloud) -> None:
    """Where the build chose what does not exist, it is the build that ends."""
    worker = in_attempt(cloud, ami=Property("ami"))
    with pytest.raises(LatentWorkerCannotSubstantiate, match="InvalidAMIID"):
        await worker.up(ami="ami-00000000")
    await worker.down()


@ensureDeferred
async def test_what_no_build_decided(cloud: Cloud) -> None:
    """A wrong key is the declaration's mistake, though builds choose the tags."""
    worker = in_attempt(cloud, keypair_name="nokey", tags={"branch": Property("branch")})
    with pytest.raises(LatentWorkerConfigurationError, match="InvalidKeyPair"):
        await worker.up(branch="main")
    await worker.down()


@ensureDeferred
async def test_nothing_is_wrong(cloud: Cloud) -> None:
    """A live check of a right declaration ends with a dry run, and starts nothing."""
    (subnet, *_) = cloud.subnets.values()
    right = {"subnet_id": subnet, "security_group_ids": [cloud.security_group], "keypair_name": cloud.key_name}
    assert await hooks.call(declared(cloud, **right, spot_instance=True, spot_fallback=True).check_live) == []
    assert cloud.calls["RunInstances"] == 2
    assert not cloud.instances()
    cloud.deny("RunInstances")
    (told,) = await hooks.call(declared(cloud, **right).check_live)
    assert "UnauthorizedOperation" in told
    assert await hooks.call(declared(cloud, ami=Property("ami"), keypair_name="nokey").check_live) != []


@ensureDeferred
async def test_expired_credentials(cloud: Cloud) -> None:
    """A session token that has run out is told as that."""
    cloud.expire_credentials()
    worker = in_attempt(cloud)
    with pytest.raises(LatentWorkerConfigurationError, match="RequestExpired"):
        await worker.up()
    await worker.down()
    status = worker.provider_status()
    assert status is not None
    assert not status.ok
    assert "RequestExpired" in status.message


@ensureDeferred
async def test_one_that_ends_before_it_runs(cloud: Cloud) -> None:
    """The start fails with EC2's reason."""
    worker = in_attempt(cloud)
    starting = Deferred.fromCoroutine(worker.up())
    (there,) = await until(cloud.instances)
    cloud.interrupt(there.id, code="Client.VolumeLimitExceeded")
    with pytest.raises(LatentWorkerFailedToSubstantiate, match=rf"{there.id} is .*Client\.VolumeLimitExceeded"):
        await starting
    await worker.down()


@ensureDeferred
async def test_one_that_is_gone_behind_our_back(cloud: Cloud) -> None:
    """Its check says so, with the last lines of its console."""
    worker = in_attempt(cloud, agent_command="echo about to crash; sleep 1000", check_instance_interval=0.1)
    await worker.up()
    (there,) = cloud.instances("running")
    await until(lambda: "about to crash" in cloud.console(there.id))
    cloud.interrupt(there.id)
    told = await worker.ill()
    assert there.id in told
    assert "Server.InternalError" in told
    assert "about to crash" in told
    await worker.down()


@ensureDeferred
async def test_one_that_vanishes(cloud: Cloud) -> None:
    """EC2 knows nothing of it any more: it is not good, and its stop succeeds."""
    worker = in_attempt(cloud, check_instance_interval=0.1)
    await worker.up()
    cloud.vanish(cloud.instances()[0].id)
    await worker.down()


@ensureDeferred
async def test_status_checks(cloud: Cloud) -> None:
    """An instance whose system is impaired is not good."""
    worker = in_attempt(cloud, check_instance_interval=0.1)
    await worker.up()
    cloud.set_status(cloud.instances()[0].id, system="impaired")
    assert "impaired" in await worker.ill()
    await worker.down()


@ensureDeferred
async def test_a_spot_instance_that_is_taken_back(cloud: Cloud) -> None:
    """Its choice counts as one that has no room."""
    worker = in_attempt(cloud, spot_instance=True, price_multiplier=None, check_instance_interval=0.1)
    await worker.up()
    cloud.interrupt(cloud.instances()[0].id, code="Server.SpotInstanceTermination")
    assert "SpotInstanceTermination" in await worker.ill()
    assert worker.shelf.memory.lines(worker.shelf.now()) == ["m5.large spot"]
    await worker.down()


@ensureDeferred
async def test_a_start_that_is_cancelled(cloud: Cloud) -> None:
    """Whatever it had come to, nothing is left after the stop."""
    worker = in_attempt(cloud)
    starting = hooks.call(worker.start_instance, None)
    await until(cloud.instances)
    starting.cancel()
    with pytest.raises(CancelledError):
        await starting
    await worker.down()
    assert not cloud.instances("pending", "running")


@ensureDeferred
async def test_user_data_that_the_build_made_too_large(cloud: Cloud) -> None:
    """The build is told the sizes."""
    worker = in_attempt(cloud, user_data=Property("script"))
    with pytest.raises(LatentWorkerCannotSubstantiate, match=r"16,384"):
        await worker.up(script="#!/bin/sh\n" + "#" * 20_000)
    await worker.down()


# --- after a crash ----------------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_resumed(cloud: Cloud) -> None:
    """An instance is found by its handle, and is what builds would get."""
    worker = in_attempt(cloud)
    await worker.up()
    later = in_attempt(cloud)
    assert await later.resume(worker.handle())
    assert await later.isCompatibleWithBuild({})
    assert await later.check() == (True, "")
    await later.down()
    assert not cloud.instances("pending", "running")
    assert not await in_attempt(cloud).resume(worker.handle())
    await worker.down()


@ensureDeferred
async def test_resumed_by_what_was_kept_before_the_call(cloud: Cloud) -> None:
    """The handle of a start that was cut short finds what its launch made."""
    worker = in_attempt(cloud)
    await worker.up()
    later = in_attempt(cloud, kept=worker.kept[0])
    assert await later.resume(worker.kept[0])
    await later.down()
    await worker.down()
    assert not cloud.instances("pending", "running")


@ensureDeferred
async def test_another_attempts_instance_is_not_resumed(cloud: Cloud) -> None:
    """Nor another worker's, whatever the handle says."""
    worker = in_attempt(cloud)
    await worker.up()
    assert not await in_attempt(cloud, number=2).resume(worker.handle())
    assert not await in_attempt(cloud, "other").resume(worker.handle())
    await worker.down()
    with pytest.raises(PluginError, match="no handle of an EC2LatentWorker"):
        await worker.resume({"container": "x"})


@ensureDeferred
async def test_a_start_that_is_repeated(cloud: Cloud) -> None:
    """It gets the instance that the first one made."""
    worker = in_attempt(cloud)
    first = await worker.up()
    later = in_attempt(cloud, kept=worker.kept[0])
    assert await later.up() == first
    assert len(cloud.instances()) == 1
    await later.down()
    await worker.down()


@ensureDeferred
async def test_a_stop_after_a_crash(cloud: Cloud) -> None:
    """What a start kept is enough to stop what it made."""
    worker = in_attempt(cloud)
    await worker.up()
    await in_attempt(cloud, kept=worker.kept[0]).down()
    assert not cloud.instances("pending", "running")
    await worker.down()


@ensureDeferred
async def test_lists(cloud: Cloud) -> None:
    """Everything that has our tags, other controllers' too; what is nobody's is not there."""
    worker = in_attempt(cloud)
    await worker.up()
    cloud.client().run_instances(ImageId=cloud.image, MinCount=1, MaxCount=1)
    (found,) = await worker.all()
    assert (found.attempt, found.controller_id) == (Attempt("w", 1), CONTROLLER)
    await hooks.call(worker.destroy_instance, found.handle)
    await hooks.call(worker.destroy_instance, found.handle)
    assert await worker.all() == ()
    assert len(cloud.instances("pending", "running")) == 1
    await worker.down()


@ensureDeferred
async def test_one_whose_time_is_over(cloud: Cloud) -> None:
    """Its controller was away for too long: it is not taken up again."""
    worker = in_attempt(cloud)
    await worker.up()
    there = worker.handle()["instance"]
    cloud.client().create_tags(Resources=[there], Tags=[{"Key": "latent:expires", "Value": "1000"}])
    later = in_attempt(cloud)
    assert not await later.resume(worker.handle())
    assert [one.attempt for one in await later.all()] == [Attempt("w", 1)]
    await worker.down()


# --- without an enrolment ---------------------------------------------------------------------------------------------------


@ensureDeferred
async def test_images_that_read_user_data_themselves(cloud: Cloud) -> None:
    """Each has its own launch, as its user data name it."""
    text = "#!/bin/sh\necho own agent; cat <<'end'\n@LATENT_ENVIRONMENT@\nend\n"
    workers = [in_attempt(cloud, f"w{n}", enrolment=None, user_data=text) for n in range(2)]
    await gatherResults([Deferred.fromCoroutine(worker.up()) for worker in workers])
    for worker in workers:
        there = worker.handle()["instance"]
        await until(lambda worker=worker, there=there: f"LATENT_TOKEN=secret-{worker.name}-1" in cloud.console(there))
        await worker.down()
