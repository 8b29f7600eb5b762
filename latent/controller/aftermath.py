"""Runs that ended a little while ago: whose they were, while their agents may send log lines and ask what became of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from attrs import define
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.controller.clock import Alarm, Clock
from latent.controller.sessions import Session
from latent.errors import NotYourRun
from latent.store import builds as rows
from latent.store.database import Store

log = Logger()

LOG_GRACE = 300.0
"""Seconds after the end of a run in which its agent may still send log lines."""


@define(eq=False)
class _Ended:
    session: int | None
    worker: str
    at: float
    lost: str


class Aftermath:
    """What is not remembered, as after a restart, is looked up in the store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._ended: OrderedDict[int, _Ended] = OrderedDict()
        self._sweeper = Alarm(clock, self._sweep)
        self._left: list[int] = []
        self._compressor = Alarm(clock, self._compress_soon)
        self._stopped = False

    def add(self, run_id: int, session: int | None, worker: str, lost: str) -> None:
        """``lost``: why its session lost it, if neither its agent nor anybody who asked ended it."""
        now = self._clock.seconds()
        self._ended[run_id] = _Ended(session, worker, now, lost)
        if not self._sweeper.armed:  # else it would be put off by each that ends
            self._sweeper.set(now + LOG_GRACE)

    def take(self, runs: Iterable[int]) -> None:
        """Runs that were over before the controller was started, and whose logs it did not come to compress."""
        self._left = list(runs)
        if self._left:
            self._compressor.set(self._clock.seconds() + LOG_GRACE)

    async def belonged(self, session: Session, run_id: int) -> bool:
        """Whether the session had the run until a little while ago."""
        ended = self._ended.get(run_id)
        if ended is not None:
            return ended.session == session.id and ended.worker == session.worker
        since = self._clock.seconds() - LOG_GRACE
        return session.id == await self._store.read(lambda conn: rows.session_of_ended(conn, run_id, since))

    def cancelled(self, session: Session, run_id: int) -> Deferred[bool]:
        """False: the run is over, or nobody knows it. Fails with NotYourRun when it is not over but lost to this session."""
        ended = self._ended.get(run_id)
        if ended is not None:
            mine = ended.session == session.id and ended.worker == session.worker
            return fail(lost_run(run_id, ended.lost)) if mine and ended.lost else succeed(False)

        def judged(why: str | None) -> bool:
            if why is not None:
                raise lost_run(run_id, why)
            return False

        return self._store.read(lambda conn: rows.lost_by(conn, run_id, session.id)).addCallback(judged)

    def stop(self) -> None:
        self._stopped = True
        self._sweeper.set(None)
        self._compressor.set(None)

    def _sweep(self) -> None:
        """Runs whose agents may send no more lines: their logs are closed and compressed."""
        now = self._clock.seconds()
        while self._ended:
            run_id, ended = next(iter(self._ended.items()))
            if now - ended.at < LOG_GRACE:
                self._sweeper.set(ended.at + LOG_GRACE)
                return
            del self._ended[run_id]
            self._store.finish_log(run_id).addErrback(self._log_not_finished, run_id)

    def _compress_soon(self) -> None:
        Deferred.fromCoroutine(self._compress())

    async def _compress(self) -> None:
        """One after the other: there may be many, and others read the disk too."""
        while self._left and not self._stopped:
            run_id = self._left.pop()
            await self._store.finish_log(run_id).addErrback(self._log_not_finished, run_id)

    def _log_not_finished(self, failure: Failure, run_id: int) -> None:
        log.failure("the log of run {run} could not be compressed", failure, run=run_id)


def drained(watchers: list[Deferred[bool]]) -> list[Deferred[bool]]:
    """All of them, which are in the list no more."""
    taken = watchers[:]
    watchers.clear()
    return taken


def lost_run(run_id: int, why: str) -> NotYourRun:
    """What its agent is told: it is to stop, though nobody cancelled."""
    return NotYourRun(f"run {run_id} is no longer this session's: {why}")
