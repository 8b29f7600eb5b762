"""What stands before moto: calls are counted, checked, made to go wrong, and only then carried out."""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from attrs import define

from latent.testing.ec2.actions import Actions
from latent.testing.ec2.answers import Answer, Refused, Request, error
from latent.testing.ec2.backend import Backend
from latent.testing.ec2.faults import Faults
from latent.testing.ec2.machines import Machines
from latent.testing.ec2.region import Region, Times
from latent.testing.ec2.room import Room
from latent.testing.ec2.signatures import Credentials, check
from latent.testing.ec2.values import Call

STEP = 0.1
"""Seconds between two looks at whether who waits in vain is still there."""


class Cut(ConnectionError):
    """The connection is to be closed without an answer."""


@define
class Client:
    """Who made a call; ``gone`` says whether the connection is closed."""

    gone: Callable[[], bool]


class Gate:
    """The account: its regions, its faults, and what was asked of it. ``lock`` is for all of it."""

    def __init__(self, machines: Machines, times: Times, credentials: Credentials) -> None:
        self.lock = threading.RLock()
        self.backend = Backend()
        self.faults = Faults()
        self.room = Room()
        self.times = times
        self.machines = machines
        self._credentials = credentials
        self.keys = {credentials.key_id: credentials}
        self.log: list[Call] = []
        self._number = 0
        self.regions: dict[str, Region] = {}
        self._actions = Actions(self.backend, self.faults, time.time, machines.console)
        machines.tick = self.tick
        machines.powered = self.powered

    def region(self, name: str) -> Region:
        """`Refused` if there is none of that name."""
        if name not in self.regions:
            try:
                backend = self.backend.ec2(name)
            except KeyError:
                raise Refused("AuthFailure", "AWS was not able to validate the provided access credentials", 401) from None
            self.regions[name] = Region(name, backend, self.machines, self.room, self.times, time.time)
        return self.regions[name]

    def forget(self) -> None:
        """All that there is in the account."""
        self.backend.reset()
        self.regions.clear()
        self.keys = {self._credentials.key_id: self._credentials}
        self._actions = Actions(self.backend, self.faults, time.time, self.machines.console)

    def tick(self) -> None:
        with self.lock:
            for region in self.regions.values():
                region.tick()

    def powered(self, instance_id: str, what: str) -> None:
        """An instance has shut itself down, or boots again."""
        with self.lock:
            for region in self.regions.values():
                life = region.lives.get(instance_id)
                if life is None or life.state != "running":
                    continue
                if what == "reboot":
                    region.reboot(life)
                    continue
                ends = life.instance.instance_initiated_shutdown_behavior == "terminate"
                code = "Client.InstanceInitiatedShutdown"
                region.finish(life, "terminated" if ends else "stopped", code, "Instance initiated shutdown")

    # -- calls

    def answer(self, request: Request, client: Client) -> Answer:
        """May raise `Cut`. Takes as long as it is told to."""
        with self.lock:
            place = self._note(request)
        status, code = 0, ""
        try:
            found = self._answer(request, client)
            status, code = found.status, found.error
        finally:
            with self.lock:
                self._noted(place, status, code)
        return found

    def _answer(self, request: Request, client: Client) -> Answer:
        try:
            with self.lock:
                check(request, self.keys)
                self.faults.check_rate(request.name, time.monotonic())
            early = self._go_wrong(request, client, "before")
            if early is not None:
                return early
            with self.lock:
                region = self.region(request.region)
                region.tick()
                found = self._actions.carry_out(region, request)
                if self.faults.take("duplicate", request.name, "before") is not None:
                    self._actions.carry_out(region, request)
            return self._go_wrong(request, client, "after") or found
        except Refused as refused:
            return error(refused)
        except ConnectionError:
            raise
        except Exception as failed:
            # A defect of ours or moto's: who tests sees where, and the client gets what a client can read.
            traceback.print_exc()
            return error(Refused("InternalFailure", f"the cloud failed: {failed!r}", 500))

    def _go_wrong(self, request: Request, client: Client, when: str) -> Answer | None:
        with self.lock:
            taken = {kind: self.faults.take(kind, request.name, when) for kind in ("delay", "hang", "cut", "fail")}
            healed = self.faults.healed
        if (delay := taken["delay"]) is not None:
            time.sleep(delay["seconds"])  # the delay itself: in the thread of this one call, under no lock
        if taken["hang"] is not None:
            self._hang(client, healed)
        if taken["cut"] is not None:
            raise Cut
        if (failure := taken["fail"]) is not None:
            return error(Refused(failure["code"], failure["message"], failure["status"]))
        return None

    def _hang(self, client: Client, healed: threading.Event) -> None:
        while not healed.wait(STEP) and not client.gone():
            pass
        raise Cut

    def _note(self, request: Request) -> int:
        self._number += 1
        self.log.append(Call(self._number, time.time(), request.name, dict(request.parameters), request.region))
        return self._number

    def _noted(self, number: int, status: int, code: str) -> None:
        for place in range(len(self.log) - 1, -1, -1):
            one = self.log[place]
            if one.number == number:
                self.log[place] = Call(one.number, one.at, one.action, one.parameters, one.region, status, code)
                return

    def calls(self) -> dict[str, int]:
        return Counter(one.action for one in self.log)

    def known(self, instance_id: Any) -> tuple[Region, Any]:
        """Where an instance is. LookupError if nowhere."""
        for region in self.regions.values():
            if instance_id in region.lives:
                return region, region.lives[instance_id]
        raise LookupError(f"there is no instance {instance_id}")
