"""A run's log lines on their way to the dispatcher.

A stock agent sends its output once and does not wait, so what can't be kept just now (a full disk) is held here; and when that
is a lot, nothing more is read from the agent until it could be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.controller.clock import Clock, Wait
from latent.errors import NotYourRun, StoreError
from latent.gateways.buildbot.ports import Session
from latent.gateways.ports import Dispatcher
from latent.model import LogLine

log = Logger()

RETRY = 1.0
"""Seconds between two tries to keep the same lines."""

LIMIT = 1024 * 1024
"""Characters that may wait before nothing more is read."""

OVERHEAD = 100


class LogPipe:
    """``pause(True)`` is called when there is no room, ``pause(False)`` when there is again."""

    def __init__(
        self, dispatcher: Dispatcher, session: Session, run_id: int, clock: Clock, pause: Callable[[bool], None]
    ) -> None:
        self._dispatcher = dispatcher
        self._session = session
        self._run_id = run_id
        self._clock = clock
        self._pause = pause
        self._waiting: list[LogLine] = []
        self._size = 0
        self._paused = False
        self._sending = False
        self._retry: Wait | None = None
        self._flushes: list[Deferred[None]] = []
        self._closed = False

    def write(self, lines: Sequence[LogLine]) -> None:
        if not lines or self._closed:
            return
        self._waiting.extend(lines)
        self._size += sum(len(line.text) + OVERHEAD for line in lines)
        if not self._sending and self._retry is None:
            self._send()
        if self._size > LIMIT and not self._paused:
            self._paused = True
            self._pause(True)

    async def flush(self, timeout: float) -> None:
        """Until all that was written is kept, or ``timeout`` seconds; what is not kept then is lost."""
        if self._waiting or self._sending:
            done: Deferred[None] = Deferred()
            self._flushes.append(done)
            limit = self._clock.callLater(timeout, self._give_up)
            await done
            if limit.active():
                limit.cancel()
        self.close()

    def close(self) -> None:
        """Nothing more will be written, and nothing that waits is tried again."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._resume()

    def _send(self) -> None:
        self._retry = None
        batch, self._waiting = self._waiting, []
        self._sending = True
        sent = Deferred.fromCoroutine(self._dispatcher.logged(self._session, self._run_id, batch))
        sent.addCallbacks(self._kept, self._not_kept, callbackArgs=(batch,), errbackArgs=(batch,))

    def _kept(self, _: object, batch: list[LogLine]) -> None:
        self._sending = False
        self._size -= sum(len(line.text) + OVERHEAD for line in batch)
        self._go_on()

    def _not_kept(self, failure: Failure, batch: list[LogLine]) -> None:
        self._sending = False
        if failure.check(StoreError) and not self._closed:
            self._waiting[:0] = batch
            self._retry = self._clock.callLater(RETRY, self._send)
            return
        if not failure.check(NotYourRun):
            log.failure("run {run}: {count} log lines are lost", failure, run=self._run_id, count=len(batch))
        self._size -= sum(len(line.text) + OVERHEAD for line in batch)
        self._go_on()

    def _go_on(self) -> None:
        if self._waiting:
            self._send()
            return
        self._resume()
        flushes, self._flushes = self._flushes, []
        for done in flushes:
            done.callback(None)

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._pause(False)

    def _give_up(self) -> None:
        log.warn("run {run}: {count} log lines could not be kept", run=self._run_id, count=len(self._waiting))
        self._waiting = []
        flushes, self._flushes = self._flushes, []
        for done in flushes:
            done.callback(None)
