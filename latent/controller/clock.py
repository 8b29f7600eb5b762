"""The one clock of the controller: POSIX seconds to read, which go on evenly, and the reactor's timers to wait."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from twisted.logger import Logger

log = Logger()

KEPT = "clock.json"
"""The file in the state directory that tells the next controller how its time goes on."""

FOLLOWS = 0.1
"""How much faster or slower than it should be a clock goes that follows the machine's: an hour takes ten hours."""

SET = 5.0
"""Seconds by which the machine's clock differs when it counts as set. Clocks that are kept right are never so far off."""

LOST = 86400.0
"""Seconds by which a clock differs that has not been set, or was set to no purpose: it would take weeks to follow that slowly."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Wait(Protocol):
    """A call that is to be made later."""

    def cancel(self) -> None: ...
    def active(self) -> bool: ...


class Clock(Protocol):
    """What the shell needs of time. `twisted.internet.task.Clock` has it too."""

    def seconds(self) -> float: ...

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> Wait: ...


class WallClock:
    """Deadlines are absolute and outlive a restart, so they are read off the wall; the waiting itself is the reactor's, which
    tells time by a clock that nobody sets (`latent.cli.reactor`). Who waits for a deadline looks at `seconds` again when the
    wait is over.

    Note [A clock that is set]. When the machine's clock is set, by an hour say, no deadline may be over at once, and none may be
    an hour further off. So `seconds` goes on from where it was and follows the wall by `FOLLOWS` of a second in each; only a
    clock that was wrong by more than a day, as one is that nobody had set yet, is followed at once. ``kept``: a file that tells
    the next controller where this one was, for deadlines in the store are by this time. It is good as long as the machine is up:
    after that, nobody knows how long it was down but the wall.
    """

    def __init__(
        self,
        reactor: Any,
        kept: Path | None = None,
        *,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        boot: Callable[[], str] | None = None,
    ) -> None:
        self._reactor = reactor
        self._kept = kept
        self._wall = wall
        self._steady = steady
        self._boot = (boot or this_boot)()
        now = steady()
        offset = None if kept is None or not self._boot else _read_offset(kept, self._boot)
        self._frame = now, wall() - now if offset is None else offset
        self._away = False
        self._written: float | None = None
        self.seconds()

    def seconds(self) -> float:
        at, offset = self._frame
        now = self._steady()
        off = self._wall() - now - offset
        step = math.inf if abs(off) > LOST else FOLLOWS * (now - at)
        offset += max(-step, min(step, off))
        self._frame = now, offset
        if (abs(off) > SET) != self._away or abs(off) > LOST:
            self._tell(off)
        if self._written is None or abs(offset - self._written) > SET:
            self._keep(offset)
        return now + offset

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> Wait:
        wait: Wait = self._reactor.callLater(max(0.0, delay), callable, *args, **kwargs)
        return wait

    def _tell(self, off: float) -> None:
        way = "forward" if off > 0 else "back"
        if abs(off) > LOST:
            log.warn(
                "this machine's clock was set {way} by {days:.1f} days, and is followed: deadlines may be over, and builds "
                "that are lost by it are tried again",
                way=way,
                days=abs(off) / 86400,
            )
            return
        self._away = not self._away
        if self._away:
            log.warn(
                "this machine's clock was set {way} by {seconds:.0f} s: no deadline moves, and times that are shown come right "
                "by themselves within {hours:.1f} hours; if the clock is right now, nothing need be done",
                way=way,
                seconds=abs(off),
                hours=abs(off) / FOLLOWS / 3600,
            )
        else:
            log.info("the controller's time is that of the machine's clock again")

    def _keep(self, offset: float) -> None:
        """Nothing depends on it as long as this controller lives, and a machine that goes down need not find it."""
        self._written = offset
        if self._kept is None or not self._boot:
            return
        draft = self._kept.with_name(self._kept.name + ".new")
        try:
            draft.write_text(json.dumps({"boot": self._boot, "offset": offset}) + "\n", encoding="ascii")
            draft.replace(self._kept)
        except OSError as error:
            log.warn(
                "{path} can't be written ({why}): if the clock is set, the next controller does not know; make room on its disk, "
                "and the folder this user's own",
                path=str(self._kept),
                why=error.strerror,
            )


def this_boot() -> str:
    """What names the time since this machine was started; "" where the system does not say."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _read_offset(path: Path, boot: str) -> float | None:
    """None when it is not known, or of another time than since this start of the machine."""
    try:
        doc = json.loads(path.read_text(encoding="ascii"))
        return float(doc["offset"]) if doc["boot"] == boot and math.isfinite(doc["offset"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Alarm:
    """Calls ``ring`` once the clock has reached a time that may be moved as often as one likes.

    Moving it later costs nothing: the wait that is under way is left alone and looks again when it ends.
    """

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._at: float | None = None
        self._call: Wait | None = None
        self._call_at = 0.0

    @property
    def armed(self) -> bool:
        return self._at is not None

    def set(self, at: float | None) -> None:
        """Ring at ``at`` (POSIX seconds), or never."""
        self._at = at
        if at is None:
            if self._call is not None:
                self._call.cancel()
                self._call = None
        elif self._call is None or at < self._call_at:
            if self._call is not None:
                self._call.cancel()
            self._wait(at)

    def _wait(self, at: float) -> None:
        self._call_at = at
        self._call = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._over)

    def _over(self) -> None:
        self._call = None
        if self._at is None:
            return
        if self._clock.seconds() < self._at:
            self._wait(self._at)
            return
        self._at = None
        self._ring()
