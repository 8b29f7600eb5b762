"""Bounded pools of threads for blocking drivers: one for each provider account, never the reactor's own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Generic, Protocol, TypeVar, TypeVarTuple
from weakref import WeakValueDictionary

from attrs import define
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.logger import Logger
from twisted.python import threadpool
from twisted.python.failure import Failure

log = Logger()

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Reactor(Protocol):
    """What a pool needs of the reactor."""

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...
    def addSystemEventTrigger(self, phase: str, eventType: str, callable: Callable[..., Any]) -> Any: ...


def discard(result: object) -> None:
    """For ``adopt``: the call only looked at something, so nothing is lost with its late result."""


@define(eq=False)
class _Call(Generic[T]):
    work: Callable[[], T]
    adopt: Callable[[T], object]
    answer: Deferred[T]
    submitted: bool = False
    abandoned: bool = False


class ThreadPool:
    """At most ``size`` blocking calls at once; the others wait their turn, in order.

    ``waiting`` and ``running`` say how many there are; a call that was cancelled counts as running until its thread is free.
    """

    _shared: ClassVar[WeakValueDictionary[tuple[int, str], ThreadPool]] = WeakValueDictionary()

    def __init__(self, name: str, size: int, reactor: Reactor) -> None:
        self.name = name
        self.size = size
        self.running = 0
        self._reactor = reactor
        self._queue: deque[_Call[Any]] = deque()
        self._threads = threadpool.ThreadPool(0, size, name)
        # A call that hangs must not keep the process from ending.
        self._threads.threadFactory = partial(threading.Thread, daemon=True)  # type: ignore[assignment]
        self._started = False
        self._stopped = False

    @classmethod
    def shared(cls, name: str, size: int, reactor: Reactor) -> ThreadPool:
        """The one pool of this name and reactor, made with ``size`` by whoever asks first. Keep it, or it goes again."""
        key = (id(reactor), name)
        found = cls._shared.get(key)
        if found is None or found._stopped:
            found = cls._shared[key] = cls(name, size, reactor)
        return found

    @classmethod
    def calls(cls, reactor: Reactor) -> int:
        """How many calls wait for, or run in, the shared pools of this reactor; also of those that were cancelled."""
        return sum(pool.waiting + pool.running for (of, _), pool in cls._shared.items() if of == id(reactor))

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def run(self, func: Callable[[*Ts], T], *args: *Ts, adopt: Callable[[T], object]) -> Deferred[T]:
        """Call ``func(*args)`` in a thread.

        Cancelling a call that waits takes it out of the queue. Cancelling one that was submitted answers CancelledError at
        once; the call goes on, and what it returns goes to ``adopt`` in the reactor's thread (`discard`, if nothing is lost).
        """
        if self._stopped:
            return fail(CancelledError(f"the threads of {self.name} are stopped"))
        call: _Call[T] = _Call(partial(func, *args), adopt, Deferred(lambda _: self._cancel(call)))
        self._queue.append(call)
        self._submit()
        return call.answer

    def stop(self) -> None:
        """Cancel what waits and take no more. Calls that run are not waited for."""
        self._stopped = True
        for call in list(self._queue):
            call.answer.cancel()
        self._end_threads()

    def _cancel(self, call: _Call[Any]) -> None:
        if call.submitted:
            call.abandoned = True
        else:
            self._queue.remove(call)

    def _submit(self) -> None:
        while self._queue and self.running < self.size:
            if not self._started:
                self._started = True
                self._threads.start()
                self._reactor.addSystemEventTrigger("during", "shutdown", self.stop)
            call = self._queue.popleft()
            call.submitted = True
            self.running += 1
            self._threads.callInThread(self._work, call)

    def _work(self, call: _Call[T]) -> None:
        try:
            result = call.work()
        except BaseException:  # SystemExit too: it is the call's answer, not the thread's end
            self._reactor.callFromThread(self._failed, call, Failure())
        else:
            self._reactor.callFromThread(self._answered, call, result)

    def _answered(self, call: _Call[T], result: T) -> None:
        self._free()
        if not call.abandoned:
            call.answer.callback(result)
            return
        try:
            call.adopt(result)
        except Exception:
            log.failure("{pool}: a late result could not be adopted: {result}", pool=self.name, result=result)

    def _failed(self, call: _Call[Any], failure: Failure) -> None:
        self._free()
        if call.abandoned:
            log.info("{pool}: a cancelled call failed: {error}", pool=self.name, error=failure.getErrorMessage())
        else:
            call.answer.errback(failure)

    def _free(self) -> None:
        self.running -= 1
        self._submit()
        self._end_threads()

    def _end_threads(self) -> None:
        if self._stopped and self._started and self.running == 0:
            self._started = False
            self._threads.stop()
