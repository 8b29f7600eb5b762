"""Workers at EC2 as latent.testing has it: real boto3, real user data, real agents in its instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from benchmarks.chaos.part import Later, Unavailable, declaration, drawn, freeze

ACTIONS = ("RunInstances", "RunInstances", "TerminateInstances", "DescribeInstances", "*")
SETTLES = 5.0
"""Seconds for which this EC2 may not know an instance that it has launched. The real one is given a minute."""

QUICK = f"""
from latent_ec2 import batches, poll, watched
from latent_ec2.region import Region
watched.PACES, poll.APART = ((3600.0, 0.5),), 0.2
batches.FIRST_PACE, batches.LAST_PACE = 0.1, 0.5
Region.__init__.__kwdefaults__["settles"] = {SETTLES}
"""
"""Instances of the test cloud come and go in no time."""


class InEC2:
    name = "ec2"

    def __init__(self, later: Later) -> None:
        try:
            from latent.testing.ec2 import Cloud, Hypervisor
            from tests.ec2.site import whose
        except ImportError as error:
            raise Unavailable(f"{error.name} is not installed") from error
        self._whose: Callable[[Any], str] = whose
        self._cloud = Cloud(hypervisor=Hypervisor())
        self._later = later
        self._vanished: Counter[str] = Counter()

    def declared(self, variant: int) -> str:
        cloud = self._cloud
        given = {
            "instance_type": "m5.large",
            "ami": cloud.image,
            "region": cloud.region,
            "endpoint_url": cloud.endpoint_url,
            "identifier": cloud.key_id,
            "secret_identifier": cloud.secret,
            "build_wait_timeout": 5 * (variant // 2 % 2),
        }
        return declaration("worker.EC2LatentWorker", self.name, variant, **given)

    def strike(self, what: str, seconds: float, lot: float) -> str:
        if what in ("crash", "interrupt", "vanish", "freeze"):
            return self._strike_one(what, seconds, drawn(lot, [one for one in self._cloud.instances() if one.running]))
        cloud, action = self._cloud, drawn(lot, ACTIONS) or "*"
        when: Any = "before" if lot * 13 % 1 < 0.5 else "after"
        heal = cloud.heal
        match what:
            case "fail":
                cloud.fail(action, when=when)
            case "cut":
                cloud.cut(action, when=when)
            case "hang":
                cloud.hang(action, when=when)
                self._later(seconds, heal)
            case "delay":
                cloud.delay(action, seconds, times=2, when=when)
            case "duplicate":
                cloud.duplicate(action)
            case "throttle":
                cloud.throttle(1)
                self._later(seconds, heal)
            case "capacity":
                cloud.insufficient()
                self._later(seconds, heal)
            case "behind":
                cloud.not_found_for(SETTLES - 1)
                self._later(seconds, heal)
        return f"{action}, {when} its effect" if what in ("fail", "cut", "hang", "delay", "duplicate") else "EC2"

    def _strike_one(self, what: str, seconds: float, instance: Any) -> str:
        if instance is None:
            return ""
        match what:
            case "crash":
                self._cloud.crash(instance.id)
            case "interrupt":
                self._cloud.interrupt(instance.id)
            case "vanish":
                self._cloud.vanish(instance.id)
                self._vanished[self._whose(instance)] += 1
            case "freeze":
                freeze(self._cloud.processes(instance.id), seconds, self._later)
        return f"{instance.id} of {self._whose(instance)}"

    def mend(self) -> None:
        self._cloud.heal()

    def births(self) -> Counter[str]:
        return self._seen() + self._vanished

    def _seen(self) -> Counter[str]:
        return Counter(self._whose(one) for one in self._cloud.instances())

    def left(self) -> list[str]:
        seen = self._cloud.instances()
        return [
            f"{one.id} of {self._whose(one)}, {one.state}" for one in seen if one.is_up or one.running or one.state == "stopped"
        ]

    def wrong(self) -> list[str]:
        return [f"{attempt} had {count} instances" for attempt, count in self._seen().items() if count > 1]

    def close(self) -> None:
        self._cloud.close()
