"""What a plugin may leave in the process: threads, connections, delayed calls, errors that nobody took."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import os
import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any, Self, cast

from attrs import frozen
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from latent.testing.contract.promises import said

DESCRIPTORS = "/proc/self/fd"


@frozen
class Census:
    """What there is, by kind. ``threads``: those of no pool. ``pools``: pools that have threads. ``files``: what is open."""

    threads: Counter[str]
    pools: Counter[str]
    files: Counter[str]

    @classmethod
    def now(cls) -> Census:
        gc.collect()
        pools: Counter[str] = Counter()
        in_pools = 0
        for one in gc.get_objects():
            # Not isinstance, which would ask what only pretends to be something, and wake it.
            if type(one) is ThreadPool and one.workers:
                pools[f"threads of a pool, {one.name!r}"] += 1
                in_pools += one.workers
            elif type(one) is concurrent.futures.ThreadPoolExecutor and one._threads:
                pools[f"threads of an executor, {one._thread_name_prefix!r}"] += 1
                in_pools += len(one._threads)
        pooled = [thread for thread in threading.enumerate() if thread.name.startswith(("PoolThread-", "ThreadPoolExecutor-"))]
        others = [thread for thread in threading.enumerate() if thread not in pooled]
        names = Counter(f"thread {_family(thread.name)!r}" for thread in others)
        if len(pooled) > in_pools:
            names["thread of a pool that nobody has any more"] = len(pooled) - in_pools
        return cls(names, pools, Counter(_files()))

    def grown(self, before: Census, by: int) -> list[str]:
        """What there is more of than before, by ``by`` at least."""
        found = []
        for now, then in ((self.threads, before.threads), (self.pools, before.pools), (self.files, before.files)):
            found += [f"{count} more of {kind}" for kind, count in sorted((now - then).items()) if count >= by]
        return found


def _family(name: str) -> str:
    return name.rstrip("0123456789").rstrip("-_ (") or name


def _files() -> Iterable[str]:
    try:
        descriptors = os.listdir(DESCRIPTORS)
    except OSError:
        return
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            target = os.readlink(f"{DESCRIPTORS}/{descriptor}")
            kind, colon, _ = target.partition(":[")
            yield f"open {kind}s" if colon else f"open file {target}"


def lasting_threads(before: Iterable[threading.Thread], grace: float) -> list[str]:
    """Threads that would keep the process from ending."""
    known = set(before)
    new = [thread for thread in threading.enumerate() if thread not in known and not thread.daemon]
    for thread in new:
        if not thread.name.startswith(("PoolThread-twisted.internet.reactor", "asyncio_")):
            thread.join(grace)
    return [f"thread {thread.name!r}, which is no daemon" for thread in new if thread.is_alive() and not _reactors(thread)]


def _reactors(thread: threading.Thread) -> bool:
    """Whether it is one of the reactor's or its event loop's own."""
    return thread.name.startswith(("PoolThread-twisted.internet.reactor", "asyncio_"))


class Errors:
    """Failures that are logged while it listens: those that somebody logs, and those of Deferreds that nobody looks at."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        failure: Failure | None = event.get("log_failure")
        if failure is not None and failure.value is not None:
            text = formatEvent(event).strip()
            self.found.append(f"{text}: {said(failure.value)}" if text else str(failure))

    def __enter__(self) -> Self:
        globalLogPublisher.addObserver(cast(ILogObserver, self))
        return self

    def __exit__(self, *error: object) -> None:
        globalLogPublisher.removeObserver(cast(ILogObserver, self))

    def all(self) -> list[str]:
        """What was found, also of Deferreds that nobody has any more."""
        gc.collect()
        return list(dict.fromkeys(self.found))


def delayed_calls(reactor: Any, before: Iterable[Any]) -> list[Any]:
    """Those that were not there before."""
    known = set(before)
    return [call for call in reactor.getDelayedCalls() if call not in known]
