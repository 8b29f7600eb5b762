"""Builds that may still be running where nobody hears of them: nobody else may have them until that is over.

Note [Silence is no end]. An agent that is not heard may be frozen, or cut off, and its step may go on, or go on later. Its run is
interrupted, and its build is to be tried again; but not while the first try may still be under way. That is over when the attempt
is: when its stop is confirmed, or its provider says to the reaper that the instance is gone. It is also over when the agent is
heard and all that it can do at a time is accounted for: it asks for work in place of what it has lost.

So that this comes to pass, the instance is stopped: where its agent was silent, at once; where only its connection was lost,
after `AWAY` seconds; where it is heard and does not end what it lost, after `DROPPED` seconds and the builds that it has.
Nothing else lifts a hold: not time, and not that a worker is no longer declared, for that says nothing of its instance.

A plain worker's machine is nobody's to stop, so there is nothing to wait for. What is held is not kept anywhere: after a restart
it follows from the runs and attempts in the store. Agents have their time to come back then: the controller was away, not they.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define, field
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.controller.clock import Alarm, Clock
from latent.controller.lifecycle import Lifecycle
from latent.controller.roster import Roster
from latent.controller.sessions import Session
from latent.core import events as ev
from latent.core.states import Insubstantiating, InsubstantiatingSubstantiating, Substantiated
from latent.model import Attempt
from latent.store import attempts, builds
from latent.store.attempts import Condemned
from latent.store.database import Store

log = Logger()

AWAY = 10.0
"""Seconds that an agent has to come back whose connection was lost while it had a build."""

DROPPED = 30.0
"""Seconds that an agent which is heard has to end a run that it has lost."""

FIRST_LOOK = 1.0
LAST_LOOK = 30.0
"""Seconds between two looks at attempts that hold builds: the longer they do, the more."""


@define
class _Hold:
    """``since``: when its agent was last known to have a build. ``patient``: it is left to its worker how long its agent may be
    away. ``silent``: its agent was not heard for so long that it need not be waited for. ``heard_at``: since when it is."""

    attempt: Attempt
    since: float
    patient: bool
    builds: set[int] = field(factory=set)
    silent: bool = False
    heard_at: float | None = None


class Fences:
    """``lifted``: called when builds may be given out again. ``cases``: what the reaper has to destroy."""

    def __init__(self, store: Store, clock: Clock, roster: Roster, lifted: Callable[[], None]) -> None:
        self.cases: Callable[[], Iterable[Condemned]] = tuple
        self._store = store
        self._clock = clock
        self._roster = roster
        self._lifted = lifted
        self._holds: dict[Attempt, _Hold] = {}
        self._alarm = Alarm(clock, self._look)
        self._looking = self._again = False
        self._stopped = False

    def hold(self, build_id: int, attempt: Attempt, *, patient: bool = False) -> None:
        """The build may still be running in the attempt's instance."""
        if self._stopped or not attempt.number:
            return
        held = self._holds.setdefault(attempt, _Hold(attempt, self._clock.seconds(), patient))
        held.builds.add(build_id)
        self.changed()

    def silent(self, attempt: Attempt) -> None:
        """The attempt's agent was silent for so long that it counts as lost."""
        if (held := self._holds.get(attempt)) is not None:
            held.silent = True

    async def restore(self) -> None:
        """What was held when the controller before this one ended."""
        for build_id, attempt in await self._store.read(builds.perhaps_running):
            self.hold(build_id, attempt, patient=True)

    def forget(self, build_id: int) -> None:
        """Nobody wants the build any more."""
        for held in list(self._holds.values()):
            held.builds.discard(build_id)
            if not held.builds:
                del self._holds[held.attempt]
        if not self._holds:
            self._alarm.set(None)

    def held(self) -> set[int]:
        """The builds that nobody may have now."""
        return {build for held in self._holds.values() for build in held.builds} if self._holds else set()

    def why(self, build_id: int) -> str:
        """What the build waits for, and what can be done; "" if it is not held."""
        waits = sorted((held for held in self._holds.values() if build_id in held.builds), key=lambda held: str(held.attempt))
        if not waits:
            return ""
        where = ", ".join(str(held.attempt) for held in waits)
        said = "; ".join(self._state_of(held) for held in waits)
        return f"it may still be running on {where}, and waits for the end of that: {said}; latent cancel gives it up at once"

    def asks(self, session: Session, known: int) -> None:
        """The session's agent asks for work. As many of its slots are free, or have a run that is theirs, as are ``known``; the
        rest may have runs that it has lost."""
        if self._holds and session.attempt is not None and known >= session.capacity:
            self._lift(Attempt(session.worker, session.attempt))

    def changed(self) -> None:
        """Something has become of a worker or of an instance."""
        if self._holds:
            self._again = True
            self._alarm.set(self._clock.seconds())

    def stop(self) -> None:
        self._stopped = True
        self._holds.clear()
        self._alarm.set(None)

    # --- looking -------------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if self._looking or not self._holds:
            return
        wanted = list(self._holds)
        self._looking, self._again = True, False
        looked = self._store.read(lambda conn: [one for one in wanted if not attempts.may_run(conn, one)])
        looked.addCallbacks(self._seen, self._unseen)

    def _seen(self, over: list[Attempt]) -> None:
        self._looking = False
        for attempt in over:
            self._lift(attempt)
        now = self._clock.seconds()
        for held in list(self._holds.values()):
            self._press(held, now)
        self._next_look(now)

    def _unseen(self, failure: Failure) -> None:
        self._looking = False
        log.failure("whether builds still run could not be read; it is tried again", failure)
        self._next_look(self._clock.seconds())

    def _next_look(self, now: float) -> None:
        if self._holds:
            youngest = max(held.since if held.heard_at is None else held.heard_at for held in self._holds.values())
            wait = min(LAST_LOOK, max(FIRST_LOOK, (now - youngest) / 10))
            self._alarm.set(now if self._again else now + wait)

    def _press(self, held: _Hold, now: float) -> None:
        """See to it that the attempt comes to its end, where it is not on its way there."""
        post = self._post(held.attempt)
        if post is None or post.setting_up or not isinstance(post.state, Substantiated):
            return  # it is on its way, or (after a restart) not known yet
        state, which = post.state, _listed(held.builds)
        if state.session is None:
            held.heard_at = None
            if not held.patient and not state.builds and (held.silent or now - held.since >= AWAY):
                post.apply(ev.Insubstantiate(f"its agent is not heard, and {which} may still be running there"))
            return
        # From now on it is as with any other: it was there after the restart.
        held.patient = False
        if held.heard_at is None:
            held.heard_at, held.silent = now, False
        elif now - held.heard_at >= DROPPED and not state.retiring:
            why = f"its agent has not ended {which}, which it has lost"
            post.apply(ev.Checked(held.attempt.number, False, why) if state.builds else ev.Insubstantiate(why))

    def _post(self, attempt: Attempt) -> Lifecycle | None:
        """The worker, if this is its attempt now."""
        post = self._roster.get(attempt.worker)
        return post if isinstance(post, Lifecycle) and post.attempt == attempt else None

    def _lift(self, attempt: Attempt) -> None:
        if self._holds.pop(attempt, None) is not None:
            self._lifted()

    # --- in words ------------------------------------------------------------------------------------------------------------

    def _state_of(self, held: _Hold) -> str:
        worker = held.attempt.worker
        case = next((case for case in self.cases() if case.attempt == held.attempt), None)
        if case is not None:
            tried = f" ({case.error})" if case.error else ""
            return f"its instance is to be destroyed, and is not confirmed to be gone{tried}; see latent health"
        if not isinstance(self._roster.get(worker), Lifecycle):
            return f"worker {worker} is no longer declared; declare it again so that its instance can be stopped"
        post = self._post(held.attempt)
        match post and post.state:
            case Substantiated(session=None):
                return "its agent is not heard, and its instance is stopped if it does not come back"
            case Substantiated():
                return "its agent is heard, and is to ask for work or else its instance is stopped"
            case Insubstantiating() | InsubstantiatingSubstantiating():
                return "its instance is being stopped"
            case _:
                return f"worker {worker} does not know yet what became of it"


def _listed(builds: Iterable[int]) -> str:
    numbers = sorted(builds)
    return f"build{'s' if len(numbers) > 1 else ''} {', '.join(str(number) for number in numbers)}"
