"""The letters in which the states of tasks, of workflow runs and of workflows are kept and told."""

from __future__ import annotations

from enum import StrEnum


class TaskStatus(StrEnum):
    """Where a task is. A task that is carried out has a build: INSTANTIATED while that waits, LAUNCHED while a worker gets it."""

    REGISTERING = "G"
    QUEUED = "Q"
    INSTANTIATED = "I"
    LAUNCHED = "O"
    RUNNING = "R"
    DONE = "D"
    ERROR_RECOVERABLE = "E"
    ADJUSTING_RESOURCES = "A"
    ERROR_FATAL = "F"


ACTIVE = frozenset({TaskStatus.QUEUED, TaskStatus.INSTANTIATED, TaskStatus.LAUNCHED, TaskStatus.RUNNING})
"""What counts towards the limits of a workflow and of an array."""

BUILDING = ACTIVE - {TaskStatus.QUEUED}
"""The tasks that have a build which is not over."""


class RunStatus(StrEnum):
    """Where a workflow run, which is one driver's try at a workflow, is."""

    REGISTERED = "G"
    LINKED = "L"
    BOUND = "B"
    INSTANTIATED = "I"
    LAUNCHED = "O"
    RUNNING = "R"
    DONE = "D"
    STOPPED = "S"
    ERROR = "E"
    ABORTED = "A"
    COLD_RESUME = "C"
    HOT_RESUME = "H"
    TERMINATED = "T"

    @property
    def is_terminal(self) -> bool:
        return self in (RunStatus.DONE, RunStatus.STOPPED, RunStatus.ERROR, RunStatus.ABORTED, RunStatus.TERMINATED)

    @property
    def resumes(self) -> bool:
        """Whether somebody else waits to go on with the workflow."""
        return self in (RunStatus.COLD_RESUME, RunStatus.HOT_RESUME)


class WorkflowStatus(StrEnum):
    """Where a workflow is. HALTED: nobody drives it, and it can be resumed."""

    REGISTERING = "G"
    QUEUED = "Q"
    ABORTED = "A"
    INSTANTIATING = "I"
    LAUNCHED = "O"
    RUNNING = "R"
    DONE = "D"
    HALTED = "H"
    FAILED = "F"
