"""The machine whose start and stop are actions: commands, SSH, Wake-on-LAN, HTTP (`latent.worker.machine_actions`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from latent.errors import ConfigError, MachineError, PluginError
from latent.worker import hooks
from latent.worker.checking import raised_by
from latent.worker.machine import AbstractLatentMachine
from latent.worker.words import kind, shown

PROBE_TIMEOUT = 5.0
PROBE_PAUSE = 1.0
"""Seconds that one connection of ``wait_for`` may take, and between one that failed and the next."""

_ENDPOINT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5})")


class GenericLatentMachine(AbstractLatentMachine):
    """``start_action`` and ``stop_action``: see `latent.worker.machine_actions`.

    ``wait_for``: "HOST:PORT"; the machine counts as up only when that takes connections. It is tried until ``missing_timeout``.
    """

    def checkConfig(
        self, name: str, start_action: Any = None, stop_action: Any = None, wait_for: str | None = None, **kwargs: Any
    ) -> None:
        super().checkConfig(name, **kwargs)
        self.start_action = self._action("start_action", start_action)
        self.stop_action = self._action("stop_action", stop_action)
        self.wait_for = None if wait_for is None else self.take(_endpoint, wait_for, default=None)

    def _action(self, keyword: str, action: Any) -> Any:
        if isinstance(action, type) or not callable(getattr(action, "perform", None)):
            what = f"the class {action.__name__}" if isinstance(action, type) else f"{kind(action)}, {shown(action)}"
            self.config_error(
                f"{keyword} is {what}, not an action; write machine.LocalWakeAction(['virsh', 'start', 'm1']) for example"
            )
        return action

    def mistakes(self, directory: Path) -> Iterator[str]:
        for keyword in ("start_action", "stop_action"):
            action = getattr(self, keyword)
            find = getattr(action, "mistakes", None)
            try:
                found = [] if find is None else list(find(directory))
            except Exception as error:
                raise PluginError(raised_by(type(action), "mistakes", error)) from error
            yield from (f"machine {self.name!r}: {keyword}: {message}" for message in found)

    async def start_machine(self) -> bool:
        await self._perform(self.start_action)
        if self.wait_for is not None:
            await _takes_connections(self.reactor, *self.wait_for)
        return True

    async def stop_machine(self) -> bool:
        await self._perform(self.stop_action)
        return True

    async def _perform(self, action: Any) -> None:
        if await hooks.call(action.perform, self) is False:
            raise MachineError(f"{type(action).__name__} answered False")


def _takes_connections(reactor: Any, host: str, port: int) -> Deferred[None]:
    """Fires when the port does; it is tried again and again. Cancellable.

    A flag says that it was cancelled: what an attempt fails with when that happens is no evidence (while a name is looked up, it
    is that there is no such name).
    """
    stopped = False
    current: Deferred[Any]

    def stop(_: Deferred[None]) -> None:
        nonlocal stopped
        stopped = True
        current.cancel()

    def attempt() -> None:
        nonlocal current
        endpoint: Any = HostnameEndpoint(reactor, host, port, timeout=PROBE_TIMEOUT)
        current = endpoint.connect(Factory.forProtocol(Protocol))
        current.addCallbacks(connected, not_yet)

    def connected(probe: Any) -> None:
        probe.transport.abortConnection()
        if not stopped:
            done.callback(None)

    def not_yet(_: Failure) -> None:
        nonlocal current
        if not stopped:
            current = deferLater(reactor, PROBE_PAUSE, attempt)
            current.addErrback(lambda failure: failure.trap(CancelledError))

    done: Deferred[None] = Deferred(stop)
    attempt()
    return done


def _endpoint(value: Any) -> tuple[str, int]:
    match = _ENDPOINT.fullmatch(value) if isinstance(value, str) else None
    if match is None or not 1 <= int(match[2]) <= 65535:
        raise ConfigError(f"wait_for is {shown(value)}; write 'HOST:PORT', 'builder-1:22' for example")
    return match[1].strip("[]"), int(match[2])
