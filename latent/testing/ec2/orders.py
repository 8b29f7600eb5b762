"""What a test tells the cloud: by name, with arguments, over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from attrs import asdict, evolve

from latent.testing.ec2.faults import Bucket
from latent.testing.ec2.gate import Gate
from latent.testing.ec2.lives import Life
from latent.testing.ec2.region import Region
from latent.testing.ec2.room import Shortage
from latent.testing.ec2.signatures import Credentials


class Orders:
    """Each method that begins with ``do_`` is an order; what it answers is JSON. ``ending`` is set when the cloud is to end."""

    def __init__(self, gate: Gate, ending: threading.Event, renew: Callable[[], Any]) -> None:
        self._gate, self._ending, self._renew = gate, ending, renew

    def carry_out(self, what: str, arguments: dict[str, Any]) -> Any:
        """LookupError, TypeError or ValueError for what is not understood."""
        order = getattr(self, f"do_{what}", None)
        if order is None:
            raise LookupError(f"there is no order {what!r}")
        if what in ("console", "processes", "instances", "reset"):
            return order(**arguments)
        with self._gate.lock:
            return order(**arguments)

    # -- asking

    def do_log(self) -> Any:
        return [asdict(call) for call in self._gate.log]

    def do_calls(self) -> Any:
        return self._gate.calls()

    def do_forget_calls(self) -> None:
        self._gate.log.clear()

    def do_instances(self) -> Any:
        running = self._gate.machines.marks()
        with self._gate.lock:
            for region in self._gate.regions.values():
                region.tick()
            return [
                _seen(region, life, life.id in running)
                for region in self._gate.regions.values()
                for life in region.lives.values()
            ]

    def do_console(self, instance_id: str) -> str:
        return self._gate.machines.console(instance_id)

    def do_processes(self, instance_id: str | None) -> list[int]:
        return self._gate.machines.processes(instance_id)

    # -- calls

    def do_heal(self) -> None:
        self._gate.faults.heal()
        self._gate.room.heal()
        self._gate.times.heal()
        for key_id, credentials in self._gate.keys.items():
            self._gate.keys[key_id] = evolve(credentials, expired="")

    def do_throttle(self, rate: float, burst: float, action: str) -> None:
        self._gate.faults.throttle(action, rate, burst, time.monotonic())

    def do_throttle_instances(self, rate: float, burst: float) -> None:
        # Of the clock that launches are judged by.
        self._gate.faults.instances = Bucket.full(rate, burst, time.time())

    def do_fail(self, **how: Any) -> None:
        self._gate.faults.add("fail", **how)

    def do_cut(self, **how: Any) -> None:
        self._gate.faults.add("cut", **how)

    def do_hang(self, **how: Any) -> None:
        self._gate.faults.add("hang", **how)

    def do_delay(self, **how: Any) -> None:
        self._gate.faults.add("delay", **how)

    def do_duplicate(self, **how: Any) -> None:
        self._gate.faults.add("duplicate", **how)

    def do_expire_credentials(self, code: str) -> None:
        for key_id, credentials in self._gate.keys.items():
            self._gate.keys[key_id] = evolve(credentials, expired=code)

    def do_renew_credentials(self) -> Any:
        fresh = Credentials.made_up(temporary=True)
        self._gate.keys[fresh.key_id] = fresh
        return {"key_id": fresh.key_id, "secret": fresh.secret, "session_token": fresh.token}

    # -- room

    def do_insufficient(self, **how: Any) -> None:
        self._gate.room.shortages.append(Shortage(**how))

    def do_quota(self, most: int, code: str) -> None:
        self._gate.room.quotas[code] = most

    def do_spot_never_fulfilled(self) -> None:
        self._gate.room.no_spot = True

    def do_spot_price(self, price: float, instance_type: str | None, zone: str | None) -> None:
        self._gate.room.prices.say(price, instance_type, zone)

    # -- instances

    def do_slow(self, pending: float | None, ending: float | None) -> None:
        times = self._gate.times
        times.pending = times.pending if pending is None else pending
        times.ending = times.ending if ending is None else ending

    def do_not_found_for(self, seconds: float) -> None:
        self._gate.times.not_found = seconds

    def do_set_status(self, instance_id: str, instance: str, system: str) -> None:
        _, life = self._gate.known(instance_id)
        life.statuses = {"instance": instance, "system": system}
        life.instance.latent_statuses = life.statuses

    def do_age(self, instance_id: str, seconds: float) -> None:
        region, life = self._gate.known(instance_id)
        region.age(life, seconds)

    def do_vanish(self, instance_id: str) -> None:
        region, life = self._gate.known(instance_id)
        region.vanish(life)

    def do_crash(self, instance_id: str) -> None:
        _, life = self._gate.known(instance_id)
        self._gate.machines.crash(life)

    def do_interrupt(self, instance_id: str, code: str, state: str) -> None:
        if state not in ("terminated", "stopped"):
            raise ValueError(f"an instance can't be interrupted to be {state!r}; it is terminated or stopped")
        region, life = self._gate.known(instance_id)
        region.finish(life, state, code, "Ended by AWS")

    def do_spot_notice(self, instance_id: str, seconds: float) -> None:
        _, life = self._gate.known(instance_id)
        life.notice = time.time() + seconds

    def do_reset(self) -> Any:
        with self._gate.lock:
            lives = [life for region in self._gate.regions.values() for life in region.lives.values()]
            for life in lives:
                self._gate.machines.crash(life)
            self.do_heal()
            state = self._renew()
            self._gate.log.clear()
        self._gate.machines.wait(lives)
        return state

    def do_stop(self) -> None:
        self._ending.set()


def _seen(region: Region, life: Life, running: bool) -> dict[str, Any]:
    return {
        "id": life.id,
        "state": life.state,
        "token": life.token,
        "index": life.index,
        "type": life.instance.instance_type,
        "zone": life.zone,
        "region": region.name,
        "market": life.market,
        "launched_at": region.launched_at(life),
        "tags": life.tags,
        "booted": life.booted,
        "running": running,
    }
