"""The declaration of an EC2 worker: what is checked when it is written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest
from pytest_twisted import ensureDeferred

from latent.config.loader import load
from latent.errors import ConfigError, LatentWorkerCannotSubstantiate
from latent.worker import Interpolate, Property
from latent_ec2 import EC2LatentWorker, credentials, options
from latent_ec2.choices import Choice
from latent_ec2.recipe import RENDERED, Made, Recipe, recipe
from latent_ec2.request import console_name, request, shape

GOOD: dict[str, Any] = {"instance_type": "m7i.large", "ami": "ami-12345678", "region": "eu-west-1"}


@pytest.fixture(autouse=True)
def nobodys_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


class Whole(dict[str, Any]):
    """All that is given, with nothing of `GOOD` beside it."""


def without(*names: str, **more: Any) -> Whole:
    return Whole({name: value for name, value in GOOD.items() if name not in names} | more)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (without("ami"), "nothing says which image; write ami='ami-...'"),
        (without("instance_type"), "no instance_type is given; write instance_type='m7i.large'"),
        ({"instance_type": "large"}, "instance_type is 'large'; write 'm7i.large'"),
        ({"instance_type": []}, "instance_type is []"),
        ({"instance_type": 3}, "instance_type is 3"),
        ({"ami": "debian"}, "ami is 'debian'; write its id"),
        ({"valid_ami_owners": [1]}, "ami, and valid_ami_owners or valid_ami_location_regex, exclude each other"),
        ({"valid_ami_owners": "me"}, "valid_ami_owners has 'me'; write an account number"),
        ({"valid_ami_owners": 1.5}, "valid_ami_owners has 1.5"),
        ({"valid_ami_location_regex": "("}, "which is no regular expression"),
        ({"valid_ami_location_regex": 3}, "valid_ami_location_regex is 3"),
        ({"elastic_ip": "here"}, "elastic_ip is 'here'; write an address"),
        ({"user_data": 3}, "user_data is 3; write the text itself, or pathlib.Path"),
        ({"user_data": b"\xff"}, "user_data is bytes that are no UTF-8 text"),
        ({"user_data": Path("/nowhere/at/all")}, "user_data: /nowhere/at/all can't be read (No such file or directory)"),
        ({"keypair_name": ""}, "keypair_name is ''"),
        ({"security_name": 3}, "security_name is 3"),
        ({"security_name": "ci", "subnet_id": "subnet-1"}, "security_name is for the default VPC and excludes subnet_id"),
        ({"security_group_ids": ["ci"]}, "security_group_ids has 'ci'; write 'sg-0123456789abcdef0'"),
        ({"subnet_id": "sg-1"}, "subnet_id has 'sg-1'"),
        ({"subnet_id": ["subnet-1", "subnet-2"], "placement": "a"}, "each subnet_id is in one zone already"),
        ({"placement": "eu west"}, "placement is 'eu west'; write the letter of a zone"),
        (without("region", placement="a"), "nothing says of which region"),
        ({"region": "Ireland"}, "region is 'Ireland'; write its code"),
        ({"spot_instance": "yes"}, "spot_instance is 'yes'; write True or False"),
        ({"max_spot_price": 0}, "max_spot_price is 0; write dollars an hour"),
        ({"max_spot_price": "much"}, "max_spot_price is 'much'"),
        ({"price_multiplier": -1}, "price_multiplier is -1; write a factor"),
        ({"product_description": None}, "product_description is None"),
        ({"volumes": "vol-1"}, "volumes is 'vol-1'; write a list of pairs"),
        ({"volumes": [("vol-1",)]}, "volumes has ('vol-1',)"),
        ({"volumes": [("disk", "/dev/xvdf")]}, "volumes has ('disk', '/dev/xvdf')"),
        ({"block_device_map": "x"}, "block_device_map is 'x'; write a list such as"),
        ({"block_device_map": [{"Ebs": {}}]}, "block_device_map has {'Ebs': {}}"),
        ({"block_device_map": [{"DeviceName": "/dev/xvda", "Ebs": 50}]}, "the Ebs of /dev/xvda is 50"),
        ({"block_device_map": {"/dev/xvda": 50}}, "block_device_map has 50 for a device"),
        ({"tags": ["a"]}, "tags is ['a']; write a dict"),
        ({"tags": {"latent:worker": "x"}}, "names that begin with latent: and aws: are taken"),
        ({"tags": {"a": "x" * 300}}, "tags: the value of 'a' is"),
        ({"tags": {3: "x"}}, "tags has the key 3"),
        ({"tags": {str(n): "" for n in range(25)}}, "tags has 25 tags; 24 are the most"),
        ({"instance_profile_name": 1}, "instance_profile_name is 1"),
        ({"launch_template": 3}, "launch_template is 3; write its name or id"),
        ({"launch_template": {"LaunchTemplateName": "a", "Colour": "b"}}, "launch_template is"),
        ({"metadata_options": "no"}, "metadata_options is 'no'"),
        ({"identifier": "AKIA"}, "identifier and secret_identifier belong together"),
        ({"identifier": " ", "secret_identifier": "s"}, "identifier is ' '"),
        ({"identifier": "A", "secret_identifier": "s", "profile": "ci"}, "identifier and profile exclude each other"),
        ({"aws_id_file_path": "/nowhere/at/all"}, "aws_id_file_path: /nowhere/at/all can't be read"),
        ({"session": "mine"}, "session is 'mine'; write boto3.Session(...)"),
        ({"session_token": "t"}, "session_token belongs to identifier"),
        ({"endpoint_url": "localhost:5000"}, "endpoint_url is 'localhost:5000'; write 'https://HOST'"),
        ({"stop_mode": "sleep"}, "stop_mode is 'sleep'; write one of 'terminate', 'stop', 'hibernate'"),
        ({"stop_mode": "stop", "spot_instance": True}, "stop_mode='stop' excludes spot_instance"),
        ({"stop_mode": "stop", "enrolment": "script"}, "stop_mode='stop' needs enrolment='cloud-init'"),
        ({"enrolment": "ssh"}, "enrolment is 'ssh'; write 'cloud-init', 'script' or None"),
        ({"enrolment": "script", "user_data": "#cloud-config\n"}, "user_data is no script"),
        ({"spot_fallback": 1}, "spot_fallback is 1"),
        ({"spot_fallback": True}, "spot_fallback does nothing without spot_instance=True"),
        ({"master_protocol": "null"}, "master_protocol is 'null'; write one of 'pb'"),
        ({"masterFQDN": ""}, "masterFQDN is ''"),
        ({"spot_timeout": 0}, "spot_timeout is 0; write a number of seconds above 0"),
        ({"keep_stopped": "long"}, "keep_stopped is 'long'"),
        ({"expiry": 60}, "expiry is 60; write 600 or more seconds"),
        ({"agent_command": ""}, "agent_command is ''; write a command line"),
        ({"agent_command": [3]}, "agent_command is [3]"),
        ({"instanc_type": "m7i.large"}, "did you mean 'instance_type'"),
        ({"locks": []}, "locks is not supported; give builds labels"),
    ],
)
def test_mistakes(keywords: dict[str, Any], message: str) -> None:
    """Each mistake is told with its remedy before anything is asked of EC2."""
    base = (
        {}
        if set(GOOD) - set(keywords) <= {"ami", "instance_type", "region"} and len(keywords) > 1 and set(keywords) & set(GOOD)
        else GOOD
    )
    with pytest.raises(ConfigError) as raised:
        EC2LatentWorker("w", None, **{**base, **keywords})
    assert any(message in error for error in raised.value.errors), raised.value.errors


def test_all_at_once() -> None:
    """One mistake does not hide the next."""
    with pytest.raises(ConfigError) as raised:
        EC2LatentWorker("w", None, "large", "debian", region="x", tags=[], stop_mode="sleep", volumes=3)
    assert len(raised.value.errors) == 6


def test_secrets_are_not_told() -> None:
    """Neither in a mistake nor in what is shown of an account."""
    with pytest.raises(ConfigError) as raised:
        EC2LatentWorker("w", None, **GOOD, identifier="AKIAEXAMPLE", secret_identifier=12345)
    assert "12345" not in str(raised.value)
    assert "SECRET" not in repr(credentials.account(identifier="AKIAEXAMPLE", secret_identifier="SECRET"))


def test_user_data_that_are_too_large() -> None:
    """EC2 takes 16 KiB: the mistake names the sizes, the user's and the enrolment's."""
    with pytest.raises(ConfigError, match=r"user_data makes 18,\d{3} bytes \(its own 16,000, the enrolment's 2,\d{3}\)"):
        EC2LatentWorker("w", None, **GOOD, user_data="#!/bin/sh\n" + "#" * 15_990)
    EC2LatentWorker("w", None, **GOOD, user_data="#!/bin/sh\n" + "#" * 12_000)


def test_renderables_are_left_alone() -> None:
    """What a build decides is checked when it is rendered."""
    EC2LatentWorker("w", None, **dict.fromkeys((*RENDERED[:2], *RENDERED[4:]), Property("x")))
    EC2LatentWorker(
        "w",
        None,
        [Interpolate("%(prop:family)s.large"), "m7i.large"],
        launch_template=Interpolate("ci:%(prop:version)s"),
        tags={"branch": Property("branch")},
        volumes=[(Property("cache"), "/dev/xvdf")],
    )


@ensureDeferred
async def test_what_is_rendered_wrongly() -> None:
    """A build whose properties make no sense fails; the worker is not to blame."""
    worker = set_up(EC2LatentWorker("w", None, **{**GOOD, "instance_type": Property("type")}))
    build = {"type": "huge"}
    with pytest.raises(LatentWorkerCannotSubstantiate, match="worker w, as rendered: instance_type is 'huge'"):
        await worker.renderWorkerProps(build)
    assert (await worker.renderWorkerProps({"type": "m7i.metal-24xl"})).instance_type == ("m7i.metal-24xl",)


def set_up(worker: EC2LatentWorker) -> EC2LatentWorker:
    args, kwargs = worker.arguments
    worker.reconfigService(*args, **kwargs)
    return worker


@ensureDeferred
async def test_asking_builds() -> None:
    """Where a build decides nothing, no build has to be asked."""
    assert not set_up(EC2LatentWorker("w", None, **GOOD)).builds_may_be_incompatible
    worker = set_up(EC2LatentWorker("w", None, **{**GOOD, "ami": Property("ami")}))
    assert worker.builds_may_be_incompatible
    made_from = await worker.renderWorkerProps({"ami": "ami-1"})
    worker.rememberWorkerProps(Made(made_from.fingerprint))
    assert await worker.isCompatibleWithBuild({"ami": "ami-1"})
    assert not await worker.isCompatibleWithBuild({"ami": "ami-2"})


def test_values() -> None:
    """What is written in several ways comes to one."""
    assert options.valid_ami_owners([1234, "1111-2222-3333", "amazon"]) == ("000000001234", "111122223333", "amazon")
    assert options.placement(["a", "eu-west-1c"], "eu-west-1") == ("eu-west-1a", "eu-west-1c")
    assert options.launch_template("ci:7") == {"LaunchTemplateName": "ci", "Version": "7"}
    assert options.launch_template("lt-0abc") == {"LaunchTemplateId": "lt-0abc", "Version": "$Default"}
    assert options.launch_template({"LaunchTemplateName": "ci"})["Version"] == "$Default"  # type: ignore[index]
    assert options.block_device_map([{"DeviceName": "a", "Ebs": {"VolumeSize": 9}}, {"DeviceName": "b", "NoDevice": ""}]) == (
        {"DeviceName": "a", "Ebs": {"DeleteOnTermination": True, "VolumeSize": 9}},
        {"DeviceName": "b", "NoDevice": ""},
    )
    assert options.block_device_map({"a": {"Ebs": {"DeleteOnTermination": False}}})[0]["Ebs"] == {"DeleteOnTermination": False}
    assert options.metadata_options({"HttpTokens": "optional"})["HttpTokens"] == "optional"
    assert options.max_spot_price("0.5") == 0.5


def test_user_data_from_a_file(tmp_path: Path) -> None:
    """It is read each time: a changed file counts from the next start on."""
    path = tmp_path / "setup.sh"
    path.write_text("one")
    assert options.user_data(path) == "one"
    path.write_text("two")
    assert options.user_data(path) == "two"


# --- credentials ------------------------------------------------------------------------------------------------------------


def test_accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given in the file, in a file of their own, in Buildbot's usual file, as a session, or left to boto3."""
    assert credentials.account().key_id is None
    path = tmp_path / "aws_id"
    path.write_text("AKIAFILE\nthe secret\n".replace("the ", "the-"))
    account = credentials.account(aws_id_file_path=str(path), region="eu-west-1")
    assert (account.key_id, account.secret, account.label) == ("AKIAFILE", "the-secret", "ec2 eu-west-1 (AKIA…LE)")
    monkeypatch.setattr(credentials, "DEFAULT_FILE", path)
    assert credentials.account().key_id == "AKIAFILE"
    assert credentials.account(profile="ci").key_id is None
    path.write_text("AKIAFILE\n")
    assert credentials.account().key_id is None
    with pytest.raises(ConfigError, match="lacks a line"):
        credentials.account(aws_id_file_path=path)
    session = boto3.Session("AKIASESSION", "s", region_name="us-east-1")
    assert credentials.account(session=session).region_name == "us-east-1"


# --- what is asked for ------------------------------------------------------------------------------------------------------


def a_recipe(**values: Any) -> Recipe:
    empty = {**dict.fromkeys(RENDERED), "spot_instance": False, "product_description": "Linux/UNIX"}
    return recipe({**empty, "instance_type": "m7i.large", "ami": "ami-1", **values}, "eu-west-1")


def asked_for(made_from: Recipe, choice: Choice, **more: Any) -> dict[str, Any]:
    given = {"price": None, "stop_mode": "terminate", "metadata": options.metadata_options(None), "name": "w", **more}
    return request(made_from, choice, made_from.ami, **given)


def test_requests() -> None:
    """All that the options say is in the parameters of RunInstances, and metadata need a session's token."""
    made_from = a_recipe(
        keypair_name="key",
        security_group_ids=["sg-1", "sg-2"],
        subnet_id="subnet-1",
        placement="a",
        instance_profile_name="ci",
        launch_template="ci",
        block_device_map=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 50}}],
        tags={"team": "ci", "Name": "mine"},
    )
    asked = asked_for(made_from, Choice("m7i.large", "subnet-1", "eu-west-1a", "on-demand"))
    tags = [{"Key": "Name", "Value": "mine"}, {"Key": "team", "Value": "ci"}]
    assert asked.pop("TagSpecifications") == [
        {"ResourceType": "instance", "Tags": [*tags, {"Key": "latent:recipe", "Value": made_from.fingerprint}]},
        {"ResourceType": "volume", "Tags": tags},
    ]
    assert asked == {
        "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
        "LaunchTemplate": {"LaunchTemplateName": "ci", "Version": "$Default"},
        "ImageId": "ami-1",
        "InstanceType": "m7i.large",
        "KeyName": "key",
        "SubnetId": "subnet-1",
        "SecurityGroupIds": ["sg-1", "sg-2"],
        "Placement": {"AvailabilityZone": "eu-west-1a"},
        "IamInstanceProfile": {"Name": "ci"},
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"DeleteOnTermination": True, "VolumeSize": 50}}],
        "InstanceInitiatedShutdownBehavior": "terminate",
    }


def test_requests_on_the_spot_market() -> None:
    """One-time, with the most that is to be paid; the request itself is tagged, too."""
    asked = asked_for(a_recipe(spot_instance=True), Choice("m7i.large", None, None, "spot"), price=0.12345)
    spot = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate", "MaxPrice": "0.1235"}
    assert asked["InstanceMarketOptions"] == {"MarketType": "spot", "SpotOptions": spot}
    assert [one["ResourceType"] for one in asked["TagSpecifications"]] == ["instance", "volume", "spot-instances-request"]
    bare = asked_for(a_recipe(spot_instance=True), Choice("m7i.large", None, None, "spot"))
    assert "MaxPrice" not in bare["InstanceMarketOptions"]["SpotOptions"]


def test_requests_for_instances_that_are_kept() -> None:
    """One that hibernates is made for it; one that is only stopped must not end itself when it is shut down."""
    choice = Choice("m7i.large", None, None, "on-demand")
    kept = asked_for(a_recipe(), choice, stop_mode="hibernate")
    assert kept["HibernationOptions"] == {"Configured": True}
    assert "InstanceInitiatedShutdownBehavior" not in kept


def test_volumes_that_are_the_users() -> None:
    """Those that outlive their instance by their declaration are marked, so that nobody takes them for orphans."""
    device = {"DeviceName": "/dev/xvdb", "Ebs": {"DeleteOnTermination": False}}
    asked = asked_for(a_recipe(block_device_map=[device]), Choice("m7i.large", None, None, "on-demand"))
    assert {"Key": "latent:keep", "Value": "1"} in asked["TagSpecifications"][1]["Tags"]


def test_shapes() -> None:
    """Workers of a pool share a shape, and so a launch; what differs does not."""
    choice = Choice("m7i.large", None, None, "on-demand")
    one = shape(asked_for(a_recipe(), choice, name=console_name("linux-1")), "x")
    assert one == shape(asked_for(a_recipe(), choice, name=console_name("linux-22")), "x")
    assert one != shape(asked_for(a_recipe(), choice, name=console_name("linux-1")), "y")
    assert one != shape(asked_for(a_recipe(ami="ami-2"), choice, name=console_name("linux-1")), "x")


# --- what was written for Buildbot ------------------------------------------------------------------------------------------

BUILDBOT = """
from latent.plugins import util, worker

c = BuildmasterConfig = {}
c["workers"] = [
    worker.EC2LatentWorker("positional", "sekrit", "m1.large", "ami-12345", None, None, "203.0.113.7", "AKIAX", "secret"),
    worker.EC2LatentWorker(
        "keywords",
        "sekrit",
        "m1.large",
        ami="ami-12345",
        identifier="AKIAX",
        secret_identifier="secret",
        keypair_name="latent_buildbot_worker",
        security_name="latent_buildbot_worker",
        region="us-west-2",
        placement="b",
        user_data="master=10.0.0.1:9989",
        volumes=[("vol-12345", "/dev/xvdf"), ("vol-abcdef", "/dev/sdz")],
        tags={"SomeTag": "foo"},
        build_wait_timeout=600,
        missing_timeout=1200,
        notify_on_missing="admin@example.org",
    ),
    worker.EC2LatentWorker(
        "searching",
        "sekrit",
        "m1.large",
        valid_ami_owners=[11111111111, 22222222222],
        valid_ami_location_regex=r"buildbot\\-.*\\.([\\d]+)\\.manifest\\.xml",
        keypair_name="key",
        subnet_id="subnet-12345",
        security_group_ids=["sg-12345", "sg-67890"],
        instance_profile_name="buildbot_profile",
        block_device_map=[{"DeviceName": "/dev/xvdb", "Ebs": {"VolumeType": "io1", "Iops": 1000, "VolumeSize": 100}}],
    ),
    worker.EC2LatentWorker(
        "spot",
        "sekrit",
        "m1.large",
        "ami-12345",
        region="us-west-2",
        placement="b",
        spot_instance=True,
        max_spot_price=0.09,
        price_multiplier=1.15,
        product_description="Linux/UNIX",
        keypair_name="key",
        security_name="group",
    ),
]
"""


def test_configurations_of_buildbot(tmp_path: Path) -> None:
    """The same text declares the same workers, but for its import."""
    path = tmp_path / "master.cfg"
    path.write_text(BUILDBOT)
    workers: dict[str, Any] = dict(load(path).workers)
    assert list(workers) == ["positional", "keywords", "searching", "spot"]
    for worker in workers.values():
        set_up(worker)
    assert workers["positional"].options["elastic_ip"] == "203.0.113.7"
    assert workers["positional"].account.key_id == "AKIAX"
    assert workers["keywords"].build_wait_timeout == 600
    assert workers["spot"].options["price_multiplier"] == 1.15


def test_a_fleet(tmp_path: Path) -> None:
    """One declaration, two hundred workers; their instances can share launches."""
    path = tmp_path / "master.cfg"
    path.write_text(
        "from latent.plugins import worker\n"
        'c["workers"] = [worker.EC2LatentWorker("linux-{n}", count=200, instance_type="m7i.large", ami="ami-1")]\n'
    )
    assert len(load(path).workers) == 200


def test_credentials_can_change() -> None:
    """Instances stay up when only the account's key, or another thing that none is made from, is another."""
    one = EC2LatentWorker("w", None, **GOOD, identifier="A", secret_identifier="b", keep_stopped=60)
    other = EC2LatentWorker("w", None, **GOOD, identifier="C", secret_identifier="d", keep_stopped=70)
    assert one.declaration != other.declaration
    assert one.declaration.instance == other.declaration.instance
    assert EC2LatentWorker("w", None, **{**GOOD, "region": "eu-west-2"}).declaration.instance != one.declaration.instance
