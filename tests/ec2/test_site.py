"""A whole controller with EC2 workers, in all weathers of the test cloud: real boto3, real user data, real agents."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from latent_ec2.instances import ATTEMPT, CONTROLLER, EXPIRES, WORKER
from tests.ec2.site import Ec2Site, MakeSite

if TYPE_CHECKING:
    from latent.testing.ec2 import Cloud


def why(site: Ec2Site, build: int, text: str) -> None:
    """Wait until `latent why` says this of the build, which is then cancelled."""
    site.wait(f"{text!r} in latent why", lambda: text in site.latent("why", str(build)))
    site.call("POST", f"builds/{build}/cancel", reason="seen enough")
    site.wait("the build to end", lambda: site.builds()[build]["state"] == "finished")


def foreign(cloud: Cloud, **tags: str) -> str:
    """An instance of somebody else's."""
    listed = [{"Key": key.replace("__", ":"), "Value": value} for key, value in tags.items()]
    specified = [{"ResourceType": "instance", "Tags": listed}] if listed else []
    asked = {"ImageId": cloud.image, "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1, "TagSpecifications": specified}
    launched: dict[str, Any] = cloud.client().run_instances(**asked)
    return str(launched["Instances"][0]["InstanceId"])


SETTLED = """
from latent_ec2.region import Region
Region.__init__.__kwdefaults__["settles"] = 2.0
"""
"""EC2 may not know a new instance for a minute, so that one that is gone is believed in for as long; this cloud always does."""


# --- the budget --------------------------------------------------------------------------------------------------------------


def test_throttled(site: MakeSite, cloud: Cloud) -> None:
    """Where EC2 takes two calls a second, twenty workers that are wanted at once all start, none twice, and no build notices."""
    one = site(count=20)
    one.latent("start")
    cloud.throttle(2)
    asked = [one.submit("true", labels={"worker": f"ec2-{n}"}) for n in range(1, 21)]
    builds = one.wait_for_all()
    one.no_instance_left()
    assert [(builds[n]["result"], builds[n]["attempts"]) for n in asked] == [("success", 1)] * 20
    assert not any(run["error_msg"] for n in asked for run in one.build(n)["runs"])
    assert one.starts() == {f"ec2-{n}#1": 1 for n in range(1, 21)}
    assert any(call.error == "RequestLimitExceeded" for call in cloud.log)
    assert "throttled" in one.run("health", "--all").stdout
    one.latent("stop")


# --- room --------------------------------------------------------------------------------------------------------------------


def test_no_room(site: MakeSite, cloud: Cloud) -> None:
    """Without room for the first two choices the third is taken, and the first two are not asked for again meanwhile."""
    first, second, *_ = (cloud.subnets[zone] for zone in sorted(cloud.subnets))
    cloud.insufficient(subnet=first)
    cloud.insufficient(instance_type="m5.large", subnet=second)
    one = site(count=3, instance_type=["m5.large", "m6i.large"], subnet_id=[first, second], build_wait_timeout=0)
    one.latent("start")

    def tried() -> list[tuple[str, str, str]]:
        launches = [call for call in cloud.log if call.action == "RunInstances"]
        return [(call.parameters["InstanceType"], call.parameters["SubnetId"], call.error) for call in launches]

    full = "InsufficientInstanceCapacity"
    refused = [("m5.large", first, full), ("m5.large", second, full), ("m6i.large", first, full)]
    one.submit("true", labels={"worker": "ec2-1"})
    one.wait_for_all()
    assert tried() == [*refused, ("m6i.large", second, "")]
    cloud.heal()
    for worker in ("ec2-2", "ec2-3", "ec2-1"):
        one.submit("true", labels={"worker": worker})
        one.wait_for_all()
    assert tried() == [*refused, *[("m6i.large", second, "")] * 4]
    assert "no room: m5.large" in one.run("health", "--all").stdout
    one.no_instance_left()
    one.latent("stop")


def test_spot_falls_back(site: MakeSite, cloud: Cloud) -> None:
    """Where spot requests are never fulfilled, an instance on demand serves, if it may; else the build waits and says why."""
    cloud.spot_never_fulfilled()
    one = site(spot_instance=True, spot_fallback=True)
    one.latent("start")
    number = one.submit("true")
    assert one.wait_for_all()[number]["result"] == "success"
    one.no_instance_left()
    assert [seen.market for seen in cloud.instances()] == ["on-demand"]
    one.configure(one.config.replace("spot_fallback=True", "spot_fallback=False"))
    one.latent("reconfig")
    why(one, one.submit("true"), "no choice has room")
    one.latent("stop")


def test_quota(site: MakeSite, cloud: Cloud) -> None:
    """Where the account may have one instance, builds take turns; who has to wait is told AWS's code."""
    cloud.quota(1)
    one = site(count=2, more='c["limits"] = {}\n')
    one.latent("start")
    go = one.directory / "go"
    first = one.submit(f"while [ ! -e {go} ]; do sleep 0.1; done", labels={"worker": "ec2-1"})
    one.wait("the first build to run", lambda: one.builds()[first]["state"] == "running")
    second = one.submit("true", labels={"worker": "ec2-2"})
    why(one, second, "InstanceLimitExceeded")
    go.touch()
    assert one.wait_for_all()[first]["result"] == "success"
    one.latent("stop")


# --- what becomes of instances -----------------------------------------------------------------------------------------------


def test_spot_notice(site: MakeSite, cloud: Cloud) -> None:
    """A build on a spot instance that EC2 takes back is queued again, and succeeds elsewhere long before the instance is gone."""
    one = site(count=2, spot_instance=True, build_wait_timeout=0)
    one.latent("start")
    go = one.directory / "go"
    number = one.submit(f"while [ ! -e {go} ]; do sleep 0.1; done")
    one.wait("the build to run", lambda: one.builds()[number]["state"] == "running")
    (taken,) = cloud.instances("running")
    noticed = time.time()
    cloud.spot_notice(taken.id, seconds=120)
    one.wait("another try", lambda: len(one.build(number)["runs"]) > 1)
    go.touch()
    build = one.wait_for_all()[number]
    assert (build["result"], build["attempts"]) == ("success", 2)
    runs = one.build(number)["runs"]
    assert [run["status"] for run in runs] == ["interrupted", "completed"]
    print(f"from the notice to the success elsewhere: {runs[1]['ended_at'] - noticed:.1f} s")
    one.no_instance_left()
    one.latent("stop")


def test_gone(site: MakeSite, cloud: Cloud) -> None:
    """An instance that is terminated, or vanishes, behind the controller's back: its build is tried again on a new one."""
    one = site(check_instance_interval=0.5, more=SETTLED)
    one.latent("start")
    for n, go_wrong in enumerate((cloud.interrupt, cloud.vanish)):
        go = one.directory / f"go.{n}"
        number = one.submit(f"while [ ! -e {go} ]; do sleep 0.1; done")
        one.wait("the build to run", lambda number=number: one.builds()[number]["state"] == "running")
        gone = cloud.instances("running")[-1].id
        go_wrong(gone)
        one.wait("its processes to go", lambda gone=gone: not cloud.processes(gone))
        go.touch()
        one.wait("another try", lambda number=number: len(one.build(number)["runs"]) > 1)
        assert one.wait_for_all()[number]["result"] == "success"
    one.no_instance_left()
    one.latent("stop")


def test_an_hour_later(site: MakeSite, cloud: Cloud) -> None:
    """A controller that was away: what is past its expiry is reaped at the next start, also when nobody remembers it or its
    controller has not been heard of for as long; what others own is left alone, whatever it is called."""
    one = site(build_wait_timeout=3600)
    one.latent("start")
    one.submit("true")
    one.wait_for_all()
    (mine,) = cloud.instances("running")
    ours = mine.tags[CONTROLLER]
    one.kill_controller()
    expired = f"{time.time() - 3600:.0f}"
    cloud.client().create_tags(Resources=[mine.id], Tags=[{"Key": EXPIRES, "Value": expired}])
    of_nobody = {"Name": "ec2-*", WORKER: "ec2-1", ATTEMPT: "7"}
    tagged = {key.replace(":", "__"): value for key, value in {**of_nobody, CONTROLLER: ours, EXPIRES: expired}.items()}
    stray = foreign(cloud, **tagged)
    abandoned = foreign(cloud, **{**tagged, "latent__controller": "e" * 32})
    others = [
        foreign(cloud),
        foreign(cloud, Name=mine.tags["Name"]),
        foreign(cloud, **{**tagged, "latent__controller": "f" * 32, "latent__expires": f"{time.time() + 3600:.0f}"}),
        foreign(cloud, **{key: value for key, value in tagged.items() if key != "latent__controller"}),
    ]
    one.latent("start")
    one.wait("ours to go", lambda: sorted(seen.id for seen in one.up()) == sorted(others))
    assert {cloud.instance(each).state for each in (mine.id, stray, abandoned)} == {"terminated"}
    number = one.submit("true")
    assert one.wait_for_all()[number]["result"] == "success"
    one.latent("stop")
    assert sorted(seen.id for seen in one.up()) == sorted(others)


# --- bad declarations --------------------------------------------------------------------------------------------------------


def test_mistakes(site: MakeSite) -> None:
    """Wrong credentials, AMI or subnet: `checkconfig --live` says so, and so does the build that waits, with AWS's code."""
    wrong = {
        "AuthFailure": {"secret_identifier": "wrong"},
        "InvalidAMIID.NotFound": {"ami": "ami-00000000000000000"},
        "InvalidSubnetID.NotFound": {"subnet_id": "subnet-00000000000000000"},
    }
    one = site()
    declared = [one.declared(f"wrong-{n}", **keywords) for n, keywords in enumerate(wrong.values())]
    one.configure(f"c['workers'] = [{', '.join(declared)}]")
    checked = one.run("checkconfig", "--live")
    assert checked.returncode != 0
    for code in wrong:
        assert code in checked.stdout + checked.stderr
    one.latent("start")
    for n, code in enumerate(wrong):
        why(one, one.submit("true", labels={"worker": f"wrong-{n}"}), code)
    one.latent("stop")


def test_expired_session(site: MakeSite, cloud: Cloud) -> None:
    """Session credentials that expire: starts say so and what to do; with new ones, all goes on, and nothing is left."""
    cloud.renew_credentials()
    one = site(build_wait_timeout=3600, check_instance_interval=0.5)
    one.latent("start")
    one.submit("true")
    one.wait_for_all()
    cloud.expire_credentials()
    go_on = one.submit("true", labels={"worker": "ec2-1"})
    assert one.wait_for_all()[go_on]["result"] == "success"
    one.wait("the region to be down", lambda: "RequestExpired" in one.run("health", "--all").stdout)
    cloud.renew_credentials()
    renewed = site(build_wait_timeout=0)
    renewed.latent("reconfig")
    one.no_instance_left()
    one.latent("stop")
