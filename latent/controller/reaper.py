"""Destroys what may be left of attempts whose stop failed, hung or was cut short, until the provider confirms that it is gone."""

from __future__ import annotations

from attrs import define
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from latent.controller.clock import Alarm, Clock
from latent.controller.identity import Identity
from latent.controller.roster import Roster
from latent.model import JSON, Attempt
from latent.store import attempts
from latent.store.attempts import Condemned
from latent.store.database import Store
from latent.worker import hooks, results
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
    row: Condemned
    running: bool = False


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
        self._store.read(attempts.condemned).addCallbacks(
            self.take, lambda f: log.failure("{attempt}: what was condemned could not be read", f, attempt=attempt)
        )

    def take(self, rows: list[Condemned]) -> None:
        for row in rows:
            if row.attempt not in self._cases:
                self._cases[row.attempt] = _Case(row)
        self._due()

    def stop(self) -> None:
        """What is left is taken up by the next controller."""
        self._stopped = True
        self._alarm.set(None)

    def _due(self) -> None:
        now = self._clock.seconds()
        for case in list(self._cases.values()):
            if not case.running and case.row.next_at <= now and not self._stopped:
                case.running = True
                Deferred.fromCoroutine(self._destroy(case)).addErrback(lambda f: log.failure("the reaper failed", f))
        self._arm()

    def _arm(self) -> None:
        waiting = [case.row.next_at for case in self._cases.values() if not case.running]
        self._alarm.set(min(waiting, default=None) if not self._stopped else None)

    async def _destroy(self, case: _Case) -> None:
        attempt = case.row.attempt
        try:
            handle = await self._handle(case.row)
            if handle is not None:
                await self._limited(self._plugin(attempt), handle)
        except Exception as error:
            await self._failed(case, error)
            return
        finally:
            case.running = False
        now = self._clock.seconds()
        del self._cases[attempt]
        await self._store.write(lambda conn: attempts.gone(conn, attempt, now))
        log.info("{attempt} is confirmed to be gone", attempt=attempt)

    async def _failed(self, case: _Case, error: Exception) -> None:
        now = self._clock.seconds()
        wait = min(FIRST_WAIT * 2**case.row.tries, LAST_WAIT)
        message = str(error) or type(error).__name__
        log.warn("{attempt} could not be destroyed: {error}", attempt=case.row.attempt, error=message)
        await self._store.write(lambda conn: attempts.destroy_failed(conn, case.row.attempt, message, now + wait))
        rows = await self._store.read(attempts.condemned)
        fresh = next((row for row in rows if row.attempt == case.row.attempt), None)
        if fresh is not None:
            case.row = fresh
        self._arm()

    def _plugin(self, attempt: Attempt) -> AbstractLatentWorker:
        post = self._roster.get(attempt.worker)
        if post is None or not isinstance(post.plugin, AbstractLatentWorker):
            raise NotConfirmed(f"worker {attempt.worker} is no longer declared: declare it again, or remove its instance by hand")
        return post.plugin

    async def _handle(self, row: Condemned) -> JSON:
        """What finds the instance; None when the provider says that there is none."""
        plugin = self._plugin(row.attempt)
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
        listed = results.listed(plugin, await hooks.call(plugin.list_instances))
        mine = [i for i in listed if i.attempt == row.attempt and i.controller_id == self._identity.controller_id]
        if not mine and row.tries == 0:
            # A start that was cut short may still become an instance, and a provider's list may lag behind.
            raise NotConfirmed("the provider lists no such instance; it is asked once more before that is believed")
        return mine[0].handle if mine else None

    def _limited(self, plugin: AbstractLatentWorker, handle: JSON) -> Deferred[object]:
        call = maybeDeferred(hooks.call, plugin.destroy_instance, handle)
        return call.addTimeout(DESTROY_TIMEOUT, self._clock)  # type: ignore[arg-type]
