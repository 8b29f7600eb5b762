"""A latent machine keeps its promises in every state that a hostile world can bring it to.

The search is breadth first over pairs of a machine's state and a `World`: whether the machine is up, which of its calls run, and
what its two workers do. Deadlines count as passed whenever one likes. A crash loses all calls, each of which may have taken
effect or not, and may come between a state's way to the disk and its actions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, get_args

import pytest
from attrs import evolve

from latent.core import machines as core
from latent.core.events import Failure, Fault
from latent.core.machines import (
    Due,
    MachineAction,
    MachineEvent,
    MachinePolicy,
    MachineState,
    Started,
    Starting,
    Stopped,
    Stopping,
    Use,
    deadlines,
    step,
)
from latent.model import Attempt

NOW = 1000.0
ATTEMPT = 5
WORKERS = ("a", "b")
POLICIES = [MachinePolicy(build_wait_timeout=wait) for wait in (0.0, 60.0, -1.0)]
MOST_GIVEN_UP = 2
FAILED = Failure(Fault.INFRASTRUCTURE, "no power", "MachineError")

# What a worker does: rests; waits, and has not said so yet; waits; is starting or building; is idle; is stopping its instance.
REST, WISH, WAIT, BUSY, IDLE, GOING = "rest", "wish", "wait", "busy", "idle", "going"


class World(NamedTuple):
    """``start``, ``stop``: whether such a call runs. ``given_up``: starts that were given up and may yet do something; of this
    attempt (0) or an older one (1). ``crashed``: there is no controller. ``closed``: there will be none."""

    workers: tuple[str, ...] = (REST, REST)
    up: bool = False
    start: bool = False
    stop: bool = False
    given_up: tuple[int, ...] = ()
    crashed: bool = False


class Broken(AssertionError):
    pass


Node = tuple[MachineState, World]
Step = Callable[[MachineState, MachineEvent, Use, float], core.Next]


def attempt_of(worker: str) -> Attempt:
    return Attempt(worker, 1)


def use_of(world: World) -> Use:
    doing = dict(zip(WORKERS, world.workers, strict=True))
    return Use(
        waiting=tuple(attempt_of(name) for name, what in doing.items() if what in (WISH, WAIT)),
        users=frozenset(name for name, what in doing.items() if what in (BUSY, IDLE, GOING)),
        busy=frozenset(name for name, what in doing.items() if what == BUSY),
    )


def canonical(state: MachineState) -> MachineState:
    match state:
        case Stopped():
            retry = None if state.retry_deadline is None else NOW
            state = evolve(state, retry_deadline=retry, tries=min(state.tries, 1), error="e" if state.error else "")
        case Starting():
            state = evolve(state, call=evolve(state.call, deadline=NOW))
        case Started():
            state = evolve(state, idle_deadline=None if state.idle_deadline is None else NOW)
        case Stopping():
            call = None if state.call is None else evolve(state.call, deadline=NOW)
            state = evolve(state, call=call, tries=min(state.tries, 1))
    return evolve(state, attempt=ATTEMPT)


class Search:
    """``step`` is the machine."""

    def __init__(self, step: Step = step) -> None:
        self.step = step
        self.parents: dict[Node, tuple[Node, str] | None] = {}
        self.met: set[tuple[type, type]] = set()

    def run(self) -> None:
        queue: deque[Node] = deque()
        for policy in POLICIES:
            start: Node = (Stopped(policy=policy, attempt=ATTEMPT), World())
            self.parents[start] = None
            queue.append(start)
        while queue:
            node = queue.popleft()
            try:
                for text, after in self.moves(node):
                    self.judge(after)
                    if after not in self.parents:
                        self.parents[after] = (node, text)
                        queue.append(after)
            except Broken as broken:
                raise Broken(f"{broken}\n" + "\n".join(self.way(node))) from None
        self.ends()

    def way(self, node: Node) -> list[str]:
        told = [f"{node[0]} in {node[1]}"]
        while (parent := self.parents[node]) is not None:
            node, text = parent
            told.append(f"  {text}, from {type(node[0]).__name__} {node[1]}")
        return told[::-1]

    # --- what may happen -----------------------------------------------------------------------------------------------------

    def moves(self, node: Node) -> Iterator[tuple[str, Node]]:
        state, world = node
        if world.crashed:
            wishing = tuple(WISH if what == WAIT else what for what in world.workers)
            yield from self.event(state, world._replace(crashed=False, workers=wishing), core.Recovered())
            return
        yield from self.lives(state, world)
        yield from self.answers(state, world)
        for due in deadlines(state):
            if due is not Due.START or len(world.given_up) < MOST_GIVEN_UP:
                yield from self.event(state, world, core.TimedOut(due))
        yield from self.event(state, world, core.Shutdown(True))
        yield from self.event(state, world, core.Shutdown(False))
        for policy in POLICIES:
            yield from self.event(state, world, core.Reconfigured(policy))
            yield from self.event(state, world, core.Reconfigured(policy, True))
        yield from self.crash(state, world, "it crashes")

    def lives(self, state: MachineState, world: World) -> Iterator[tuple[str, Node]]:
        """What its workers do of their own accord."""
        for n, what in enumerate(world.workers):
            for after in {REST: [WISH], WISH: [REST], WAIT: [REST], BUSY: [IDLE, GOING], IDLE: [BUSY, GOING], GOING: [REST]}[
                what
            ]:
                # One that stops its instance may be given the next build, and then counts as busy.
                yield from self.event(state, self.doing(world, n, after), core.Used())
            if what == GOING:
                yield from self.event(state, self.doing(world, n, BUSY), core.Used())
            said = core.Wanted(attempt_of(WORKERS[n]))
            if what == WISH:
                # Seen waiting, it may have been told before it has said so: then its word comes late.
                yield from self.event(state, self.doing(world, n, WAIT), said)
            elif what in (BUSY, REST):
                yield from self.event(state, world, said)

    def answers(self, state: MachineState, world: World) -> Iterator[tuple[str, Node]]:
        if world.start:
            over = world._replace(start=False)
            yield from self.event(state, over._replace(up=True), core.StartAnswered(ATTEMPT))
            for up in (True, world.up):
                yield from self.event(state, over._replace(up=up), core.StartAnswered(ATTEMPT, FAILED))
        if world.stop:
            over = world._replace(stop=False)
            yield from self.event(state, over._replace(up=False), core.StopAnswered(ATTEMPT))
            for up in {False, world.up}:
                yield from self.event(state, over._replace(up=up), core.StopAnswered(ATTEMPT, "no power"))
        for age in set(world.given_up):
            left = list(world.given_up)
            left.remove(age)
            over = world._replace(given_up=tuple(left), up=True)
            yield from self.event(state, over, core.StartAnswered(ATTEMPT - age))
            yield from self.event(state, over, core.StartAnswered(ATTEMPT - age, FAILED))

    def crash(self, state: MachineState, world: World, text: str) -> Iterator[tuple[str, Node]]:
        """Every call that ran may have taken effect."""
        ups = {world.up}
        if world.start or world.given_up:
            ups.add(True)
        if world.stop:
            ups.add(False)
        for up in ups:
            yield text, (state, World(workers=world.workers, up=up, crashed=True))

    def doing(self, world: World, n: int, what: str) -> World:
        workers = list(world.workers)
        workers[n] = what
        return world._replace(workers=tuple(workers))

    # --- what comes of it ----------------------------------------------------------------------------------------------------

    def event(self, state: MachineState, world: World, event: MachineEvent) -> Iterator[tuple[str, Node]]:
        self.met.add((type(state), type(event)))
        after, actions = self.step(state, event, use_of(world), NOW)
        text = f"{event} -> {type(after).__name__} {actions}"
        if actions:
            yield from self.crash(canonical(after), self.replaced(state, after, world), f"{text}; it crashes before")
        yield text, self.done(state, after, world, actions)

    def replaced(self, before: MachineState, after: MachineState, world: World) -> World:
        """A call that the state no longer waits for was given up."""
        older = tuple(1 for _ in world.given_up) if after.attempt != before.attempt else world.given_up
        world = world._replace(given_up=older)
        if world.start and not isinstance(after, Starting):
            world = world._replace(start=False, given_up=tuple(sorted((*world.given_up, 0))))
        if world.stop and not (isinstance(after, Stopping) and after.call is not None):
            world = world._replace(stop=False)
        return world

    def done(
        self, before: MachineState, after: MachineState, world: World, actions: tuple[MachineAction, ...], depth: int = 0
    ) -> Node:
        world = self.replaced(before, after, world)
        state = canonical(after)
        told: list[str] = []
        for action in actions:
            match action:
                case core.Start():
                    if world.start or world.stop:
                        raise Broken("a start while another call runs")
                    world = world._replace(start=True)
                case core.Stop():
                    if world.start or world.stop:
                        raise Broken("a stop while another call runs")
                    if use_of(world).users:
                        raise Broken("it is stopped while an instance is on it")
                    world = world._replace(stop=True)
                case core.TellUp(waiting):
                    if not world.up or world.stop:
                        raise Broken("a worker is told that it is up")
                    world = self.tell(world, waiting, BUSY)
                    told += [one.worker for one in waiting]
                case core.TellDown(waiting):
                    # One after the other, and each time the machine sees that something has changed.
                    for one in waiting:
                        world = self.tell(world, (one,), REST)
                        told.append(one.worker)
                        _, more = self.step(state, core.Used(), use_of(world), NOW)
                        if any(isinstance(each, core.Start) for each in more):
                            raise Broken("it is started for somebody who was just told that it can't be")
                case core.Evict(workers):
                    for n, name in enumerate(WORKERS):
                        if name in workers and world.workers[n] == IDLE:
                            world = self.doing(world, n, GOING)
                case core.Cancel():
                    pass
        if len(told) != len(set(told)):
            raise Broken("a worker is told twice")
        if told and depth < 3:
            # The workers' states are others now.
            after, actions = self.step(state, core.Used(), use_of(world), NOW)
            return self.done(state, after, world, actions, depth + 1)
        return state, world

    def tell(self, world: World, waiting: tuple[Attempt, ...], what: str) -> World:
        for one in waiting:
            n = WORKERS.index(one.worker)
            if world.workers[n] not in (WISH, WAIT):
                raise Broken("a worker is told that does not wait")
            world = self.doing(world, n, what)
        return world

    # --- what must be true ---------------------------------------------------------------------------------------------------

    def judge(self, node: Node) -> None:
        state, world = node
        if world.crashed:
            return
        if world.start is not isinstance(state, Starting):
            raise Broken("its state and its start disagree")
        if world.stop is not (isinstance(state, Stopping) and state.call is not None):
            raise Broken("its state and its stop disagree")
        if isinstance(state, Stopped) and not state.error and world.up:
            raise Broken("it is up, and nobody stops it")
        if isinstance(state, Stopped) and state.error and state.retry_deadline is None:
            raise Broken("a stop that failed is not tried again")
        if isinstance(state, Started):
            use = use_of(world)
            if use.needed and state.idle_deadline is not None and not (use.waiting and not use.busy):
                raise Broken("the idle timer runs while somebody builds")
            if not use.needed and state.idle_deadline is None and state.policy.build_wait_timeout >= 0:
                raise Broken("nobody builds, and no idle timer runs")
        if any(what == WAIT for what in world.workers) and isinstance(state, Stopped | Started):
            raise Broken("a worker waits for nothing")
        for due, at in deadlines(state).items():
            if self.step(state, core.TimedOut(due), use_of(world), at - 1) != (state, ()):
                raise Broken(f"{due} fires before its time")

    def ends(self) -> None:
        """From everywhere a world that means well brings it to rest: nobody waits, and what is not up for ever is down."""
        good: set[Node] = set()
        for node in self.parents:
            path: list[Node] = []
            at: Node | None = node
            while at is not None and at not in good:
                path.append(at)
                if len(path) > 40:
                    raise Broken("no end comes\n" + "\n".join(map(str, path[-6:])))
                at = self.fair(at)
            good.update(path)

    def fair(self, node: Node) -> Node | None:
        state, world = node
        if world.crashed:
            return self.last(self.moves(node))
        for n, what in enumerate(world.workers):
            if what == WISH:
                return self.last(self.event(state, self.doing(world, n, WAIT), core.Wanted(attempt_of(WORKERS[n]))))
            if what in (BUSY, GOING) or (what == IDLE and isinstance(state, Stopping)):
                after = {BUSY: IDLE, GOING: REST, IDLE: GOING}[what]
                return self.last(self.event(state, self.doing(world, n, after), core.Used()))
        if world.given_up:
            over = world._replace(given_up=world.given_up[1:], up=True)
            return self.last(self.event(state, over, core.StartAnswered(ATTEMPT - world.given_up[0])))
        if world.start:
            return self.last(self.event(state, world._replace(start=False, up=True), core.StartAnswered(ATTEMPT)))
        if world.stop:
            return self.last(self.event(state, world._replace(stop=False, up=False), core.StopAnswered(ATTEMPT)))
        for due in deadlines(state):
            return self.last(self.event(state, world, core.TimedOut(due)))
        if WAIT in world.workers:
            raise Broken(f"a worker waits for ever: {node}")
        for_ever = isinstance(state, Started) and state.policy.build_wait_timeout < 0
        if not for_ever and (world.up or not isinstance(state, Stopped)):
            raise Broken(f"it stays as it is: {node}")
        return None

    def last(self, arcs: Iterator[tuple[str, Node]]) -> Node:
        *_, (_, node) = arcs
        return node


@pytest.fixture(scope="module")
def searched() -> Search:
    search = Search()
    search.run()
    return search


def test_every_promise_holds_in_every_state(searched: Search) -> None:
    """No wish, answer, deadline or crash, in any order, breaks a promise."""
    print(f"{len({state for state, _ in searched.parents})} states, {len(searched.parents)} with their worlds")
    assert {type(state) for state, _ in searched.parents} == set(get_args(MachineState))


def test_every_cell_is_visited(searched: Search) -> None:
    """Each kind of event meets each state; a start or stop that answers when none runs is one that was given up."""
    for state in (Stopped, Starting, Started, Stopping):
        for event in (core.Wanted, core.Used, core.Reconfigured, core.Shutdown, core.Recovered, core.StartAnswered):
            assert (state, event) in searched.met, (state, event)


@pytest.mark.parametrize("event", [core.StopAnswered(ATTEMPT), core.StopAnswered(ATTEMPT, "late"), core.TimedOut(Due.RETRY)])
@pytest.mark.parametrize("state", [Stopped, Starting, Started])
def test_what_means_nothing_changes_nothing(state: Any, event: MachineEvent) -> None:
    """An answer that nobody waits for, a deadline that is not armed."""
    more = {"call": core.Call(Due.START, NOW)} if state is Starting else {}
    there = state(policy=POLICIES[1], attempt=ATTEMPT, **more)
    assert step(there, event, Use(), NOW) == (there, ())


def _forgets_given_up(state: MachineState, event: MachineEvent, use: Use, now: float) -> core.Next:
    if isinstance(event, core.StartAnswered) and isinstance(state, Stopped | Stopping):
        return state, ()
    return step(state, event, use, now)


def _does_not_wait(state: MachineState, event: MachineEvent, use: Use, now: float) -> core.Next:
    if isinstance(event, core.TimedOut) and isinstance(state, Started):
        return step(state, event, Use(), now)
    return step(state, event, use, now)


def _starts_for_the_waiting(state: MachineState, event: MachineEvent, use: Use, now: float) -> core.Next:
    if isinstance(state, Stopping) and state.call is not None and use.waiting and isinstance(event, core.Used):
        return step(state, core.StopAnswered(state.attempt), use, now)
    return step(state, event, use, now)


def _believes(state: MachineState, event: MachineEvent, use: Use, now: float) -> core.Next:
    if isinstance(event, core.StopAnswered):
        return step(state, core.StopAnswered(event.attempt), use, now)
    return step(state, event, use, now)


def _forgets_a_crash(state: MachineState, event: MachineEvent, use: Use, now: float) -> core.Next:
    if isinstance(event, core.Recovered) and isinstance(state, Starting):
        return Stopped(policy=state.policy, attempt=state.attempt), ()
    return step(state, event, use, now)


@pytest.mark.parametrize(
    "planted", [_forgets_given_up, _does_not_wait, _starts_for_the_waiting, _believes, _forgets_a_crash], ids=lambda f: f.__name__
)
def test_a_planted_fault_is_found(planted: Step) -> None:
    """The search sees what it is about."""
    with pytest.raises(Broken):
        Search(planted).run()
