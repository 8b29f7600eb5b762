"""Finds what keeps the reactor: a thread beside it looks whether the reactor still turns, and where it is when it does not.

Note [A busy machine]. What a test must not take for blocking: the reactor's thread waiting for a processor, or for the other
threads of this process, which run Python one at a time; garbage collection; and a machine that stood still as a whole. The
first two are counted and taken off, the third is switched off while one watches, and of the fourth the looking thread saw
nothing either, so that it has too few looks to show.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from attrs import define, frozen

BEAT = 0.005
"""Seconds between two turns that are looked for, and between two looks."""

LOOKS = 4
"""How often a reactor must have been seen to stand still in the same stretch."""

LOOPS = {"_run_once", "doPoll", "doSelect", "doKEvent", "doIteration"}
"""Where a reactor waits for something to do: asyncio's, and Twisted's own."""

FRAMES = 6
"""How many lines of the stack are told, the innermost ones."""


@frozen
class Blocked:
    """The reactor stood still for ``seconds``, in ``stack``, outermost line first."""

    seconds: float
    stack: tuple[str, ...]

    def __str__(self) -> str:
        return f"the reactor stood still for {self.seconds * 1000:.0f} ms in\n" + "\n".join(f"  {line}" for line in self.stack)


@define
class _Beat:
    """When the reactor last turned, and what there was of waiting and computing until then. Seconds."""

    at: float
    queued: float
    process: float
    thread: float


class Watch:
    """``worst``: the longest time so far for which something kept the reactor, if there was one above ``limit`` seconds.

    To be started and stopped in the reactor's thread.
    """

    def __init__(self, reactor: Any, limit: float) -> None:
        self.worst: Blocked | None = None
        self._reactor = reactor
        self._limit = limit
        self._ident = threading.get_ident()
        self._clock = time.pthread_getcpuclockid(self._ident)
        self._schedule = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._aside = 0
        self._over = threading.Event()
        self._beat = self._now()
        self._call: Any = None
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def start(self) -> None:
        gc.disable()
        self._turn()
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        self._call.cancel()
        gc.enable()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What happens here is the test's own doing."""
        self._aside += 1
        try:
            yield
        finally:
            self._beat = self._now()
            self._aside -= 1

    def _turn(self) -> None:
        self._beat = self._now()
        self._call = self._reactor.callLater(BEAT, self._turn)

    def _now(self) -> _Beat:
        return _Beat(time.monotonic(), self._queued(), time.process_time(), time.clock_gettime(self._clock))

    def _queued(self) -> float:
        """Seconds that the reactor's thread has waited for a processor; Linux tells, elsewhere it counts as nothing."""
        try:
            return int(self._schedule.read_text().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0

    def _look(self) -> None:
        seen, looks = self._beat, 0
        while not self._over.wait(BEAT):
            if self._beat is not seen or self._aside:
                seen, looks = self._beat, 0
                continue
            looks += 1
            now = self._now()
            others = (now.process - seen.process) - (now.thread - seen.thread)
            seconds = (now.at - seen.at) - (now.queued - seen.queued) - max(0.0, others)
            if seconds > self._limit + BEAT and looks >= LOOKS and (self.worst is None or seconds > self.worst.seconds):
                stack = self._stack()
                if stack and self._beat is seen:
                    self.worst = Blocked(seconds, stack)

    def _stack(self) -> tuple[str, ...]:
        """Where the reactor is; nothing when it waits."""
        frame: FrameType | None = sys._current_frames().get(self._ident)
        if frame is None or any(one.f_code.co_name in LOOPS for one in (frame, frame.f_back) if one is not None):
            return ()
        lines = traceback.extract_stack(frame)[-FRAMES:]
        return tuple(f"{one.filename}:{one.lineno} in {one.name}: {one.line}" for one in lines)
