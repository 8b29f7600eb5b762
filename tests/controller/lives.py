"""Several workers, their providers and agents, driven by a list of moves: anything may happen at any time."""

from __future__ import annotations

import tempfile
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from latent.core import events as ev
from latent.errors import EnrolmentRefused, LatentWorkerCannotSubstantiate, NotYourRun, StoreError
from latent.model import BuildState
from latent.store.builds import live_runs
from latent.testing import ControllableLatentWorker, ControllerHarness, Controls, SteppedAgent
from tests.controller.crash import Bomb
from tests.controller.kit import worker

MOVES = (
    "submit",
    "cancel",
    "retry",
    "start answers",
    "start fails",
    "start fails for the build",
    "start fails, instance made",
    "instance appears",
    "stop answers",
    "stop fails",
    "agent goes on",
    "agent leaves",
    "agent fails the build",
    "instance vanishes",
    "check is bad",
    "destroying fails",
    "a second",
    "a minute",
    "insubstantiate",
    "pause",
    "unpause",
    "reconfigure",
    "crash",
    "crash at a write",
)

NAMES = ("a", "b")
MAX_ATTEMPTS = 3


@define
class Agent:
    agent: SteppedAgent
    state: str = "new"


@define
class Lives:
    harness: ControllerHarness
    controls: dict[str, Controls]
    agents: dict[tuple[str, int], Agent] = field(factory=dict)
    builds: list[int] = field(factory=list)
    bomb: Bomb = field(factory=lambda: Bomb(-1, False))
    crashes: int = 0
    version: int = 0

    def move(self, what: str, which: int) -> None:
        """One thing that happens, to the worker, build or agent that ``which`` picks. What can't happen just now does not."""
        try:
            self._move(what, which)
            self.harness.advance(0)
        except AssertionError:
            if not self.bomb.gone_off:
                raise
        if self.bomb.gone_off:
            self._crash()
        self.check()

    def _move(self, what: str, which: int) -> None:
        name = NAMES[which % len(NAMES)]
        controls = self.controls[name]
        match what:
            case "submit":
                self._begin(self.harness.controller.submit(self.harness.request(max_attempts=MAX_ATTEMPTS)))
            case "cancel" | "retry" if self.builds:
                build = self.builds[which % len(self.builds)]
                self._begin(self.harness.controller.cancel(build, "not wanted", retry=what == "retry"))
            case "start answers" if controls.starting:
                controls.start_answers()
            case "start fails" if controls.starting:
                controls.start_answers(RuntimeError("no"))
            case "start fails for the build" if controls.starting:
                controls.start_answers(LatentWorkerCannotSubstantiate("no such image"))
            case "start fails, instance made" if controls.starting:
                controls.start_answers(RuntimeError("no"), made=True)
            case "instance appears" if controls.starting:
                controls.instance_appears()
            case "stop answers" if controls.stopping:
                controls.stop_answers()
            case "stop fails" if controls.stopping:
                controls.stop_answers(RuntimeError("no"))
            case "agent goes on" | "agent leaves" | "agent fails the build":
                self._agent(name, which, what)
            case "instance vanishes":
                controls.instance_vanishes()
            case "check is bad":
                controls.good = (False, "it is gone") if controls.good[0] else (True, "")
            case "destroying fails":
                controls.instead = {} if controls.instead else {"destroy_instance": lambda: 1 / 0}
            case "a second":
                self.harness.advance(1)
            case "a minute":
                self.harness.advance(60)
            case "insubstantiate":
                self.harness.post(name).apply(ev.Insubstantiate("somebody wants it to go", bool(which % 3)))
            case "pause" | "unpause":
                self.harness.controller.pause(name, what == "pause")
            case "reconfigure":
                self.version += 1
                self.harness.reconfigure(self._declared())
            case "crash":
                self._crash()
            case "crash at a write" if self.bomb.at < 0:
                self.bomb = Bomb(which // 2, bool(which % 2))
                self.bomb.plant(self.harness)

    def _begin(self, call: Coroutine[Deferred[Any], Any, object]) -> None:
        """Somebody asks for something, and does not wait for the answer."""
        Deferred.fromCoroutine(call).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        # A store that is gone takes the answers with it.
        failure.trap(StoreError)

    def _declared(self) -> list[ControllableLatentWorker]:
        timeouts = (0, 5, -1)
        return [
            worker(
                name,
                controls=self.controls[name],
                build_wait_timeout=timeouts[self.version % 3],
                reattach_timeout=10,
                missing_timeout=100,
                properties={"version": self.version // 2} if self.version % 2 else {},
                machine_name=None,
            )
            for name in NAMES
        ]

    def _crash(self) -> None:
        self.crashes += 1
        self.bomb = Bomb(-1, False)
        self.harness.restart(self._declared())

    def _agent(self, name: str, which: int, what: str) -> None:
        up = sorted(self.controls[name].instances)
        if not up:
            return
        number = up[which // 2 % len(up)]
        agent = self.agents.get((name, number))
        if agent is None:
            agent = self.agents[name, number] = Agent(self.harness.agent(name, number))
        try:
            self._step(agent, what)
        except EnrolmentRefused:
            agent.state = "dead"
        except NotYourRun:
            agent.state = "idle"

    def _step(self, agent: Agent, what: str) -> None:
        if agent.state == "dead":
            return
        if agent.state in ("new", "away"):
            agent.agent.come_back()
            agent.state = "idle"
            return
        # A restart of the controller is not an agent's business: it comes back with its first call.
        agent.agent.come_back()
        match agent.state, what:
            case _, "agent leaves":
                agent.agent.leave()
                agent.state = "away"
            case "idle", _:
                with suppress(AssertionError):
                    agent.agent.take()
                    agent.state = "has a lease"
            case "has a lease", _:
                agent.agent.begin()
                agent.state = "builds"
            case "builds", "agent fails the build":
                agent.agent.leave("its process was killed")
                agent.state = "away"
            case "builds", _:
                agent.agent.finish()
                agent.state = "idle"

    def check(self) -> None:
        """What must be true at any time."""
        for controls in self.controls.values():
            assert not controls.overlapped, "a start or stop was called while another ran"
            numbers = [call.attempt for call in controls.starts]
            # A start that a crash cut short is the same start when it is called again.
            assert numbers == sorted(numbers)
        # Whether or not its submission was answered, a build that is on disk is to be carried out.
        found = self.harness.answer(self.harness.controller.builds(limit=1000))
        self.builds = sorted(build.id for build in found)
        assert all(build.attempts <= MAX_ATTEMPTS for build in found), "a build was tried too often"
        live = [run.build_id for run in self.harness.disk(live_runs)]
        assert len(live) == len(set(live)), "a build has two runs"

    def end(self) -> None:
        """From now on everything works: every build ends, and nothing is left."""
        self.bomb.at = -1
        for name, controls in self.controls.items():
            controls.auto_start = controls.auto_stop = True
            controls.good = (True, "")
            controls.instead = {}
            if controls.starting:
                controls.start_answers()
            if controls.stopping:
                controls.stop_answers()
            self.harness.controller.pause(name, False)
        self.version += -self.version % 6  # back to build_wait_timeout 0
        self.harness.reconfigure(self._declared())
        for _ in range(300):
            self.harness.advance(2)
            for name in NAMES:
                for which in range(6):
                    self._agent(name, which, "agent goes on")
            self.check()
            if self._is_over():
                break
        else:
            raise AssertionError(f"it does not end: {self.harness.controller.workers()} {self.harness.controller.health()}")
        for controls in self.controls.values():
            assert not controls.instances, "an instance was left behind"
            if not self.crashes:
                assert [call.attempt for call in controls.starts] == [call.attempt for call in controls.stops]
        for build in self.builds:
            ended = [run.run.status.value for run in self.harness.runs(build)]
            assert sum(status in ("completed", "failed") for status in ended) <= 1, "a build was carried out twice"

    def _is_over(self) -> bool:
        rest = all(self.harness.worker_state(name) == "NOT_SUBSTANTIATED" for name in NAMES)
        finished = all(self.harness.build(build).state is BuildState.FINISHED for build in self.builds)
        return rest and finished and not self.harness.controller.reaper.cases()


def live(moves: Sequence[tuple[str, int]], disk_seconds: float = 0.0) -> None:
    controls = {name: Controls() for name in NAMES}
    with tempfile.TemporaryDirectory() as folder:
        harness = ControllerHarness(Path(folder), [], disk_seconds=disk_seconds)
        lives = Lives(harness, controls)
        harness._config = harness.config(lives._declared())
        with harness:
            for what, which in moves:
                lives.move(what, which)
            lives.end()
