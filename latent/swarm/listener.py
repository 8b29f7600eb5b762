"""What a driver tells whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from latent.swarm.state import SwarmState, SwarmTask
from latent.swarm.statuses import RunStatus, TaskStatus
from latent.swarm.values import Bound, RunInfo, TaskChange


@frozen(kw_only=True)
class Failed:
    """A task that failed for good. ``label``: array and name. ``reason``: its last attempt's."""

    label: str
    attempts: int
    build_id: int | None
    reason: str


@frozen(kw_only=True)
class Summary:
    """How a driver's work ended.

    ``status``: the run's; DONE alone means that all tasks are done. ``detached``: the driver let go, and what ran goes on.
    ``counts``: the workflow's tasks by status. ``failed``: the first of those that did. ``seconds``: since the run began.
    """

    workflow_id: int
    run_id: int | None
    status: RunStatus
    reason: str
    counts: Mapping[TaskStatus, int]
    failed: Sequence[Failed] = ()
    seconds: float = 0.0
    detached: bool = False


class Listener:
    """Override what you want to hear of. What is raised here ends the driver: don't."""

    def binding(self, stored: int, tasks: int) -> None:
        """So many of the workflow's tasks are stored."""

    def bound(self, bound: Bound) -> None:
        """The workflow is stored, and this is its id."""

    def waits(self, what: str) -> None:
        """The workflow can't be driven yet; what for, in words. Told again when that changes."""

    def linked(self, run: RunInfo) -> None:
        """This is the workflow's driver now."""

    def building(self, done: int, tasks: int) -> None:
        """So many of the tasks are read back."""

    def built(self, state: SwarmState) -> None:
        """The driver knows all tasks: ``state.arrays`` have names and counts. The state is the driver's: look, don't touch."""

    def changed(self, state: SwarmState, changes: Sequence[tuple[SwarmTask, TaskChange]]) -> None:
        """Tasks changed. ``change.status`` is what happened (E: its build failed), ``task.status`` what follows (G, A or F).

        Counts change between two calls of this too: when tasks are queued, there is a call with no changes.
        """

    def away(self, why: str) -> None:
        """The controller does not answer. The driver asks on; told every time it has asked in vain."""

    def back(self) -> None:
        """The controller answers again."""

    def ending(self, why: str) -> None:
        """No more tasks are queued, and what runs comes to its end; why, in words."""
