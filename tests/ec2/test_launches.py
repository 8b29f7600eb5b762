"""Wishes become launches: whose an instance is can be read from the launch alone, and nothing grows past AWS's limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latent.errors import PluginError
from latent.model import Attempt
from latent_ec2.account import Account
from latent_ec2.instances import CONTROLLER, EXPIRES, LAUNCH, TAG_LENGTH, WORKERS, Instance, member_tags, members_of, parse
from latent_ec2.launches import MOST_MEMBERS, MOST_TAGS, MOST_USER_DATA, compose, from_document, hint, split
from tests.ec2.fake_ec2 import START, Site, table

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", fullmatch=True)
members = st.lists(st.builds(Attempt, names, st.integers(1, 10**9)), min_size=1, max_size=300, unique=True)


def wishes(members: Sequence[Attempt], **more: Any) -> list[Any]:
    site = Site()
    return [site.wish(member.worker, member.number, **more) for member in members]


def tags_of(parameters: dict[str, Any], kind: str) -> dict[str, str]:
    (found,) = [spec["Tags"] for spec in parameters["TagSpecifications"] if spec["ResourceType"] == kind]
    return {tag["Key"]: tag["Value"] for tag in found}


@given(members)
def test_whose_an_instance_is(members: list[Attempt]) -> None:
    """The tags of a launch name its members in order, whatever they are called; an instance picks its own by its index."""
    tags = member_tags(members)
    assert all(len(value) <= TAG_LENGTH for value in tags.values())
    assert list(members_of(tags)) == members
    for index, member in enumerate(members):
        assert Instance(id="i-1", state="running", index=index, tags=tags).attempt == member
    assert Instance(id="i-1", state="running", index=len(members), tags=tags).attempt is None


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"latent:worker": "w1"},
        {"latent:worker": "w1", "latent:attempt": "many"},
        {"latent:members.0": "w1#1,w2"},
        {"latent:members.0": ""},
        {"latent:members.1": "w1#1"},
        {"Name": "latent-w1"},
    ],
)
def test_tags_that_say_nothing(tags: dict[str, str]) -> None:
    """What is not ours, or was changed by hand, is nobody's: an instance is never taken for another worker's."""
    assert Instance(id="i-1", state="running", tags=tags).attempt is None


@given(members)
def test_splitting(members: list[Attempt]) -> None:
    """Everybody is in one launch, in order, and each launch keeps to AWS's limits."""
    asked = wishes(
        members, request={"TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}] * 5}]}
    )
    launches, misfits = split(asked)
    assert misfits == []
    assert [wish for launch in launches for wish in launch] == asked
    for launch in launches:
        parameters = compose(launch, START).parameters(table)
        assert len(launch) <= MOST_MEMBERS
        assert len(parameters["UserData"].encode()) <= MOST_USER_DATA
        assert len(tags_of(parameters, "instance")) <= MOST_TAGS


def test_a_hundred_are_one_launch() -> None:
    """With user data of a line each, a hundred workers are started by one call."""
    launches, _ = split(wishes([Attempt(f"linux-{n}", 1) for n in range(1, 101)]))
    assert [len(launch) for launch in launches] == [100]


def test_who_does_not_fit_alone() -> None:
    """User data that are too long for one are its own fault only."""

    def text(members: Sequence[Attempt]) -> str:
        return "".join("x" * (20_000 if member.worker == "huge" else 10) for member in members)

    asked = wishes([Attempt(name, 1) for name in ("w1", "huge", "w2")], user_data=text)
    launches, misfits = split(asked)
    assert [wish.member.worker for launch in launches for wish in launch] == ["w1", "w2"]
    assert [(wish.member.worker, why) for wish, why in misfits] == [("huge", "user data is 20000 bytes, where EC2 takes 16384")]


def test_what_is_asked_for() -> None:
    """One call for all; the tags are in it, for the instance and its volumes, beside the user's own."""
    own = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "ci"}, {"Key": CONTROLLER, "Value": "forged"}]}]
    asked = wishes([Attempt("w1", 3), Attempt("w2", 7)], request={"ImageId": "ami-1", "TagSpecifications": own}, expiry=600.0)
    launch = compose(asked, START)
    parameters = launch.parameters(table)
    assert (parameters["MinCount"], parameters["MaxCount"]) == (1, 2)
    assert parameters["ImageId"] == "ami-1"
    assert len(parameters["ClientToken"]) <= 64
    assert parameters["UserData"] == table([Attempt("w1", 3), Attempt("w2", 7)])
    tags = tags_of(parameters, "instance")
    assert tags["Name"] == "ci"
    assert tags[CONTROLLER] == asked[0].controller_id
    assert tags[LAUNCH] == parameters["ClientToken"]
    assert tags[EXPIRES] == str(int(START) + 600)
    assert tags[WORKERS] == "w1, w2"
    assert tags["latent:members.0"] == "w1#3,w2#7"
    assert tags_of(parameters, "volume")[LAUNCH] == launch.token
    assert {spec["ResourceType"] for spec in parameters["TagSpecifications"]} == {"instance", "volume"}


def test_a_spot_request_is_tagged_too() -> None:
    """It outlives a launch that failed halfway, and is found by its tags."""
    asked = wishes([Attempt("w1", 1)], request={"InstanceMarketOptions": {"MarketType": "spot"}})
    tags = tags_of(compose(asked, START).parameters(table), "spot-instances-request")
    assert (tags["latent:worker"], tags["latent:attempt"]) == ("w1", "1")


def test_the_same_launch_has_the_same_token() -> None:
    """Also at another time; another order, member or request makes another."""
    w1, w2 = Attempt("w1", 1), Attempt("w2", 1)
    token = compose(wishes([w1, w2]), START).token
    assert compose(wishes([w1, w2]), START + 1000).token == token
    others = [
        compose(wishes([w2, w1]), START).token,
        compose(wishes([w1]), START).token,
        compose(wishes([w1, Attempt("w2", 2)]), START).token,
        compose(wishes([w1, w2], request={"ImageId": "ami-2"}), START).token,
    ]
    assert len({token, *others}) == 5


@given(members)
def test_a_document_repeats_the_launch(members: list[Attempt]) -> None:
    """What a member keeps says all that the call was made with, but no secret, and JSON can say it."""
    account = Account(region="eu-west-1", key_id="AKIAEXAMPLEXY", secret="very secret", session_token="as secret")
    launch = compose(wishes(members), START)
    index = len(members) - 1
    text = json.dumps(launch.document(account, index))
    assert "secret" not in text
    again, found = from_document(json.loads(text))
    assert (again, found) == (launch, index)
    assert again.parameters(table) == launch.parameters(table)


@pytest.mark.parametrize("document", [None, {}, {"members": ["w1"], "index": 0}, {"members": ["w1#1"], "index": 1}, [1], "i-1"])
def test_a_document_that_is_none(document: Any) -> None:
    """It is told, with where to look."""
    with pytest.raises(PluginError, match="console"):
        from_document(document)


@given(members)
def test_the_hint_fits(members: list[Attempt]) -> None:
    """For who looks at the console: as many names as a tag can hold."""
    assert 0 < len(hint(members)) <= TAG_LENGTH


def test_what_is_read_of_an_instance() -> None:
    """An answer that has next to nothing is understood as well."""
    bare = parse({"InstanceId": "i-1"})
    assert (bare.state, bare.index, bare.attempt, bare.expires, bare.launched_at) == ("pending", 0, None, None, None)
    full = parse(
        {
            "InstanceId": "i-2",
            "State": {"Name": "terminated"},
            "StateReason": {"Code": "Server.SpotInstanceTermination", "Message": "Spot instance termination"},
            "InstanceLifecycle": "spot",
            "Placement": {"AvailabilityZone": "eu-west-1a"},
            "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeId": "vol-1"}}, {"DeviceName": "/dev/sdb"}],
            "Tags": [{"Key": EXPIRES, "Value": "soon"}],
        }
    )
    assert full.gone
    assert full.reason == ("Server.SpotInstanceTermination", "Spot instance termination")
    assert (full.market, full.zone, full.volumes, full.expires) == ("spot", "eu-west-1a", {"/dev/xvda": "vol-1"}, None)


def test_an_account_tells_no_secret() -> None:
    """Neither its representation nor its label; what is equal is shared."""
    account = Account(region="eu-west-1", key_id="AKIAEXAMPLEXY", secret="very secret", session_token="as secret")
    assert "secret" not in repr(account).replace("secret=", "")
    assert "very" not in repr(account)
    assert account.label == "ec2 eu-west-1 (AKIA…XY)"
    assert account == Account(region="eu-west-1", key_id="AKIAEXAMPLEXY", secret="very secret", session_token="as secret")
    assert account != Account(region="eu-west-2", key_id="AKIAEXAMPLEXY", secret="very secret", session_token="as secret")
    assert hash(Account(session=object())) is not None
