"""The heartbeats of a driver: by them the controller knows that it lives, and in the answers it hears what its run is to be."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from latent.controller.clock import Clock, Wait
from latent.errors import ControllerAway, ControllerStopping
from latent.swarm.requester import Requester
from latent.swarm.statuses import RunStatus

AWAY = (ControllerAway, ControllerStopping)
"""There is no controller just now; there will be."""

AGAIN = 5.0
"""Seconds until the next try, at most, after a heartbeat that no controller has answered."""


class Heart:
    """Beats every ``interval`` seconds, and promises each time to beat again within ``interval`` x ``buffer`` seconds.

    ``status``: the run's, as it is told with the next heartbeat; the controller's answer takes its place. An ended run has
    no heartbeats, and one that is to end because somebody resumes the workflow says that it is RUNNING.

    A timer beats while the driver waits for something else. It can't where the driver computes, so whoever does that for long
    calls `beat_if_due` every so often.
    """

    def __init__(
        self, requester: Requester, run_id: int, clock: Clock, *, interval: float, buffer: float, status: RunStatus
    ) -> None:
        if not 0 < interval < float("inf") or not 1 <= buffer < float("inf"):
            raise ValueError(
                f"a heartbeat every {interval} s, announced {buffer} times as late: it takes more than 0, and 1 or more"
            )
        self.requester = requester
        self.run_id = run_id
        self.status = status
        self.interval = interval
        self.buffer = buffer
        self._clock = clock
        self._due = self._looked = clock.seconds()
        self._promised = float("inf")
        self._timer: Wait | None = None
        self._beats = False
        self._beating: Deferred[None] | None = None
        self._error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether the run has ended, or is to end because somebody resumes the workflow."""
        return self.status.is_terminal or self.status.resumes

    async def beat(self) -> None:
        """Once, now. Raises what the requester raises."""
        if self.status.is_terminal:
            return
        status = RunStatus.RUNNING if self.status.resumes else self.status
        begun = self._clock.seconds()
        self._due = begun + self.interval
        try:
            answer = await self.requester.heartbeat(self.run_id, status, self.interval * self.buffer)
        except AWAY:
            self._due = self._clock.seconds() + min(AGAIN, self.interval)
            raise
        except CancelledError:
            self._due = begun
            raise
        self._promised = begun + self.interval * self.buffer
        self.hear(answer)

    async def beat_if_due(self) -> None:
        """Once, if it is time, or if it would be too late when as long passes again as since the last look.

        Raises also what a heartbeat that it made by itself has met, but for a controller that is away.
        """
        if self._error is not None:
            raise self._error
        now = self._clock.seconds()
        ahead = now - self._looked
        self._looked = now
        if (now >= self._due or now + ahead > self._promised) and self._beating is None:
            await self.beat()

    def hear(self, status: RunStatus) -> None:
        """The controller says what the run is. What is over does not begin anew."""
        if not self.status.is_terminal:
            self.status = status

    # --- by itself -----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Beat by itself from now on, whenever a heartbeat is due."""
        self._beats = True
        self._arm()

    def stop(self) -> None:
        self._beats = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._beating is not None:
            self._beating.cancel()

    def _arm(self) -> None:
        if self._beats:
            self._timer = self._clock.callLater(max(0.0, self._due - self._clock.seconds()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._clock.seconds() < self._due:  # it has beaten meanwhile
            self._arm()
            return
        self._beating = Deferred.fromCoroutine(self.beat())
        self._beating.addBoth(self._beaten)

    def _beaten(self, result: Failure | None) -> None:
        self._beating = None
        if result is not None and not result.check(*AWAY, CancelledError):
            self._error = result.value
        self._arm()
