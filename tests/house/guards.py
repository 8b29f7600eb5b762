"""Fixtures that fail a test which leaves something behind. pytest-twisted notices none of this by itself.

A test must not leave behind:

- a delayed call in the reactor;
- a logged error: a failure in a Deferred that nobody handled, `log.failure(...)`, an exception in a callback of the event loop.
  A test that expects one takes it out with the fixture `flush_logged_errors`;
- a process: a child, or one that a child started and left (found by a mark in its environment);
- a thread that is no daemon.

What is found is ended, so that it fails one test and not the next ones as well. What a fixture of a wider scope
started is not the test's.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import pytest_twisted
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

GRACE = float(os.environ.get("LATENT_TEST_GRACE", "2"))
"""Seconds that a process or a thread which is about to end gets for it."""

LIMIT = float(os.environ.get("LATENT_TEST_LIMIT", "300"))
"""Seconds that an asynchronous test may take."""

MARK_NAME, MARK = "LATENT_TEST_RUN", uuid.uuid4().hex

# Goes before the event that has the failure itself.
_HEADING = "Unhandled error in Deferred:"
# Threads that belong to the reactor and its event loop, which outlive every test.
_REACTOR_THREADS = ("PoolThread-twisted.internet.reactor", "asyncio_")
# A process that multiprocessing starts once and keeps.
_TRACKER = "multiprocessing.resource_tracker"


@implementer(ILogObserver)
class LoggedErrors(logging.Handler):
    """Collects what Twisted's log and asyncio's log have to say of errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[tuple[Failure | None, str]] = []

    def __call__(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        if failure is not None:
            self.found.append((failure, f"{formatEvent(event)}\n{failure.getTraceback()}"))
        elif event.get("isError") and event.get("log_format") != _HEADING:
            self.found.append((None, formatEvent(event)))

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        failure = None if error is None else Failure(error)
        self.found.append((failure, f"{record.getMessage()}\n{failure.getTraceback() if failure else ''}"))

    def flush_types(self, *types: type[BaseException]) -> list[Failure]:
        """Take out the errors of these types (all, if none is given) and return them."""
        taken = [failure for failure, _ in self.found if failure is not None and (not types or failure.check(*types))]
        self.found = [(failure, text) for failure, text in self.found if not any(failure is one for one in taken)]
        return taken


@pytest.fixture(scope="session", autouse=True)
def marked_environment() -> None:
    """Mark what is started from here on, by fixtures of any scope: they come before the first test's own guard."""
    os.environ[MARK_NAME] = MARK


@pytest.fixture(scope="module", autouse=True)
def collected_garbage() -> None:
    """Set aside what there is before a module's tests, so that a full collection after each test looks at little."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def leaves_nothing_behind(marked_environment: None) -> Iterator[LoggedErrors]:
    """The guard itself. Its value is what was logged so far."""
    from twisted.internet import reactor

    logged = LoggedErrors()
    globalLogPublisher.addObserver(logged)
    logging.getLogger("asyncio").addHandler(logged)
    calls = set(reactor.getDelayedCalls())
    processes = set(psutil.pids())
    threads = set(threading.enumerate())
    try:
        yield logged
        found = [
            *_delayed_calls(reactor, calls),
            *_left_processes(processes),
            *_left_threads(threads),
            *_errors(logged),
        ]
    finally:
        globalLogPublisher.removeObserver(logged)
        logging.getLogger("asyncio").removeHandler(logged)
    if found:
        pytest.fail("The test left behind:\n" + "\n".join(f"- {one}" for one in found), pytrace=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[Any]:
    """Give an asynchronous test a deadline, so that one that waits for what never comes fails and the rest goes on."""
    test = pyfuncitem.obj
    if not hasattr(test, "hypothesis"):
        pyfuncitem.obj = _limited(test)
    try:
        return (yield)
    finally:
        pyfuncitem.obj = test


def _limited(test: Callable[..., Any]) -> Callable[..., Any]:
    from twisted.internet import reactor

    @functools.wraps(test)
    def limited(*args: Any, **kwargs: Any) -> Any:
        result = test(*args, **kwargs)
        if inspect.iscoroutine(result):
            result = Deferred.fromCoroutine(result)
        if isinstance(result, Deferred):
            result.addTimeout(
                LIMIT, reactor, lambda _, limit: Failure(AssertionError(f"the test did not end within {limit:.0f} s"))
            )
        return result

    return limited


@pytest.fixture
def flush_logged_errors(leaves_nothing_behind: LoggedErrors) -> Callable[..., list[Failure]]:
    """`flush_logged_errors(*types)`: the failures of these types (all, if none is given) logged so far, now forgiven.

    A failure in a Deferred that nobody handled counts as logged once the Deferred is collected, which this makes happen.
    """

    def flush(*types: type[BaseException]) -> list[Failure]:
        gc.collect()
        return leaves_nothing_behind.flush_types(*types)

    return flush


def _errors(logged: LoggedErrors) -> list[str]:
    gc.collect()
    return [f"a logged error: {text.rstrip()}" for _, text in logged.found]


def _delayed_calls(reactor: Any, before: set[Any]) -> list[str]:
    def left() -> list[Any]:
        return [call for call in reactor.getDelayedCalls() if call not in before]

    # What is due at once is on its way out: closing a connection takes a turn or two of the reactor.
    for _ in range(3):
        if not left():
            return []
        pytest_twisted.blockon(task.deferLater(reactor, 0))
    calls = left()
    for call in calls:
        call.cancel()
    return [f"a delayed call: {call}" for call in calls]


def _left_processes(before: set[int]) -> list[str]:
    left = [process for pid in set(psutil.pids()) - before if (process := _left_process(pid, before)) is not None]
    if left:
        _, left = psutil.wait_procs(left, timeout=GRACE)
    found = []
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            found.append(f"a process: {process.pid} {' '.join(process.cmdline()) or process.name()}")
            process.kill()
    psutil.wait_procs(left, timeout=GRACE)
    return found


def _left_process(pid: int, before: set[int]) -> psutil.Process | None:
    """The new process, if the test started it: it descends from this process, or bears the mark.

    One that descends from a process of a wider fixture (a connection of a database server, say) is that fixture's.
    """
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        ancestors = _ancestors(process)
        mine = any(ancestor.pid == os.getpid() for ancestor in ancestors)
        if not mine and not _marked(process):
            return None
        if any(ancestor.pid in before and _marked(ancestor) for ancestor in ancestors):
            return None
        return None if any(_TRACKER in word for word in process.cmdline()) else process
    return None


def _ancestors(process: psutil.Process) -> list[psutil.Process]:
    for _ in range(3):
        with contextlib.suppress(psutil.Error):
            return process.parents()
        time.sleep(0.01)  # a parent ended while we looked: who has its children now is seen the next time
    return []


def _marked(process: psutil.Process) -> bool:
    for _ in range(3):
        try:
            environment = process.environ()
        except psutil.AccessDenied:
            return False  # another user's
        if environment:
            return environment.get(MARK_NAME) == MARK
        time.sleep(0.01)  # between fork and exec a process has no environment for a moment
    return False


def _left_threads(before: set[threading.Thread]) -> list[str]:
    left = [
        thread
        for thread in threading.enumerate()
        if thread not in before and not thread.daemon and not thread.name.startswith(_REACTOR_THREADS)
    ]
    for thread in left:
        thread.join(GRACE)
    return [f"a thread: {thread.name}" for thread in left if thread.is_alive()]
