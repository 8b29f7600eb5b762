"""Looks for instances that nobody expects: lists what the providers have, judges it (`latent.core.leaks`), and hands what has
leaked to the reaper. The first scan comes with the start, then one every ``interval`` seconds, and one whenever somebody asks."""

from __future__ import annotations

import json
from collections.abc import Collection, Coroutine, Iterable, Mapping
from typing import Any

from attrs import evolve, field, frozen
from sqlalchemy import Connection
from twisted.internet.defer import Deferred, DeferredLock, FirstError, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.config.settings import ReaperSettings
from latent.controller.asking import ask
from latent.controller.clock import Alarm, Clock
from latent.controller.failures import explained
from latent.controller.gauges import Gauges
from latent.controller.identity import Identity
from latent.controller.lifecycle import Lifecycle
from latent.controller.reaper import Reaper
from latent.controller.roster import Roster
from latent.core.leaks import Local, Rules, Sight, Standing, Verdict, judge
from latent.core.states import NotSubstantiated, ShutDown
from latent.errors import ConfigError
from latent.killpoints import here
from latent.model import Attempt
from latent.store import attempts
from latent.store.database import Store
from latent.worker import results
from latent.worker.base import AbstractLatentWorker, ListedInstance, scope_of

log = Logger()

ANSWER_TIMEOUT = 60.0
"""Seconds that a plugin has to list what exists."""

SOONEST = 1.0
"""Seconds between two scans that nobody has asked for."""

Listed = tuple[ListedInstance, ...]

_Key = tuple[str, Attempt, str]


@frozen(kw_only=True)
class Found:
    """``scope``: where it was listed. ``plugin``: by which worker's plugin. ``gone``: it was destroyed, and that is confirmed."""

    instance: ListedInstance
    scope: str
    verdict: Verdict
    plugin: AbstractLatentWorker = field(repr=False, eq=False)
    gone: bool = False


@frozen(kw_only=True)
class Scan:
    """``at``: POSIX seconds. ``controller_id``: who looked. ``unlisted``: scope -> why nothing is known of it. ``blind``: workers
    whose plugin can't list what it made."""

    at: float
    controller_id: str
    found: tuple[Found, ...] = ()
    unlisted: Mapping[str, str] = field(factory=dict)
    blind: tuple[str, ...] = ()

    def standing(self, *standings: Standing) -> list[Found]:
        return [found for found in self.found if found.verdict.standing in standings]


def accounts_for(post: Lifecycle, attempt: Attempt) -> bool:
    """Whether the worker is at this attempt, and not done with it."""
    return post.attempt == attempt and not isinstance(post.state, NotSubstantiated | ShutDown)


class Scanner:
    """``last``: the latest scan, None before the first."""

    def __init__(
        self, store: Store, clock: Clock, roster: Roster, identity: Identity, reaper: Reaper, settings: ReaperSettings
    ) -> None:
        self.settings = settings
        self.last: Scan | None = None
        self._store = store
        self._clock = clock
        self._roster = roster
        self._identity = identity
        self._reaper = reaper
        self._first_seen: dict[_Key, tuple[float, str]] = {}
        self._forsaken: frozenset[str] = frozenset()
        self._one_at_a_time = DeferredLock()
        self._alarm = Alarm(clock, self._due)
        self._running: Deferred[None] | None = None
        self._stopped = False

    # --- by itself -----------------------------------------------------------------------------------------------------------

    def begin(self, listings: Mapping[str, Listed | Failure]) -> None:
        """The first scan, after which others follow. ``listings``: by scope, what was listed since the start."""
        self._run(listings)

    def configure(self, settings: ReaperSettings) -> None:
        self.settings = settings
        if self.last is not None:
            self._plan()

    def stop(self) -> None:
        self._stopped = True
        self._alarm.set(None)
        if self._running is not None:
            self._running.cancel()

    def _plan(self) -> None:
        """What is not certain yet is looked at again as soon as it can be."""
        if self._stopped or self.settings.interval is None or self.last is None:
            self._alarm.set(None)
            return
        at = self.last.at + self.settings.interval
        for found in self.last.standing(Standing.SUSPECT):
            at = min(at, found.verdict.certain_at or at)
        self._alarm.set(max(at, self._clock.seconds() + SOONEST))

    def _due(self) -> None:
        self._run({})

    def _run(self, listings: Mapping[str, Listed | Failure]) -> None:
        def over(_: object) -> None:
            self._running = None
            self._plan()

        self._running = running = Deferred.fromCoroutine(self._regular(listings))
        running.addErrback(self._unforeseen).addBoth(over)

    def _unforeseen(self, failure: Failure) -> None:
        if not self._stopped:
            log.failure("the scan for leaked instances failed", failure)

    async def _regular(self, listings: Mapping[str, Listed | Failure]) -> None:
        scan = await self.scan(listings)
        if not self.settings.dry_run:
            self.last = await self._act(scan)

    # --- when somebody asks --------------------------------------------------------------------------------------------------

    async def reap(self, *, controllers: Collection[str] = (), dry_run: bool = False, wait: float = 0.0) -> Scan:
        """Scan, and hand to the reaper what has leaked. What is being destroyed already is tried again at once.

        ``controllers``: ids, or beginnings of them, of controllers that are gone for good: their instances have leaked. Raises
        ConfigError for one that no instance is of. ``wait``: seconds that the answer waits for what comes of it.
        """
        forsaken: frozenset[str] = frozenset()
        if controllers:
            seen = (await self._look_around({}, remember=False)).found
            forsaken = resolved(controllers, seen, self._identity.controller_id, self._reaper.idle)
        if dry_run:
            return await self._look_around({}, forsaken=self._forsaken | forsaken, remember=not forsaken)
        self._forsaken |= forsaken
        scan = await self._act(await self.scan())
        keys = [(f.instance.controller_id, f.instance.attempt) for f in scan.standing(Standing.CONDEMNED)]
        heard = await self._reaper.try_now(keys, wait)
        scan = evolve(scan, found=tuple(_with_outcome(found, heard) for found in scan.found))
        self.last = evolve(scan, found=tuple(found for found in scan.found if not found.gone))
        self._plan()
        return scan

    async def scan(self, listings: Mapping[str, Listed | Failure] | None = None) -> Scan:
        """Look, and act on nothing. ``listings``: by scope, what has been listed already."""
        self.last = await self._look_around(listings or {})
        return self.last

    async def _look_around(
        self, listings: Mapping[str, Listed | Failure], *, forsaken: Collection[str] | None = None, remember: bool = True
    ) -> Scan:
        """One scan at a time. ``remember``: what it sees is seen for the first time, or is seen no more."""
        await self._one_at_a_time.acquire()
        try:
            before = dict(self._first_seen)
            scan = await self._scan(self._forsaken if forsaken is None else forsaken, listings)
            if not remember:
                self._first_seen = before
            return scan
        finally:
            self._one_at_a_time.release()

    async def _scan(self, forsaken: Collection[str], listings: Mapping[str, Listed | Failure]) -> Scan:
        at = self._clock.seconds()
        plugins, unlisted, blind = self._scopes()
        looks = [self._look(scope, plugin, forsaken, listings.get(scope), at) for scope, plugin in plugins.items()]
        seen: dict[_Key, Found] = {}
        for scope, outcome in zip(plugins, await _all_of(looks), strict=True):
            if isinstance(outcome, str):
                unlisted[scope] = outcome
            else:
                # Two classes of plugins may look at one place: what both list is one instance.
                seen = {**outcome, **seen}
        found = sorted(seen.values(), key=lambda one: (one.instance.attempt.worker, one.instance.attempt.number))
        return Scan(at=at, controller_id=self._identity.controller_id, found=tuple(found), unlisted=unlisted, blind=tuple(blind))

    def _scopes(self) -> tuple[dict[str, AbstractLatentWorker], dict[str, str], list[str]]:
        """One plugin for each place; places that can't be looked at, and why; workers whose plugins can't look."""
        plugins: dict[str, AbstractLatentWorker] = {}
        unlisted: dict[str, str] = {}
        blind: list[str] = []
        for post in self._roster.latent():
            if not post.plugin.supports("list_instances"):
                blind.append(post.name)
            elif post.unusable:
                unlisted[f"worker {post.name}"] = post.unusable
            elif not post.setting_up:
                try:
                    plugins.setdefault(scope_of(post.plugin), post.plugin)
                except Exception as error:
                    unlisted[f"worker {post.name}"] = explained(error)
        return plugins, unlisted, blind

    async def _look(
        self, scope: str, plugin: AbstractLatentWorker, forsaken: Collection[str], known: Listed | Failure | None, began: float
    ) -> dict[_Key, Found] | str:
        """What there is in one place; or why that can't be known."""
        try:
            if isinstance(known, Failure):
                known.raiseException()
            listed = known if known is not None else await self._list(plugin)
        except Exception as error:
            if self._stopped:
                raise
            return explained(error)
        # The state is read now and not before: Note [Two scans] in latent.core.leaks.
        found: dict[_Key, Found] = {}
        for instance in listed:
            key = _key(instance)
            self._reaper.seen(instance, plugin)
            first = self._first_seen.get(key, (None, ""))[0]
            verdict = self._judge(instance, first, forsaken, began)
            found[key] = Found(instance=instance, scope=scope, plugin=plugin, verdict=verdict)
            if verdict.standing in (Standing.SUSPECT, Standing.LEAKED):
                # A clock that was put back must not make it younger than it is.
                now = self._clock.seconds()
                self._first_seen[key] = now if first is None else min(first, now), scope
            else:
                self._first_seen.pop(key, None)
        for key, (_, where) in list(self._first_seen.items()):
            if where == scope and key not in found:
                del self._first_seen[key]
        return found

    async def _list(self, plugin: AbstractLatentWorker) -> Listed:
        here("scan.list.before")
        answer = await ask(self._clock, ANSWER_TIMEOUT, plugin.list_instances)
        here("scan.list.answered")
        return results.listed(plugin, answer)

    def _judge(self, instance: ListedInstance, first_seen: float | None, forsaken: Collection[str], now: float) -> Verdict:
        sight = Sight(
            attempt=instance.attempt,
            controller_id=instance.controller_id,
            created_at=instance.created_at,
            protected=instance.protected,
            expires_at=instance.expires_at,
            first_seen=first_seen,
        )
        post = self._roster.get(instance.attempt.worker)
        expected = {instance.attempt} if isinstance(post, Lifecycle) and accounts_for(post, instance.attempt) else set()
        local = Local(
            controller_id=self._identity.controller_id, expected=expected, condemned=self._reaper.keys(), forsaken=forsaken
        )
        settings = self.settings
        apart = settings.min_age if settings.interval is None else min(settings.min_age, settings.interval)
        return judge(sight, local, Rules(min_age=settings.min_age, apart=apart, grace=settings.grace), now)

    # --- what follows --------------------------------------------------------------------------------------------------------

    async def _act(self, scan: Scan) -> Scan:
        """Hand what has leaked to the reaper."""
        leaked = scan.standing(Standing.LEAKED)
        ours = [found for found in leaked if found.instance.controller_id == self._identity.controller_id]
        for found in leaked:
            log.warn(
                "{attempt} ({title}) has leaked and is destroyed: {why}",
                attempt=found.instance.attempt,
                title=found.instance.title,
                why=found.verdict.why,
            )
            if found not in ours:
                self._reaper.take_foreign(found.instance, found.plugin, _reason(found))
        if ours:
            await self._condemn(ours)
        condemned = Verdict(standing=Standing.CONDEMNED, why="it is being destroyed")
        return evolve(scan, found=tuple(evolve(f, verdict=condemned) if f in leaked else f for f in scan.found))

    async def _condemn(self, leaked: Collection[Found]) -> None:
        now = self._clock.seconds()

        def write(conn: Connection) -> None:
            for found in leaked:
                attempts.condemn(conn, found.instance.attempt, _reason(found), now)
                attempts.set_handle(conn, found.instance.attempt, found.instance.handle)

        here("recovery.stray.before")
        await self._store.write(write)
        here("recovery.stray.written")
        finders = {found.instance.attempt: found.plugin for found in leaked}
        self._reaper.take(await self._store.read(attempts.condemned), finders)


def resolved(given: Iterable[str], found: Collection[Found], ours: str, ours_too: bool) -> frozenset[str]:
    """The controllers that these are, or the beginnings of. Raises ConfigError.

    ``ours_too``: whether this controller itself may be one of them, because it does not run.
    """
    known = sorted({one.instance.controller_id for one in found})
    ids = set()
    for text in given:
        fits = [one for one in known if text and one.startswith(text)]
        if len(fits) != 1:
            what = f"several controllers' ids begin with {text!r}" if fits else f"there is no instance of a controller {text!r}"
            seen = f"the instances seen are of {', '.join(known)}" if known else "no instance was seen at all"
            raise ConfigError(f"{what}; {seen}")
        if fits[0] == ours and not ours_too:
            raise ConfigError(f"{text!r} is this controller, which runs; its instances go with `latent stop`")
        ids.add(fits[0])
    return frozenset(ids)


def add_gauges(gauges: Gauges, scanner: Scanner, reaper: Reaper) -> None:
    """What Prometheus can warn of."""

    def instances() -> Mapping[tuple[tuple[str, str], ...], float]:
        scan = scanner.last
        return {(("standing", s.value),): float(len(scan.standing(s)) if scan else 0) for s in Standing}

    gauges.add("latent_instances", "Instances that the last scan of the providers saw, by how they stand.", instances)
    gauges.add(
        "latent_condemned", "Attempts whose instance is not yet confirmed to be gone.", lambda: {(): float(len(reaper.cases()))}
    )
    gauges.add(
        "latent_scan_failures",
        "Places whose instances the last scan could not list.",
        lambda: {(): float(len(scanner.last.unlisted) if scanner.last else 0)},
    )
    gauges.add(
        "latent_scan_time_seconds",
        "When the last scan was made, in POSIX seconds.",
        lambda: {(): scanner.last.at if scanner.last else 0.0},
    )


async def _all_of(looks: Iterable[Coroutine[Any, Any, dict[_Key, Found] | str]]) -> list[dict[_Key, Found] | str]:
    try:
        return await gatherResults([Deferred.fromCoroutine(look) for look in looks], consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()
        raise


def _reason(found: Found) -> str:
    return f"a scan found it: {found.verdict.why}"


def _with_outcome(found: Found, heard: Mapping[tuple[str, Attempt], str]) -> Found:
    error = heard.get((found.instance.controller_id, found.instance.attempt))
    if error is None or found.verdict.standing is not Standing.CONDEMNED:
        return found
    if not error:
        return evolve(found, gone=True, verdict=evolve(found.verdict, why="it is confirmed to be gone"))
    return evolve(found, verdict=evolve(found.verdict, why=f"it could not be destroyed: {error}"))


def _key(instance: ListedInstance) -> _Key:
    return instance.controller_id, instance.attempt, json.dumps(instance.handle, sort_keys=True, default=str)
