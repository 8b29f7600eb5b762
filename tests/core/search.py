"""Every state that one worker can reach in a hostile world, and whether the machine keeps its promises in each.

The search is breadth first over pairs of the machine's state and a `World`. Pairs that differ only in names are one: attempts
count from the current one, builds are called a, b, ... in the order in which they stand, the attached session is s1. Time is one
instant, at which every armed deadline has passed and may be fired or not; that allows more than any clock would.

What is bounded: `MAX_BUILDS` builds at a time, and the newest ``olds`` of the attempts that left something behind. Both are no
loss: the machine treats builds alike, and to every event of an older attempt it must answer without a change of state (`noise`
and `judge` check that in each state), so nothing depends on how many of them there are.

    python -m tests.core.search [--olds N]

prints the number of states and transitions; a broken promise is told by the shortest way to it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import attrs
from attrs import evolve, field

from latent.core import events as ev
from latent.core import substantiation
from latent.core.states import (
    Insubstantiating,
    InsubstantiatingSubstantiating,
    NotSubstantiated,
    ShutDown,
    State,
    Substantiated,
    Substantiating,
    SubstantiatingStarting,
    Timer,
    deadlines,
)
from tests.core.promises import Broken, Promise, judge, noise
from tests.core.telling import Counterexample, Names, line
from tests.core.world import (
    CURRENT,
    POLICIES,
    Facts,
    Made,
    Move,
    World,
    close,
    crash,
    empty,
    facts_of,
    happenings,
    perform,
    tidy,
    wishes,
)

NOW = 1000.0
Step = Callable[[State, ev.Event, float], tuple[State, tuple[ev.Action, ...]]]
Node = tuple[int, World]
"""The number of the machine's state in `Search.states`, and the world."""


class Reaction(NamedTuple):
    """What the machine does, in canonical form. ``builds``: the new names of builds, by the old ones."""

    state: int
    raw: State
    actions: tuple[ev.Action, ...]
    builds: dict[str, str]
    broken: Broken | None


class Arc(NamedTuple):
    """One transition. ``numbers``: which attempts of the node before are the attempts of ``node``, in order."""

    text: str
    event: ev.Event | None
    actions: tuple[ev.Action, ...]
    builds: dict[str, str]
    numbers: tuple[int, ...]
    node: Node


@attrs.define
class Search:
    """``step`` is the machine. ``forgetful``: the shell writes Condemn after the state, not with it."""

    step: Step = substantiation.step
    olds: int = 1
    forgetful: bool = False
    states: list[State] = field(factory=list)
    parents: dict[Node, Node | None] = field(factory=dict)
    transitions: int = 0
    _facts: list[Facts] = field(factory=list)
    _wishes: list[list[tuple[str, ev.Event]]] = field(factory=list)
    _numbers: dict[State, int] = field(factory=dict)
    reactions: dict[tuple[int, ev.Event], Reaction] = field(factory=dict)

    def summary(self) -> str:
        return f"{len(self.states)} states of the machine, {len(self.parents)} with their worlds, {self.transitions} transitions"

    def run(self) -> Counterexample | None:
        """Visit everything; the shortest counterexample if a promise is broken."""
        queue: deque[Node] = deque()
        for policy in POLICIES:
            start = (self._number(NotSubstantiated(policy=policy, attempt=CURRENT)), World((Made(CURRENT),)))
            self.parents[start] = None
            queue.append(start)
        while queue:
            node = queue.popleft()
            try:
                for arc in self.arcs(node):
                    self.transitions += 1
                    if arc.node not in self.parents:
                        self.parents[arc.node] = node
                        queue.append(arc.node)
            except Broken as broken:
                return self._tell(node, broken)
        return self._alone() or self._recovers()

    # --- one transition --------------------------------------------------------------------------------------------------------

    def arcs(self, node: Node) -> Iterator[Arc]:
        for move in self.moves(node):
            yield from self._follow(node, move)

    def moves(self, node: Node) -> Iterator[Move]:
        number, world = node
        if not world.crashed:
            for text, event in self._wishes[number] or self._effective(number):
                yield Move(text, event, world)
        yield from happenings(world)

    def _effective(self, number: int) -> list[tuple[str, ev.Event]]:
        """The wishes that change anything in a state; the others were judged, and lead back to it in every world."""
        found = []
        for text, event in wishes(self.states[number]):
            reaction = self._react(number, event)
            if reaction.broken or reaction.actions or reaction.state != number:
                found.append((text, event))
        self._wishes[number] = found
        return found

    def _follow(self, node: Node, move: Move) -> Iterator[Arc]:
        """What comes of a move, and of a crash on the way."""
        number, event = node[0], move.event
        if event is None:
            yield Arc(move.text, None, (), {}, *self._place(number, move.world))
            return
        if move.policy is not None and move.policy != self.states[number].policy:
            number = self._number(evolve(self.states[number], policy=move.policy))
        reaction = self._react(number, event)
        if reaction.broken is not None:
            raise reaction.broken
        world = move.world
        if reaction.raw.attempt != world.made[-1].attempt:
            world = world._replace(made=(*world.made, Made(reaction.raw.attempt)))
        written = tuple(a for a in reaction.actions if isinstance(a, ev.Condemn) and not self.forgetful)
        outside = tuple(a for a in reaction.actions if a not in written)
        for condemn in written:
            world = perform(world, condemn, event)
        crashes: list[Arc] = []
        for done, action in enumerate(outside):
            if isinstance(action, ev.StartInstance | ev.StopInstance | ev.Condemn):
                text = f"{move.text}; the controller dies before {type(action).__name__}"
                begun = (*written, *outside[:done])
                for after in crash(world):
                    crashes.append(Arc(text, event, begun, reaction.builds, *self._place(reaction.state, after)))
            world = perform(world, action, event)
        world, numbers = close(self._facts[number], self._facts[reaction.state], reaction.raw, event, world, self.olds)
        yield Arc(move.text, event, reaction.actions, reaction.builds, numbers, (reaction.state, world))
        yield from crashes

    def _place(self, number: int, world: World) -> tuple[tuple[int, ...], Node]:
        world, numbers = tidy(world, self.olds)
        return numbers, (number, world)

    def _react(self, number: int, event: ev.Event) -> Reaction:
        key = (number, event)
        if (known := self.reactions.get(key)) is None:
            known = self.reactions[key] = self._reaction(self.states[number], event)
        return known

    def _reaction(self, state: State, event: ev.Event) -> Reaction:
        try:
            after, actions = self.step(state, event, NOW)
        except Exception as error:
            return Reaction(0, state, (), {}, Broken(Promise.TOTAL, f"step raises {type(error).__name__}: {error}"))
        canonical, builds = canonical_state(after)
        try:
            judge(state, event, NOW, after, actions)
        except Broken as broken:
            return Reaction(0, after, actions, builds, broken)
        return Reaction(self._number(canonical), after, actions, builds, None)

    def _number(self, state: State) -> int:
        if (known := self._numbers.get(state)) is not None:
            return known
        number = self._numbers[state] = len(self.states)
        self.states.append(state)
        self._facts.append(facts_of(state))
        self._wishes.append([])
        return number

    # --- what can be said of a state of the machine alone ----------------------------------------------------------------------

    def _alone(self) -> Counterexample | None:
        first: dict[int, Node] = {}
        for node in self.parents:
            first.setdefault(node[0], node)
        for number, node in first.items():
            state = self.states[number]
            for event in noise(state):
                if broken := self._moved_by(state, event, NOW):
                    return self._tell(node, broken, Move("out of the blue", event, node[1]))
            for timer in deadlines(state):
                if broken := self._moved_by(state, ev.TimedOut(timer), NOW - 1):
                    return self._tell(node, broken, Move("before its time", ev.TimedOut(timer), node[1]))
            if not self._shuts_down(state):
                broken = Broken(Promise.SHUTDOWN, "a cloud that never answers holds it up")
                return self._tell(node, broken, Move("the controller shuts down", ev.Shutdown(), node[1]))
        return None

    def _moved_by(self, state: State, event: ev.Event, now: float) -> Broken | None:
        try:
            after, actions = self.step(state, event, now)
        except Exception as error:
            return Broken(Promise.TOTAL, f"step raises {type(error).__name__}: {error}")
        if (after, actions) != (state, ()):
            return Broken(Promise.NOISE, f"{type(event).__name__} means nothing here")
        return None

    def _shuts_down(self, state: State) -> bool:
        """Whether its own deadlines bring the state to an end in a cloud that never answers."""
        after = self.step(state, ev.Shutdown(), NOW)[0]
        for _ in range(4):
            for timer, at in deadlines(after).items():
                after = self.step(after, ev.TimedOut(timer), at)[0]
        return isinstance(after, ShutDown)

    # --- a way to rest from everywhere -----------------------------------------------------------------------------------------

    def _recovers(self) -> Counterexample | None:
        """From each pair, a world that answers must bring the worker to rest, with nothing left in the cloud."""
        for wish in (ev.Shutdown(), ev.Insubstantiate("rest")):
            good: set[Node] = set()
            for node in self.parents:
                path: list[Node] = []
                at: Node | None = node
                while at is not None and at not in good:
                    path.append(at)
                    if len(path) > 30:
                        return self._tell(node, Broken(Promise.RECOVERS, f"no end comes of {wish}"))
                    at = self._fair(at, wish)
                good.update(path)
        return None

    def _fair(self, node: Node, wish: ev.Event) -> Node | None:
        """The next pair in a world that means well; None at the end."""
        state, world = self.states[node[0]], node[1]
        rest = isinstance(state, ShutDown) or (isinstance(state, NotSubstantiated) and not isinstance(wish, ev.Shutdown))
        if rest and not world.crashed and empty(world):
            return None
        chosen: Move | None = None
        going = isinstance(state, Insubstantiating | ShutDown) or rest
        for move in self.moves(node):
            match move.event:
                case ev.Recovered() | ev.Started() | ev.Stopped():
                    chosen = move
                    break
                case None if move.text.startswith("the reaper"):
                    chosen = chosen or move
                case ev.TimedOut(Timer.START | Timer.STOP) if going:
                    chosen = chosen or move
        if not world.crashed and not going:
            chosen = Move("it is to rest", wish, world)
        if chosen is None:
            raise Broken(Promise.RECOVERS, "nothing can happen any more")
        return next(self._follow(node, chosen)).node

    # --- telling ---------------------------------------------------------------------------------------------------------------

    def _tell(self, node: Node, broken: Broken, last: Move | None = None) -> Counterexample:
        """The way to ``node`` and the move that breaks the promise, in words and with attempts counted from the first."""
        path = [node]
        while (parent := self.parents[path[-1]]) is not None:
            path.append(parent)
        path.reverse()
        names = Names({CURRENT: 0})
        steps: list[str] = []
        for here, there in pairwise(path):
            arc = next(a for a in self.arcs(here) if a.node == there)
            steps.append(line(arc.text, arc.event, arc.actions, self.states[there[0]], names))
            names.follow(arc.numbers, arc.builds if arc.event else None, CURRENT)
        last = last or next((move for move in self.moves(node) if self._breaks(node, move)), None)
        if last is not None:
            reaction = self._react(node[0], last.event) if last.event else None
            actions, state = (reaction.actions, reaction.raw) if reaction else ((), self.states[node[0]])
            steps.append(line(last.text, last.event, actions, state, names))
        return Counterexample(broken.promise, broken.what, tuple(steps))

    def _breaks(self, node: Node, move: Move) -> bool:
        try:
            deque(self._follow(node, move), maxlen=0)
        except Broken:
            return True
        return False


def canonical_state(state: State) -> tuple[State, dict[str, str]]:
    """``state`` with all names and times made alike, and the new names of its builds."""
    changes: dict[str, Any] = {"attempt": CURRENT}
    changes |= {f"{name}": NOW for name in _DEADLINES if getattr(state, name, None) is not None}
    builds: dict[str, str] = {}
    for build in (*getattr(state, "waiters", ()), *sorted(getattr(state, "builds", ())), getattr(state, "build", None)):
        if build is not None and build not in builds:
            builds[build] = "abcd"[len(builds)]
    match state:
        case Substantiated():
            changes |= {"builds": frozenset(builds[b] for b in state.builds), "session": state.session and "s1"}
        case Substantiating() | SubstantiatingStarting() | InsubstantiatingSubstantiating():
            changes["waiters"] = tuple(builds[b] for b in state.waiters)
    if isinstance(state, SubstantiatingStarting) and state.build is not None:
        changes["build"] = builds[state.build]
    for name in ("start", "call"):
        if (call := getattr(state, name, None)) is not None:
            changes[name] = evolve(call, deadline=NOW)
    if getattr(state, "retiring", ""):
        changes["retiring"] = "it retires"
    return evolve(state, **changes), builds


_DEADLINES = ("missing_deadline", "check_deadline", "idle_deadline", "reattach_deadline")


def main() -> int:
    parser = argparse.ArgumentParser(description="Search every state of one worker in a hostile world.")
    parser.add_argument("--olds", type=int, default=1, help="how many older attempts the world remembers (1)")
    search = Search(olds=parser.parse_args().olds)
    began = time.perf_counter()
    broken = search.run()
    print(broken if broken is not None else "Every promise holds.")
    print(f"{search.summary()}, {time.perf_counter() - began:.1f} s")
    return 1 if broken is not None else 0


if __name__ == "__main__":
    sys.exit(main())
