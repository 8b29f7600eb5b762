"""Log entries on their way to the controller (specs/peer.md, "Our agent").

`LogBuffer.add` takes an entry at once, always. What is bounded is what comes in: a reader of a step's output awaits `room`
before it reads on, so when the controller is slow or away the step's own pipe fills and the step waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from latent.agent.connection import CallRefused, Connection
from latent.wire import calls
from latent.wire import peer_pb2 as pb

log = logging.getLogger(__name__)

OVERHEAD = 64
"""Bytes that an entry takes beside its data, more or less."""

LIMIT = 4 * calls.LOG_BATCH
"""Bytes that may wait, those just being sent included."""


class LogBuffer:
    """``interval``: seconds after which what there is is sent; sooner when it is a full batch."""

    def __init__(self, connection: Connection, interval: float, limit: int = LIMIT, batch: int = calls.LOG_BATCH) -> None:
        self._connection = connection
        self._interval = interval
        self._limit = limit
        self._batch = batch
        self._entries: deque[pb.LogEntry] = deque()
        self._waiting = 0  # bytes in _entries
        self._sending = 0  # bytes on their way
        self._flushes = 0
        self._any = asyncio.Event()
        self._urgent = asyncio.Event()
        self._room = asyncio.Event()
        self._empty = asyncio.Event()
        self._room.set()
        self._empty.set()

    def add(self, entry: pb.LogEntry) -> None:
        self._entries.append(entry)
        self._waiting += len(entry.data) + OVERHEAD
        self._any.set()
        self._empty.clear()
        if self._waiting >= self._batch:
            self._urgent.set()
        if self._waiting + self._sending >= self._limit:
            self._room.clear()

    @property
    def has_room(self) -> bool:
        return self._room.is_set()

    async def room(self) -> None:
        """Until a reader may go on."""
        await self._room.wait()

    async def flush(self, timeout: float) -> None:
        """Until all that was added is with the controller, or ``timeout`` seconds."""
        if self._empty.is_set():
            return
        self._flushes += 1
        self._urgent.set()
        try:
            async with asyncio.timeout(timeout):
                await self._empty.wait()
        except TimeoutError:
            log.warning("%d bytes of logs are not with the controller yet", self._waiting + self._sending)
        finally:
            self._flushes -= 1

    async def run(self) -> None:
        """Send, for ever."""
        while True:
            await self._any.wait()
            try:
                async with asyncio.timeout(self._interval):
                    await self._urgent.wait()
            except TimeoutError:
                pass
            await self._send(self._take())

    def _take(self) -> list[pb.LogEntry]:
        batch: list[pb.LogEntry] = []
        self._sending = 0
        while self._entries:
            size = len(self._entries[0].data) + OVERHEAD
            if batch and self._sending + size > self._batch:
                break
            batch.append(self._entries.popleft())
            self._waiting -= size
            self._sending += size
        return batch

    async def _send(self, batch: list[pb.LogEntry]) -> None:
        try:
            await self._connection.call(calls.LOG, pb.LogRequest(logEntries=batch))
        except CallRefused as error:
            log.warning("%d log lines are lost: %s", len(batch), error)
        self._sending = 0
        if self._waiting < self._limit:
            self._room.set()
        if not self._entries:
            self._any.clear()
            self._empty.set()
        if self._waiting < self._batch and not self._flushes:
            self._urgent.clear()
