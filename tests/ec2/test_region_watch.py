"""What a region sees of its instances: one question for all, as seldom as will do, and nothing is missed."""

from __future__ import annotations

import gc
import weakref
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from latent_ec2.account import Account
from latent_ec2.faults import CredentialsRefused
from latent_ec2.instances import EXPIRES, Instance
from latent_ec2.region import Region
from tests.ec2.fake_ec2 import CONTROLLER, START, Site, client_error, error_of, result_of


class Ear:
    """Hears of an instance."""

    def __init__(self) -> None:
        self.heard: list[Instance | None] = []

    def __call__(self, instance: Instance | None) -> None:
        self.heard.append(instance)

    @property
    def states(self) -> list[str]:
        return ["none" if one is None else one.state for one in self.heard]


def watched(site: Site, count: int, **more: Any) -> list[tuple[Instance, Ear]]:
    found = []
    for instance in site.launched(count):
        ear = Ear()
        site.region.watch(instance.id, ear, **more)
        found.append((instance, ear))
    return found


def running(site: Site, count: int, **more: Any) -> list[tuple[Instance, Ear]]:
    found = watched(site, count, **more)
    site.ec2.run_all()
    site.pass_time(6)
    assert all(ear.states == ["running"] for _, ear in found)
    site.ec2.log.clear()
    return found


# --- the budget of calls ------------------------------------------------------------------------------------------------------


def test_a_hundred_workers_in_fifteen_calls() -> None:
    """Started at once, watched until they run, and terminated one by one as their builds end: 15 calls at most."""
    site = Site()
    everybody = watched(site, 100)
    for n in range(40):
        site.pass_time(1)
        for instance, _ in everybody[n * 5 : n * 5 + 5] if n >= 10 else ():
            site.ec2.set(instance.id, "running")
    site.ec2.run_all()
    site.pass_time(20)
    assert all(ear.states[-1] == "running" for _, ear in everybody)
    ended = []
    for instance, ear in everybody:
        site.region.unwatch(instance.id, ear)
        ended.append(site.region.end(instance.id))
        site.pass_time(0.3)
    site.pass_time(30)
    assert all(one.called for one in ended)
    assert site.ec2.alive() == []
    assert sum(site.ec2.calls.values()) <= 15, site.ec2.calls
    assert site.ec2.calls == site.region.status().calls
    assert site.clock.getDelayedCalls() == []


def test_nobody_waits() -> None:
    """A region that is not asked for anything asks for nothing."""
    site = Site()
    site.launched(3)
    site.pass_time(600)
    assert site.ec2.calls == {"run_instances": 1}
    assert site.clock.getDelayedCalls() == []


def test_one_question_for_all() -> None:
    """Each look is one call, however many are watched, and looks are seconds apart."""
    site = Site()
    watched(site, 100)
    site.ec2.log.clear()
    site.pass_time(60)
    looks = [call.at for call in site.ec2.log]
    assert {call.operation for call in site.ec2.log} == {"describe_instances"}
    assert 6 <= len(looks) <= 9
    assert min(later - earlier for earlier, later in pairwise(looks)) >= 4.9


def test_the_longer_it_takes_the_fewer_looks() -> None:
    """An instance that stays pending is looked at ever more seldom."""
    site = Site()
    watched(site, 1)
    site.pass_time(3600)
    assert site.ec2.calls["describe_instances"] < 200


def test_quiet_while_all_run() -> None:
    """From instances that run nothing is awaited: they are looked at within the interval that their watchers give."""
    site = Site()
    running(site, 10, every=60.0)
    site.pass_time(300)
    assert site.ec2.calls["describe_instances"] == 5


def test_watchers_that_come_and_go_make_no_more_looks() -> None:
    """One start each second: the looks are still seconds apart."""
    site = Site()
    for n in range(60):
        waiting = site.region.launch(site.wish(f"w{n}"))
        site.pass_time(1)
        instance = result_of(waiting)
        site.region.watch(instance.id, Ear())
    assert site.ec2.calls["describe_instances"] <= 13


# --- what is heard ------------------------------------------------------------------------------------------------------------


def test_changes_are_told_once() -> None:
    """Each when it is seen, and not again."""
    site = Site()
    ((instance, ear),) = watched(site, 1)
    site.ec2.set(instance.id, "running")
    site.ec2.there[instance.id]["PrivateIpAddress"] = "10.0.0.1"
    site.pass_time(120)
    assert ear.states == ["running"]
    assert ear.heard[0] is not None
    assert ear.heard[0].private_ip == "10.0.0.1"
    assert site.region.known(instance.id) == ear.heard[0]


@pytest.mark.parametrize("every", [10.0, 30.0])
def test_a_running_instance_vanishes(every: float) -> None:
    """It is noticed within the interval: None, and no more is heard or asked."""
    site = Site()
    (one, ear), (other, _) = running(site, 2, every=every)
    site.pass_time(61)
    site.ec2.forget(one.id)
    site.pass_time(every + 0.1)
    assert ear.states == ["running", "none"]
    site.region.unwatch(other.id)
    site.ec2.log.clear()
    site.pass_time(600)
    assert ear.states == ["running", "none"]
    assert site.ec2.calls == {}
    assert site.clock.getDelayedCalls() == []


def test_a_running_instance_is_terminated_by_somebody() -> None:
    """EC2's reason is told."""
    site = Site()
    ((instance, ear),) = running(site, 1)
    site.ec2.set(instance.id, "terminated", "Server.SpotInstanceTermination", "Spot instance termination")
    site.pass_time(31)
    assert ear.heard[-1] is not None
    assert ear.heard[-1].gone
    assert ear.heard[-1].reason == ("Server.SpotInstanceTermination", "Spot instance termination")
    assert site.clock.getDelayedCalls() == []


def test_a_new_instance_that_ec2_does_not_know_yet() -> None:
    """For a minute it counts as pending; then it counts as gone."""
    site = Site()
    site.ec2.unknown_for = 30.0
    ((instance, ear),) = watched(site, 1)
    looked = site.region.look(instance.id)
    site.pass_time(25)
    assert result_of(looked).state == "pending"
    assert ear.states == []
    site.ec2.run_all()
    site.pass_time(20)
    assert ear.states == ["running"]


def test_a_new_instance_that_never_comes() -> None:
    """After a minute it is told that there is none."""
    site = Site()
    site.ec2.unknown_for = 1e6
    ((_, ear),) = watched(site, 1)
    site.pass_time(59)
    assert ear.states == []
    site.pass_time(10)
    assert ear.states == ["none"]


def test_an_instance_of_another_process_that_is_young() -> None:
    """Who knows when it was launched says so, and it counts as pending as long."""
    site = Site()
    asked = site.region.look("i-0abc", born=site.wall() - 20)
    stranger = site.region.look("i-0def")
    site.pass_time(0.1)
    assert result_of(asked).state == "pending"
    assert result_of(stranger) is None
    site.pass_time(60)
    asked = site.region.look("i-0abc", born=START - 20)
    site.pass_time(2)
    assert result_of(asked) is None


def test_two_listen_to_one() -> None:
    """Each until it listens no more; one that raises keeps the other from nothing."""
    site = Site()
    (instance,) = site.launched(1)
    first, second = Ear(), Ear()
    site.region.watch(instance.id, first)
    site.region.watch(instance.id, second)
    site.region.unwatch(instance.id, first)
    site.ec2.run_all()
    site.pass_time(6)
    assert (first.states, second.states) == ([], ["running"])
    site.region.unwatch(instance.id)
    site.pass_time(100)
    assert site.clock.getDelayedCalls() == []


def test_a_listener_that_fails(flush_logged_errors: Any) -> None:
    """It is logged, and the others hear all the same."""
    site = Site()
    (instance,) = site.launched(1)
    ear = Ear()
    site.region.watch(instance.id, lambda _: 1 / 0)
    site.region.watch(instance.id, ear)
    site.ec2.run_all()
    site.pass_time(6)
    assert ear.states == ["running"]
    assert len(flush_logged_errors(ZeroDivisionError)) == 1


# --- looks --------------------------------------------------------------------------------------------------------------------


def test_looks_are_shared() -> None:
    """Everybody who asks within a moment is answered by one call, after which nothing is asked any more."""
    site = Site()
    instances = site.launched(50)
    site.ec2.run_all()
    site.ec2.log.clear()
    looks = [site.region.look(one.id) for one in instances]
    site.pass_time(0.1)
    assert {result_of(one).state for one in looks} == {"running"}
    assert site.ec2.calls == {"describe_instances": 1}
    assert site.clock.getDelayedCalls() == []


def test_a_look_that_is_given_up() -> None:
    """It is not asked for nobody."""
    site = Site()
    (instance,) = site.launched(1)
    look = site.region.look(instance.id)
    look.cancel()
    assert isinstance(error_of(look), CancelledError)
    site.pass_time(1)
    assert "describe_instances" not in site.ec2.calls
    assert site.clock.getDelayedCalls() == []


def test_who_comes_while_it_is_asked_gets_the_next_answer() -> None:
    """The running one may have passed by what they look for."""
    site = Site()
    (instance,) = site.launched(1)
    site.threads.holding = True
    first = site.region.look(instance.id)
    site.pass_time(0.1)
    second = site.region.look(instance.id)
    site.threads.release()
    assert result_of(first).state == "pending"
    site.ec2.run_all()
    assert not second.called
    site.pass_time(2)
    assert result_of(second).state == "running"


def test_a_look_that_fails() -> None:
    """Its error is told; those who watch go on."""
    site = Site()
    ((instance, ear),) = running(site, 1)
    site.ec2.faults["describe_instances"] = [client_error("AuthFailure")]
    look = site.region.look(instance.id)
    site.pass_time(2)
    assert isinstance(error_of(look), CredentialsRefused)
    assert "AuthFailure" in site.region.status().down
    site.ec2.set(instance.id, "stopped")
    site.pass_time(60)
    assert ear.states == ["running", "stopped"]
    assert site.region.status().down == ""


def test_throttled_looks_wait() -> None:
    """A look that is throttled is made again, and nobody is told of it."""
    site = Site()
    ((_, ear),) = watched(site, 1)
    site.ec2.faults["describe_instances"] = [client_error("Throttling")] * 3
    site.ec2.run_all()
    site.pass_time(30)
    assert ear.states == ["running"]
    assert site.region.status().throttles == 3


# --- many ---------------------------------------------------------------------------------------------------------------------


def test_pages() -> None:
    """An answer in pages is read to its end."""
    site = Site()
    everybody = watched(site, 100)
    site.ec2.page = 30
    site.ec2.run_all()
    site.ec2.log.clear()
    site.pass_time(6)
    assert all(ear.states == ["running"] for _, ear in everybody)
    assert site.ec2.calls == {"describe_instances": 4}


def test_a_thousand_instances() -> None:
    """Once they have been seen, one call looks at a thousand; one that is unknown does not hide the others."""
    site = Site()
    everybody = watched(site, 1000)
    site.ec2.run_all()
    site.pass_time(8)
    assert all(ear.states == ["running"] for _, ear in everybody)
    site.pass_time(61)
    site.ec2.log.clear()
    site.ec2.forget(everybody[7][0].id)
    site.pass_time(30)
    assert everybody[7][1].states == ["running", "none"]
    assert all(ear.states == ["running"] for n, (_, ear) in enumerate(everybody) if n != 7)
    assert site.ec2.calls == {"describe_instances": 2}


def test_finding() -> None:
    """By launch: all that it made; by controller: what is not gone; of anybody: what carries our tags."""
    site = Site()
    site.launched(3)
    first, second, third = site.ec2.there
    site.ec2.set(second, "terminated")
    site.ec2.there["i-foreign"] = {
        **site.ec2.there[third],
        "InstanceId": "i-foreign",
        "Tags": [{"Key": "Name", "Value": "latent"}],
    }
    site.ec2.there["i-other"] = {
        **site.ec2.there[third],
        "InstanceId": "i-other",
        "ClientToken": "",
        "Tags": [{"Key": "latent:controller", "Value": "else"}],
    }
    launch = site.kept[0][1]["launch"]
    site.ec2.log.clear()
    by_launch = [site.region.find(launch=launch), site.region.find(launch=launch), site.region.find(launch="unknown")]
    site.pass_time(0.1)
    assert [one.id for one in result_of(by_launch[0])] == [first, second, third, "i-foreign"]
    assert result_of(by_launch[2]) == []
    assert site.ec2.calls == {"describe_instances": 1}
    assert [one.id for one in result_of(site.region.find(controller=CONTROLLER))] == [first, third]
    assert [one.id for one in result_of(site.region.find())] == [first, third, "i-other"]


# --- by the way ---------------------------------------------------------------------------------------------------------------


def test_expiry_is_pushed_forward_for_all_at_once() -> None:
    """When half of somebody's time is over, in one call for all that are due; while nobody watches, it is left to run out."""
    site = Site()
    everybody = running(site, 50, expiry=7200.0)
    site.pass_time(3500, 5)
    assert "create_tags" not in site.ec2.calls
    heard = [len(ear.heard) for _, ear in everybody]
    site.pass_time(200, 5)
    (asked,) = site.ec2.asked("create_tags")
    assert sorted(asked["Resources"]) == sorted(instance.id for instance, _ in everybody)
    ((key, value),) = [(tag["Key"], tag["Value"]) for tag in asked["Tags"]]
    assert key == EXPIRES
    assert float(value) == pytest.approx(site.wall() + 7200, abs=200)
    assert [len(ear.heard) for _, ear in everybody] == heard
    for instance, _ in everybody:
        site.region.unwatch(instance.id)
    site.pass_time(7200, 5)
    assert site.ec2.calls["create_tags"] == 1


def test_expiry_of_those_that_are_nearly_due_goes_with_it() -> None:
    """So that it stays one call, although they were not launched at once; with None it is left alone."""
    site = Site()
    first = site.launched(1)[0]
    site.pass_time(600, 5)
    waiting = [site.region.launch(site.wish("later")), site.region.launch(site.wish("mortal"))]
    site.pass_time(0.1)
    later, mortal = map(result_of, waiting)
    site.ec2.run_all()
    for instance in (first, later):
        site.region.watch(instance.id, Ear())
    site.region.watch(mortal.id, Ear(), expiry=None)
    site.pass_time(3600, 5)
    (asked,) = site.ec2.asked("create_tags")
    assert set(asked["Resources"]) == {first.id, later.id}


def test_expiry_of_an_instance_whose_agent_is_silent() -> None:
    """It is left to run out, and pushed forward again as soon as the agent is heard."""
    site = Site()
    (instance,) = site.launched(1)
    alive = [True]
    site.ec2.run_all()
    site.region.watch(instance.id, Ear(), wanted=lambda: alive[0])
    site.pass_time(3700, 5)
    assert site.ec2.calls["create_tags"] == 1
    alive[0] = False
    site.pass_time(5000, 5)
    assert site.ec2.calls["create_tags"] == 1
    alive[0] = True
    site.pass_time(60, 5)
    assert site.ec2.calls["create_tags"] == 2


def test_expiry_that_can_not_be_pushed_for_one() -> None:
    """The others' is, and it is tried again."""
    site = Site()
    everybody = running(site, 3)
    site.pass_time(3500, 5)
    site.ec2.faults["create_tags"] = [client_error("InvalidInstanceID.NotFound", f"The instance ID '{everybody[1][0].id}'")]
    site.pass_time(200, 5)
    assert [len(asked["Resources"]) for asked in site.ec2.asked("create_tags")] == [3, 2, 1]


def test_status_checks() -> None:
    """Every two minutes, in one call for all that run; what is impaired is told."""
    site = Site()
    (one, sick), (_, well) = running(site, 2, every=30.0)
    site.pass_time(130)
    assert site.ec2.calls["describe_instance_status"] == 1
    assert [instance.health for instance in sick.heard if instance] == ["", "ok"]
    site.ec2.impaired.add(one.id)
    site.pass_time(150)
    assert sick.heard[-1] is not None
    assert sick.heard[-1].health == "its instance status is impaired (reachability failed)"
    assert len(well.heard) == 2


def test_a_hundred_and_one_status_checks() -> None:
    """More than can be asked for by name are found among all that run."""
    site = Site()
    everybody = running(site, 101)
    site.pass_time(130)
    (asked,) = site.ec2.asked("describe_instance_status")
    assert "InstanceIds" not in asked
    assert all(ear.heard[-1] and ear.heard[-1].health == "ok" for _, ear in everybody)


# --- sharing ------------------------------------------------------------------------------------------------------------------


def test_one_region_for_all_who_mean_the_same() -> None:
    """It is kept by whoever uses it, and goes with them."""
    site = Site()

    class Reactor:
        seconds = site.clock.seconds

    reactor = Reactor()
    account = Account(region="eu-west-1", key_id="AKIA", secret="x")
    region = Region.of(account, reactor)
    assert Region.of(Account(region="eu-west-1", key_id="AKIA", secret="x"), reactor) is region
    assert Region.of(Account(region="eu-west-2", key_id="AKIA", secret="x"), reactor) is not region
    assert Region.of(account, Reactor()) is not region
    gone = weakref.ref(region)
    del region
    gc.collect()
    assert gone() is None


def test_any_other_call() -> None:
    """It is under the same budget, with the same errors."""
    site = Site()
    assert result_of(site.region.call("describe_images", Owners=["self"])) == {"Images": []}
    site.ec2.faults["describe_images"] = [client_error("Throttling"), client_error("InvalidAMIID.Malformed")]
    asked = site.region.call("describe_images")
    site.pass_time(5)
    assert "correct ami" in str(error_of(asked))
    site.ec2.faults["describe_images"] = [client_error("Unavailable", status=503)] * 100
    asked = site.region.call("describe_images")
    site.pass_time(100)
    assert "own failure" in str(error_of(asked))
