"""One stream of a daemon's events, read by a thread of its own, in place of asking for each container again and again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from docker import APIClient

from latent_docker.faults import translate

FIRST_PAUSE = 0.25
LAST_PAUSE = 10.0
"""Seconds between two attempts to connect again: the first, doubling, and the longest."""


class Listener(Protocol):
    """Told in the reactor's thread."""

    def connected(self) -> None: ...
    def lost(self, why: str) -> None: ...
    def event(self, event: dict[str, Any]) -> None: ...


class EventStream:
    """Reads until it is closed; connects again when the daemon went away. It keeps nobody alive: the listener is asked for."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], APIClient],
        call: Callable[..., Any],
        listener: Callable[[], Listener | None],
    ) -> None:
        """``call``: the reactor's callFromThread. ``listener`` answers None when nobody listens any more."""
        self._connect = connect
        self._call = call
        self._listener = listener
        self._name = name
        self._stream: Any = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"docker events {name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self.reconnect()

    def reconnect(self) -> None:
        """End the connection: it has been found to be dead."""
        stream = self._stream
        if stream is not None:
            with contextlib.suppress(Exception):  # whatever state the socket is in, it is given up
                stream.close()

    def _read(self) -> None:
        pause = FIRST_PAUSE
        while not self._closed.is_set():
            why = "the connection was closed"
            client = None
            try:
                client = self._connect()
                self._stream = client.events(decode=True, filters={"type": "container", "label": "latent.controller"})
                self._tell(lambda listener: listener.connected())
                pause = FIRST_PAUSE
                for event in self._stream:
                    if self._closed.is_set():
                        break
                    self._tell(partial(_hand_on, event))
            except Exception as error:  # the stream is all that the thread is for: it tries again, whatever happened
                why = str(translate(error, self._name))
            finally:
                self._stream = None
                if client is not None:
                    client.close()
            if self._closed.is_set():
                return
            self._tell(partial(_lost, why))
            self._closed.wait(pause)
            pause = min(pause * 2, LAST_PAUSE)

    def _tell(self, tell: Callable[[Listener], None]) -> None:
        if self._listener() is None:
            self._closed.set()
            return

        def in_reactor() -> None:
            listener = self._listener()
            if listener is not None and not self._closed.is_set():
                tell(listener)

        self._call(in_reactor)


def _hand_on(event: dict[str, Any], listener: Listener) -> None:
    listener.event(event)


def _lost(why: str, listener: Listener) -> None:
    listener.lost(why)
