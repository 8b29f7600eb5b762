"""The values that rooms hand to each other. All are frozen; times are POSIX seconds, durations seconds."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

JSON = Any
"""A value that ``json.dumps`` takes."""

Labels = Mapping[str, str]
"""What a build requires: every label must match (`latent.core.matching`)."""

Offer = Mapping[str, frozenset[str]]
"""What a worker or session offers: each name with the values it has."""

INFRASTRUCTURE_ATTEMPTS = 5
"""How many times a build is tried when the infrastructure, not the build, fails."""


class Result(enum.Enum):
    """How a build ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    EXCEPTION = "exception"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


class BuildState(enum.Enum):
    """Where a build is. STARTING: it has a run, whose worker is being substantiated or whose lease is not yet taken."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    FINISHED = "finished"


class RunStatus(enum.Enum):
    """Where a run is (the six statuses of the public run record)."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    TIMEOUT = "timeout"

    @property
    def is_terminal(self) -> bool:
        return self not in (RunStatus.PENDING, RunStatus.RUNNING)


class LeaseState(enum.Enum):
    """Where a lease is. PENDING: offered, the agent has not said that it took it."""

    PENDING = "pending"
    ACTIVE = "active"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class StepStatus(enum.Enum):
    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"
    KILLED = "killed"
    SKIPPED = "skipped"


@frozen
class Attempt:
    """The identity of one instance: the worker's name and the number of its start, from 1, never reused."""

    worker: str
    number: int

    def __str__(self) -> str:
        return f"{self.worker}#{self.number}"


@frozen(kw_only=True)
class Step:
    """One command of a build.

    ``command`` is a shell command line, or an argument vector. ``timeout`` ends the step after that many seconds
    without output, ``max_time`` after that many seconds in all; None never does. ``always_run`` runs it after a failure too.
    """

    name: str
    command: str | tuple[str, ...]
    env: Mapping[str, str] = field(factory=dict)
    workdir: str | None = None
    timeout: float | None = 1200.0
    max_time: float | None = None
    always_run: bool = False


@frozen
class Payload:
    """A message for a bot, or from one. ``type_url`` says what is in ``value``; latent hands it on as it is."""

    type_url: str
    value: bytes


@frozen(kw_only=True)
class Requirements:
    """What a build asks of the worker that carries it out. ``workers`` None: any."""

    labels: Labels = field(factory=dict)
    workers: frozenset[str] | None = None


@frozen(kw_only=True)
class Dispatch:
    """What a build is that was dispatched to one machine: the records of its runs say so (`Run`)."""

    machine: str
    test_dir: str
    test_dir_hash: str
    batch_id: str = ""
    plan_entry: str = ""


@frozen(kw_only=True)
class BuildRequest:
    """What somebody asks for: steps, for an agent that runs commands, or a payload, for a bot; never both.

    ``priority``: higher goes first. ``timeout``: seconds from the lease's start.
    """

    builder: str
    steps: tuple[Step, ...] = ()
    payload: Payload | None = None
    dispatch: Dispatch | None = None
    requirements: Requirements = field(factory=Requirements)
    properties: Mapping[str, JSON] = field(factory=dict)
    priority: int = 0
    timeout: float = 3600.0
    max_attempts: int = INFRASTRUCTURE_ATTEMPTS

    def __attrs_post_init__(self) -> None:
        if self.payload is not None and self.steps:
            raise ValueError("a build has steps or a payload, not both")


@frozen(kw_only=True)
class Build:
    """A request and where it is. ``reason`` says why it is where it is, in words for its user."""

    id: int
    request: BuildRequest
    state: BuildState = BuildState.QUEUED
    result: Result | None = None
    reason: str = ""
    attempts: int = 0
    submitted_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    cancel_requested: bool = False


@frozen(kw_only=True)
class Run:
    """One try of a build on one worker: the public record of `specs/runs.md`, JSON names and all.

    ``started_at`` and ``ended_at`` are POSIX seconds here and RFC 3339 in the JSON.
    """

    id: str
    machine: str
    test_dir: str = ""
    test_dir_hash: str = ""
    status: RunStatus = RunStatus.PENDING
    exit_code: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    artifacts_path: str = ""
    logs_path: str = ""
    error_code: str = ""
    error_msg: str = ""
    batch_id: str = ""
    plan_entry: str = ""


@frozen(kw_only=True)
class StepState:
    """What an agent reports of one step."""

    uuid: str
    name: str = ""
    status: StepStatus = StepStatus.RUNNING
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    error: str = ""


@frozen(kw_only=True)
class LogLine:
    """One line of a step's output. ``time``: seconds since the step started. ``stream``: stdout, stderr or header."""

    step_uuid: str
    line: int
    time: float
    stream: str
    text: str


@frozen(kw_only=True)
class Outcome:
    """What an agent says at the end of a run.

    ``exit_code`` is that of the first failed step, or 0. ``answer``: what a bot made of its payload.
    """

    result: Result
    exit_code: int | None = None
    error: str = ""
    answer: Payload | None = None


@frozen(kw_only=True)
class Recollection:
    """What a gateway that was restarted needs to go on with a run. ``lease`` None: the run is over.

    ``lines``: for each step the number of its next log line.
    """

    lease: Lease | None
    steps: tuple[StepState, ...]
    lines: Mapping[str, int]


@frozen(kw_only=True)
class Lease:
    """What a session is given: one run of one build. ``steps`` carry the uuid that the agent reports them by.

    ``payload``: what a bot is given in place of steps.
    """

    run_id: int
    build_id: int
    worker: str
    steps: tuple[tuple[str, Step], ...]
    properties: Mapping[str, JSON]
    timeout: float
    labels: Labels
    builder: str
    payload: Payload | None = None
