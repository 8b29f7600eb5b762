"""A controller on a clock, with workflows, and agents that do as a test says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict

from latent.config.builder import Builder
from latent.model import Result
from latent.swarm.service import Workflows
from latent.swarm.statuses import RunStatus, TaskStatus
from latent.swarm.values import (
    ArrayDefinition,
    Batch,
    Bound,
    Definition,
    Linked,
    Resources,
    Resume,
    RunInfo,
    TaskChange,
    TaskDefinition,
    WorkflowInfo,
)
from latent.testing.harness import ControllerHarness, SteppedAgent
from latent.worker.base import Worker
from latent.worker.properties import Interpolate

PASSWORD = "a password"
BUILDERS = (Builder("work", ["true"]), Builder("named", [Interpolate("do %(prop:what)s")], timeout=600))
ARRAY = ArrayDefinition(name="a", template="work")


def definition(tasks: int, *arrays: ArrayDefinition, name: str = "w", max_running: int = 100, **more: Any) -> Definition:
    """``digest`` is made of all the rest."""
    found = arrays or (ARRAY,)
    text = json.dumps([name, tasks, [asdict(array) for array in found], max_running, sorted(more.items())])
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Definition(name=name, digest=digest, tasks=tasks, arrays=found, max_running=max_running, **more)


def chain(length: int) -> list[TaskDefinition]:
    """Each waits for the one before it."""
    return [TaskDefinition(0, f"t{n}", (n + 1,) if n + 1 < length else ()) for n in range(length)]


def apart(number: int, **more: Any) -> list[TaskDefinition]:
    """Tasks that wait for nothing."""
    return [TaskDefinition(0, f"t{n}", **more) for n in range(number)]


class Site:
    """A controller with one plain worker for several builds at a time. Awaitable answers come at once."""

    def __init__(self, path: Path, *, builders: Iterable[Builder] = BUILDERS, max_builds: int = 100, **settings: Any) -> None:
        self.max_builds = max_builds
        self.harness = ControllerHarness(path, [Worker("w", PASSWORD, max_builds=max_builds)], builders=builders, **settings)
        self.workflows: Workflows

    def __enter__(self) -> Site:
        self.harness.start()
        self._open()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self.harness._running:
            self.workflows.stop()
        self.harness.__exit__(kind, error, trace)

    def _open(self) -> None:
        self.workflows = Workflows(self.harness.controller, self.harness.store, self.harness.clock)  # type: ignore[arg-type]
        self.workflows.start()
        self.advance(0)

    def crash(self) -> None:
        self.harness.crash()

    def restart(self) -> None:
        """The controller dies, and another takes its place."""
        self.harness.restart()
        self._open()

    def advance(self, seconds: float = 0.0) -> None:
        self.harness.advance(seconds)

    def agent(self) -> SteppedAgent:
        return self.harness.plain_agent(PASSWORD).attach(capacity=self.max_builds)

    def work(self, agent: SteppedAgent, *results: Result, **how: Any) -> None:
        """The agent carries out as many builds as there are results."""
        for result in results:
            agent.take()
            agent.begin()
            agent.finish(result, **how)

    # --- the requester, answered ----------------------------------------------------------------------------------------------

    def bound(self, tasks: Sequence[TaskDefinition], *arrays: ArrayDefinition, **more: Any) -> Bound:
        """A workflow with all of its tasks."""
        bound = self.ask(self.workflows.bind(definition(len(tasks), *arrays, **more)))
        done: Bound = self.ask(self.workflows.add_tasks(bound.workflow_id, 0, tasks))
        return done

    def link(self, workflow_id: int, driver: str = "somebody", resume: Resume | None = None) -> Linked:
        answer: Linked = self.ask(self.workflows.link(workflow_id, driver, resume))
        return answer

    def driven(self, workflow_id: int, driver: str = "somebody", resume: Resume | None = None) -> RunInfo:
        """A run, running."""
        run = self.link(workflow_id, driver, resume).run
        assert run is not None
        self.beat(run, RunStatus.RUNNING)
        return run

    def beat(self, run: RunInfo, status: RunStatus = RunStatus.RUNNING, seconds: float = 45.0) -> RunStatus:
        answer: RunStatus = self.ask(self.workflows.heartbeat(run.id, status, seconds))
        return answer

    def queue(
        self, run: RunInfo, bound: Bound, *tasks: int, attempt: int = 1, resources: Resources | None = None, level: int = 0
    ) -> list[TaskChange]:
        """Tasks of the first array, by position."""
        batch = Batch(
            array_id=bound.arrays[0],
            tasks=[(bound.first_task + n, attempt) for n in tasks],
            resources=resources or {},
            level=level,
        )
        changes: list[TaskChange] = self.ask(self.workflows.queue(run.id, batch))
        self.advance(0)
        return changes

    def statuses(self, run: RunInfo, since: float | None = None) -> dict[int, str]:
        """What `sync` says."""
        return {change.id: change.status.value for change in self.ask(self.workflows.sync(run.id, since)).changes}

    def counts(self, workflow_id: int) -> dict[str, int]:
        """Of the first array."""
        info: WorkflowInfo = self.ask(self.workflows.workflow(workflow_id))
        counts: Mapping[TaskStatus, int] = info.arrays[0].counts
        return {status.value: number for status, number in counts.items()}

    def ask(self, awaitable: Any) -> Any:
        return self.harness.answer(awaitable)
