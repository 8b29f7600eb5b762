"""What the tests of the controller share: workers that do as they are told, and a controller that is checked when it goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latent.core import events as ev
from latent.testing import ControllableLatentWorker, ControllerHarness, Controls, SteppedAgent
from latent.worker.base import AbstractWorker

NEVER = -1


def worker(name: str = "w", *, controls: Controls | None = None, **kwargs: Any) -> ControllableLatentWorker:
    return ControllableLatentWorker(name, controls=controls or Controls(), **kwargs)


def obliging(name: str = "w", **kwargs: Any) -> ControllableLatentWorker:
    """Starts and stops at once."""
    made = worker(name, **kwargs)
    made_controls(made).auto_start = made_controls(made).auto_stop = True
    return made


def made_controls(made: ControllableLatentWorker) -> Controls:
    """Its controls, also before the controller has set it up."""
    controls: Controls = made.arguments[1]["controls"]
    return controls


@contextmanager
def controller(tmp_path: Path, *workers: AbstractWorker, **options: Any) -> Iterator[ControllerHarness]:
    """A controller with these workers. When it goes, each start must have had its one stop, and none may have overlapped."""
    harness = ControllerHarness(tmp_path, workers, **options)
    with harness:
        yield harness
    for one in workers:
        if isinstance(one, ControllableLatentWorker):
            keeps_its_promises(made_controls(one))


def keeps_its_promises(controls: Controls) -> None:
    assert not controls.overlapped, "a start or stop was called while another ran"
    assert [call.attempt for call in controls.starts] == [call.attempt for call in controls.stops]
    assert not controls.instances, "an instance was left behind"


def insubstantiate(harness: ControllerHarness, name: str = "w", *, fast: bool = False) -> None:
    """What an operator does who wants the instance to go."""
    harness.post(name).apply(ev.Insubstantiate("an operator wants it to go", fast))
    harness.advance(0)


def substantiate(harness: ControllerHarness, name: str = "w") -> None:
    """What a warm minimum does: an instance, for no build."""
    harness.post(name).apply(ev.Substantiate(None))
    harness.advance(0)


def attached(harness: ControllerHarness, name: str = "w") -> tuple[int, SteppedAgent]:
    """A build, and an agent that it is about to be given to."""
    build = harness.submit(workers=[name])
    return build, harness.agent(name).attach()


def building(harness: ControllerHarness, name: str = "w") -> tuple[int, SteppedAgent]:
    """A build that its agent has begun."""
    build, agent = attached(harness, name)
    agent.take()
    agent.begin()
    return build, agent


def sql(harness: ControllerHarness, statement: str) -> None:
    """What a broken disk or a careless operator does."""
    with harness.store.engine.begin() as conn:
        conn.exec_driver_sql(statement)
