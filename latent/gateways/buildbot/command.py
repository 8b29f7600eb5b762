"""One command of an agent: started, listened to, interrupted, over."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.controller.clock import Clock, Wait
from latent.gateways.buildbot.ports import Link, Value

log = Logger()

RC_PATIENCE = 5.0
"""Seconds that an exit code may come after the end of its command."""

INTERRUPT_GRACE = 30.0
"""Seconds that an agent has to end a command; then its connection is closed, which ends whatever it runs."""

REASON_LIMIT = 1000
"""Characters that are kept of what an agent says of the end of a command."""

_KILLED = re.compile(r"^process killed by signal (\d+)$", re.MULTILINE)

TEXTS = ("stdout", "stderr", "header")


class ConnectionGone(Exception):
    """The connection to the agent was lost: it has killed what it ran."""


@frozen(kw_only=True)
class CommandEnd:
    """``rc``: None if none came. ``reason``: the agent's failure_reason. ``error``: why it could not carry the command out.
    ``killed_by``: the number of a signal, as text."""

    rc: int | None = None
    reason: str = ""
    error: str = ""
    killed_by: str = ""


class Command:
    """``wrote(stream, text)`` hears of output."""

    def __init__(self, link: Link, clock: Clock, slot: int, command_id: str, wrote: Callable[[str, str], None]) -> None:
        self._link = link
        self._clock = clock
        self._slot = slot
        self._id = command_id
        self._wrote = wrote
        self._over: Deferred[CommandEnd] | None = Deferred()
        self._rc: int | None = None
        self._reason = ""
        self._error = ""
        self._killed_by = ""
        self._completed = False
        self._wait: Wait | None = None

    async def run(self, name: str, args: dict[str, Any]) -> CommandEnd:
        """Raises ConnectionGone."""
        over = self._over
        assert over is not None
        if self._link.why_lost:
            raise ConnectionGone(self._link.why_lost)
        self._link.start(self._slot, self._id, name, args, self).addErrback(self._not_started)
        return await over

    def interrupt(self, why: str) -> None:
        """Ask the agent to end it."""
        if self._over is None or self._wait is not None:
            return
        self._wait = self._clock.callLater(INTERRUPT_GRACE, self._will_not_end)
        self._link.interrupt(self._slot, self._id, why).addErrback(self._not_interrupted)

    # --- `latent.gateways.buildbot.ports.Receiver` ---------------------------------------------------------------------------

    def updated(self, key: str, value: Value) -> None:
        if self._over is None:
            return
        if key in TEXTS:
            # The last: a command's text is told in a header too, and may have anything in it.
            if key == "header" and (found := _KILLED.findall(value)):
                self._killed_by = found[-1]
            self._wrote(key, value)
        elif key == "rc":
            self._rc = value
            if self._completed:
                self._end()
        elif key == "failure_reason":
            self._reason = value[:REASON_LIMIT]

    def completed(self, error: str) -> None:
        if self._over is None or self._completed:
            return
        self._completed = True
        self._error = error[:REASON_LIMIT]
        if self._rc is not None or error:
            self._end()
        else:
            self._set_wait(RC_PATIENCE, self._end)

    def lost(self, reason: str) -> None:
        self._finish(Failure(ConnectionGone(reason)))

    # --- its end -------------------------------------------------------------------------------------------------------------

    def _not_started(self, failure: Failure) -> None:
        if self._link.why_lost:
            self.lost(self._link.why_lost)
        elif not self._completed:
            self.completed(failure.getErrorMessage() or "the agent does not take the command")

    def _not_interrupted(self, failure: Failure) -> None:
        if not self._link.why_lost:
            log.warn("{peer}: a command could not be interrupted: {why}", peer=self._link.address, why=failure.getErrorMessage())

    def _will_not_end(self) -> None:
        self._wait = None
        self._link.drop(f"its agent did not end a command in {INTERRUPT_GRACE:g} s")

    def _set_wait(self, seconds: float, call: Callable[[], None]) -> None:
        if self._wait is not None:
            self._wait.cancel()
        self._wait = self._clock.callLater(seconds, call)

    def _end(self) -> None:
        self._finish(CommandEnd(rc=self._rc, reason=self._reason, error=self._error, killed_by=self._killed_by))

    def _finish(self, result: CommandEnd | Failure) -> None:
        over, self._over = self._over, None
        if over is None:
            return
        if self._wait is not None and self._wait.active():
            self._wait.cancel()
        over.callback(result)
