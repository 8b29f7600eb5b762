"""Looks at all instances from which something is expected, in one question at a time, and as seldom as will do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from latent.errors import LatentError
from latent_ec2 import asking
from latent_ec2.batches import MOMENT
from latent_ec2.calls import Answer, Calls
from latent_ec2.instances import EXPIRES, Instance
from latent_ec2.watched import Heard, Wanted, Watched, due, next_look, telling

log = Logger()

SETTLES = 60.0
"""Seconds after a launch in which EC2 may not know the instance yet."""

APART = 1.0
"""Seconds from the end of a look to the next, at least."""

FAILED = 10.0
"""The same after a look that failed."""

HEALTH = 120.0
"""Seconds between two looks at the status checks: EC2 makes them every minute."""


class Poller:
    def __init__(self, calls: Calls, clock: Any, wall: Callable[[], float], settles: float = SETTLES) -> None:
        self._calls = calls
        self._clock = clock
        self._wall = wall
        self._settles = settles
        self._watched: dict[str, Watched] = {}
        self._looks: dict[str, list[Deferred[Instance | None]]] = {}
        self._looks_at = 0.0
        self._born: dict[str, tuple[float, Instance | None]] = {}
        self._polling = False
        self._not_before = float("-inf")
        self._looked = float("-inf")
        self._checked = clock.seconds()
        self._call: Any = None

    def __len__(self) -> int:
        return len(self._watched)

    # --- what is asked of it ---------------------------------------------------------------------------------------------------

    def launched(self, instances: Iterable[Instance]) -> None:
        """EC2 has just answered with these, and may not know them yet when it is asked for them."""
        now = self._clock.seconds()
        self._born = {one: (born, what) for one, (born, what) in self._born.items() if now - born < self._settles}
        self._born.update((instance.id, (now, instance)) for instance in instances)

    def born(self, instance_id: str, at: float | None) -> None:
        """The same of one that another process launched. ``at``: POSIX seconds."""
        if at is not None and instance_id not in self._born and 0 <= (age := self._wall() - at) < self._settles:
            self._born[instance_id] = (self._clock.seconds() - age, None)

    def young(self, instance_id: str) -> bool:
        """Whether it may be there although EC2 does not know it."""
        born = self._born.get(instance_id)
        return born is not None and self._clock.seconds() - born[0] < self._settles

    def watch(self, instance_id: str, heard: Heard, every: float, expiry: float | None, wanted: Wanted) -> None:
        self._entry(instance_id).heard[heard] = (every, expiry, wanted)
        self._plan()

    def unwatch(self, instance_id: str, heard: Heard | None) -> None:
        watched = self._watched.get(instance_id)
        if watched is None:
            return
        if heard is None:
            watched.heard.clear()
        else:
            watched.heard.pop(heard, None)
        self._drop_if_idle(instance_id)
        self._plan()

    def known(self, instance_id: str) -> Instance | None:
        watched = self._watched.get(instance_id)
        if watched is not None:
            return watched.last
        return self._born.get(instance_id, (0.0, None))[1]

    def look(self, instance_id: str) -> Deferred[Instance | None]:
        waiter: Deferred[Instance | None] = Deferred(lambda _: self._look_no_more(instance_id, waiter))
        if not self._looks:
            self._looks_at = self._clock.seconds() + MOMENT
        self._looks.setdefault(instance_id, []).append(waiter)
        self._plan()
        return waiter

    def until(self, instance_id: str, states: Iterable[str]) -> Deferred[Instance | None]:
        """Fires when the instance is in one of these states; with one that is gone, or None, when it never will be."""
        watched = self._entry(instance_id)
        waiter: Deferred[Instance | None] = Deferred(lambda _: self._wait_no_more(instance_id, waiter))
        watched.goals.append((frozenset(states), waiter))
        watched.awaited_since = self._clock.seconds()
        self._plan()
        return waiter

    def learn(self, instance_id: str, state: str) -> Instance:
        """EC2 has said by the way what state the instance is in."""
        last = self.known(instance_id) or Instance(id=instance_id, state=state)
        now = last.in_state(state) if last.state != state else last
        if instance_id in self._born:
            self._born[instance_id] = (self._born[instance_id][0], now)
        if instance_id in self._watched:
            self._seen(instance_id, now)
            self._plan()
        return now

    def vanished(self, instance_id: str) -> None:
        """EC2 has said by the way that it does not know the instance."""
        self._born.pop(instance_id, None)
        self._gone(instance_id)
        self._plan()

    def _entry(self, instance_id: str) -> Watched:
        watched = self._watched.get(instance_id)
        if watched is None:
            last, now = self.known(instance_id), self._clock.seconds()
            watched = self._watched[instance_id] = Watched(now, now, last)
        return watched

    def _look_no_more(self, instance_id: str, waiter: Deferred[Instance | None]) -> None:
        waiters = self._looks.get(instance_id, [])
        if waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._looks[instance_id]
        self._plan()

    def _wait_no_more(self, instance_id: str, waiter: Deferred[Instance | None]) -> None:
        watched = self._watched.get(instance_id)
        if watched is not None:
            watched.goals = [goal for goal in watched.goals if goal[1] is not waiter]
            self._drop_if_idle(instance_id)
        self._plan()

    def _drop_if_idle(self, instance_id: str) -> None:
        watched = self._watched.get(instance_id)
        if watched is not None and not watched.heard and not watched.goals:
            del self._watched[instance_id]

    # --- when to look ----------------------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        if not self._polling and (at := self._next()) is not None:
            self._call = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._poll)

    def _next(self) -> float | None:
        """The clock's seconds of the next look; None while nobody wants one."""
        times = [self._looks_at] if self._looks else []
        if (at := next_look(self._watched.values(), self._clock.seconds(), self._looked)) is not None:
            times.append(at)
        return max(min(times), self._not_before) if times else None

    # --- looking ---------------------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        self._call = None
        self._polling = True
        self._looked = self._clock.seconds()
        Deferred.fromCoroutine(self._look()).addErrback(self._unforeseen).addCallback(self._over)

    def _over(self, pause: float) -> None:
        self._polling = False
        self._not_before = self._clock.seconds() + pause
        self._plan()

    def _unforeseen(self, failure: Any) -> float:
        log.failure("{label}: instances could not be looked at", failure, label=self._calls.account.label)
        return FAILED

    async def _look(self) -> float:
        """Answers the seconds to the next look, at least."""
        looks, self._looks = self._looks, {}
        ids = list(dict.fromkeys([*self._watched, *looks]))
        try:
            seen = [one for one, watched in self._watched.items() if watched.seen]
            found = await asking.described(self._calls, ids, seen)
        except Exception as error:
            for waiter in _open(looks.values()):
                waiter.errback(error)
            if not isinstance(error, LatentError):
                raise
            log.warn("{error}", error=error)
            return FAILED
        for one in ids:
            instance = found.get(one)
            if instance is not None:
                if one in self._watched:
                    self._watched[one].seen = True
                self._seen(one, instance)
            elif not self.young(one):
                self._gone(one)
            else:
                instance = self.known(one) or Instance(id=one, state="pending")
            for waiter in _open([looks.get(one, [])]):
                waiter.callback(instance)
        await self._push_expiry()
        await self._check_health()
        return APART

    def _seen(self, instance_id: str, instance: Instance) -> None:
        watched = self._watched.get(instance_id)
        if watched is None:
            return
        before, was_awaited = watched.last, watched.awaited
        watched.last = evolve(instance, health=instance.health or _health(before))
        if watched.awaited and not was_awaited:
            watched.awaited_since = self._clock.seconds()
        self._reach(watched, watched.last)
        if before is None or telling(before) != telling(watched.last):
            self._tell(watched, watched.last)
        if instance.gone:
            self._watched.pop(instance_id, None)

    def _gone(self, instance_id: str) -> None:
        watched = self._watched.pop(instance_id, None)
        if watched is not None:
            self._reach(watched, None)
            self._tell(watched, None)

    def _reach(self, watched: Watched, instance: Instance | None) -> None:
        reached = [goal for goal in watched.goals if instance is None or instance.gone or instance.state in goal[0]]
        watched.goals = [goal for goal in watched.goals if goal not in reached]
        for _, waiter in reached:
            waiter.callback(instance)
        if watched.last is not None:
            self._drop_if_idle(watched.last.id)

    def _tell(self, watched: Watched, instance: Instance | None) -> None:
        for heard in list(watched.heard):
            try:
                heard(instance)
            except Exception:
                log.failure("what was seen of {instance} could not be told", instance=instance)

    # --- by the way ------------------------------------------------------------------------------------------------------------

    async def _push_expiry(self) -> None:
        wall = self._wall()
        for expiry, ids in due(self._watched, wall).items():
            expires = f"{wall + expiry:.0f}"
            _, faults = await self._calls.together("create_tags", ids, partial(_expiring, expires))
            for one in ids:
                if one in faults:
                    log.warn("{one}: {tag} could not be pushed forward: {error}", one=one, tag=EXPIRES, error=faults[one])
                elif (watched := self._watched.get(one)) is not None and watched.last is not None:
                    watched.last = evolve(watched.last, tags={**watched.last.tags, EXPIRES: expires})

    async def _check_health(self) -> None:
        now = self._clock.seconds()
        running = [one for one, watched in self._watched.items() if watched.last is not None and watched.last.state == "running"]
        if not running or now - self._checked < HEALTH:
            return
        self._checked = now
        try:
            found = await asking.checked(self._calls, running)
        except LatentError as error:
            log.warn("{error}", error=error)
            return
        for one, health in found.items():
            watched = self._watched.get(one)
            if watched is not None and watched.last is not None:
                self._seen(one, evolve(watched.last, health=health))


def _expiring(expires: str, ids: list[str]) -> Answer:
    return {"Resources": ids, "Tags": [{"Key": EXPIRES, "Value": expires}]}


def _health(instance: Instance | None) -> str:
    return "" if instance is None else instance.health


def _open(waiters: Iterable[list[Deferred[Instance | None]]]) -> list[Deferred[Instance | None]]:
    return [waiter for some in waiters for waiter in some if not waiter.called]
