"""Several workers that share a queue of builds: every build ends once, wherever it goes and whatever breaks on the way."""

from __future__ import annotations

from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from latent.core import events as ev
from latent.core.states import NotSubstantiated, ShutDown, State, Substantiated, SubstantiatingStarting, deadlines
from latent.core.substantiation import step
from tests.core.promises import held, judge
from tests.core.world import CURRENT, POLICIES, Made, Move, World, close, empty, facts_of, happenings, perform

WORKERS = 3
BUILDS = 8
which = st.integers(0, WORKERS - 1)


class SharedBuilds(RuleBasedStateMachine):
    """A planner that hands builds out at random, and a world that does its worst to each worker.

    The clock is real here: a deadline fires when its time has come. Attempts are renumbered as in the search.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.states: list[State] = [NotSubstantiated(policy=POLICIES[n], attempt=CURRENT) for n in range(WORKERS)]
        self.worlds = [World((Made(CURRENT),)) for _ in range(WORKERS)]
        self.submitted: list[str] = []
        self.queue: list[str] = []
        self.at: dict[str, int] = {}
        self.over: list[str] = []

    # --- what happens ----------------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.submitted) < BUILDS)
    @rule()
    def submit(self) -> None:
        build = f"b{len(self.submitted):02}"
        self.submitted.append(build)
        self.queue.append(build)

    @precondition(lambda self: self.queue)
    @rule(worker=which, replace=st.booleans())
    def assign(self, worker: int, replace: bool) -> None:
        if self.worlds[worker].crashed:
            return
        build = self.queue.pop(0)
        self.at[build] = worker
        warm = isinstance(self.states[worker], Substantiated) and not replace
        self.tell(worker, ev.BuildStarted(build) if warm else ev.Substantiate(build, replace))

    @rule(worker=which)
    def finish(self, worker: int) -> None:
        state = self.states[worker]
        if isinstance(state, Substantiated) and state.builds and self.worlds[worker].session is not None:
            self.end(worker, ev.BuildFinished(min(state.builds)))

    @rule(worker=which)
    def cancel(self, worker: int) -> None:
        if (mine := held(self.states[worker])) and not self.worlds[worker].crashed:
            self.end(worker, ev.GiveUp(min(mine)))

    @rule(worker=which, choice=st.integers(0, 30))
    def happen(self, worker: int, choice: int) -> None:
        if moves := happenings(self.worlds[worker]):
            self.follow(worker, moves[choice % len(moves)])

    @rule(worker=which)
    def answer(self, worker: int) -> None:
        """The world means well for once, so that workers get anywhere."""
        for move in happenings(self.worlds[worker]):
            if isinstance(move.event, ev.Started | ev.Stopped | ev.MachineStarted | ev.Attached | ev.Recovered):
                self.follow(worker, move)
                return

    @rule(
        worker=which,
        wish=st.sampled_from(
            [
                ev.Insubstantiate("an operator"),
                ev.Insubstantiate("an operator", fast=True),
                ev.Substantiate(None),
                *(ev.Reconfigured(policy) for policy in POLICIES),
                ev.Reconfigured(POLICIES[0], outdated=True),
            ]
        ),
    )
    def wish(self, worker: int, wish: ev.Event) -> None:
        if not self.worlds[worker].crashed:
            self.tell(worker, wish)

    @rule()
    def wait(self) -> None:
        """Time goes on to the next deadline of all."""
        due = [
            (at, worker, timer)
            for worker, state in enumerate(self.states)
            if not self.worlds[worker].crashed
            for timer, at in deadlines(state).items()
        ]
        if due:
            at, worker, timer = min(due, key=lambda item: (item[0], item[1], item[2].value))
            self.now = max(self.now, at)
            self.tell(worker, ev.TimedOut(timer))

    # --- what must hold --------------------------------------------------------------------------------------------------------

    @invariant()
    def each_build_is_in_one_place(self) -> None:
        """In the queue, with one worker, or over."""
        assert sorted(self.submitted) == sorted([*self.queue, *self.at, *self.over])
        for worker, state in enumerate(self.states):
            assert held(state) == {build for build, at in self.at.items() if at == worker}

    def teardown(self) -> None:
        """When the world means well at last, every build ends and the cloud is empty."""
        for _ in range(600):
            if not (self.queue or self.at):
                break
            self.recover_all()
            for worker, state in enumerate(self.states):
                if self.queue and not held(state):
                    self.assign(worker, replace=False)
                self.settle(worker)
                self.finish(worker)
            self.wait()
        assert sorted(self.over) == sorted(self.submitted), (self.queue, self.at)
        for _ in range(600):
            self.recover_all()
            for worker, state in enumerate(self.states):
                if not isinstance(state, NotSubstantiated | ShutDown):
                    self.tell(worker, ev.Insubstantiate("it is over"))
                self.settle(worker)
            if all(empty(world) for world in self.worlds) and all(isinstance(s, NotSubstantiated) for s in self.states):
                return
            self.wait()
        raise AssertionError(f"something is left: {self.states} {self.worlds}")

    # --- how -------------------------------------------------------------------------------------------------------------------

    def recover_all(self) -> None:
        for worker, world in enumerate(self.worlds):
            if world.crashed:
                self.follow(worker, happenings(world)[0])

    def settle(self, worker: int) -> None:
        """One good answer for each call, check and condemnation that is open, and an agent that attaches."""
        for _ in range(4):
            state, world = self.states[worker], self.worlds[worker]
            wanted = isinstance(state, SubstantiatingStarting) or (isinstance(state, Substantiated) and state.session is None)
            for move in happenings(world):
                good = isinstance(move.event, ev.Started | ev.Stopped | ev.MachineStarted) or (
                    isinstance(move.event, ev.Checked) and move.event.good
                )
                attaches = isinstance(move.event, ev.Attached) and move.event.attempt == CURRENT and wanted
                if good or attaches or move.text.startswith("the reaper"):
                    self.follow(worker, move)
                    break

    def end(self, worker: int, event: ev.BuildFinished | ev.GiveUp) -> None:
        del self.at[event.build]
        self.over.append(event.build)
        self.tell(worker, event)

    def follow(self, worker: int, move: Move) -> None:
        self.worlds[worker] = move.world
        if move.policy is not None:
            self.states[worker] = evolve(self.states[worker], policy=move.policy)
        if move.event is not None:
            self.tell(worker, move.event)

    def tell(self, worker: int, event: ev.Event) -> None:
        before, world = self.states[worker], self.worlds[worker]
        after, actions = step(before, event, self.now)
        judge(before, event, self.now, after, actions)
        if after.attempt != before.attempt:
            world = world._replace(made=(*world.made, Made(after.attempt)))
        for action in actions:
            world = perform(world, action, event)
            if isinstance(action, ev.Unready | ev.Interrupt):
                for build in action.builds:
                    assert self.at.pop(build) == worker
                    self.queue.insert(0, build)
        self.worlds[worker], _ = close(facts_of(before), facts_of(after), after, event, world, olds=2)
        after = evolve(after, attempt=CURRENT)
        self.states[worker] = evolve(after, session=after.session and "s1") if isinstance(after, Substantiated) else after


SharedBuilds.TestCase.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)
TestSharedBuilds = SharedBuilds.TestCase
