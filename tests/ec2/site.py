"""A controller as a user has it, with EC2 workers at the test cloud: real boto3, real user data, real agents in its instances."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from latent_ec2.instances import CONTROLLER, members_of
from latent_ec2.permissions import TABLE, Only
from tests.e2e.site import Site

if TYPE_CHECKING:
    from latent.testing.ec2 import Call, Cloud, SeenInstance

QUICK = """
from latent_ec2 import batches, poll, watched
watched.PACES, poll.APART = ((3600.0, 0.2),), 0.05
batches.FIRST_PACE, batches.LAST_PACE = 0.1, 0.3
"""
"""Instances of the test cloud come and go in no time, so that a look at them every five seconds would be most of a test."""

CRASHES = """
import os, pathlib, signal
from latent_ec2.calls import Calls

def die(point):
    file = pathlib.Path({file!r})
    if file.exists() and file.read_text() == point:
        file.unlink()
        os.kill(os.getpid(), signal.SIGKILL)

def crashing(self, operation, parameters, adopt, once=Calls._once):
    die("before " + operation)
    async def asked():
        answer = await once(self, operation, parameters, adopt)
        die("after " + operation)
        return answer
    return asked()

Calls._once = crashing
"""
"""For a master.cfg: the controller kills itself where the file says, "before run_instances" or "after describe_instances"."""


class Ec2Site(Site):
    """``keywords`` are those of the declaration, beside what says where the cloud is; ``more`` follows it in the master.cfg."""

    def __init__(
        self, directory: Path, cloud: Cloud, *, name: str = "ec2-{n}", count: int = 1, more: str = "", quick: bool = True,
        **keywords: Any,
    ) -> None:  # fmt: skip
        self.cloud = cloud
        self._last = directory / "last-moment"
        workers = f"c['workers'] = [{self.declared(name, count=count, **keywords)}]\n"
        self.config = f"{QUICK if quick else ''}{CRASHES.format(file=str(self._last))}{workers}{more}"
        super().__init__(directory, self.config)

    def declared(self, name: str, **keywords: Any) -> str:
        """A worker, or a pool, at the cloud, as a master.cfg has it."""
        given = {
            "instance_type": "m5.large",
            "ami": self.cloud.image,
            "region": self.cloud.region,
            "endpoint_url": self.cloud.endpoint_url,
            "identifier": self.cloud.key_id,
            "secret_identifier": self.cloud.secret,
            "session_token": self.cloud.session_token or None,
            "build_wait_timeout": 0,
            **keywords,
        }
        told = ", ".join(f"{keyword}={value!r}" for keyword, value in given.items() if value is not None)
        return f"worker.EC2LatentWorker({name!r}, {told})"

    # --- its instances -------------------------------------------------------------------------------------------------------

    def up(self) -> list[SeenInstance]:
        """What costs money just now."""
        return [one for one in self.cloud.instances() if one.is_up or one.running]

    def no_instance_left(self) -> None:
        self.wait("all instances to go", lambda: not self.up())

    def starts(self) -> Counter[str]:
        """How many instances each attempt has ever had: "ec2-1#3" -> 1."""
        return Counter(whose(one) for one in self.cloud.instances() if CONTROLLER in one.tags)

    # --- the plug ------------------------------------------------------------------------------------------------------------

    def dies(self, point: str) -> None:
        """Have the controller kill itself at a point of `CRASHES`, once."""
        beside = self._last.with_suffix(".new")
        beside.write_text(point)
        os.replace(beside, self._last)

    def wait_gone(self, pid: int) -> None:
        """A zombie counts as gone: whose child it has become may be slow to bury it."""

        def gone() -> bool:
            try:
                return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
            except psutil.NoSuchProcess:
                return True

        self.wait(f"the end of process {pid}", gone)

    def wait_dead(self, pid: int) -> None:
        self.wait_gone(pid)
        assert not self._last.exists(), f"it died before it came to {self._last.read_text()}\n{self.log()}"


def whose(instance: SeenInstance) -> str:
    """The attempt that an instance was started for, by its tags."""
    members = list(members_of(instance.tags))
    return str(members[instance.index]) if instance.index < len(members) else f"nobody's {instance.id}"


MakeSite = Callable[..., Ec2Site]


@contextmanager
def sites(directory: Path, cloud: Cloud) -> Iterator[MakeSite]:
    """Makes sites of which nothing is left in the end."""
    made: list[Ec2Site] = []

    def make(**keywords: Any) -> Ec2Site:
        made.append(Ec2Site(directory, cloud, **keywords))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.end()


def check_allowed(cloud: Cloud, call: Call) -> None:
    """AssertionError unless the policy allows it."""
    rows = [one for one in TABLE if one.action == f"ec2:{call.action}"]
    assert rows, f"the policy does not allow {call.action}"
    if any("instance" in one.on and one.only in (Only.OURS, Only.OURS_AND_KEYS) for one in rows):
        named = [*call.values("InstanceId"), *call.values("ResourceId"), call.parameters.get("InstanceId", "")]
        for one in cloud.instances():
            assert one.id not in named or CONTROLLER in one.tags, f"{call.action} of {one.id}, which is not ours"


class Expression(str):
    """What stands in a master.cfg as it is: `Expression('util.Property("x")')`."""

    def __repr__(self) -> str:
        return str(self)
