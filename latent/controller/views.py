"""What the controller tells of builds and workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import field, frozen

from latent.model import JSON, Build, Run, StepState


class RunView(Protocol):
    """One try of a build, with its steps; `latent.store.builds.RunDetails` is one."""

    @property
    def run(self) -> Run: ...
    @property
    def worker(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def steps(self) -> Sequence[StepState]: ...


@frozen(kw_only=True)
class BuildDetails:
    """``why``: in words, why the build is where it is."""

    build: Build
    runs: Sequence[RunView]
    why: str


@frozen(kw_only=True)
class WorkerStatus:
    """``since``: when the state began, in POSIX seconds. ``session``: the attached agent, or None."""

    name: str
    kind: str
    latent: bool
    state: str
    attempt: int
    since: float
    builds: list[int]
    session: Mapping[str, JSON] | None = None
    quarantined_until: float | None = None
    paused: bool = False
    reason: str = ""
    labels: Mapping[str, list[str]] = field(factory=dict)
    machine: str = ""
