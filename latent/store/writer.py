"""Group commit: operations queue up and are committed together, each answered when it is on disk.

The reactor's thread queues operations and answers them; the writer's thread does all that touches the database. Only one
batch is under way at a time, and whatever queues up meanwhile is the next: the busier the store, the larger its batches.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

from attrs import frozen
from sqlalchemy import Connection
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from latent.errors import StoreError
from latent.killpoints import here
from latent.store.engine import Engines
from latent.store.failures import explain, stall_reason

T = TypeVar("T")
Op = Callable[[Connection], Any]
Item = tuple[Op, "Deferred[Any]"]

FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0
LARGEST_BATCH = 1000
"""An answer waits for its whole batch, so a batch must not grow without bounds."""


@frozen
class Report:
    """What became of a batch: an answer (value or Failure) for each operation from its first on, all if not ``stalled``."""

    answers: list[Any]
    stalled: str | None = None


class _Refused(Exception):
    """An operation, or (position None) the commit, failed; the transaction was rolled back."""

    def __init__(self, position: int | None, error: BaseException) -> None:
        super().__init__(position, error)
        self.position = position
        self.error = error


class Committer:
    """Runs batches on the one connection that writes; has no thread of its own."""

    def __init__(self, engines: Engines) -> None:
        self._engine = engines.write
        self._place = engines.place
        self._in_memory = engines.in_memory
        self._connection: Connection | None = None

    def run(self, ops: Sequence[Op]) -> Report:
        """Commit the operations, in their order and in as few transactions as can be; one that fails, fails alone."""
        answers: list[Any] = []
        end = len(ops)
        while len(answers) < len(ops):
            start = len(answers)
            try:
                answers += self._transaction(ops[start:end])
                end = len(ops)
            except _Refused as refused:
                reason = stall_reason(refused.error, self._place)
                if reason is not None:
                    self._drop()
                    return Report(answers, reason)
                if refused.position == 0 or end - start == 1:
                    # Nothing ran before it in its transaction: it is at fault itself.
                    answers.append(Failure(explain(refused.error, self._place)))
                    end = len(ops)
                elif refused.position is None:
                    end = start + (end - start) // 2
                else:
                    # Commit those before it; then it runs first in its transaction.
                    end = start + refused.position
        return Report(answers)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _drop(self) -> None:
        """Give up a connection that may be broken: the next batch opens another. One in memory is all that there is."""
        if self._connection is not None and not self._in_memory:
            self._connection.invalidate()
            self.close()

    def _transaction(self, ops: Sequence[Op]) -> list[Any]:
        position: int | None = 0
        transaction = None
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            connection = self._connection
            transaction = connection.begin()
            here("writer.begun")
            answers = []
            for position, op in enumerate(ops):  # noqa: B007 (read where an operation raises)
                answers.append(op(connection))
            position = None
            here("writer.uncommitted")
            transaction.commit()
            here("writer.committed")
        except Exception as error:
            self._roll_back(transaction)
            raise _Refused(position, error) from error
        return answers

    def _roll_back(self, transaction: Any) -> None:
        if transaction is None:
            self._drop()
            return
        try:
            transaction.rollback()
            # After a commit that failed, SQLAlchemy takes the transaction for closed, while SQLite still has it open.
            transaction.connection.connection.rollback()
        except Exception:
            # The connection itself is broken, and its transaction went with it.
            self._drop()


class Writer:
    """The queue in front of a `Committer`. All methods are called in the reactor's thread.

    With a ``reactor`` the committer runs in a thread of its own, otherwise in the caller's, before `submit` returns.
    """

    def __init__(self, committer: Committer, clock: IReactorTime, reactor: Any = None) -> None:
        self.stalled: str | None = None
        self._committer = committer
        self._clock: Any = clock
        self._reactor = reactor
        self._queue: deque[Item] = deque()
        self._busy = False
        self._closing: Deferred[None] | None = None
        self._closed = False
        self._delay = FIRST_DELAY
        self._retry: tuple[list[Item], Any] | None = None
        # To the thread: a batch, None for "take what is queued", or _END.
        self._inbox: SimpleQueue[list[Item] | object | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        if reactor is not None:
            self._thread = threading.Thread(target=self._work, name="latent-store-writer", daemon=True)
            self._thread.start()

    def submit(self, op: Callable[[Connection], T]) -> Deferred[T]:
        if self._closing is not None:
            return fail(StoreError("the store is closed: nothing more can be written to it"))
        answer: Deferred[T] = Deferred()
        self._queue.append((op, answer))
        here("writer.queued")
        if not self._busy:
            self._busy = True
            self._start(None)
        return answer

    def close(self) -> Deferred[None]:
        """Commit what is queued, then end. What can't be committed now is answered with the reason."""
        if self._closed:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        if self._closing is not None:
            self._closing.chainDeferred(waiting)
            return waiting
        self._closing = waiting
        if self._retry is not None:
            batch, call = self._retry
            call.cancel()
            self._try_again(batch)
        elif not self._busy:
            self._end()
        return waiting

    # --- the reactor's side -------------------------------------------------------------------------------------------------

    def _start(self, batch: list[Item] | None) -> None:
        if self._thread is not None:
            self._inbox.put(batch)
            return
        batch = self._take() if batch is None else batch
        while self._answer(batch, self._run(batch)):
            batch = self._take()

    def _answered(self, batch: list[Item], report: Report) -> None:
        if self._answer(batch, report):
            self._start(None)

    def _answer(self, batch: list[Item], report: Report) -> bool:
        """Answer the operations; returns whether the next batch is to be started."""
        self.stalled = report.stalled
        for (_, answer), value in zip(batch, report.answers, strict=False):
            # What the callbacks submit queues up behind what is queued already, as `_busy` is still set.
            answer.callback(value)
        here("writer.answered")
        if report.stalled is not None:
            self._wait(batch[len(report.answers) :], report.stalled)
            return False
        self._delay = FIRST_DELAY
        if self._queue:
            return True
        self._busy = False
        if self._closing is not None:
            self._end()
        return False

    def _wait(self, batch: list[Item], reason: str) -> None:
        """Nothing can be written now: try again later or, when closing, give up."""
        if self._closing is None:
            self._retry = (batch, self._clock.callLater(self._delay, self._try_again, batch))
            self._delay = min(self._delay * 2, LONGEST_DELAY)
            return
        given_up = [*batch, *self._queue]
        self._queue.clear()
        for _, answer in given_up:
            answer.errback(StoreError(f"not written, because the store was closed: {reason}"))
        self._end()

    def _try_again(self, batch: list[Item]) -> None:
        self._retry = None
        self._start(batch)

    def _end(self) -> None:
        if self._thread is not None:
            self._inbox.put(_END)
            self._thread.join()
        else:
            self._committer.close()
        self._closed = True
        if self._closing is not None:
            self._closing.callback(None)

    # --- the thread's side --------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (batch := self._inbox.get()) is not _END:
            taken = self._take() if batch is None else batch
            assert isinstance(taken, list)
            report = self._run(taken)
            self._reactor.callFromThread(self._answered, taken, report)
        self._committer.close()

    def _take(self) -> list[Item]:
        # Taken as late as can be, so that all operations of one turn of the reactor share a commit. A deque, because
        # popleft is safe against an append in the other thread.
        queue = self._queue
        return [queue.popleft() for _ in range(min(len(queue), LARGEST_BATCH))]

    def _run(self, batch: list[Item]) -> Report:
        return self._committer.run([op for op, _ in batch])


_END = object()
