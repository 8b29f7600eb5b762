"""Destroys what may be left of attempts whose stop failed, hung or was cut short, until the provider confirms that it is gone."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.controller.asking import ask
from latent.controller.clock import Alarm, Clock
from latent.controller.failures import explained
from latent.controller.identity import Identity
from latent.controller.roster import Roster
from latent.model import JSON, Attempt
from latent.store import attempts
from latent.store.attempts import Condemned
from latent.store.database import Store
from latent.worker import results
from latent.worker.base import AbstractLatentWorker

log = Logger()

FIRST_WAIT = 10.0
LAST_WAIT = 600.0
DESTROY_TIMEOUT = 300.0
"""Seconds: the wait after the first failure, doubling; the longest; and how long one destroy_instance may take."""


class NotConfirmed(Exception):
    """The instance could not be destroyed; the message says why and what an operator can do."""


@define
class _Case:
    """``plugin``: who can destroy it. The one that made it, as its worker may be gone, or another's, by the time it succeeds.

    ``again``: it was condemned once more while it was being destroyed, so there may be more than was seen.
    """

    row: Condemned
    plugin: AbstractLatentWorker | None = None
    running: Deferred[None] | None = None
    again: bool = False


class Reaper:
    def __init__(self, store: Store, clock: Clock, roster: Roster, identity: Identity) -> None:
        self._store = store
        self._clock = clock
        self._roster = roster
        self._identity = identity
        self._cases: dict[Attempt, _Case] = {}
        self._alarm = Alarm(clock, self._due)
        self._stopped = False

    def cases(self) -> list[Condemned]:
        """What is not yet confirmed to be gone."""
        return [case.row for case in self._cases.values()]

    def condemned(self, attempt: Attempt) -> None:
        """The store has the attempt as condemned: look after it."""
        if (case := self._cases.get(attempt)) is not None:
            case.again = True
        self._store.read(attempts.condemned).addCallbacks(
            self.take, lambda f: log.failure("{attempt}: what was condemned could not be read", f, attempt=attempt)
        )

    def take(self, rows: list[Condemned], finders: Mapping[Attempt, AbstractLatentWorker] | None = None) -> None:
        """``finders``: the plugins of other workers that see some of the instances, where the worker itself is not declared."""
        for row in rows:
            case = self._cases.get(row.attempt)
            if case is None:
                self._cases[row.attempt] = _Case(row, self._declared(row.attempt) or (finders or {}).get(row.attempt))
            else:
                case.row = row
        self._due()

    def stop(self) -> None:
        """What is left is taken up by the next controller."""
        self._stopped = True
        self._alarm.set(None)
        for case in self._cases.values():
            if case.running is not None:
                case.running.cancel()

    def _due(self) -> None:
        now = self._clock.seconds()
        for case in list(self._cases.values()):
            if case.running is None and case.row.next_at <= now and not self._stopped:
                case.running = Deferred.fromCoroutine(self._destroy(case))
                case.running.addErrback(self._unforeseen, case).addBoth(self._ended, case)
        self._arm()

    def _unforeseen(self, failure: Failure, case: _Case) -> None:
        """Whatever it was, the next try waits: else this would go round and round."""
        log.failure("{attempt}: the reaper failed", failure, attempt=case.row.attempt)
        case.row = evolve(case.row, next_at=self._clock.seconds() + LAST_WAIT)

    def _ended(self, _: None, case: _Case) -> None:
        case.running = None
        self._arm()

    def _arm(self) -> None:
        waiting = [case.row.next_at for case in self._cases.values() if case.running is None]
        self._alarm.set(min(waiting, default=None) if not self._stopped else None)

    async def _destroy(self, case: _Case) -> None:
        attempt = case.row.attempt
        case.again = True
        try:
            plugin = self._plugin(case)
            while case.again:
                case.again = False
                handle = await self._handle(case.row, plugin)
                if handle is not None:
                    await ask(self._clock, DESTROY_TIMEOUT, plugin.destroy_instance, handle)
        except Exception as error:
            if not self._stopped:
                await self._failed(case, error)
            return
        now = self._clock.seconds()
        del self._cases[attempt]
        await self._store.write(lambda conn: attempts.gone(conn, attempt, now))
        log.info("{attempt} is confirmed to be gone", attempt=attempt)

    async def _failed(self, case: _Case, error: Exception) -> None:
        now = self._clock.seconds()
        wait = min(FIRST_WAIT * 2 ** min(case.row.tries, 10), LAST_WAIT)
        message = str(error) if isinstance(error, NotConfirmed) else explained(error)
        log.warn("{attempt} could not be destroyed: {error}", attempt=case.row.attempt, error=message)
        await self._store.write(lambda conn: attempts.destroy_failed(conn, case.row.attempt, message, now + wait))
        rows = await self._store.read(attempts.condemned)
        fresh = next((row for row in rows if row.attempt == case.row.attempt), None)
        if fresh is not None:
            case.row = fresh

    def _declared(self, attempt: Attempt) -> AbstractLatentWorker | None:
        post = self._roster.get(attempt.worker)
        return post.plugin if post is not None and isinstance(post.plugin, AbstractLatentWorker) else None

    def _plugin(self, case: _Case) -> AbstractLatentWorker:
        case.plugin = case.plugin or self._declared(case.row.attempt)
        if case.plugin is None:
            worker = case.row.attempt.worker
            raise NotConfirmed(f"worker {worker} is no longer declared: declare it again, or remove its instance by hand")
        return case.plugin

    async def _handle(self, row: Condemned, plugin: AbstractLatentWorker) -> JSON:
        """What finds the instance; None when the provider says that there is none."""
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
        listed = results.listed(plugin, await ask(self._clock, DESTROY_TIMEOUT, plugin.list_instances))
        mine = [i for i in listed if i.attempt == row.attempt and i.controller_id == self._identity.controller_id]
        if not mine and row.tries == 0:
            # A start that was cut short may still become an instance, and a provider's list may lag behind.
            raise NotConfirmed("the provider lists no such instance; it is asked once more before that is believed")
        return mine[0].handle if mine else None
