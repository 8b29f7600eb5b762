"""What the machine promises, checked on one step of it alone. What needs the world to check is in `tests.core.world`."""

from __future__ import annotations

import enum
from collections import Counter

from latent.core import events as ev
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


class Promise(enum.Enum):
    """The promises of section 3 of the design, by their numbers there, and what follows from them."""

    OVERLAP = "1: start_instance and stop_instance never overlap"
    STOPPED_ONCE = "2: every start_instance is followed by exactly one stop_instance"
    FAILED_STOP = "3: a stop that fails is not forgotten"
    LATE = "4: what a hung call answers late is not dropped"
    HUNG = "4: no build waits behind a hung call"
    RIGHT_ATTEMPT = "5: an agent attaches only as the attempt that it was started for"
    EARLY = "6: the right agent may always attach, also before start_instance has answered"
    SHUTDOWN = "7: shutdown waits for what runs, reaches SHUT_DOWN and stays there; fast reaches stop_instance"
    BLAME = "8: who is blamed follows from the type of the failure"
    LEAK = "no instance is leaked"
    LOST_BUILD = "every build handed to the machine is held by it or answered once"
    RUNNING_BUILD = "a build that runs is not interrupted without need"
    REPLACED = "a build does not get an instance that won't do for it"
    IDLE = "an instance without builds has an end"
    UNWANTED = "nothing is started that nobody wants"
    TIMERS = "a deadline is armed for what is there now, not left from before"
    WATCHED = "an instance that is up is watched, and nothing else is"
    STUCK = "every state but the two at rest waits for something that must come"
    RECOVERS = "from every state there is a way to rest with an empty cloud"
    TOTAL = "every event has an answer in every state"
    NOISE = "an event that means nothing changes nothing"


class Broken(Exception):
    def __init__(self, promise: Promise, what: str) -> None:
        self.promise, self.what = promise, what
        super().__init__(f"promise {promise.value}: {what}")


def held(state: State) -> frozenset[str]:
    """The builds that the machine must answer for."""
    match state:
        case Substantiating() | SubstantiatingStarting() | InsubstantiatingSubstantiating():
            return frozenset(state.waiters)
        case Substantiated():
            return state.builds
        case _:
            return frozenset()


def judge(before: State, event: ev.Event, now: float, after: State, actions: tuple[ev.Action, ...]) -> None:
    """Raise `Broken` if the step from ``before`` to ``after`` breaks a promise."""
    _builds(before, event, after, actions)
    _running(before, event, actions)
    _attaching(before, event, actions)
    _late_answers(before, event, after, actions)
    _hung_calls(before, event, after)
    _going(before, event, after, actions)
    _starting(before, event, after, actions)
    _replacing(before, event, after)
    _blame(actions)
    _timers(before, now, after)


def _builds(before: State, event: ev.Event, after: State, actions: tuple[ev.Action, ...]) -> None:
    mine = Counter(held(before))
    match event:
        case ev.Substantiate(str(build)) | ev.BuildStarted(build):
            mine[build] = 1
        case ev.GiveUp(build):
            mine[build] = 0
        case ev.BuildFinished(build) if isinstance(before, Substantiated):
            mine[build] = 0
    ready: set[str] = set()
    for action in actions:
        match action:
            case ev.Unready(builds) | ev.Interrupt(builds):
                mine.subtract(builds)
            case ev.Ready(builds):
                ready.update(builds)
    for build, count in mine.items():
        if count != (build in held(after)):
            fate = "lost" if count > 0 else "answered twice"
            raise Broken(Promise.LOST_BUILD, f"a build is {fate}")
    if set(held(after)) - set(mine):
        raise Broken(Promise.LOST_BUILD, "a build appears from nowhere")
    if isinstance(after, Substantiated):
        had = before.builds if isinstance(before, Substantiated) else frozenset()
        told = ready | ({event.build} if isinstance(event, ev.BuildStarted) else set())
        if after.builds - had - told:
            raise Broken(Promise.LOST_BUILD, "nobody is told that a build can run")
    if any(isinstance(a, ev.Ready) and not set(a.builds) <= held(after) for a in actions):
        raise Broken(Promise.LOST_BUILD, "a build is said to be ready that the instance is not kept for")


def _running(before: State, event: ev.Event, actions: tuple[ev.Action, ...]) -> None:
    """With its agent there, a build is interrupted by order only; with its agent away, not before the agent had its time."""
    if not isinstance(before, Substantiated) or not any(isinstance(a, ev.Interrupt) for a in actions):
        return
    match event:
        case ev.Insubstantiate() | ev.Shutdown() | ev.Recovered(False):
            return
        case ev.TimedOut(Timer.REATTACH) | ev.Checked() if before.session is None:
            return
    raise Broken(Promise.RUNNING_BUILD, f"{type(event).__name__} interrupts it")


def _attaching(before: State, event: ev.Event, actions: tuple[ev.Action, ...]) -> None:
    answers = [a for a in actions if isinstance(a, ev.Accept | ev.Refuse)]
    if not isinstance(event, ev.Attached):
        if answers:
            raise Broken(Promise.RIGHT_ATTEMPT, "an attachment is answered that nobody asked for")
        return
    if len(answers) != 1 or answers[0].session != event.session:
        raise Broken(Promise.RIGHT_ATTEMPT, "an agent that asks to attach gets no answer")
    accepted = isinstance(answers[0], ev.Accept)
    expected = event.attempt == before.attempt and isinstance(before, SubstantiatingStarting | Substantiated)
    if accepted and not expected:
        raise Broken(Promise.RIGHT_ATTEMPT, "an agent of another attempt is accepted")
    if expected and not accepted:
        raise Broken(Promise.EARLY, "the right agent is refused")


def _late_answers(before: State, event: ev.Event, after: State, actions: tuple[ev.Action, ...]) -> None:
    condemned = {a.attempt for a in actions if isinstance(a, ev.Condemn)}
    if isinstance(event, ev.Started | ev.StartFailed) and not _awaits(before, Timer.START, event.attempt):
        if after != before:
            raise Broken(Promise.LATE, "a late answer moves the state")
        adopted = isinstance(before, SubstantiatingStarting | Substantiated) and event.attempt == before.attempt
        if not adopted and event.attempt not in condemned:
            raise Broken(Promise.LATE, "nobody destroys what the call made late")
    if after.attempt in condemned and isinstance(after, SubstantiatingStarting | Substantiated):
        raise Broken(Promise.RUNNING_BUILD, "an instance in use is given to the reaper")


def _awaits(state: State, hook: Timer, attempt: int) -> bool:
    if state.attempt != attempt:
        return False
    match state:
        case SubstantiatingStarting() | Substantiated():
            return hook is Timer.START and state.start is not None
        case Insubstantiating() | InsubstantiatingSubstantiating():
            return state.call.hook is hook
        case _:
            return False


def _hung_calls(before: State, event: ev.Event, after: State) -> None:
    waiting = set(getattr(before, "waiters", ()))
    if not isinstance(event, ev.TimedOut) or event.timer not in deadlines(before):
        return
    release = event.timer is Timer.MISSING or (event.timer is Timer.START and isinstance(before, SubstantiatingStarting))
    if release and waiting & held(after):
        raise Broken(Promise.HUNG, f"builds still wait after the {event.timer.value} deadline")


def _going(before: State, event: ev.Event, after: State, actions: tuple[ev.Action, ...]) -> None:
    condemned = {a.attempt for a in actions if isinstance(a, ev.Condemn)}
    if isinstance(before, Insubstantiating | InsubstantiatingSubstantiating):
        call = before.call
        match event:
            case ev.StopFailed(a) if _awaits(before, Timer.STOP, a) and a not in condemned:
                raise Broken(Promise.FAILED_STOP, "stop_instance failed and nobody destroys the instance")
            case ev.TimedOut(timer) if timer is call.hook and call.cancelled and before.attempt not in condemned:
                promise = Promise.LATE if timer is Timer.START else Promise.FAILED_STOP
                raise Broken(promise, f"{timer.value}_instance was given up and nobody destroys what it leaves")
            case ev.Started(a) | ev.StartFailed(a) if _awaits(before, Timer.START, a) and after == before:
                raise Broken(Promise.STUCK, "start_instance answers and nothing comes of it")
            case ev.Stopped(a) | ev.StopFailed(a) if _awaits(before, Timer.STOP, a) and after == before:
                raise Broken(Promise.STUCK, "stop_instance answers and nothing comes of it")
            case ev.TimedOut(timer) if timer is call.hook and getattr(after, "call", None) == call:
                raise Broken(Promise.HUNG, f"the {timer.value} deadline passes and nothing comes of it")
    match event:
        case ev.Insubstantiate() if not isinstance(after, NotSubstantiated | Insubstantiating | ShutDown):
            raise Broken(Promise.UNWANTED, "it starts again though it was told to go")
        case ev.Shutdown() if not (isinstance(after, ShutDown) or (isinstance(after, Insubstantiating) and after.then_shut_down)):
            raise Broken(Promise.SHUTDOWN, "it goes on after a shutdown")


def _starting(before: State, event: ev.Event, after: State, actions: tuple[ev.Action, ...]) -> None:
    if after.attempt not in (before.attempt, before.attempt + 1):
        raise Broken(Promise.RIGHT_ATTEMPT, "an attempt's number is skipped or used again")
    starts = [a for a in actions if isinstance(a, ev.StartInstance | ev.StartMachine)]
    if after.attempt != before.attempt and not starts:
        raise Broken(Promise.UNWANTED, "an attempt is counted that does not start")
    wanting = isinstance(event, ev.Substantiate) or isinstance(
        before, Substantiating | SubstantiatingStarting | InsubstantiatingSubstantiating
    )
    if starts and not wanting:
        raise Broken(Promise.UNWANTED, f"{type(event).__name__} starts an instance")
    for start in starts:
        if start.attempt != after.attempt or not isinstance(after, Substantiating | SubstantiatingStarting):
            raise Broken(Promise.UNWANTED, "an attempt is started that the state does not know of")


def _replacing(before: State, event: ev.Event, after: State) -> None:
    if not isinstance(event, ev.Substantiate) or event.build is None or event.build not in held(after) - held(before):
        return
    retiring = bool(getattr(before, "retiring", ""))
    if (event.replace and held(before)) or ((event.replace or retiring) and isinstance(after, type(before)) and _up(before)):
        raise Broken(Promise.REPLACED, "it is put with what won't do for it")


def _up(state: State) -> bool:
    return isinstance(state, SubstantiatingStarting | Substantiated)


def _blame(actions: tuple[ev.Action, ...]) -> None:
    backs_off = any(isinstance(a, ev.BackOff) for a in actions)
    for action in actions:
        if isinstance(action, ev.Unready):
            if action.failure.fault is ev.Fault.INFRASTRUCTURE and not backs_off:
                raise Broken(Promise.BLAME, "the infrastructure failed and the worker does not back off")
            if action.failure.fault is ev.Fault.BUILD and backs_off:
                raise Broken(Promise.BLAME, "the worker is blamed for its build")


def _timers(before: State, now: float, after: State) -> None:
    had, has = deadlines(before), deadlines(after)
    for timer, at in has.items():
        if at < now and had.get(timer) != at:
            raise Broken(Promise.TIMERS, f"the {timer.value} deadline is armed in the past")
    if Timer.MISSING in has and Timer.MISSING not in had and has[Timer.MISSING] != now + after.policy.missing_timeout:
        raise Broken(Promise.TIMERS, "a new substantiation does not get its whole missing_timeout")
    if isinstance(after, Substantiated):
        if after.builds and after.idle_deadline is not None:
            raise Broken(Promise.IDLE, "the idle timer runs during a build")
        if not after.builds and after.retiring:
            raise Broken(Promise.IDLE, "a retiring instance stays after its last build")
        if not after.builds and after.policy.build_wait_timeout >= 0 and after.idle_deadline is None:
            raise Broken(Promise.IDLE, "no idle timer runs")
        if after.session is None and after.reattach_deadline is None:
            raise Broken(Promise.STUCK, "its agent is away and no deadline is armed")
        if after.session is not None and after.reattach_deadline is not None:
            raise Broken(Promise.TIMERS, "its agent is there and the reattach deadline is armed")


def noise(state: State) -> list[ev.Event]:
    """Events that mean nothing in ``state``: of an older attempt, of a session that is gone, of a timer that is not armed."""
    old = state.attempt - 1
    events: list[ev.Event] = [
        ev.Checked(old, False, "stale"),
        ev.MachineStarted(old),
        ev.MachineFailed(old, ev.Failure(ev.Fault.INFRASTRUCTURE, "stale")),
        ev.Stopped(old),
        ev.StopFailed(old, "stale"),
        ev.Detached("an old session"),
        ev.GiveUp("another worker's build"),
        ev.BuildFinished("another worker's build"),
        *(ev.TimedOut(timer) for timer in Timer if timer not in deadlines(state)),
    ]
    if not isinstance(state, SubstantiatingStarting | Substantiated):
        events.append(ev.Checked(state.attempt, False, "stale"))
    if not isinstance(state, Substantiating):
        events += [ev.MachineStarted(state.attempt), ev.MachineFailed(state.attempt, ev.Failure(ev.Fault.BUILD, "stale"))]
    return events
