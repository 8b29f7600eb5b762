"""What the driver of a workflow tells, made into lines and views for whoever watches it. `latent.cli.bars` draws them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from attrs import field, frozen

from latent.cli import words
from latent.cli.estimate import Estimate
from latent.controller.clock import Clock, Wait
from latent.swarm.listener import Listener
from latent.swarm.looks import Look, by_look
from latent.swarm.state import SwarmArray, SwarmState, SwarmTask
from latent.swarm.statuses import TaskStatus
from latent.swarm.values import Bound, RunInfo, TaskChange

FAILURES = 8
"""Failures that are told in each `SPAN`; the others are counted."""

SPAN = 10.0
"""Seconds."""


@frozen
class Row:
    """An array. ``left``: seconds until it is done, if that can be known."""

    name: str
    counts: Mapping[Look, int]
    left: float | None = None

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def finished(self) -> int:
        return self.counts.get(Look.DONE, 0) + self.counts.get(Look.FAILED, 0)

    @property
    def is_active(self) -> bool:
        return any(self.counts.get(look) for look in (Look.RUNNING, Look.STARTING, Look.QUEUED, Look.RETRYING))


@frozen(kw_only=True)
class View:
    """How far the workflow is. ``seconds``: since the run began. ``left``: until it is done, if that can be known.

    ``notes``: what else is to be known just now, a line each.
    """

    title: str
    rows: Sequence[Row] = field(factory=list)
    total: Row = Row("", {})
    seconds: float = 0.0
    left: float | None = None
    notes: Sequence[str] = ()


class Display(Protocol):
    """Where it is shown. ``every``: how often it wants a new view, in seconds."""

    every: float

    def say(self, text: str, style: str = "") -> None:
        """A line that stays."""

    def draw(self, view: View, now: float) -> None:
        """In the place of the view before."""

    def close(self) -> None: ...


class Watch(Listener):
    """Hears what the driver tells, and has it shown. ``name``: what the workflow is called, if that is known already."""

    def __init__(self, display: Display, clock: Clock, name: str = "", workflow_id: int | None = None) -> None:
        self.run: RunInfo | None = None
        self.workflow_id = workflow_id
        self.name = name
        self._display = display
        self._clock = clock
        self._state: SwarmState | None = None
        self._began = clock.seconds()
        self._note = ""
        self._away: float | None = None
        self._estimates: dict[int, Estimate] = {}
        self._whole = Estimate()
        self._over: set[int] = set()
        self._told = self._untold = 0
        self._span = self._began
        self._next: Wait | None = None
        self._when_linked: Callable[[], None] = lambda: None
        self._closed = False

    # --- shown ---------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Draw, now and from now on."""
        now = self._clock.seconds()
        self._tell_untold(now)
        self._display.draw(self.view(now), now)
        self._next = self._clock.callLater(self._display.every, self.start)

    def close(self) -> None:
        """The last view stays."""
        if self._closed:
            return
        self._closed = True
        if self._next is not None:
            self._next.cancel()
        now = self._clock.seconds()
        self._tell_untold(now, at_once=True)
        if self._state is not None:
            self._display.draw(self.view(now), now)
        self._display.close()

    @property
    def title(self) -> str:
        """The workflow by its number and name, as far as they are known, and its run."""
        number = f" {self.workflow_id}" if self.workflow_id is not None else ""
        name = f" ({self.name})" if self.name else ""
        return f"workflow{number}{name}" + (f", run {self.run.id}" if self.run else "")

    def say(self, text: str, style: str = "") -> None:
        self._display.say(text, style)

    def when_linked(self, call: Callable[[], None]) -> None:
        """What else is to be done once there is a run."""
        self._when_linked = call

    def view(self, now: float) -> View:
        """How far it is."""
        notes = [self._note] if self._note else []
        if self._away is not None:
            notes.append(f"the controller does not answer: waiting for it ({words.duration(now - self._away, whole=True)})")
        state = self._state
        if state is None:
            return View(title=self.title, seconds=now - self._began, notes=notes)
        rows = [self._row(array, now) for array in state.arrays.values()]
        total = Row("", by_look(state.counts))
        self._whole.note(now, total.finished)
        whole = self._whole.left(now, total.finished, total.total)
        left = None if whole is None else max([whole, *(row.left for row in rows if row.left is not None)])
        return View(title=self.title, rows=rows, total=total, seconds=now - self._began, left=left, notes=notes)

    def _row(self, array: SwarmArray, now: float) -> Row:
        row = Row(array.name, by_look(array.counts))
        if array.id not in self._estimates:
            if not row.is_active:
                return row
            self._estimates[array.id] = Estimate()
        estimate = self._estimates[array.id]
        estimate.note(now, row.finished)
        return Row(row.name, row.counts, estimate.left(now, row.finished, row.total))

    # --- heard ---------------------------------------------------------------------------------------------------------------

    def binding(self, stored: int, tasks: int) -> None:
        self._note = f"storing its tasks: {stored:,} of {tasks:,}"

    def bound(self, bound: Bound) -> None:
        self.workflow_id = bound.workflow_id
        self._note = ""

    def waits(self, what: str) -> None:
        self._note = f"waiting for {what}"
        self.say(self._note, "yellow")

    def linked(self, run: RunInfo) -> None:
        self.run = run
        self.workflow_id = run.workflow_id
        self._note = ""
        self._when_linked()

    def building(self, done: int, tasks: int) -> None:
        self._note = f"reading its tasks: {done:,} of {tasks:,}"

    def built(self, state: SwarmState) -> None:
        self._state = state
        self.name = state.name
        self._note = ""
        self._began = self._clock.seconds()
        counts = by_look(state.counts)
        done = f", {counts[Look.DONE]:,} of them done already" if counts.get(Look.DONE) else ""
        arrays = words.count(len(state.arrays), "array")
        self.say(f"{self.title}: {words.count(sum(counts.values()), 'task')} in {arrays}{done}")
        self._over = {array.id for array in state.arrays.values() if _is_over(array)}
        self._whole.note(self._began, counts.get(Look.DONE, 0) + counts.get(Look.FAILED, 0))

    def changed(self, state: SwarmState, changes: Sequence[tuple[SwarmTask, TaskChange]]) -> None:
        arrays = {task.array.id: task.array for task, _ in changes}
        for task, change in changes:
            if change.status in (TaskStatus.ERROR_RECOVERABLE, TaskStatus.ERROR_FATAL):
                self._failed(task, change)
        for number, array in arrays.items():
            if number not in self._over and _is_over(array):
                self._over.add(number)
                self._ended(array)

    def away(self, why: str) -> None:
        if self._away is None:
            self._away = self._clock.seconds()
            self.say(f"the controller does not answer: waiting for it ({why.partition('; ')[0]})", "yellow")

    def back(self) -> None:
        if self._away is not None:
            took = words.duration(self._clock.seconds() - self._away)
            self._away = None
            self.say(f"the controller is back after {took}", "green")

    def ending(self, why: str) -> None:
        self._note = f"ending: {why}"
        self.say(self._note, "yellow")

    def _failed(self, task: SwarmTask, change: TaskChange) -> None:
        now = self._clock.seconds()
        self._tell_untold(now)
        if self._told >= FAILURES:
            self._untold += 1
            return
        self._told += 1
        build = f"build {change.build_id}, " if change.build_id is not None else ""
        tries = f"try {change.attempts} of {task.max_attempts}" if change.attempts else "no try"
        end = "" if task.status is TaskStatus.ERROR_FATAL else "; it is tried again"
        style = "red" if task.status is TaskStatus.ERROR_FATAL else "yellow"
        self.say(f"{task.label} failed ({build}{tries}): {change.reason or 'for no reason given'}{end}", style)

    def _tell_untold(self, now: float, at_once: bool = False) -> None:
        if now - self._span < SPAN and not at_once:
            return
        if self._untold:
            self.say(f"and {words.count(self._untold, 'more failure')}", "red")
        self._told = self._untold = 0
        self._span = now

    def _ended(self, array: SwarmArray) -> None:
        counts = by_look(array.counts)
        done, failed = counts.get(Look.DONE, 0), counts.get(Look.FAILED, 0)
        if failed:
            self.say(f"{array.name}: {done:,} of {done + failed:,} done, {failed:,} failed", "red")
        else:
            self.say(f"{array.name}: {f'all {done:,} ' if done > 1 else ''}done", "green")


def _is_over(array: SwarmArray) -> bool:
    ended = array.counts[TaskStatus.DONE] + array.counts[TaskStatus.ERROR_FATAL]
    return ended == sum(array.counts.values())
