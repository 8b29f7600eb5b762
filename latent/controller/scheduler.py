"""Makes the planner's decisions come true: looks at queue and workers, claims workers for builds, starts or leases.

A pass is made once for all that happened since the last one. A claim is `prepare_atomic` in the store: only when it is on disk is
the worker told, so a build is never with two workers, whatever dies in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from attrs import evolve, frozen
from sqlalchemy import Connection
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from latent.controller.clock import Alarm, Clock, Wait
from latent.controller.compatibility import Compatibility
from latent.controller.dispatcher import Dispatcher
from latent.controller.failures import explained
from latent.controller.lifecycle import Lifecycle
from latent.controller.queue import BuildQueue
from latent.controller.roster import Post, Roster
from latent.controller.sessions import BOTS, Session
from latent.core import events as ev
from latent.core.matching import AGENT, is_bot, with_agent
from latent.core.planning import WORKER, Assign, Availability, Limits, Line, Seat, Start, plan
from latent.core.states import (
    Insubstantiating,
    InsubstantiatingSubstantiating,
    NotSubstantiated,
    ShutDown,
    Substantiated,
    Substantiating,
    SubstantiatingStarting,
)
from latent.killpoints import here, passing
from latent.model import JSON, Build, BuildState, Offer, Result
from latent.store import builds as rows
from latent.store.database import Store
from latent.store.runs import MachineBusy

log = Logger()

STARTING = Substantiating | SubstantiatingStarting | InsubstantiatingSubstantiating
"""The states of a worker that count as starting: an instance is on its way, or is next."""

LONGEST_REST = 0.25
"""Seconds between the end of a pass and the next, at most."""

BUSY_AGAIN = 5.0
"""Seconds after which a worker that the store calls busy, though nothing here says so, is tried again."""


@frozen
class _Offered:
    """What a worker offers, and what that was made of: where nothing of it has changed, it is not made again."""

    declared: Offer
    session: Session | None
    told: Mapping[str, JSON] | None
    offer: Offer


class Scheduler:
    def __init__(
        self, store: Store, clock: Clock, roster: Roster, queue: BuildQueue, dispatcher: Dispatcher, limits: Limits
    ) -> None:
        self.limits = limits
        self.compatibility = Compatibility(clock, self.poke)
        self._store = store
        self._clock = clock
        self._roster = roster
        self._queue = queue
        self._dispatcher = dispatcher
        self._pass: Wait | None = None
        self._stopped = True
        self._claiming: dict[int, Build] = {}
        self._begins: dict[int, str] = {}
        self._cancelled: dict[int, str] = {}
        self._reserved: dict[str, int] = {}
        self._occupied: dict[str, float] = {}
        self._later = Alarm(clock, self.poke)
        self._claims: set[Deferred[object]] = set()
        self._planned: list[Deferred[None]] = []
        self._rest = self._rested = 0.0
        self._offers: dict[str, _Offered] = {}
        self._alike: dict[frozenset[tuple[str, frozenset[str]]], Offer] = {}

    def start(self) -> None:
        self._stopped = False
        self.poke()

    def stop(self) -> None:
        """No more claims."""
        self._stopped = True
        self._later.set(None)
        self.compatibility.stop()
        if self._pass is not None:
            self._pass.cancel()
            self._pass = None

    def poke(self) -> None:
        """Something changed: make a pass soon."""
        if self._pass is None and not self._stopped:
            rest = min(self._rest, self._rested - self._clock.seconds())
            self._pass = self._clock.callLater(max(0.0, rest), self._run)

    def when_planned(self) -> Deferred[None]:
        """Fires when a pass has been made, and what it and those before it gave to workers is there for their agents."""
        planned: Deferred[None] = Deferred()
        self._planned.append(planned)
        self.poke()
        return planned

    def claiming(self, build_id: int) -> Build | None:
        return self._claiming.get(build_id)

    def cancel_claim(self, build_id: int, reason: str) -> None:
        """A build that is just being given to a worker is not wanted any more."""
        self._cancelled[build_id] = reason

    # --- a pass --------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._pass = None
        begun = self._clock.seconds()
        if len(self._queue):
            self._plan()
        # Where passes take long, what happens meanwhile is better looked at in one than in many: half of the time is for others.
        now = self._clock.seconds()
        self._rest = min(LONGEST_REST, max(0.0, now - begun))
        self._rested = now + self._rest
        waiting, self._planned = self._planned, []
        if waiting:
            DeferredList(list(self._claims)).addCallback(lambda _: _fire(waiting))

    def _plan(self) -> None:
        lines = self._queue.lanes()
        offers = {post.name: self._offer(post) for post in self._roster}
        if len(self._offers) > len(offers):
            self._offers = {name: known for name, known in self._offers.items() if name in offers}
        if len(self._alike) > 2 * len(offers):
            self._alike = {frozenset(known.offer.items()): known.offer for known in self._offers.values()}
        unknown = self.compatibility.ask(self._roster, offers, lines, self._queue)
        now = self._clock.seconds()
        seats = [self._seat(post, offers[post.name], now) for post in self._roster]
        latent = self._roster.latent()
        begun = set(self._begins.values())  # what is claimed for a start counts, though the worker has not been told
        instances = sum(1 for post in latent if not isinstance(post.state, NotSubstantiated | ShutDown) or post.name in begun)
        starting = sum(1 for post in latent if isinstance(post.state, STARTING) or post.name in begun)
        withheld = unknown | self._dispatcher.fences.held()
        planned = plan(_without(lines, withheld), seats, self.limits, instances=instances, starting=starting)
        self._queue.explain(planned.waits)
        for decision in planned.decisions:
            self._claim(decision)
        self._wake_for_quarantine()

    def _wake_for_quarantine(self) -> None:
        """A worker that backs off is worth a look when that is over."""
        now = self._clock.seconds()
        ends = [post.quarantine.until for post in self._roster if post.quarantine.until > now]
        ends += [until for until in self._occupied.values() if until > now]
        self._later.set(min(ends, default=None))

    def _seat(self, post: Post, offer: Offer, now: float) -> Seat:
        limit = post.plugin.max_builds or 1
        leaving = ""
        if (agent := self._dispatcher.sessions.of_worker(post.name)) is not None:
            limit = min(limit, agent.capacity)
            leaving = agent.leaving
            if agent.asks_until < now:
                leaving = leaving or "its bot is not asking for work"
        free = limit - self._dispatcher.load_of(post.name) - self._reserved.get(post.name, 0)
        closed = post.why_closed() or leaving or (self._occupied and self._why_occupied(post.name))
        if 0 < free < limit:
            closed = closed or _why_not_shared(post)
        if closed or free <= 0:
            return Seat(worker=post.name, offer=offer, availability=Availability.CLOSED, free=0, reason=closed or "busy")
        idle = free == limit
        if not isinstance(post, Lifecycle):
            return Seat(worker=post.name, offer=offer, availability=Availability.WARM, free=free)
        match post.state:
            case Substantiated(session=session) if session is not None:
                availability = Availability.WARM
            case Substantiating() | SubstantiatingStarting():
                availability = Availability.COMING
            case Substantiated() | Insubstantiating() | InsubstantiatingSubstantiating():
                availability = Availability.GOING
            case _:
                availability = Availability.COLD
        picky = post.plugin.builds_may_be_incompatible
        if picky and (self._reserved.get(post.name) or post.is_to_begin):
            availability = Availability.SOON
        return Seat(
            worker=post.name,
            offer=offer,
            availability=availability,
            free=free,
            picky=picky,
            incompatible=self.compatibility.incompatible(post),
            idle=idle and availability is Availability.WARM,
        )

    def _why_occupied(self, worker: str) -> str:
        until = self._occupied.get(worker, 0.0)
        return "the store says that it is busy" if until > self._clock.seconds() else ""

    def _offer(self, post: Post) -> Offer:
        try:
            declared = post.plugin.offer()
        except Exception as error:  # a plugin may have its own, and must not spoil the plan for the others
            log.failure("{worker}: offer failed", worker=post.name)
            post.unusable = f"offer failed: {explained(error)}"
            return {}
        session = self._dispatcher.sessions.of_worker(post.name)
        told = None if session is None else session.labels
        known = self._offers.get(post.name)
        if known is None or known.declared is not declared or known.session is not session or known.told is not told:
            offer = _offer(declared, session)
            # One object for all that offer the same: the planner need not compare them.
            offer = self._alike.setdefault(frozenset(offer.items()), offer)
            known = self._offers[post.name] = _Offered(declared, session, told, offer)
        return known.offer

    # --- a claim -------------------------------------------------------------------------------------------------------------

    def _claim(self, decision: Assign | Start) -> None:
        build = self._queue.take(decision.build)
        post = self._roster.get(decision.worker)
        if build is None or post is None:
            return
        build = evolve(build, state=BuildState.STARTING, reason=f"goes to {post.name}: {decision.why}")
        self._claiming[build.id] = build
        if isinstance(decision, Start):
            self._begins[build.id] = post.name
        self._reserved[post.name] = self._reserved.get(post.name, 0) + 1
        attempt = self._attempt_for(post, decision)
        slots = [post.name] + [f"{post.name}/{n}" for n in range(2, (post.plugin.max_builds or 1) + 1)]
        now = self._clock.seconds()
        here("scheduler.claim.before")
        claimed = self._store.write(lambda conn: _claim_slot(conn, build, slots, post.name, attempt, now))
        claimed.addBoth(partial(self._unreserve, post.name, build.id))
        given: Deferred[object] = claimed.addCallbacks(
            partial(self._claimed, build, post, attempt, decision), partial(self._not_claimed, build, post.name)
        ).addErrback(lambda f: log.failure("build {build} could not be given to {worker}", f, build=build.id, worker=post.name))
        if not given.called or given.paused:
            self._claims.add(given)
            given.addBoth(lambda _: self._claims.discard(given))

    def _attempt_for(self, post: Post, decision: Assign | Start) -> int:
        """The attempt that will carry the run: the one that is up or coming, or the next."""
        if not isinstance(post, Lifecycle):
            return 0
        going = isinstance(post.state, NotSubstantiated | Insubstantiating | InsubstantiatingSubstantiating)
        if isinstance(decision, Start) and (going or isinstance(post.state, Substantiated)):
            return post.state.attempt + 1
        return post.state.attempt

    def _unreserve(self, worker: str, build_id: int, result: object) -> object:
        self._reserved[worker] -= 1
        del self._claiming[build_id]
        self._begins.pop(build_id, None)
        return result

    def _claimed(self, build: Build, post: Post, attempt: int, decision: Assign | Start, run_id: int) -> object:
        """When this answers, the run is before the agent that is to have it, if there is one already."""
        here("scheduler.claim.written")
        run = self._dispatcher.add(run_id, build, post.name, attempt)
        if build.id in self._cancelled:
            self._dispatcher.cancel(run, Result.CANCELLED, self._cancelled.pop(build.id))
        elif not isinstance(post, Lifecycle):
            self._dispatcher.offer(run)
        elif isinstance(decision, Start):
            post.apply(ev.Substantiate(run.key, decision.replace))
            here("scheduler.claim.told")
        else:
            return post.apply(ev.BuildStarted(run.key)).addCallback(lambda actions: self._offer_if_taken(run.id, actions))
        return None

    def _offer_if_taken(self, run_id: int, actions: tuple[ev.Action, ...]) -> None:
        """The instance may have gone between the plan and the claim; then the build has come back already."""
        if not any(isinstance(action, ev.Unready) for action in actions):
            run = self._dispatcher.get(run_id)
            if run is not None:
                self._dispatcher.offer(run)

    def _not_claimed(self, build: Build, worker: str, failure: Failure) -> None:
        here("scheduler.claim.refused")
        log.warn("build {build} could not claim {worker}: {error}", build=build.id, worker=worker, error=failure.value)
        self._occupied[worker] = self._clock.seconds() + BUSY_AGAIN
        if build.id in self._cancelled:
            reason = self._cancelled.pop(build.id)
            done = evolve(build, state=BuildState.FINISHED, result=Result.CANCELLED, reason=reason)
            ended = self._store.write(lambda conn: rows.end(conn, build.id, Result.CANCELLED, reason, self._clock.seconds()))
            ended.addCallback(passing("scheduler.cancelled.written")).addCallback(lambda _: self._queue.finished(done))
            return
        self._queue.put(build)
        self.poke()


def _why_not_shared(post: Post) -> str:
    """Why no build joins those that wait for a worker's next instance, where that is made for the first of them."""
    if not isinstance(post, Lifecycle) or not post.plugin.builds_may_be_incompatible:
        return ""
    if isinstance(post.state, Substantiating | InsubstantiatingSubstantiating):
        return "its next instance is made for another build, and is not begun"
    return ""


def _offer(declared: Offer, session: Session | None) -> Offer:
    offer = {name: values for name, values in declared.items() if name != WORKER}
    for name, value in session.labels.items() if session else ():
        # What the declaration says of its worker holds against what the agent says of itself.
        if name not in offer and name != WORKER:
            offer[name] = frozenset({value} if isinstance(value, str) else value)
    bot = is_bot(offer) if session is None else session.protocol == BOTS
    return with_agent(offer, bot=bot) if bot or AGENT in offer else offer


def _fire(waiting: list[Deferred[None]]) -> None:
    for waiter in waiting:
        waiter.callback(None)


def _without(lines: list[Line], builds: set[int]) -> list[Line]:
    """The lines without those builds; still as many, in the same order."""
    if not builds:
        return lines
    return [evolve(line, builds=[entry for entry in line.builds if entry[1] not in builds]) for line in lines]


def _claim_slot(conn: Connection, build: Build, slots: list[str], worker: str, attempt: int, now: float) -> int:
    """The run's id, on the first slot of the worker that is free. Raises MachineBusy when none is."""
    for slot in slots[:-1]:
        try:
            with conn.begin_nested():
                return rows.claim(conn, build.id, slot, worker, attempt, now, build.request.dispatch)
        except MachineBusy:
            continue
    return rows.claim(conn, build.id, slots[-1], worker, attempt, now, build.request.dispatch)
