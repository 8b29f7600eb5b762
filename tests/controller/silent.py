"""Builds whose agent is not heard any more, and what the fences make of them."""

from __future__ import annotations

from latent.config.settings import Limits
from latent.model import BuildState
from latent.testing import ControllableLatentWorker, ControllerHarness, SteppedAgent
from tests.controller.kit import made_controls, obliging

LONG = {"reattach_timeout": 10_000, "check_instance_interval": 10_000, "stop_timeout": 100}
RUNNING = "it may still be running on a#1, and waits for the end of that: "
ONE_AT_A_TIME = Limits(session_timeout=600)
"""Leases lapse after a minute, and sessions do not."""


def stuck(name: str = "a", **keywords: object) -> ControllableLatentWorker:
    """Its stops do not answer."""
    made = obliging(name, **{**LONG, **keywords})
    made_controls(made).auto_stop = None
    return made


def building(harness: ControllerHarness, *, capacity: int = 1) -> tuple[int, SteppedAgent]:
    """A build that runs on "a"; "b" could have it too."""
    build = harness.submit()
    agent = harness.agent("a").attach(capacity=capacity)
    agent.take()
    agent.begin()
    return build, agent


def fallen_silent(harness: ControllerHarness) -> tuple[int, SteppedAgent]:
    """Its agent is not heard until its session is closed."""
    build, agent = building(harness)
    harness.advance(63)
    assert harness.state(build) is BuildState.QUEUED
    return build, agent


def is_held(harness: ControllerHarness, build: int, why: str = "") -> bool:
    return harness.state(build) is BuildState.QUEUED and RUNNING + why in harness.why(build)


def starts(*workers: ControllableLatentWorker) -> int:
    return sum(len(worker.controls.starts) for worker in workers)


def confirm(worker: ControllableLatentWorker, harness: ControllerHarness) -> None:
    worker.controls.stop_answers()
    harness.advance(0)


def fails() -> None:
    raise RuntimeError("still away")
