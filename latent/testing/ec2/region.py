"""One region of the account: moto's, with what it lacks.

moto's own methods are replaced on its object for the region, not on the wire: so its filters and its answers see states that take
time, and there is one truth. Everything here runs under the cloud's lock.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from attrs import define, field, frozen

from latent.testing.ec2 import upkeep
from latent.testing.ec2.answers import Refused
from latent.testing.ec2.launching import Launch, mismatch, same
from latent.testing.ec2.lives import COMING_AND_GOING, Life
from latent.testing.ec2.room import Room


class Hardware(Protocol):
    """What runs instances."""

    def boot(self, life: Life) -> None: ...
    def end(self, life: Life, *, gently: bool) -> None: ...
    def freeze(self, life: Life) -> None: ...
    def thaw(self, life: Life) -> None: ...
    def running(self, life: Life) -> bool: ...


@define
class Times:
    """Seconds: how long an instance is pending, how long it is stopping or shutting down, how long it is not found."""

    pending: float
    ending: float
    not_found: float = 0
    first: tuple[float, float] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.first = self.pending, self.ending

    def heal(self) -> None:
        self.pending, self.ending = self.first
        self.not_found = 0


@frozen
class Launched:
    """What a ClientToken stands for."""

    parameters: Mapping[str, str]
    reservation: Any


class Region:
    def __init__(self, name: str, backend: Any, hardware: Hardware, room: Room, times: Times, clock: Callable[[], float]) -> None:
        self.name, self.backend, self.room, self.times = name, backend, room, times
        self._hardware, self._clock = hardware, clock
        self.lives: dict[str, Life] = {}
        self._launched: dict[str, Launched] = {}
        self._launch: Launch | None = None
        self._count = 0
        self._zone = ""
        # What the answer that is being made shows of all that there is; set by who asks moto for it.
        self.select: Callable[[list[Any]], list[Any]] | None = None
        self._moto = {
            name: getattr(backend, name)
            for name in ("run_instances", "all_reservations", "stop_instances", "start_instances", "terminate_instances")
        }
        self._moto["reboot_instances"] = backend.reboot_instances
        backend.run_instances = self._run
        backend.all_reservations = self._visible
        backend.stop_instances = self._stop
        backend.start_instances = self._start
        backend.terminate_instances = self._terminate
        backend.reboot_instances = self._reboot

    # -- launches

    def launched(self, token: str, parameters: Mapping[str, str]) -> Launched | None:
        """What was launched under the token; `Refused` if something else was asked for."""
        found = self._launched.get(token) if token else None
        if found is not None and not same(found.parameters, parameters):
            raise mismatch()
        return found

    def prepare(self, launch: Launch) -> int:
        """Find room; how many are going to be launched by moto's next call. `Refused` if none."""
        zones = [launch.zone or self.zone_of(launch.subnet)]
        if zones == [""]:
            zones = self.zones
        live: dict[str, int] = {}
        for life in self.lives.values():
            if not life.ended:
                live[life.market] = live.get(life.market, 0) + 1
        found, self._count = self.room.choose([launch.wanted(zone) for zone in zones], live)
        self._zone = "" if launch.subnet else found.zone
        self._launch = launch
        return self._count

    def forget_launch(self) -> None:
        """The call that was prepared is over."""
        self._launch, self._count, self._zone = None, 0, ""

    def replay(self, launched: Launched, answer: Callable[[], Any]) -> Any:
        """Let moto answer its next RunInstances with what was launched before."""
        self._replayed = launched.reservation
        try:
            return answer()
        finally:
            self._replayed = None

    _replayed: Any = None

    def remember(self, token: str, parameters: Mapping[str, str], reservation: Any) -> None:
        if token:
            self._launched[token] = Launched(dict(parameters), reservation)

    def _run(self, image_id: str, count: int, user_data: Any, security_group_names: list[str], **kwargs: Any) -> Any:
        if self._replayed is not None:
            return self._replayed
        launch = self._launch
        if launch is not None:
            count = self._count
            kwargs["client_token"] = launch.token or secrets.token_hex(16)
            if self._zone and not kwargs.get("placement"):
                kwargs["placement"] = self._zone
            upkeep.default_groups(self.backend, kwargs, security_group_names)
        reservation = self._moto["run_instances"](image_id, count, user_data, security_group_names, **kwargs)
        upkeep.after_launch(self.backend, reservation.instances, {} if launch is None else launch.document)
        now = self._clock()
        for instance in reservation.instances:
            self._adopt(instance, launch, now)
        self.last_reservation = copy.copy(reservation)
        return reservation

    last_reservation: Any = None

    def _adopt(self, instance: Any, launch: Launch | None, now: float) -> None:
        life = Life(
            instance=instance,
            number=max((life.number for life in self.lives.values()), default=0) + 1,
            region=self.name,
            token="" if launch is None else launch.token,
            index=int(instance.ami_launch_index),
            due=0,
            hidden_until=now + self.times.not_found,
            nonce=secrets.token_hex(16),
            lasting=launch is not None and launch.lasting,
            hibernates=bool(launch and str(launch.document.get("HibernationOptions", {}).get("Configured")).lower() == "true"),
        )
        life.become("pending", now + self.times.pending)
        self.lives[instance.id] = life

    @property
    def zones(self) -> list[str]:
        return sorted(self.backend.get_default_subnets()) or [self.name + "a"]

    def zone_of(self, subnet: str) -> str:
        """ "" for "". `Refused` if there is no such subnet."""
        if not subnet:
            return ""
        for zones in self.backend.subnets.values():
            if subnet in zones:
                return str(zones[subnet].availability_zone)
        raise Refused("InvalidSubnetID.NotFound", f"The subnet ID '{subnet}' does not exist")

    # -- what is seen

    def _hidden(self, instance_id: str) -> bool:
        """Not while it is being launched, as moto looks for it."""
        life = self.lives.get(instance_id)
        return life is not None and life.hidden_until > self._clock() and self._launch is None

    def check_ids(self, ids: Sequence[str]) -> list[Life]:
        """`Refused` unless all of them are known."""
        for one in ids:
            digits = one.removeprefix("i-")
            if one == digits or len(digits) not in (8, 17) or any(letter not in "0123456789abcdef" for letter in digits):
                raise Refused("InvalidInstanceID.Malformed", f'Invalid id: "{one}"')
        unknown = [one for one in ids if one not in self.lives or self._hidden(one)]
        if len(unknown) == 1:
            raise Refused("InvalidInstanceID.NotFound", f"The instance ID '{unknown[0]}' does not exist")
        if unknown:
            raise Refused("InvalidInstanceID.NotFound", f"The instance IDs '{', '.join(unknown)}' do not exist")
        return [self.lives[one] for one in ids]

    def _visible(self, filters: Any = None) -> list[Any]:
        found = []
        for reservation in self._moto["all_reservations"](filters):
            shown = [one for one in reservation.instances if not self._hidden(one.id)]
            if shown:
                reservation.instances = shown
                found.append(reservation)
        return found if self.select is None else self.select(found)

    # -- from state to state

    def _terminate(self, instance_ids: list[str]) -> list[tuple[Any, Any]]:
        lives = self.check_ids(instance_ids)
        over = {life.id: copy.copy(life.instance._state) for life in lives if life.ended}
        left = [life for life in lives if life.id not in over]
        done = self._end_in_moto(left) if left else []
        for life in left:
            self._end(life, "shutting-down")
        return [*done, *((life.instance, over[life.id]) for life in lives if life.id in over)]

    def _end_in_moto(self, lives: Sequence[Life]) -> list[tuple[Any, Any]]:
        for life in lives:
            # What may not be ended keeps its address: moto then refuses them all.
            if not any(one.instance.disable_api_termination for one in lives):
                upkeep.before_end(self.backend, life.instance)
        done: list[tuple[Any, Any]] = self._moto["terminate_instances"]([life.id for life in lives])
        return done

    def _stop(self, instance_ids: list[str]) -> list[tuple[Any, Any]]:
        lives = self.check_ids(instance_ids)
        settled = {life.id: copy.copy(life.instance._state) for life in lives if life.state in ("stopping", "stopped")}
        left = [life for life in lives if life.id not in settled]
        done = self._moto["stop_instances"]([life.id for life in left]) if left else []
        for life in left:
            self._end(life, "stopping")
        return [*done, *((life.instance, settled[life.id]) for life in lives if life.id in settled)]

    def _start(self, instance_ids: list[str]) -> list[tuple[Any, Any]]:
        lives = self.check_ids(instance_ids)
        settled = {life.id: copy.copy(life.instance._state) for life in lives if life.state in ("pending", "running")}
        left = [life for life in lives if life.id not in settled]
        done = self._moto["start_instances"]([life.id for life in left]) if left else []
        for life in left:
            life.become("pending", self._clock() + self.times.pending)
        return [*done, *((life.instance, settled[life.id]) for life in lives if life.id in settled)]

    def _reboot(self, instance_ids: list[str]) -> list[Any]:
        lives = self.check_ids(instance_ids)
        done: list[Any] = self._moto["reboot_instances"](instance_ids)
        for life in lives:
            self.reboot(life)
        return done

    def reboot(self, life: Life) -> None:
        life.reboots = True
        self._hardware.end(life, gently=True)

    def _end(self, life: Life, state: str) -> None:
        life.become(state, self._clock() + self.times.ending)
        life.reboots = False
        if state == "stopping" and life.frozen:
            self._hardware.freeze(life)
        else:
            life.frozen = False
            self._hardware.end(life, gently=True)

    def finish(self, life: Life, state: str, code: str, message: str) -> None:
        """End an instance that nobody asked to end. ``state``: "terminated" or "stopped"."""
        if life.ended:
            return
        life.frozen, life.hidden_until = False, 0
        if state == "stopped":
            self._moto["stop_instances"]([life.id])
            self._end(life, "stopping")
        else:
            life.instance.disable_api_termination = False
            self._end_in_moto([life])
            self._end(life, "shutting-down")
        life.because(code, message)

    def vanish(self, life: Life) -> None:
        """As if it had never been."""
        life.hidden_until = 0
        if not life.ended:
            life.instance.disable_api_termination = False
            self._end_in_moto([life])
        self._hardware.end(life, gently=False)
        del self.lives[life.id]
        for reservation in self.backend.reservations.values():
            reservation.instances = [one for one in reservation.instances if one.id != life.id]

    def tick(self) -> None:
        """What is due."""
        now = self._clock()
        for life in list(self.lives.values()):
            if life.notice is not None and life.notice <= now and not life.ended:
                self.finish(life, "terminated", "Server.SpotInstanceTermination", "Spot instance termination")
            if life.reboots and not self._hardware.running(life):
                life.reboots = False
                self._boot(life)
            after = COMING_AND_GOING.get(life.state)
            if after is None or life.due > now:
                continue
            if after == "running":
                life.become(after)
                if life.frozen:
                    life.frozen = False
                    self._hardware.thaw(life)
                else:
                    self._boot(life)
            elif life.frozen or not self._hardware.running(life):
                life.become(after)

    def _boot(self, life: Life) -> None:
        life.booted += 1
        self._hardware.boot(life)

    def age(self, life: Life, seconds: float) -> None:
        life.instance.launch_time -= timedelta(seconds=seconds)

    def launched_at(self, life: Life) -> float:
        moment: datetime = life.instance.launch_time
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
