"""The directory of a slot. Each build finds it empty: it is removed after a build, and before one if that did not happen."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from latent.controller.clock import Clock
from latent.gateways.buildbot.command import Command, ConnectionGone
from latent.gateways.buildbot.ports import Link
from latent.gateways.buildbot.translate import Place

log = Logger()

SILENCE = 3600.0
"""Seconds that an agent may take to remove a directory."""


class Workspace:
    def __init__(self, link: Link, clock: Clock, slot: int, command_id: str, place: Place) -> None:
        self._link = link
        self._clock = clock
        self._slot = slot
        self._folder = place.folder(slot)
        self._command_id = command_id
        self._clean = False
        self._clearing: Deferred[str] | None = None

    def clear_soon(self) -> None:
        """A build has used it. Clearing it again goes on while the agent waits for the next one."""
        self._clean = False
        if not self._link.why_lost:
            self._clearing = Deferred.fromCoroutine(self._clear())
            self._clearing.addErrback(lambda f: f.trap(ConnectionGone) and "")

    async def cleared(self) -> str:
        """Until it is empty: "", or why that can't be. Raises ConnectionGone."""
        if self._clearing is not None:
            await self._clearing
            self._clearing = None
        return "" if self._clean else await self._clear()

    async def _clear(self) -> str:
        said: list[str] = []
        command = Command(self._link, self._clock, self._slot, self._command_id, lambda stream, text: said.append(text))
        # PB's agent asks for dir, msgpack's for paths.
        args = {"dir": self._folder, "paths": [self._folder], "timeout": SILENCE, "logEnviron": False}
        end = await command.run("rmdir", args)
        if end.rc == 0 and not end.error:
            self._clean = True
            return ""
        problem = end.error or "".join(said)[-500:].strip() or f"exit code {end.rc}"
        log.warn("{peer}: {folder} can't be removed: {why}", peer=self._link.address, folder=self._folder, why=problem)
        return problem
