"""The controller that `benchmarks.fuzz` has fuzzed: says its ports, then answers a line of JSON for each line of JSON."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
from sqlalchemy import Connection

from latent.cli.reactor import install

reactor = install()

from twisted.internet.defer import Deferred, DeferredList  # noqa: E402
from twisted.logger import LogLevel, eventAsText, globalLogBeginner  # noqa: E402

from latent.cli.assembly import Assembly  # noqa: E402
from latent.controller import aftermath, sessions  # noqa: E402
from latent.gateways.peer import memory  # noqa: E402
from latent.model import Result  # noqa: E402
from latent.store.database import READERS, Store  # noqa: E402
from tests.fuzz.site import MASTER, WELL, request  # noqa: E402

BEAT = 0.05
"""Seconds between two looks at how late the loop is."""

FEED = 0.2
"""Seconds between two builds for a worker that is fuzzed."""

SHOWN = 20

# What the controller remembers for minutes, or ten thousand of, would take most of the way to be full, and hide what never is.
sessions.LOST_KEPT = 200
aftermath.LOG_GRACE = memory.KEPT = 20.0


class Errors(logging.Handler):
    """Whatever is logged as an error, by whoever logs. ``found``: the first of them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.number = 0
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.add(self.format(record))

    def observe(self, event: dict[str, Any]) -> None:
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            self.add(eventAsText(event))

    def add(self, text: str) -> None:
        self.number += 1
        if len(self.found) < SHOWN:
            self.found.append(text[-3000:])


class Controller:
    def __init__(self, folder: Path) -> None:
        (folder / "master.cfg").write_text(MASTER)
        self.errors = Errors()
        self._folder = folder
        self.slowest = 0.0
        self.fed = 0
        self._measured = 0
        self._feeding: list[asyncio.Task[None]] = []
        self._assembly = Assembly(folder / "master.cfg", folder / "state", reactor=reactor, ended=lambda: None)
        globalLogBeginner.beginLoggingTo([self.errors.observe], redirectStandardIO=False)
        logging.getLogger().addHandler(self.errors)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        await _awaited(self._assembly.start())
        beating = asyncio.ensure_future(self._beat())
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        print(json.dumps({protocol: self._assembly.port(protocol) for protocol in WELL}), flush=True)
        commands: dict[str, Callable[..., Any]] = {
            "build": self._build,
            "feed": self._feed,
            "measure": self._measure,
            "sessions": self._sessions,
        }
        while line := await reader.readline():
            command = json.loads(line)
            number, what = command.pop("number"), command.pop("do")
            if what == "stop":
                break
            _begin(self._answer(number, commands[what](**command)))
        else:
            os._exit(1)  # who had it fuzzed is gone, and its folder as well
        for task in (beating, *self._feeding):
            task.cancel()
        await _awaited(self._assembly.stop(fast=True))
        print(json.dumps({"number": number}), flush=True)

    async def _answer(self, number: int, answer: Any) -> None:
        try:
            document = await answer
        except Exception as error:
            document = {"error": repr(error)}
        print(json.dumps({"number": number, **document}), flush=True)

    async def _build(self, worker: str) -> dict[str, Any]:
        """A build, and how it ended."""
        controller = self._assembly.controller
        assert controller is not None
        build = await _awaited(controller.submit(request(worker)))
        done = await controller.when_finished(build.id).asFuture(asyncio.get_running_loop())
        return {
            "good": done.result is Result.SUCCESS and done.attempts == 1,
            "why": f"{done.result} {done.attempts} {done.reason}",
        }

    async def _feed(self, worker: str) -> dict[str, Any]:
        """From now on there is work for this one."""
        self._feeding.append(asyncio.ensure_future(self._feed_on(worker)))
        return {}

    async def _feed_on(self, worker: str) -> None:
        controller = self._assembly.controller
        assert controller is not None
        post = controller.roster.get(worker)
        assert post is not None
        while True:
            if len(controller.queue) < 20:
                await _awaited(controller.submit(request(worker)))
                self.fed += 1
            if post.quarantine.until:
                # One whose agents come to such ends backs off, and would have no builds after the first minute.
                post.pause(False)
            await asyncio.sleep(FEED)

    async def _sessions(self) -> dict[str, Any]:
        controller = self._assembly.controller
        assert controller is not None
        found = {worker.name: worker.session for worker in controller.workers()}
        return {"open": {name: (found[name] or {}).get("id") for name in WELL.values()}}

    async def _measure(self) -> dict[str, Any]:
        controller = self._assembly.controller
        assert controller is not None
        # Its cache grows with the database up to a limit, which is not what is asked here.
        await _awaited(_shrink_caches(controller.store))
        self._measured += 1
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        heap = _heap(self._folder / "heap.xml")
        slowest, self.slowest = self.slowest, 0.0
        return {
            "rss_mb": round(psutil.Process().memory_info().rss / 1e6, 1),
            "heap_mb": round(heap / 1e6, 1),
            "objects": len(gc.get_objects()),
            "slowest_ms": round(slowest * 1000),
            "errors": self.errors.number,
            "found": self.errors.found,
            "builds_for_the_fuzzed": self.fed,
        }

    async def _beat(self) -> None:
        """The machine may have others to serve: a loop that is late without having worked is not busy."""
        while True:
            began, worked, measured = time.perf_counter(), time.thread_time(), self._measured
            await asyncio.sleep(BEAT)
            late = min(time.perf_counter() - began - BEAT, time.thread_time() - worked)
            if measured == self._measured:
                self.slowest = max(self.slowest, late)


def _heap(path: Path) -> int:
    """Bytes that are in use of what malloc has, in all of its arenas."""
    libc = ctypes.CDLL("libc.so.6")
    libc.fopen.restype = ctypes.c_void_p
    file = ctypes.c_void_p(libc.fopen(str(path).encode(), b"w"))
    libc.malloc_info(0, file)
    libc.fclose(file)
    found = ElementTree.fromstring(path.read_bytes())
    free, mapped = (
        sum(int(total.attrib["size"]) for total in found.findall("total") if total.attrib["type"] in kinds)
        for kinds in (("fast", "rest"), ("mmap",))
    )
    return sum(int(system.attrib["size"]) for system in found.findall("system[@type='current']")) - free + mapped


async def _shrink_caches(store: Store) -> None:
    """Of all connections: those that read meet while they have theirs, so that each has one of its own."""
    meeting = threading.Barrier(READERS)

    def shrink(conn: Connection) -> None:
        conn.exec_driver_sql("PRAGMA shrink_memory")

    def meet(conn: Connection) -> None:
        shrink(conn)
        meeting.wait()

    await DeferredList([store.write(shrink), *(store.read(meet) for _ in range(READERS))], fireOnOneErrback=True)


def _awaited(coroutine: Any) -> Any:
    """Twisted's side, awaited from asyncio."""
    return Deferred.fromCoroutine(coroutine).asFuture(asyncio.get_running_loop())


async def _run() -> None:
    try:
        await Controller(Path(sys.argv[1])).run()
    finally:
        reactor.stop()


tasks: set[asyncio.Task[None]] = set()
"""Kept: what nobody refers to may be collected while it waits."""


def _begin(work: Any) -> None:
    task = asyncio.ensure_future(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    reactor.callWhenRunning(lambda: _begin(_run()))
    reactor.run()
