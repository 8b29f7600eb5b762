"""The world around one worker, at its worst: what the cloud has, which calls hang, who wants to attach.

A `World` is a frozen value beside the machine's state. `moves` lists everything that can happen next; `perform` does what the
machine asks for and raises `Broken` where that breaks a promise. Neither knows what the machine would do.

What is assumed of the world (all else is allowed to happen):

- A stop that succeeds has removed what the attempt made, if the plugin knows of it: that is, unless the start was cut short by a
  crash or still runs.
- The shell writes `Condemn` in the transaction that writes the state, and performs all other actions afterwards, in order. Only
  `StartInstance` and `StopInstance` leave something behind that a crash does not end, so the crashes that differ are those before
  each of these two, and the one at rest. An event that was not written before a crash is as if its cause had been cut short.
- Every check is answered, if only by the shell's own time limit; an instance's agent can attach from the moment there is one.
- An answer that is lost in a crash after its start was given up, and after the reaper had confirmed that nothing is there, is for
  the reaper's listing of the provider (`list_instances`) to find.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from latent.core import events as ev
from latent.core.states import (
    Insubstantiating,
    InsubstantiatingSubstantiating,
    NotSubstantiated,
    Policy,
    ShutDown,
    State,
    Substantiated,
    SubstantiatingStarting,
    Timer,
    deadlines,
)
from tests.core.promises import Broken, Promise, held

NONE, RUNNING, CANCELLED, GIVEN_UP = range(4)
"""How a call of start_instance or stop_instance stands. Only a call in flight is not NONE."""

POLICIES = (
    Policy(build_wait_timeout=600),
    Policy(build_wait_timeout=0),
    Policy(build_wait_timeout=-1),
    Policy(build_wait_timeout=600, has_machine=True),
)
MAX_BUILDS = 2
NO_START = ev.Failure(ev.Fault.INFRASTRUCTURE, "no capacity")
BAD_BUILD = ev.Failure(ev.Fault.BUILD, "no such image")


class Made(NamedTuple):
    """What one attempt has in the world."""

    attempt: int
    instance: bool = False
    agent: bool = False
    """There is or was an instance: something with its identity may ask to attach, for ever."""
    start: int = NONE
    stop: int = NONE
    machine: bool = False
    """Its machine's start was not answered."""
    check: bool = False
    known: bool = False
    """The plugin knows what it made: a stop reaches it."""
    condemned: bool = False
    started: bool = False
    stopped: bool = False
    fast: bool = False
    """Its stop was asked to be fast."""


class World(NamedTuple):
    """``made``: by attempt, the current one last. ``session``: the one that is attached. ``down``: a shutdown was asked for."""

    made: tuple[Made, ...]
    session: str | None = None
    down: bool = False
    crashed: bool = False

    def put(self, made: Made) -> World:
        return self._replace(made=tuple(made if m.attempt == made.attempt else m for m in self.made))


class Move(NamedTuple):
    """Something that happens: ``text`` says what, ``world`` is how it leaves the world, ``event`` is what the machine is told.

    ``policy``: the declaration's, where it was changed while the controller was down.
    """

    text: str
    event: ev.Event | None
    world: World
    policy: Policy | None = None


def empty(world: World) -> bool:
    """Whether the cloud has nothing of this worker, and never will without another start."""
    return all(not (m.instance or m.condemned or m.start or m.stop) for m in world.made)


# --- what can happen ----------------------------------------------------------------------------------------------------------


@cache
def happenings(world: World) -> tuple[Move, ...]:
    """What the world may do, whatever the machine's state."""
    if world.crashed:
        return tuple(_recoveries(world))
    found: list[Move] = []
    for number, made in enumerate(world.made):
        found += _answers(world, made, current=number == len(world.made) - 1)
        found += _attachments(world, made)
    if world.session is not None:
        found.append(Move("its connection is cut", ev.Detached(world.session), world._replace(session=None)))
    found += (Move("the controller dies", None, after) for after in crash(world))
    return tuple(found)


def wishes(state: State) -> tuple[tuple[str, ev.Event], ...]:
    """What planner, operator and clock may say; none of it touches the world."""
    found: list[tuple[str, ev.Event]] = []
    mine = held(state)
    named = mine | ({state.build} if isinstance(state, SubstantiatingStarting) and state.build else set())
    unused = next(b for b in ("a", "b", "c", "d") if b not in named)
    wants = [*(b for b in (*sorted(named - mine), unused) if len(mine) < MAX_BUILDS), None]
    found += [("an instance is wanted", ev.Substantiate(want)) for want in wants]
    if len(mine) < MAX_BUILDS:
        found.append(("the planner gives it a build", ev.BuildStarted(unused)))
    for build in (*sorted(mine), unused):
        found.append(("the build is cancelled", ev.GiveUp(build)))
        if isinstance(state, Substantiated):
            found.append(("the build ends", ev.BuildFinished(build)))
    for fast in (False, True):
        found.append(("the operator wants it gone", ev.Insubstantiate("the operator said so", fast)))
        found.append(("the controller shuts down", ev.Shutdown(fast)))
    for policy in POLICIES:
        if policy != state.policy:
            found.append(("the declaration changes", ev.Reconfigured(policy)))
    found.append(("the declaration changes its instances", ev.Reconfigured(state.policy, outdated=True)))
    found += [(f"the {timer.value} deadline passes", ev.TimedOut(timer)) for timer in deadlines(state)]
    found += [("another kind of instance is wanted", ev.Substantiate(want, replace=True)) for want in wants]
    return tuple(found)


def _answers(world: World, made: Made, current: bool) -> Iterator[Move]:
    """What the cloud does with an attempt: calls that answer, also long after they were given up."""
    attempt = made.attempt
    if made.start:
        late = " at last" if made.start == GIVEN_UP else ""
        over = made._replace(start=NONE, known=True)
        there = over._replace(instance=True, agent=True)
        yield Move(f"start_instance succeeds{late}", ev.Started(attempt), world.put(there))
        if not made.instance:
            yield Move(f"start_instance fails{late}", ev.StartFailed(attempt, NO_START), world.put(over))
        yield Move(
            f"start_instance fails{late}, though the instance was made", ev.StartFailed(attempt, NO_START), world.put(there)
        )
        if made.start == RUNNING and not made.instance:
            yield Move("start_instance can't serve this build", ev.StartFailed(attempt, BAD_BUILD), world.put(over))
    if made.stop:
        late = " at last" if made.stop == GIVEN_UP else ""
        gone = made._replace(stop=NONE, instance=made.instance and not made.known)
        yield Move(f"stop_instance succeeds{late}", ev.Stopped(attempt), world.put(gone))
        yield Move(f"stop_instance fails{late}", ev.StopFailed(attempt, "no permission"), world.put(made._replace(stop=NONE)))
    if made.machine:
        over = made._replace(machine=False)
        yield Move("the machine is up", ev.MachineStarted(attempt), world.put(over))
        yield Move("the machine does not start", ev.MachineFailed(attempt, NO_START), world.put(over))
    if made.check:
        over = made._replace(check=False)
        yield Move("the check is good", ev.Checked(attempt, True), world.put(over))
        yield Move("the check is bad", ev.Checked(attempt, False, "it is gone"), world.put(over))
    if made.condemned:
        yield Move("the reaper confirms that it is gone", None, world.put(made._replace(condemned=False, instance=False)))
    if current and made.instance and not made.start and not made.stop:
        yield Move("the instance vanishes", None, world.put(made._replace(instance=False)))


def _attachments(world: World, made: Made) -> Iterator[Move]:
    if made.start or made.agent:
        # Its instance may be up before start_instance has answered.
        there = world.put(made._replace(instance=made.instance or bool(made.start), agent=True))
        new = "s1" if world.session is None else "s2"
        yield Move("its agent attaches", ev.Attached(made.attempt, new), there)


def crash(world: World) -> Iterator[World]:
    """The controller dies: sessions, checks and calls end; what a call had not answered may or may not have happened."""
    *olds, now = world.made
    made = [old for old in map(_forget_calls, olds) if old]
    now = now._replace(machine=False, check=False)
    fates = {now._replace(start=NONE, stop=NONE)}
    if now.start:
        cut = now._replace(start=NONE, stop=NONE, known=False)
        fates = {cut, cut._replace(instance=True, agent=True)}
        if now.start == GIVEN_UP and not now.condemned:
            fates = {cut._replace(instance=False)}
    if now.stop:
        fates |= {fate._replace(instance=fate.instance and not fate.known) for fate in fates}
        fates = {fate._replace(stopped=False) for fate in fates}
    for fate in sorted(fates):
        yield world._replace(made=(*made, fate), session=None, down=False, crashed=True)


def _forget_calls(old: Made) -> Made:
    if old.start == GIVEN_UP and not old.condemned:
        return old._replace(start=NONE, stop=NONE, instance=False)
    return old._replace(start=NONE, stop=NONE)


def _recoveries(world: World) -> Iterator[Move]:
    now = world.made[-1]
    alive = world._replace(crashed=False)
    yield Move("it is restarted; the plugin can't tell what is there", ev.Recovered(None), alive)
    for policy in POLICIES:
        yield Move("it is restarted with another declaration", ev.Recovered(None), alive, policy)
    if now.instance:
        known = alive.put(now._replace(known=True))
        yield Move("it is restarted and finds the instance", ev.Recovered(True), known)
    if not now.instance or (now.started and not now.known):
        seen = ", though there is one" if now.instance else ""
        yield Move(f"it is restarted and finds no instance{seen}", ev.Recovered(False), alive)


# --- what the machine does to the world ---------------------------------------------------------------------------------------


def perform(world: World, action: ev.Action, event: ev.Event) -> World:
    """The world after the action was performed; calls are begun, not answered."""
    match action:
        case ev.StartInstance(attempt, _, again):
            made = _called(world, attempt, "start_instance")
            if made.started and not again:
                raise Broken(Promise.STOPPED_ONCE, "start_instance is called a second time")
            return world.put(made._replace(start=RUNNING, started=True, known=False))
        case ev.StopInstance(attempt, fast):
            made = _called(world, attempt, "stop_instance")
            if not made.started and not isinstance(event, ev.Recovered):
                raise Broken(Promise.STOPPED_ONCE, "stop_instance is called, but start_instance never was")
            if made.stopped:
                raise Broken(Promise.STOPPED_ONCE, "stop_instance is called a second time")
            if (made.fast or _is_fast(event)) and not fast:
                raise Broken(Promise.SHUTDOWN, "stop_instance is not told that it was to be fast")
            return world.put(made._replace(stop=RUNNING, stopped=True, fast=False))
        case ev.CancelCall(attempt, hook):
            made = _find(world, attempt)
            starting = hook is Timer.START
            if (made.start if starting else made.stop) != RUNNING:
                raise Broken(Promise.OVERLAP, f"{hook.value}_instance is cancelled, but it does not run")
            return world.put(made._replace(start=CANCELLED) if starting else made._replace(stop=CANCELLED))
        case ev.Condemn(attempt):
            found = [m for m in world.made if m.attempt == attempt]
            if not found:
                return world
            start, stop = (GIVEN_UP if c == CANCELLED else c for c in (found[0].start, found[0].stop))
            return world.put(found[0]._replace(condemned=True, start=start, stop=stop))
        case ev.StartMachine(attempt):
            return world.put(_find(world, attempt)._replace(machine=True))
        case ev.CheckInstance(attempt):
            made = _find(world, attempt)
            if made.check or attempt != world.made[-1].attempt:
                raise Broken(Promise.WATCHED, "an instance is checked twice at once, or one that is over")
            return world.put(made._replace(check=True))
        case ev.Accept(session):
            return world._replace(session=session)
        case ev.DropSession(session):
            return world._replace(session=None) if world.session == session else world
        case _:
            return world


def _find(world: World, attempt: int) -> Made:
    return next(m for m in world.made if m.attempt == attempt)


def _called(world: World, attempt: int, hook: str) -> Made:
    for made in world.made:
        for name, call in (("start", made.start), ("stop", made.stop)):
            if call in (RUNNING, CANCELLED):
                raise Broken(Promise.OVERLAP, f"{hook} is called while {name}_instance runs")
    return _find(world, attempt)


class Facts(NamedTuple):
    """What a world must know of the machine's state. ``active``: there may be an instance that the state will stop."""

    active: bool
    at_rest: bool
    unwatched: bool
    """The instance is up, and the machine has armed no check of it."""
    armed: bool
    down: bool


def facts_of(state: State) -> Facts:
    going = isinstance(state, Insubstantiating | InsubstantiatingSubstantiating)
    up = isinstance(state, SubstantiatingStarting | Substantiated)
    unwatched = False
    if isinstance(state, SubstantiatingStarting | Substantiated):
        retired = isinstance(state, Substantiated) and bool(state.retiring)
        unwatched = state.start is None and state.check_deadline is None and not retired
    down = isinstance(state, ShutDown) or (isinstance(state, Insubstantiating) and state.then_shut_down)
    return Facts(going or up, isinstance(state, NotSubstantiated | ShutDown), unwatched, bool(deadlines(state)), down)


def close(before: Facts, after: Facts, state: State, event: ev.Event, world: World, olds: int) -> tuple[World, tuple[int, ...]]:
    """Hold the promises that state and world keep together; forget what can't matter any more.

    ``before`` and ``after`` are of the states around the step, ``state`` the one that it led to. Answers the world in canonical
    form, its attempts numbered up to `CURRENT`, and the numbers that they had.
    """
    *past, now = world.made
    if past and past[-1].attempt == CURRENT:
        _over(past[-1], event)
    elif before.active and not after.active:
        _over(now, event)
    for made in world.made:
        if made.instance and not (made.condemned or made.start or (made is now and after.active)):
            promise = Promise.FAILED_STOP if isinstance(event, ev.StopFailed) else Promise.LEAK
            raise Broken(promise, "nobody will stop the instance")
    if world.session != (wanted := getattr(state, "session", None)):
        raise Broken(Promise.RIGHT_ATTEMPT, f"session {world.session} is attached where {wanted} should be")
    if after.unwatched and not now.check:
        raise Broken(Promise.WATCHED, "nobody checks the instance")
    if not (after.armed or after.at_rest or now.start or now.stop or now.check or now.machine or world.session):
        raise Broken(Promise.STUCK, "no deadline is armed and no answer is expected")
    down = world.down or isinstance(event, ev.Shutdown)
    if down != after.down:
        what = "it starts again after a shutdown" if down else "it is shut down, but nobody asked for that"
        raise Broken(Promise.SHUTDOWN, what)
    if down != world.down:
        world = world._replace(down=down)
    if not after.active:
        now = Made(now.attempt, now.instance, now.agent, now.start, now.stop, now.machine, condemned=now.condemned)
    elif not now.stop and not now.fast and before.active and _is_fast(event):
        now = now._replace(fast=True)
    if now.check and not isinstance(state, SubstantiatingStarting | Substantiated):
        now = now._replace(check=False)
    return _canonical(world, past, now, olds)


def _is_fast(event: ev.Event) -> bool:
    return isinstance(event, ev.Insubstantiate | ev.Shutdown) and event.fast


def _over(made: Made, event: ev.Event) -> None:
    if made.start in (RUNNING, CANCELLED) or made.stop in (RUNNING, CANCELLED):
        raise Broken(Promise.OVERLAP, "an attempt is over while a call of it runs that was neither answered nor given up")
    if made.started and not (made.stopped or made.condemned or isinstance(event, ev.Recovered)):
        raise Broken(Promise.STOPPED_ONCE, "an attempt is over and stop_instance was not called")


CURRENT = 9
"""The number of the current attempt in canonical form; those before it are 8, 7, ..."""


def _canonical(world: World, past: list[Made], now: Made, olds: int) -> tuple[World, tuple[int, ...]]:
    """Older attempts are alike but for what is left of them; the newest ``olds`` of those that left anything are kept.

    The machine holds nothing of them, so what a forgotten one could still do is what a kept one can.
    """
    kept: list[Made] = []
    if past and olds:
        bare = [Made(m.attempt, m.instance, m.agent, m.start, m.stop, condemned=m.condemned) for m in past]
        kept = [m for m in bare if any(m[1:])][-olds:]
    if len(kept) > 1:
        kept.sort(key=lambda m: m[1:])
    numbers = (*(m.attempt for m in kept), now.attempt)
    first = CURRENT - len(kept)
    if numbers != tuple(range(first, CURRENT + 1)):
        kept = [m._replace(attempt=first + i) for i, m in enumerate(kept)]
        now = now._replace(attempt=CURRENT)
    session = None if world.session is None else "s1"
    return World((*kept, now), session, world.down, world.crashed), numbers


def tidy(world: World, olds: int) -> tuple[World, tuple[int, ...]]:
    """A world that moved without the machine, in canonical form, and the numbers that its attempts had."""
    *past, now = world.made
    return _canonical(world, past, now, olds)
