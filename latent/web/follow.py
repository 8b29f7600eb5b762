"""The log of a build as a stream: what there is, and then what comes, at the pace that the client reads."""

# mypy: disable-error-code="no-untyped-call"
# twisted.web.http.Request has no annotations.

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.web.server import Request

from latent.controller.clock import Clock
from latent.errors import NotFound
from latent.model import BuildState, LogLine
from latent.web.facade import BuildView, Facade, RunView

LOOK_AGAIN = 0.5
"""Seconds between two looks for the next run of a build that is queued: nothing announces it."""

QUIET = 30.0
"""Seconds after which a log is read again though nothing was announced."""

SLICE = 500
"""Lines that are written before the client's pace is looked at again."""

Write = Callable[[int, Sequence[LogLine]], Awaitable[None]]


class Outlet:
    """A response that is written no faster than the client reads: a push producer, in Twisted's words."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._resumed: Deferred[None] | None = None
        self._gone = False

    def __enter__(self) -> Outlet:
        self._request.registerProducer(self, True)
        self._request.write(b"")  # the headers: the client learns that it is connected
        return self

    def __exit__(self, *_: object) -> None:
        if not self._gone:
            self._request.unregisterProducer()

    async def write(self, data: bytes) -> None:
        """Write, then wait until the client can take more."""
        if not self._gone:
            self._request.write(data)
        if self._resumed is not None:
            await self._resumed

    def pauseProducing(self) -> None:
        if self._resumed is None:
            self._resumed = Deferred()

    def resumeProducing(self) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed is not None and not resumed.called:
            resumed.callback(None)

    def stopProducing(self) -> None:
        # The connection is lost. Whoever waits in `write` is cancelled with the request a moment later.
        self._gone = True


class Follower:
    """Reads the log of one build. ``write`` takes each batch with the id of the run that it is from."""

    def __init__(self, controller: Facade, clock: Clock, build_id: int, write: Write) -> None:
        self._controller = controller
        self._clock = clock
        self._build_id = build_id
        self._write = write

    async def one(self, run_id: int, *, follow: bool) -> None:
        """The log of one run; ``follow``: until the run is over."""
        offset = 0
        while True:
            # Asked for before the log is read, so that a line which comes meanwhile is not missed.
            more = quiet(self._controller.when_logged(run_id)) if follow else None
            try:
                lines, offset, finished = await self._controller.log(self._build_id, run_id, offset)
                for start in range(0, len(lines), SLICE):
                    await self._write(run_id, lines[start : start + SLICE])
                if not lines and (finished or not follow):
                    return
                if not lines and more is not None:
                    await within(more, QUIET, self._clock)
            finally:
                if more is not None:
                    more.cancel()

    async def all(self, details: BuildView) -> None:
        """The log of the build's latest run, then of each that follows it, until the build is finished."""
        current = int(details.runs[-1].run.id) if details.runs else 0
        while True:
            if current:
                await self.one(current, follow=True)
            following = await self._next(current)
            if following is None:
                return
            if current:
                await self._say(following)
            current = int(following.run.id)

    async def _next(self, current: int) -> RunView | None:
        """The run after ``current``, as soon as there is one; None when the build is finished without."""
        while True:
            over = quiet(self._controller.when_finished(self._build_id))
            try:
                details = await self._controller.build(self._build_id)
                later = [view for view in details.runs if int(view.run.id) > current]
                if later:
                    return later[0]
                if details.build.state is BuildState.FINISHED:
                    return None
                await within(over, LOOK_AGAIN, self._clock)
            finally:
                over.cancel()

    async def _say(self, view: RunView) -> None:
        words = f"-- the run ended without a result; run {view.run.id} on {view.worker}#{view.attempt} takes over --"
        await self._write(int(view.run.id), [LogLine(step_uuid="", line=0, time=0.0, stream="header", text=words)])


def chosen_run(details: BuildView, wanted: int | None) -> int | None:
    """The run to read: the wanted one, which must be the build's, or its latest; None when it has none."""
    ids = [int(view.run.id) for view in details.runs]
    if wanted is None:
        return ids[-1] if ids else None
    if wanted not in ids:
        has = f"it has run {', '.join(map(str, ids))}" if ids else "it has no run yet"
        raise NotFound(f"build {details.build.id} has no run {wanted}; {has}")
    return wanted


def quiet(waiting: Deferred[Any]) -> Deferred[Any]:
    """The Deferred, which may be cancelled without leaving a failure that nobody handles."""

    def forget(failure: Any) -> None:
        failure.trap(CancelledError)

    return waiting.addErrback(forget)


async def within(waiting: Deferred[Any], seconds: float, clock: Clock) -> bool:
    """Wait for ``waiting``, or for so long. True when it came. It is not cancelled when it did not."""
    first: Deferred[bool] = Deferred()

    def decide(came: bool) -> None:
        if not first.called:
            first.callback(came)

    def pass_on(result: Any) -> Any:
        decide(True)
        return result

    timer: Any = clock.callLater(seconds, decide, False)
    waiting.addBoth(pass_on)
    try:
        return await first
    finally:
        if timer.active():
            timer.cancel()
