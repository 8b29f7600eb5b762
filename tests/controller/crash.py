"""A controller that dies at a given write, and a world that goes on meanwhile: instances, their agents, and what they build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from sqlalchemy import Connection
from twisted.internet.defer import Deferred

from latent.errors import EnrolmentRefused, NotYourRun
from latent.model import BuildState, Result
from latent.testing import BareLatentWorker, ControllableLatentWorker, ControllerHarness, Controls, SteppedAgent

MANY = 400


@define
class Bomb:
    """Kills the controller at its write number ``at`` (from 0), before or after it is on disk: nothing is answered any more."""

    at: int
    written: bool
    count: int = 0
    gone_off: bool = False

    def plant(self, harness: ControllerHarness) -> None:
        write = harness.store.write

        def dying_write(op: Callable[[Connection], Any]) -> Deferred[Any]:
            if self.gone_off:
                return Deferred()
            self.count += 1
            if self.count - 1 != self.at:
                return write(op)
            self.gone_off = True
            if self.written:
                write(op)
            return Deferred()

        harness.store.write = dying_write  # type: ignore[method-assign]


@define
class Agent:
    """What runs in one instance: it keeps at what it does until it is answered, whichever controller is there."""

    agent: SteppedAgent
    attached: bool = False
    enrolled: bool = False
    has: str = ""
    dead: bool = False

    def go_on(self) -> None:
        """One step of its life. What a dead controller does not answer is tried again."""
        if self.dead:
            return
        try:
            self._step()
        except EnrolmentRefused:
            self.dead = True
        except NotYourRun:
            self.has = ""

    def _step(self) -> None:
        if not self.attached:
            self.agent.come_back()
            self.attached = True
        elif not self.has:
            self.agent.take()
            self.has = "lease"
        elif self.has == "lease":
            self.agent.begin()
            self.has = "build"
        else:
            self.agent.finish()
            self.has = ""


@define
class World:
    """One worker's provider, and the agents of its instances. ``crashes``: how often the controller died."""

    harness: ControllerHarness
    controls: Controls
    bomb: Bomb
    agents: dict[int, Agent] = field(factory=dict)
    builds: list[int] = field(factory=list)
    crashes: int = 0
    wanted: int = 1
    can_be_found: bool = True

    def run(self) -> None:
        """Until all builds are finished and nothing is up, or nothing moves any more."""
        for _ in range(MANY):
            for step in (self._submit, self._start, self._stop, self._agents, self._time):
                try:
                    step()
                except AssertionError as error:
                    if not self.bomb.gone_off and "no lease" not in str(error):
                        raise
                if self.bomb.gone_off and not self.crashes:
                    self._restart()
            if self._is_over():
                return
        raise AssertionError(f"it does not end: {self.harness.controller.workers()}, {self.harness.controller.health()}")

    def _submit(self) -> None:
        if len(self.builds) < self.wanted:
            # Whether the answer was lost or not, the build is there if it was written.
            self.builds.append(0)
            self.builds[-1] = self.harness.submit()

    def _start(self) -> None:
        if self.controls.starting:
            self.controls.start_answers()

    def _stop(self) -> None:
        if self.controls.stopping:
            self.controls.stop_answers()

    def _agents(self) -> None:
        for number in sorted(self.controls.instances):
            if number not in self.agents:
                self.agents[number] = Agent(self.harness.agent("w", number))
            self.agents[number].go_on()

    def _time(self) -> None:
        self.harness.advance(2)

    def _restart(self) -> None:
        self.crashes += 1
        for agent in self.agents.values():
            # Its connection is gone, its session need not be.
            agent.attached = False
        self.harness.restart()

    def _is_over(self) -> bool:
        builds = [self.harness.build(n) for n in range(1, self.wanted + 1) if self._exists(n)]
        at_rest = self.harness.worker_state("w") == "NOT_SUBSTANTIATED"
        if self.can_be_found and self.harness.controller.reaper.cases():
            return False
        return at_rest and all(build.state is BuildState.FINISHED for build in builds)

    def _exists(self, number: int) -> bool:
        return bool(self.harness.disk(lambda conn: conn.exec_driver_sql(f"SELECT 1 FROM builds WHERE id = {number}").all()))

    def check(self) -> None:
        """Each build that was taken in succeeded, and once; nothing is left over."""
        for number in range(1, self.wanted + 1):
            if self._exists(number):
                assert self.harness.result(number) is Result.SUCCESS
                over = [run.run.status.value for run in self.harness.runs(number)]
                assert over.count("completed") == 1, over
        condemned = {int(item.subject.partition("#")[2]) for item in self.harness.health() if item.subject.startswith("attempt")}
        assert self.controls.instances <= condemned, "an instance was left behind, and nobody says so"
        if self.can_be_found:
            assert not self.harness.health()
        numbers = [call.attempt for call in self.controls.starts]
        assert numbers == sorted(numbers), "an attempt's number was used again"


def live_through(state_dir: Path, cls: type[ControllableLatentWorker], bomb: Bomb, *, builds: int = 1, **kwargs: Any) -> World:
    """A life of ``builds`` builds, one after the other, with a crash in it."""
    controls = Controls()
    harness = ControllerHarness(state_dir, [cls("w", controls=controls, **kwargs)])
    with harness:
        bomb.plant(harness)
        world = World(harness, controls, bomb, wanted=builds, can_be_found=cls is not BareLatentWorker)
        world.run()
        bomb.at = -1
        world.check()
    return world
