"""Workers in the test cloud, a process of its own whose instances are real agents."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from benchmarks.chaos.part import Later, declaration, drawn
from latent.testing.cloud import CloudProcess, Instance
from latent.testing.cloud.values import EXITED, GONE, PENDING, RUNNING, STOPPING

CALLS = ("create", "create", "describe", "list", "destroy")
ERRORS = ("internal", "throttled", "capacity", "internal")
LAG = 4.0


class InCloud:
    name = "cloud"

    def __init__(self, directory: Path, seed: int, later: Later) -> None:
        self._cloud = CloudProcess(directory / "cloud", seed=seed, boot=0.3, ending=0.3)
        self._later = later

    def declared(self, variant: int) -> str:
        given = {"cloud": self._cloud.address, "settle": LAG, "build_wait_timeout": 5 * (1 - variant % 2)}
        return declaration("CloudLatentWorker", self.name, variant, **given)

    def strike(self, what: str, seconds: float, lot: float) -> str:
        cloud = self._cloud
        if what in ("exit", "vanish", "freeze"):
            return self._strike_one(what, seconds, drawn(lot, cloud.instances(RUNNING)))
        call, error, done = drawn(lot, CALLS) or "", drawn(lot * 7 % 1, ERRORS) or "", lot * 13 % 1 < 0.5
        if call not in ("create", "destroy") and what == "twice":
            call = "create"
        match what:
            case "fail":
                cloud.fail(call, "internal" if done else error, "it failed by chance", done=done)
            case "hang":
                cloud.hang(call, done=done)
                self._later(seconds, cloud.heal)
            case "late":
                cloud.late(call, seconds, done=done)
            case "twice":
                cloud.twice(call)
            case "ignore":
                cloud.ignore("destroy")
            case "throttle":
                cloud.throttle(1, 3.0)
                self._later(seconds, cloud.heal)
            case "capacity":
                cloud.capacity(0)
                self._later(seconds, cloud.heal)
            case "lag":
                cloud.lag(LAG - 1, ragged=True)
                self._later(seconds, cloud.heal)
            case "boot":
                cloud.boot_fails()
        return f"{call}, {'' if done else 'not '}carried out" if what in ("fail", "hang", "late", "twice") else "the cloud"

    def _strike_one(self, what: str, seconds: float, instance: Instance | None) -> str:
        if instance is None:
            return ""
        match what:
            case "exit":
                self._cloud.exit(instance.id)
            case "vanish":
                self._cloud.vanish(instance.id)
            case "freeze":
                self._cloud.freeze(instance.id)
                self._later(seconds, lambda: self._cloud.thaw(instance.id))
        return str(instance)

    def mend(self) -> None:
        self._cloud.heal()

    def births(self) -> Counter[str]:
        return Counter(str(one.attempt) for one in self._cloud.instances(PENDING, RUNNING, STOPPING, EXITED, GONE))

    def left(self) -> list[str]:
        return [str(one) for one in self._cloud.instances()]

    def wrong(self) -> list[str]:
        return self._cloud.complaints()

    def close(self) -> None:
        self._cloud.close()
