"""boto3's EC2 client as far as a region uses it, and threads without threads: what EC2 does is what the test says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import attrs
from botocore.exceptions import ClientError
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from latent.model import Attempt
from latent_ec2.account import Account
from latent_ec2.calls import Calls
from latent_ec2.instances import Instance
from latent_ec2.launches import Wish
from latent_ec2.region import Region

CONTROLLER = "c0ffee" * 5
START = 1_700_000_000.0
"""POSIX seconds when a test's clock says 0."""


def client_error(code: str, message: str = "it says so", status: int = 400, operation: str = "Operation") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation)


class Threads:
    """In place of a ThreadPool: calls are made at once, or wait in ``held`` while `holding`."""

    def __init__(self) -> None:
        self.holding = False
        self.held: list[Callable[[], None]] = []

    def run(self, func: Callable[..., Any], *args: Any, adopt: Callable[[Any], object]) -> Deferred[Any]:
        abandoned = []
        answer: Deferred[Any] = Deferred(lambda _: abandoned.append(True))

        def work() -> None:
            try:
                result = func(*args)
            except Exception:
                if not abandoned:
                    answer.errback(Failure())
                return
            adopt(result) if abandoned else answer.callback(result)

        if self.holding:
            self.held.append(work)
        else:
            work()
        return answer

    def release(self) -> None:
        self.holding = False
        held, self.held = self.held, []
        for work in held:
            work()


@attrs.define
class Called:
    at: float
    operation: str
    parameters: dict[str, Any]


class FakeEC2:
    """``faults``: operation -> what its next calls raise, one each (None: nothing); ``after``: the same, when it is done."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.log: list[Called] = []
        self.there: dict[str, dict[str, Any]] = {}
        self.faults: dict[str, list[Exception | None]] = {}
        self.after: dict[str, list[Exception | None]] = {}
        self.room = 10_000
        self.page = 1_000
        self.unknown_for = 0.0
        self.impaired: set[str] = set()
        self.throttle: Callable[[str], bool] = lambda operation: False
        self._launches: dict[str, tuple[str, list[str]]] = {}
        self._count = 0

    @property
    def calls(self) -> Counter[str]:
        return Counter(call.operation for call in self.log)

    def asked(self, operation: str) -> list[dict[str, Any]]:
        return [call.parameters for call in self.log if call.operation == operation]

    def alive(self) -> list[str]:
        return [one for one, doc in self.there.items() if doc["State"]["Name"] not in ("shutting-down", "terminated")]

    def set(self, instance_id: str, state: str, code: str = "", message: str = "") -> None:
        self.there[instance_id].update(State={"Name": state}, StateReason={"Code": code, "Message": message})

    def run_all(self) -> None:
        for doc in self.there.values():
            if doc["State"]["Name"] == "pending":
                doc["State"] = {"Name": "running"}

    def forget(self, instance_id: str) -> None:
        del self.there[instance_id]

    @contextmanager
    def _call(self, operation: str, parameters: Mapping[str, Any]) -> Iterator[None]:
        self.log.append(Called(self.clock.seconds(), operation, dict(parameters)))
        if self.throttle(operation):
            raise client_error("RequestLimitExceeded", "Request limit exceeded.", 503)
        if (before := self.faults.get(operation)) and (error := before.pop(0)) is not None:
            raise error
        yield
        if (after := self.after.get(operation)) and (error := after.pop(0)) is not None:
            raise error

    # --- operations ----------------------------------------------------------------------------------------------------------

    def run_instances(self, **asked: Any) -> dict[str, Any]:
        with self._call("run_instances", asked):
            token, what = asked["ClientToken"], json.dumps(asked, sort_keys=True)
            if token in self._launches:
                before, ids = self._launches[token]
                if before != what:
                    raise client_error("IdempotentParameterMismatch", "other parameters")
            else:
                if self.room < asked["MinCount"]:
                    raise client_error("InsufficientInstanceCapacity", "We do not have sufficient capacity", 500)
                ids = [self._make(asked, index) for index in range(min(asked["MaxCount"], self.room))]
                self.room -= len(ids)
                self._launches[token] = (what, ids)
        return {"Instances": [self.there[one] for one in ids]}

    def _make(self, asked: Mapping[str, Any], index: int) -> str:
        self._count += 1
        one = f"i-{self._count:017x}"
        self.there[one] = {
            "InstanceId": one,
            "State": {"Name": "pending"},
            "AmiLaunchIndex": index,
            "ClientToken": asked["ClientToken"],
            "Tags": next(spec["Tags"] for spec in asked["TagSpecifications"] if spec["ResourceType"] == "instance"),
            "LaunchTime": datetime.fromtimestamp(START + self.clock.seconds(), UTC),
            "Made": self.clock.seconds(),
        }
        return one

    def describe_instances(self, **asked: Any) -> dict[str, Any]:
        with self._call("describe_instances", asked):
            known = {one: doc for one, doc in self.there.items() if self.clock.seconds() - doc["Made"] >= self.unknown_for}
            if ids := asked.get("InstanceIds"):
                self._all_there(ids, known)
                found = [known[one] for one in ids]
            else:
                found = [doc for doc in known.values() if all(_matches(doc, one) for one in asked["Filters"])]
            start = int(asked.get("NextToken", 0))
            page, rest = found[start : start + self.page], found[start + self.page :]
            answer: dict[str, Any] = {"Reservations": [{"Instances": [dict(doc)]} for doc in page]}
            if rest:
                answer["NextToken"] = str(start + self.page)
        return answer

    def describe_instance_status(self, **asked: Any) -> dict[str, Any]:
        with self._call("describe_instance_status", asked):
            running = [one for one, doc in self.there.items() if doc["State"]["Name"] == "running"]
        return {
            "InstanceStatuses": [
                {
                    "InstanceId": one,
                    "SystemStatus": {"Status": "ok"},
                    "InstanceStatus": {
                        "Status": "impaired" if one in self.impaired else "ok",
                        "Details": [{"Name": "reachability", "Status": "failed" if one in self.impaired else "passed"}],
                    },
                }
                for one in running
            ]
        }

    def terminate_instances(self, **asked: Any) -> dict[str, Any]:
        return self._change("terminate_instances", asked, "TerminatingInstances", "shutting-down")

    def stop_instances(self, **asked: Any) -> dict[str, Any]:
        return self._change("stop_instances", asked, "StoppingInstances", "stopping")

    def start_instances(self, **asked: Any) -> dict[str, Any]:
        return self._change("start_instances", asked, "StartingInstances", "pending")

    def _change(self, operation: str, asked: Mapping[str, Any], key: str, state: str) -> dict[str, Any]:
        with self._call(operation, asked):
            self._all_there(asked["InstanceIds"], self.there)
            for one in asked["InstanceIds"]:
                if self.there[one].get("Protected"):
                    raise client_error("OperationNotPermitted", f"The instance '{one}' may not be terminated.")
            for one in asked["InstanceIds"]:
                self.set(one, state)
        return {key: [{"InstanceId": one, "CurrentState": {"Name": state}} for one in asked["InstanceIds"]]}

    def create_tags(self, **asked: Any) -> dict[str, Any]:
        with self._call("create_tags", asked):
            self._all_there(asked["Resources"], self.there)
            for one in asked["Resources"]:
                tags = {tag["Key"]: tag["Value"] for tag in (*self.there[one]["Tags"], *asked["Tags"])}
                self.there[one]["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
        return {}

    def describe_images(self, **asked: Any) -> dict[str, Any]:
        with self._call("describe_images", asked):
            return {"Images": []}

    @staticmethod
    def _all_there(ids: list[str], there: Mapping[str, Any]) -> None:
        if missing := [one for one in ids if one not in there]:
            raise client_error("InvalidInstanceID.NotFound", f"The instance IDs '{', '.join(missing)}' do not exist")


def _matches(doc: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    tags = {tag["Key"]: tag["Value"] for tag in doc["Tags"]}
    match asked["Name"]:
        case "instance-id":
            return doc["InstanceId"] in asked["Values"]
        case "client-token":
            return doc["ClientToken"] in asked["Values"]
        case "instance-state-name":
            return doc["State"]["Name"] in asked["Values"]
        case "tag-key":
            return any(key in asked["Values"] for key in tags)
        case name:
            return tags.get(name.removeprefix("tag:")) in asked["Values"]


@attrs.define
class Site:
    """A region whose EC2 is the fake, on a clock that the test moves."""

    clock: Clock = attrs.field(factory=Clock)
    threads: Threads = attrs.field(factory=Threads)
    ec2: FakeEC2 = attrs.field(init=False)
    region: Region = attrs.field(init=False)
    calls: Calls = attrs.field(init=False)
    kept: list[tuple[str, Any]] = attrs.field(factory=list)
    """Documents as they were persisted: (member, document)."""

    def __attrs_post_init__(self) -> None:
        self.ec2 = FakeEC2(self.clock)
        self.region = self.another()

    def another(self) -> Region:
        """A region as a process has it that comes after this one."""
        account = Account(region="eu-west-1", key_id="AKIAEXAMPLEXY", secret="made up", session=_Session(self.ec2))
        self.calls = Calls(account, self.clock, threads=self.threads, jitter=lambda: 1.0)
        return Region(account, self.clock, wall=self.wall, calls=self.calls)

    def wall(self) -> float:
        return START + self.clock.seconds()

    def pass_time(self, seconds: float, step: float = 0.05) -> None:
        self.clock.pump([step] * round(seconds / step))

    def wish(self, worker: str, number: int = 1, *, shape: str = "small", keep: Any = None, **more: Any) -> Wish:
        member = Attempt(worker, number)
        request = more.pop("request", {"ImageId": "ami-1", "InstanceType": f"t3.{shape}"})
        return Wish(
            member=member,
            controller_id=CONTROLLER,
            request=request,
            user_data=more.pop("user_data", table),
            shape=shape,
            keep=keep or partial(self._keep, str(member)),
            **more,
        )

    def _keep(self, member: str, document: Any) -> Deferred[None]:
        self.kept.append((member, json.loads(json.dumps(document))))
        return succeed(None)

    def launched(self, count: int, **more: Any) -> list[Instance]:
        """So many instances, w0 and on, launched at once."""
        waiting = [self.region.launch(self.wish(f"w{n}", **more)) for n in range(count)]
        self.pass_time(0.1)
        return [result_of(one) for one in waiting]


def table(members: Any) -> str:
    return "".join(f"{member.worker} {member.number} {'t' * 64}\n" for member in members)


class _Session:
    def __init__(self, client: FakeEC2) -> None:
        self._client = client

    def client(self, service: str, **_: Any) -> FakeEC2:
        return self._client


def result_of(deferred: Deferred[Any]) -> Any:
    """What it has fired with; raises its error. A Deferred that has not fired fails the test."""
    answers: list[Any] = []
    deferred.addBoth(answers.append)
    assert answers, "it has not fired"
    if isinstance(answers[0], Failure):
        answers[0].raiseException()
    return answers[0]


def error_of(deferred: Deferred[Any]) -> Exception:
    answers: list[Any] = []
    deferred.addBoth(answers.append)
    assert answers, "it has not fired"
    assert isinstance(answers[0], Failure), f"it succeeded: {answers[0]!r}"
    error = answers[0].value
    assert isinstance(error, Exception)
    return error
