"""A real controller on a clock that stands still until it is told to go on: for plugin authors' tests and for ours.

    with ControllerHarness(tmp_path, [MyLatentWorker("w")]) as harness:
        build = harness.submit()
        agent = harness.agent("w")      # the agent of the attempt that is up or coming
        agent.attach()
        agent.work()                    # take the lease, begin, say how it ended
        assert harness.result(build) is Result.SUCCESS

Everything is synchronous and happens in the same order each time. What the controller does later, it does in `advance`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from sqlalchemy import Connection
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from latent.config.builder import Builder
from latent.config.settings import Config, Limits, ReaperSettings
from latent.controller.health import HealthItem
from latent.controller.lifecycle import Lifecycle
from latent.controller.live import LiveRun
from latent.controller.service import Controller
from latent.controller.views import RunView, WorkerStatus
from latent.model import JSON, Attempt, Build, BuildRequest, BuildState, Lease, Outcome, Requirements, Result, Step
from latent.store.database import Store
from latent.testing.agent import InProcessAgent
from latent.testing.machine import ControllableLatentMachine, MachineControls
from latent.testing.worker import ControllableLatentWorker, Controls
from latent.worker.base import AbstractWorker
from latent.worker.machine import Machine

T = TypeVar("T")

MOST_WRITES = 20
"""How many writes, one after the other, an answer may take."""

START = 1_700_000_000.0
"""When the clock stands still first, in POSIX seconds."""


def answer(awaitable: Awaitable[T]) -> T:
    """What a coroutine or Deferred answers, which must be there at once; raises what it fails with."""
    deferred = awaitable if isinstance(awaitable, Deferred) else Deferred.fromCoroutine(awaitable)  # type: ignore[arg-type]
    outcome: list[Any] = []
    deferred.addBoth(outcome.append)
    if not outcome:
        deferred.addErrback(lambda _: None)
        raise AssertionError("there is no answer yet")
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    result: T = outcome[0]
    return result


class SteppedAgent:
    """An agent that is taken step by step: each method is one thing that an agent does. Raises what its gateway would refuse."""

    def __init__(self, harness: ControllerHarness, attempt: Attempt | None, token: str) -> None:
        self.attempt = attempt
        self._harness = harness
        self._agent = InProcessAgent(harness.controller, token, harness.clock.seconds)
        self._taken = 0

    @property
    def session_id(self) -> int:
        assert self._agent.session is not None
        return self._agent.session.id

    @property
    def closed(self) -> str:
        """Why its session is closed; empty while it is open."""
        assert self._agent.session is not None
        return self._agent.session.close_reason

    @property
    def lease(self) -> Lease:
        """The last that it was given and looked at."""
        return self._agent.leases[self._taken - 1]

    @property
    def leases(self) -> list[int]:
        """The builds of all that it took."""
        return [lease.build_id for lease in self._agent.leases]

    def enrol(self) -> SteppedAgent:
        self._harness.answer(self._agent.enrol())
        return self

    def attach(self, *, capacity: int = 1, labels: Mapping[str, str] | None = None) -> SteppedAgent:
        self._harness.answer(self._agent.attach(capacity=capacity, labels=labels))
        self._harness.advance(0)
        return self

    def ask(self) -> Deferred[Lease]:
        """Ask for work; the call waits until there is some. Cancel it, and nothing is taken."""
        asking = Deferred.fromCoroutine(self._agent.take())
        asking.addErrback(lambda _: None)
        return asking

    def take(self) -> Lease:
        """The lease that is there for it, or that a waiting `ask` was answered with."""
        self._harness.advance(0)
        if self._taken == len(self._agent.leases):
            self.ask().cancel()
        assert self._taken < len(self._agent.leases), "there is no lease for the agent"
        self._taken += 1
        return self.lease

    def begin(self) -> None:
        self._harness.answer(self._agent.begin(self.lease))

    def renew(self) -> None:
        self._agent.renew(self.lease)

    def tell(self, *texts: str) -> None:
        self._harness.answer(self._agent.tell(self.lease, *texts))

    def watch(self) -> Deferred[bool]:
        """Wait for a cancellation of the run."""
        return self._agent.cancelled(self.lease)

    def finish(self, result: Result = Result.SUCCESS, *, exit_code: int | None = None, error: str = "") -> None:
        self._harness.answer(self._agent.finish(self.lease, Outcome(result=result, exit_code=exit_code, error=error)))
        self._harness.advance(0)

    def work(self, result: Result = Result.SUCCESS) -> None:
        """Carry one lease out."""
        self.take()
        self.begin()
        self.finish(result)

    def leave(self, reason: str = "its agent has left", *, ended: bool = True) -> None:
        """Its session is closed, in order and after all that it ran, or (not ``ended``) because its connection was cut."""
        self._harness.answer(self._agent.leave(reason, ended=ended))
        self._harness.advance(0)

    def come_back(self, *, attach: bool = True) -> SteppedAgent:
        """Enrol again with the id of the session, at the controller that is there now."""
        self._agent.move_to(self._harness.controller)
        return self.attach() if attach else self.enrol()


class ControllerHarness:
    """``workers`` and ``builders`` are what master.cfg would declare. The controller is started by `start` or ``with``.

    ``disk_seconds``: how long a write takes. 0: it is on disk, and answered, before the next line of the controller's code runs;
    above that, other things happen meanwhile, as they do with a real disk.
    At the end of the ``with`` it is stopped, and what it has left behind on the clock is an AssertionError.
    """

    def __init__(
        self,
        state_dir: Path,
        workers: Iterable[AbstractWorker],
        *,
        builders: Iterable[Builder] = (),
        machines: Iterable[Machine] = (),
        limits: Limits | None = None,
        jitter: Callable[[], float] = lambda: 0.0,
        disk_seconds: float = 0.0,
        reaper: ReaperSettings | None = None,
    ) -> None:
        self.clock = Clock()
        self.clock.rightNow = START
        self.controller: Controller
        self.store: Store
        self._state_dir = state_dir
        self._jitter = jitter
        self._disk_seconds = disk_seconds
        self._limits = limits or Limits()
        self._reaper = reaper or ReaperSettings()
        self._builders = {builder.name: builder for builder in builders}
        self._machines = {machine.name: machine for machine in machines}
        self._config = self.config(workers)
        self._running = False
        self.scheduling = True
        """Whether `submit` lets the scheduler look at once; else it looks at the next `advance`."""

    def config(self, workers: Iterable[AbstractWorker], *, limits: Limits | None = None) -> Config:
        """A configuration, as master.cfg makes one. Pools are expanded."""
        declared = [one for worker in workers for one in worker.expand()]
        self._limits = limits or self._limits
        return Config(
            path=self._state_dir / "master.cfg",
            workers={worker.name: worker for worker in declared},
            builders=self._builders,
            machines=self._machines,
            db_url=f"sqlite:///{self._state_dir}/latent.sqlite",
            limits=self._limits,
            reaper=self._reaper,
        )

    # --- the controller's life -----------------------------------------------------------------------------------------------

    def __enter__(self) -> ControllerHarness:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self.crash()
        elif self._running:
            self.stop()

    def start(self) -> None:
        self.open()
        self.answer(self.controller.start())
        self.advance(0)

    def open(self) -> None:
        """Make the controller, but do not start it."""
        self.store = Store.open(self._config.db_url, self._state_dir, threaded=False, clock=self.clock)  # type: ignore[arg-type]
        self.controller = Controller(
            self._config,
            self.store,
            reactor=self.clock,
            clock=self.clock,
            state_dir=self._state_dir,
            jitter=self._jitter,
        )
        self._running = True
        if self._disk_seconds:
            self._slow_down(self.store.write)

    def _slow_down(self, write: Callable[[Callable[[Connection], Any]], Deferred[Any]]) -> None:
        def slow_write(op: Callable[[Connection], Any]) -> Deferred[Any]:
            answered: Deferred[Any] = Deferred()
            self.clock.callLater(self._disk_seconds, lambda: write(op).chainDeferred(answered))
            return answered

        self.store.write = slow_write  # type: ignore[method-assign]

    def stop(self, *, fast: bool = True) -> None:
        """Stop the controller in order and to the end; hooks that do not answer are answered first, agents do not finish."""
        stopping = Deferred.fromCoroutine(self.controller.stop(fast))
        for controls in self._controls():
            controls.auto_stop = True if controls.auto_stop is None else controls.auto_stop
            if controls.starting:
                controls.start_answers()
            if controls.stopping:
                controls.stop_answers()
        for machine in self._machine_controls():
            machine.auto_stop = True if machine.auto_stop is None else machine.auto_stop
            if machine.starting:
                machine.start_answers()
            if machine.stopping:
                machine.stop_answers()
        for _ in range(100):
            if stopping.called:
                break
            self.advance(60)
        self.answer(stopping)
        self.close()

    def close(self) -> None:
        """After the controller has stopped: nothing may be left."""
        self._running = False
        self.advance(self._disk_seconds)
        self.answer(self.store.close())
        left = [str(call) for call in self.clock.getDelayedCalls()]
        assert not left, f"the controller left delayed calls behind: {left}"

    def crash(self) -> None:
        """The controller dies on the spot; what it had on disk is all that is left."""
        self._running = False
        for controls in self._controls():
            controls.controller_died()
        for machine in self._machine_controls():
            machine.controller_died()
        at, self.clock = self.clock.seconds(), Clock()
        self.clock.rightNow = at
        self.answer(self.store.close())

    def restart(self, workers: Iterable[AbstractWorker] | None = None, *, machines: Iterable[Machine] | None = None) -> None:
        """Crash, and start another controller. ``workers``, ``machines``: as declared now; None: as before."""
        if self._running:
            self.crash()
        if machines is None:
            machines = [type(m)(*m.arguments[0], **m.arguments[1]) for m in self._machines.values()]
        self._machines = {machine.name: machine for machine in machines}
        if workers is None:
            workers = [type(w)(*w.arguments[0], **w.arguments[1]) for w in self._config.workers.values()]
        self._config = self.config(workers)
        self.start()

    def reconfigure(
        self,
        workers: Iterable[AbstractWorker],
        *,
        limits: Limits | None = None,
        machines: Iterable[Machine] | None = None,
    ) -> list[str]:
        """What the controller says that it changed. ``machines``: None: as before."""
        if machines is not None:
            self._machines = {machine.name: machine for machine in machines}
        done = self.answer(self.controller.reconfigure(self.config(workers, limits=limits)))
        self._config = self.controller.config
        self.advance(0)
        return done

    def answer(self, awaitable: Awaitable[T]) -> T:
        """What a coroutine or Deferred answers, now or once the disk has; raises what it fails with."""
        deferred: Deferred[T]
        deferred = awaitable if isinstance(awaitable, Deferred) else Deferred.fromCoroutine(awaitable)  # type: ignore[arg-type]
        for _ in range(MOST_WRITES if self._disk_seconds else 0):
            if deferred.called:
                break
            self.advance(self._disk_seconds)
        return answer(deferred)

    # --- time ----------------------------------------------------------------------------------------------------------------

    def advance(self, seconds: float = 0.0) -> None:
        """Let time pass; each call is made at its own time. 0: what is due now, such as the scheduler's pass."""
        end = self.clock.seconds() + seconds
        while self.clock.calls and (due := self.clock.calls[0].getTime()) <= end:
            self.clock.rightNow = max(due, self.clock.rightNow)
            self.clock.advance(0)
        self.clock.rightNow = end

    # --- builds --------------------------------------------------------------------------------------------------------------

    def request(
        self,
        *,
        workers: Iterable[str] | None = None,
        labels: Mapping[str, str] | None = None,
        properties: Mapping[str, JSON] | None = None,
        priority: int = 0,
        timeout: float = 3600.0,
        max_attempts: int = 5,
    ) -> BuildRequest:
        """A build of one step."""
        return BuildRequest(
            builder="test",
            steps=(Step(name="step", command="true"),),
            requirements=Requirements(labels=labels or {}, workers=None if workers is None else frozenset(workers)),
            properties=properties or {},
            priority=priority,
            timeout=timeout,
            max_attempts=max_attempts,
        )

    def submit(self, **wanted: Any) -> int:
        """Ask for a `request`; the build's id. The scheduler has looked at it."""
        build = self.answer(self.controller.submit(self.request(**wanted)))
        if self.scheduling:
            self.advance(0)
        return build.id

    def cancel(self, build_id: int, reason: str = "not wanted", *, retry: bool = False) -> None:
        self.answer(self.controller.cancel(build_id, reason, retry=retry))
        self.advance(0)

    def build(self, build_id: int) -> Build:
        """As it is in the store."""
        return self.answer(self.controller.build(build_id)).build

    def state(self, build_id: int) -> BuildState:
        return self.build(build_id).state

    def result(self, build_id: int) -> Result | None:
        return self.build(build_id).result

    def why(self, build_id: int) -> str:
        return self.answer(self.controller.build(build_id)).why

    def runs(self, build_id: int) -> list[RunView]:
        return list(self.answer(self.controller.build(build_id)).runs)

    def live_run(self, build_id: int) -> LiveRun:
        run = self.controller.dispatcher.run_of_build(build_id)
        assert run is not None, f"build {build_id} has no run: {self.why(build_id)}"
        return run

    # --- workers and agents --------------------------------------------------------------------------------------------------

    def post(self, worker: str) -> Lifecycle:
        """The controller's side of a latent worker."""
        found = self.controller.roster.get(worker)
        assert isinstance(found, Lifecycle), f"{worker} is {found}"
        return found

    def worker_state(self, worker: str) -> str:
        return self.post(worker).state_name

    def attempt(self, worker: str) -> int:
        return self.post(worker).state.attempt

    def status(self, worker: str) -> WorkerStatus:
        return next(status for status in self.controller.workers() if status.name == worker)

    def agent(self, worker: str, attempt: int | None = None) -> SteppedAgent:
        """The agent of an attempt (None: the newest) of a latent worker, with the token that its instance was given."""
        who = Attempt(worker, self.attempt(worker) if attempt is None else attempt)
        return SteppedAgent(self, who, self.controller.identity.agent_token(who))

    def plain_agent(self, password: str) -> SteppedAgent:
        return SteppedAgent(self, None, password)

    def health(self, subject: str | None = None) -> list[HealthItem]:
        """What is not well, of one subject or of all."""
        return [item for item in self.controller.health() if not item.ok and subject in (None, item.subject)]

    def events(self, worker: str) -> list[str]:
        """The names of the events in the worker's journal, oldest first."""
        return [entry.event for entry in self.answer(self.controller.history(worker, 1000))]

    def disk(self, query: Callable[[Connection], T]) -> T:
        """What a query finds in the store."""
        return self.answer(self.store.read(query))

    def _controls(self) -> list[Controls]:
        return [post.plugin.controls for post in self.controller.roster if isinstance(post.plugin, ControllableLatentWorker)]

    def _machine_controls(self) -> list[MachineControls]:
        found = [shell.plugin for shell in self.controller.machines]
        return [machine.controls for machine in found if isinstance(machine, ControllableLatentMachine)]
