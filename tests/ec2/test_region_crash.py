"""What a process before this one began: found, or done again, and in no case twice."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from latent.errors import LatentWorkerCapacityError, PluginError
from latent_ec2.region import Region
from tests.ec2.fake_ec2 import Site, client_error, error_of, result_of


def died(site: Site, count: int, *, sent: bool = True) -> tuple[dict[str, Any], Region]:
    """A controller that died when it had called RunInstances (or was about to), before it heard an answer."""
    site.threads.holding = True
    for n in range(count):
        site.region.launch(site.wish(f"w{n}")).addErrback(lambda failure: None)
    site.pass_time(0.1)
    if sent:
        site.threads.release()
    documents = dict(site.kept)
    return documents, die(site)


def die(site: Site) -> Region:
    """The process ends, with all that it was about to do; answers the region of the next."""
    site.threads.held.clear()
    site.threads.holding = False
    for call in site.clock.getDelayedCalls():
        call.cancel()
    site.ec2.log.clear()
    return site.another()


def relaunched(site: Site, region: Region, documents: dict[str, Any]) -> list[Deferred[Any]]:
    return [region.relaunch(document, site.wish(member.partition("#")[0])) for member, document in documents.items()]


def test_it_was_done() -> None:
    """Each attempt has its instance back; one question finds all."""
    site = Site()
    documents, region = died(site, 20)
    waiting = relaunched(site, region, documents)
    site.pass_time(2)
    instances = [result_of(one) for one in waiting]
    assert [str(one.attempt) for one in instances] == [f"w{n}#1" for n in range(20)]
    assert site.ec2.calls == {"describe_instances": 1}
    assert len(site.ec2.there) == 20


def test_it_was_not_done() -> None:
    """The same call is made again: same ClientToken, members and parameters."""
    site = Site()
    documents, region = died(site, 20, sent=False)
    waiting = relaunched(site, region, documents)
    site.pass_time(2)
    assert [result_of(one).index for one in waiting] == list(range(20))
    (asked,) = site.ec2.asked("run_instances")
    assert asked["ClientToken"] == documents["w0#1"]["launch"]
    assert asked["MaxCount"] == 20
    assert len(site.ec2.there) == 20


def test_it_was_done_but_is_not_known_yet() -> None:
    """EC2 answers the repeated call with what the first one made."""
    site = Site()
    documents, region = died(site, 5)
    site.ec2.unknown_for = 30.0
    waiting = relaunched(site, region, documents)
    site.pass_time(2)
    assert len({result_of(one).id for one in waiting}) == 5
    assert len(site.ec2.there) == 5


def test_the_repetition_is_throttled_and_dies_again() -> None:
    """However often: there is one launch."""
    site = Site()
    documents, region = died(site, 3, sent=False)
    for _ in range(5):
        site.ec2.after["run_instances"] = [client_error("InternalError", status=500)] * 2
        relaunched(site, region, documents)
        site.pass_time(1.5)
        region = die(site)
    waiting = relaunched(site, region, documents)
    site.pass_time(2)
    assert len({result_of(one).id for one in waiting}) == 3
    assert len(site.ec2.there) == 3
    site.pass_time(60)
    assert len(site.ec2.there) == 3


def test_user_data_that_are_others_now() -> None:
    """EC2 refuses the same token with other parameters: so there is a launch, which is looked for."""
    site = Site()
    documents, region = died(site, 2)
    site.ec2.unknown_for = 20.0
    waiting = [
        region.relaunch(document, site.wish(member.partition("#")[0], user_data=lambda _: "other"))
        for member, document in documents.items()
    ]
    site.pass_time(30)
    assert len({result_of(one).id for one in waiting}) == 2
    assert len(site.ec2.there) == 2


def test_only_some_come_back_and_it_was_done() -> None:
    """They have their instances; those of the others are left to whoever destroys them."""
    site = Site()
    documents, region = died(site, 4)
    some = {member: documents[member] for member in ("w1#1", "w3#1")}
    waiting = relaunched(site, region, some)
    site.pass_time(2)
    instances = [result_of(one) for one in waiting]
    assert [one.index for one in instances] == [1, 3]
    assert "run_instances" not in site.ec2.calls
    ended = [region.destroy(documents[member]) for member in ("w0#1", "w2#1")]
    site.pass_time(2)
    assert [result_of(one) for one in ended] == [None, None]
    assert site.ec2.alive() == [one.id for one in instances]


def test_only_some_come_back_and_it_was_not_done() -> None:
    """The others may be launched anew. So nothing is asked for until it is certain; then those who came are launched anew."""
    site = Site()
    documents, region = died(site, 3, sent=False)
    some = {member: documents[member] for member in ("w0#1", "w2#1")}
    waiting = relaunched(site, region, some)
    anew = region.launch(site.wish("w1"))
    site.pass_time(50)
    assert result_of(anew).index == 0
    assert not any(one.called for one in waiting)
    site.pass_time(20)
    assert [result_of(one).index for one in waiting] == [0, 1]
    assert len(site.ec2.there) == 3
    assert {site.kept[-1][1]["launch"], site.kept[-2][1]["launch"]} != {documents["w0#1"]["launch"]}


def test_it_had_room_for_some() -> None:
    """Who got nothing is told so, when it is certain."""
    site = Site()
    site.ec2.room = 2
    documents, region = died(site, 3)
    waiting = relaunched(site, region, documents)
    site.pass_time(2)
    assert [result_of(one).index for one in waiting[:2]] == [0, 1]
    assert not waiting[2].called
    site.pass_time(65)
    assert isinstance(error_of(waiting[2]), LatentWorkerCapacityError)
    assert site.ec2.calls["run_instances"] == 0


def test_it_has_ended_meanwhile() -> None:
    """An instance that is gone is a failed start, not a running one."""
    site = Site()
    documents, region = died(site, 1)
    site.ec2.set(next(iter(site.ec2.there)), "terminated", "Client.UserInitiatedShutdown", "by hand")
    waiting = relaunched(site, region, documents)
    site.pass_time(2)
    assert "is terminated: Client.UserInitiatedShutdown: by hand" in str(error_of(waiting[0]))


def test_cancelled_while_it_comes_back() -> None:
    """What it had is terminated."""
    site = Site()
    documents, region = died(site, 2)
    waiting = relaunched(site, region, documents)
    waiting[0].cancel()
    assert isinstance(error_of(waiting[0]), CancelledError)
    site.pass_time(3)
    assert site.ec2.alive() == [result_of(waiting[1]).id]


def test_it_is_under_way() -> None:
    """Who asks once more while the launch is not answered gets the same instance; whose mind changes, changes no other's."""
    site = Site()
    site.threads.holding = True
    first = site.region.launch(site.wish("w0"))
    site.pass_time(0.1)
    again, given_up = (site.region.relaunch(dict(site.kept)["w0#1"], site.wish("w0")) for _ in range(2))
    given_up.cancel()
    assert isinstance(error_of(given_up), CancelledError)
    site.threads.holding = False
    site.threads.release()
    site.pass_time(2)
    made = result_of(first).id
    assert result_of(again).id == made
    assert site.ec2.alive() == [made]


def test_what_is_under_way_fails() -> None:
    """All who wait for it are told."""
    site = Site()
    site.threads.holding = True
    first = site.region.launch(site.wish("w0"))
    site.pass_time(0.1)
    again = site.region.relaunch(dict(site.kept)["w0#1"], site.wish("w0"))
    first.cancel()
    assert isinstance(error_of(first), CancelledError)
    assert isinstance(error_of(again), CancelledError)
    site.threads.holding = False
    site.threads.release()
    site.pass_time(3)
    assert site.ec2.alive() == []


@pytest.mark.parametrize("document", [{}, None, "i-1", {"instance": None, "members": "w1"}])
def test_a_damaged_document(document: Any) -> None:
    """It is told, and nothing is done."""
    site = Site()
    assert isinstance(error_of(site.region.relaunch(document, site.wish("w1"))), PluginError)
    assert isinstance(error_of(site.region.destroy(document)), PluginError)
    assert site.ec2.calls == {}


# --- destroyed ----------------------------------------------------------------------------------------------------------------


def test_destroyed_by_its_instance() -> None:
    """Where the document has it, nothing is looked for."""
    site = Site()
    (instance,) = site.launched(1)
    document = {**site.kept[0][1], "instance": instance.id}
    site.ec2.log.clear()
    ended = site.another().destroy(document)
    site.pass_time(0.1)
    assert result_of(ended) is None
    assert site.ec2.calls == {"terminate_instances": 1}


def test_destroyed_by_its_launch() -> None:
    """Where it has none, the launch's instance of its index is; the others are not touched."""
    site = Site()
    documents, region = died(site, 3)
    ended = region.destroy(documents["w1#1"])
    site.pass_time(1)
    assert result_of(ended) is None
    assert sorted(site.ec2.there[one]["AmiLaunchIndex"] for one in site.ec2.alive()) == [0, 2]


def test_destroyed_before_ec2_knows_it() -> None:
    """It is not believed to be gone before an instance would be known: then it is found, and ended."""
    site = Site()
    documents, region = died(site, 1)
    site.ec2.unknown_for = 40.0
    ended = region.destroy(documents["w0#1"])
    site.pass_time(30)
    assert not ended.called
    site.pass_time(30)
    assert result_of(ended) is None
    assert site.ec2.alive() == []


def test_destroyed_where_nothing_was_made() -> None:
    """It is certain a minute after the last call that there can have been: the end of the process before this one."""
    site = Site()
    documents, _ = died(site, 1, sent=False)
    site.pass_time(3600, 10)
    region = die(site)
    ended = region.destroy(documents["w0#1"])
    site.pass_time(55)
    assert not ended.called
    site.pass_time(10)
    assert result_of(ended) is None
    later = region.destroy(documents["w0#1"])
    site.pass_time(0.1)
    assert result_of(later) is None


def test_destroyed_when_ec2_has_answered_that_it_made_nothing() -> None:
    """Nothing needs to be looked for."""
    site = Site()
    site.ec2.room = 1
    waiting = [site.region.launch(site.wish(f"w{n}")) for n in range(2)]
    site.pass_time(0.1)
    assert result_of(waiting[0])
    error_of(waiting[1])
    site.ec2.log.clear()
    assert result_of(site.region.destroy(dict(site.kept)["w1#1"])) is None
    assert site.ec2.calls == {}


def test_destroyed_while_the_launch_is_on_its_way() -> None:
    """It waits for the answer, in which the instance is."""
    site = Site()
    site.threads.holding = True
    waiting = site.region.launch(site.wish("w1"))
    site.pass_time(0.1)
    waiting.cancel()
    error_of(waiting)
    ended = site.region.destroy(dict(site.kept)["w1#1"])
    site.pass_time(20)
    assert not ended.called
    site.threads.release()
    site.pass_time(10)
    assert result_of(ended) is None
    assert site.ec2.alive() == []
