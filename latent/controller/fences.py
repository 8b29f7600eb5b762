"""Builds that may still be running where nobody hears of them: nobody else may have them until that is over.

Note [Silence is no end]. An agent that is not heard may be frozen, or cut off, and its step may go on, or go on later. Its run is
interrupted, and its build is to be tried again; but not while the first try may still be under way. That is over when the attempt
is: when its stop is confirmed, or its provider says to the reaper that the instance is gone. It is also over when the agent is
heard again and has nothing to do: it has been told by then that the run is not its own any more. Where it takes other builds
meanwhile, it has `DROPPED` seconds for that. A plain worker's machine is nobody's to stop, so there is nothing to wait for.

What is held is not kept anywhere: after a restart it follows from the runs and attempts in the store.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.controller.clock import Alarm, Clock
from latent.controller.lifecycle import Lifecycle
from latent.controller.roster import Roster
from latent.controller.sessions import Session, Sessions
from latent.core.states import NotSubstantiated, ShutDown
from latent.model import Attempt
from latent.store import attempts, builds
from latent.store.database import Store

log = Logger()

LOOK = 1.0
"""Seconds between two looks at attempts that hold builds."""

DROPPED = 30.0
"""Seconds that an agent which is heard again has to end a run that it has lost."""


@define
class _Hold:
    """``heard_at``: since when the attempt's agent is heard again; None while it is not."""

    attempt: Attempt
    builds: set[int]
    heard_at: float | None = None


class Fences:
    """``lifted``: called when builds may be given out again."""

    def __init__(self, store: Store, clock: Clock, roster: Roster, sessions: Sessions, lifted: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._roster = roster
        self._sessions = sessions
        self._lifted = lifted
        self._holds: dict[Attempt, _Hold] = {}
        self._alarm = Alarm(clock, self._look)
        self._looking = False
        self._stopped = False

    def hold(self, build_id: int, attempt: Attempt) -> None:
        """The build may still be running in the attempt's instance."""
        if self._stopped or not isinstance(self._roster.get(attempt.worker), Lifecycle):
            return
        self._holds.setdefault(attempt, _Hold(attempt, set())).builds.add(build_id)
        self._alarm.set(self._clock.seconds())

    async def restore(self) -> None:
        """What was held when the controller before this one ended."""
        for build_id, attempt in await self._store.read(builds.perhaps_running):
            self.hold(build_id, attempt)

    def held(self) -> set[int]:
        """The builds that nobody may have now."""
        return {build for hold in self._holds.values() for build in hold.builds} if self._holds else set()

    def why(self, build_id: int) -> str:
        """What the build waits for; "" if it is not held."""
        waits = sorted(str(hold.attempt) for hold in self._holds.values() if build_id in hold.builds)
        return f"it may still be running on {', '.join(waits)}, and waits for the end of that" if waits else ""

    def asks(self, session: Session, load: int) -> None:
        """The session's agent asks for work, and has ``load`` runs."""
        if not self._holds or session.attempt is None:
            return
        if len(session.parked) + load >= session.capacity:
            self._lift(Attempt(session.worker, session.attempt))

    def changed(self) -> None:
        """Something has become of a worker."""
        if self._holds:
            self._alarm.set(self._clock.seconds())

    def stop(self) -> None:
        self._stopped = True
        self._holds.clear()
        self._alarm.set(None)

    def _look(self) -> None:
        if self._looking or not self._holds:
            return
        wanted = list(self._holds)
        self._looking = True
        looked = self._store.read(lambda conn: [one for one in wanted if not attempts.may_run(conn, one)])
        looked.addCallbacks(self._seen, self._unseen)

    def _seen(self, over: list[Attempt]) -> None:
        self._looking = False
        now = self._clock.seconds()
        for attempt in over:
            self._lift(attempt)
        for attempt, hold in list(self._holds.items()):
            if not self._will_be_known(attempt):
                self._lift(attempt)
                continue
            session = self._sessions.of_worker(attempt.worker)
            if session is None or session.attempt != attempt.number:
                hold.heard_at = None
            elif hold.heard_at is None:
                hold.heard_at = now
            elif now - hold.heard_at >= DROPPED:
                self._lift(attempt)
        if self._holds:
            self._alarm.set(now + LOOK)

    def _will_be_known(self, attempt: Attempt) -> bool:
        """Whether anybody here will ever see its end."""
        post = self._roster.get(attempt.worker)
        if not isinstance(post, Lifecycle):
            return False
        over = post.attempt != attempt or isinstance(post.state, NotSubstantiated | ShutDown)
        return not over or post.plugin.supports("destroy_instance")

    def _unseen(self, failure: Failure) -> None:
        self._looking = False
        log.failure("whether builds still run could not be read; it is tried again", failure)
        self._alarm.set(self._clock.seconds() + LOOK)

    def _lift(self, attempt: Attempt) -> None:
        if self._holds.pop(attempt, None) is not None:
            self._lifted()
