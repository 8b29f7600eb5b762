"""Destroys what may be left of attempts, until the provider confirms that it is gone.

Their stop failed, hung or was cut short, or a scan found that their instance has leaked (`latent.controller.scan`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.controller.asking import ask
from latent.controller.clock import Alarm, Clock
from latent.controller.failures import explained
from latent.controller.identity import Identity
from latent.controller.roster import Roster
from latent.killpoints import here
from latent.model import JSON, Attempt
from latent.store import attempts
from latent.store.attempts import Condemned
from latent.store.database import Store
from latent.worker import results
from latent.worker.base import AbstractLatentWorker, ListedInstance

log = Logger()

FIRST_WAIT = 10.0
LAST_WAIT = 600.0
DESTROY_TIMEOUT = 300.0
"""Seconds: the wait after the first failure, doubling; the longest; and how long one destroy_instance may take."""

Key = tuple[str, Attempt]
"""(controller id, attempt): whose instance it is."""


class NotConfirmed(Exception):
    """The instance could not be destroyed; the message says why and what an operator can do."""


@define
class _Case:
    """``plugin``: who can destroy it. The one that made it, as its worker may be gone, or another's, by the time it succeeds.

    ``again``: it was condemned once more while it was being destroyed, so there may be more than was seen.
    ``waiters``: who wants to hear what comes of the next try.
    """

    key: Key
    row: Condemned
    plugin: AbstractLatentWorker | None = None
    running: Deferred[None] | None = None
    again: bool = False
    waiters: list[Deferred[str]] = field(factory=list)


class Reaper:
    """``idle``: it is told of cases and does nothing of itself. ``confirmed``: called when an instance is known to be gone.

    The cases of other controllers are not in the store, which is this one's: after a restart scans find them again.
    """

    def __init__(self, store: Store, clock: Clock, roster: Roster, identity: Identity) -> None:
        self._store = store
        self._clock = clock
        self._roster = roster
        self._identity = identity
        self._cases: dict[Key, _Case] = {}
        self._protected: set[Key] = set()
        self._alarm = Alarm(clock, self._due)
        self._stopped = False
        self.idle = False
        self.confirmed: Callable[[], None] = lambda: None

    def cases(self) -> list[Condemned]:
        """What is not yet confirmed to be gone."""
        return [case.row for case in self._cases.values()]

    def keys(self) -> frozenset[Key]:
        return frozenset(self._cases)

    def is_protected(self, attempt: Attempt) -> bool:
        """Whether a scan saw that an instance of this controller must not be destroyed."""
        return (self._identity.controller_id, attempt) in self._protected

    def condemned(self, attempt: Attempt) -> None:
        """The store has the attempt as condemned: look after it."""
        if (case := self._cases.get((self._identity.controller_id, attempt))) is not None:
            case.again = True
        self._store.read(attempts.condemned).addCallbacks(
            self.take, lambda f: log.failure("{attempt}: what was condemned could not be read", f, attempt=attempt)
        )

    def take(self, rows: Iterable[Condemned], finders: Mapping[Attempt, AbstractLatentWorker] | None = None) -> None:
        """Look after these attempts of this controller.

        ``finders``: the plugins of other workers that see some of the instances, where the worker itself is not declared.
        """
        for row in rows:
            key = self._identity.controller_id, row.attempt
            case = self._cases.get(key)
            if case is None:
                self._cases[key] = _Case(key, row, self._declared(row.attempt) or (finders or {}).get(row.attempt))
            else:
                case.row = row
        self._due()

    def take_foreign(self, instance: ListedInstance, plugin: AbstractLatentWorker, reason: str) -> None:
        """Destroy another controller's instance, which nobody looks after any more."""
        key, now = (instance.controller_id, instance.attempt), self._clock.seconds()
        if key not in self._cases:
            row = Condemned(
                attempt=instance.attempt, handle=instance.handle, reason=reason, since=now, tries=0, next_at=now, error=""
            )
            self._cases[key] = _Case(key, row, plugin)
        self._due()

    def seen(self, instance: ListedInstance, plugin: AbstractLatentWorker) -> None:
        """A scan has seen it: by which plugin, for cases whose worker is no longer declared, and whether it is protected."""
        key = instance.controller_id, instance.attempt
        if instance.protected:
            self._protected.add(key)
        elif key in self._protected:
            self._protected.discard(key)
            self._due()
        if (case := self._cases.get(key)) is not None and case.plugin is None:
            case.plugin = self._declared(instance.attempt) or plugin

    async def try_now(self, keys: Iterable[Key], seconds: float) -> dict[Key, str]:
        """Do not wait for the next try of these. What came of them in ``seconds``: "" for what is gone, or the error."""
        keys = list(keys)
        known = [self._cases[key] for key in keys if key in self._cases]
        heard: dict[Key, str] = {key: "" for key in keys if key not in self._cases}
        waiting: list[Deferred[str]] = [Deferred() for _ in known]
        for case, waiter in zip(known, waiting, strict=True):
            waiter.addCallback(partial(_hear, heard, case.key))
            case.waiters.append(waiter)
            case.row = evolve(case.row, next_at=min(case.row.next_at, self._clock.seconds()))
        self._due(at_once=True)
        everything = DeferredList(waiting, consumeErrors=True)
        patience = self._clock.callLater(seconds, everything.cancel)
        await everything
        if patience.active():
            patience.cancel()
        return heard

    def stop(self) -> None:
        """What is left is taken up by the next controller."""
        self._stopped = True
        self._alarm.set(None)
        for case in self._cases.values():
            if case.running is not None:
                case.running.cancel()

    def _waits(self, case: _Case) -> bool:
        return case.running is None and case.key not in self._protected

    def _due(self, at_once: bool = False) -> None:
        now = self._clock.seconds()
        if self.idle and not at_once:
            return
        for case in list(self._cases.values()):
            if self._waits(case) and case.row.next_at <= now and not self._stopped and (case.waiters or not self.idle):
                case.running = Deferred.fromCoroutine(self._destroy(case))
                case.running.addErrback(self._unforeseen, case).addBoth(self._ended, case)
        self._arm()

    def _unforeseen(self, failure: Failure, case: _Case) -> None:
        """Whatever it was, the next try waits: else this would go round and round."""
        log.failure("{attempt}: the reaper failed", failure, attempt=case.row.attempt)
        case.row = evolve(case.row, next_at=self._clock.seconds() + LAST_WAIT, error=failure.getErrorMessage())

    def _ended(self, _: None, case: _Case) -> None:
        case.running = None
        waiters, case.waiters = case.waiters, []
        for waiter in waiters:
            if not waiter.called:
                waiter.callback("" if case.key not in self._cases else case.row.error)
        self._arm()

    def _arm(self) -> None:
        waiting = [case.row.next_at for case in self._cases.values() if self._waits(case)]
        self._alarm.set(min(waiting, default=None) if not (self._stopped or self.idle) else None)

    async def _destroy(self, case: _Case) -> None:
        attempt = case.row.attempt
        case.again = True
        try:
            plugin = self._plugin(case)
            while case.again:
                case.again = False
                handle = await self._handle(case, plugin)
                if handle is not None:
                    here("reaper.destroy.before")
                    await ask(self._clock, DESTROY_TIMEOUT, plugin.destroy_instance, handle)
                    here("reaper.destroy.answered")
        except Exception as error:
            if not self._stopped:
                await self._failed(case, error)
            return
        now = self._clock.seconds()
        del self._cases[case.key]
        if not self._foreign(case):
            await self._store.write(lambda conn: attempts.gone(conn, attempt, now))
            here("reaper.gone.written")
            self.confirmed()
        log.info("{attempt} is confirmed to be gone", attempt=attempt)

    async def _failed(self, case: _Case, error: Exception) -> None:
        now = self._clock.seconds()
        wait = min(FIRST_WAIT * 2 ** min(case.row.tries, 10), LAST_WAIT)
        message = str(error) if isinstance(error, NotConfirmed) else explained(error)
        log.warn("{attempt} could not be destroyed: {error}", attempt=case.row.attempt, error=message)
        here("reaper.failed.before")
        if self._foreign(case):
            case.row = evolve(case.row, tries=case.row.tries + 1, error=message, next_at=now + wait)
            return
        await self._store.write(lambda conn: attempts.destroy_failed(conn, case.row.attempt, message, now + wait))
        here("reaper.failed.written")
        rows = await self._store.read(attempts.condemned)
        fresh = next((row for row in rows if row.attempt == case.row.attempt), None)
        if fresh is not None:
            case.row = fresh

    def _foreign(self, case: _Case) -> bool:
        return case.key[0] != self._identity.controller_id

    def _declared(self, attempt: Attempt) -> AbstractLatentWorker | None:
        post = self._roster.get(attempt.worker)
        return post.plugin if post is not None and isinstance(post.plugin, AbstractLatentWorker) else None

    def _plugin(self, case: _Case) -> AbstractLatentWorker:
        case.plugin = case.plugin or self._declared(case.row.attempt)
        if case.plugin is None:
            worker = case.row.attempt.worker
            raise NotConfirmed(f"worker {worker} is no longer declared: declare it again, or remove its instance by hand")
        return case.plugin

    async def _handle(self, case: _Case, plugin: AbstractLatentWorker) -> JSON:
        """What finds the instance; None when the provider says that there is none."""
        row = case.row
        if not plugin.supports("destroy_instance"):
            raise NotConfirmed(
                f"{type(plugin).__name__} has no destroy_instance: make sure by hand that its instance is gone ({row.reason})"
            )
        if row.handle is not None:
            return row.handle
        if not plugin.supports("list_instances"):
            raise NotConfirmed(
                f"{type(plugin).__name__} has no list_instances and the attempt left no handle: look for it by hand"
            )
        here("reaper.list.before")
        listed = results.listed(plugin, await ask(self._clock, DESTROY_TIMEOUT, plugin.list_instances))
        here("reaper.list.answered")
        mine = [i for i in listed if (i.controller_id, i.attempt) == case.key]
        if not mine and row.tries == 0:
            # A start that was cut short may still become an instance, and a provider's list may lag behind.
            raise NotConfirmed("the provider lists no such instance; it is asked once more before that is believed")
        if mine and mine[0].protected:
            self._protected.add(case.key)
            raise NotConfirmed("it is protected: take the mark off when it may go")
        return mine[0].handle if mine else None


def _hear(heard: dict[Key, str], key: Key, error: str) -> str:
    heard[key] = error
    return error
