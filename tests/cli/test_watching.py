"""What somebody sees who watches a workflow's driver, on a clock that stands still until it is told to go on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from twisted.internet.task import Clock

from latent.cli.bars import Bars, Lines, display, picture, shares, summary
from latent.cli.watching import FAILURES, SPAN, Row, View, Watch
from latent.swarm.looks import Look
from latent.swarm.state import SwarmArray, SwarmState, SwarmTask
from latent.swarm.statuses import RunStatus, TaskStatus
from latent.swarm.values import ArrayDefinition, Bound, RunInfo, TaskChange, Trouble


class Shown:
    """A display that keeps what it is given."""

    every = 1.0

    def __init__(self) -> None:
        self.said: list[str] = []
        self.views: list[View] = []
        self.closed = False

    def say(self, text: str, style: str = "") -> None:
        self.said.append(text)

    def draw(self, view: View, now: float) -> None:
        self.views.append(view)

    def close(self) -> None:
        self.closed = True

    def new(self) -> list[str]:
        said, self.said = self.said, []
        return said


class Watched:
    """A watch over a workflow of two arrays, `fetch` with ten tasks and `report` with one that waits for them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.shown = Shown()
        self.watch = Watch(self.shown, self.clock, "packages")
        fetch = SwarmArray(1, ArrayDefinition(name="fetch", template="fetch"))
        report = SwarmArray(2, ArrayDefinition(name="report", template="report"))
        self.state = SwarmState(7, "packages", [fetch, report], max_running=10, fail_fast=False)
        for number in range(10):
            self.state.add(SwarmTask(number, fetch, f"p{number}", TaskStatus.REGISTERING, 3, {}))
        self.state.add(SwarmTask(10, report, "all", TaskStatus.REGISTERING, 3, {}))

    def begin(self) -> None:
        self.watch.start()
        self.watch.bound(Bound(workflow_id=7, first_task=0, arrays=(1, 2), tasks=11))
        now = self.clock.seconds()
        self.watch.linked(
            RunInfo(
                id=9,
                workflow_id=7,
                status=RunStatus.LINKED,
                driver="me",
                created_at=now,
                heartbeat_at=now,
                report_by=now + 45,
            )
        )
        self.watch.built(self.state)

    def move(self, number: int, status: TaskStatus, then: TaskStatus | None = None, **told: object) -> None:
        task = self.state.tasks[number]
        task.attempts += status is TaskStatus.QUEUED
        self.state.move(task, then or status)
        self.watch.changed(self.state, [(task, TaskChange(number, status, task.attempts, **told))])

    def finish(self, number: int) -> None:
        for status in (TaskStatus.QUEUED, TaskStatus.RUNNING, TaskStatus.DONE):
            self.move(number, status)


@pytest.fixture
def watched():
    made = Watched()
    yield made
    made.watch.close()
    assert made.clock.getDelayedCalls() == []


def test_from_the_beginning_to_the_end(watched):
    """The beginning, the end of each array, and how far it is in between."""
    watched.begin()
    assert watched.shown.new() == ["workflow 7 (packages), run 9: 11 tasks in 2 arrays"]
    for number in range(5):
        watched.clock.advance(1)
        watched.finish(number)
    view = watched.watch.view(watched.clock.seconds())
    assert view.title == "workflow 7 (packages), run 9"
    assert view.rows[0] == Row("fetch", {Look.DONE: 5, Look.WAITING: 5}, view.rows[0].left)
    assert view.rows[1] == Row("report", {Look.WAITING: 1})
    assert view.seconds == 5.0
    assert view.left == pytest.approx(6.0)
    for number in range(5, 11):
        watched.finish(number)
    assert watched.shown.new() == ["fetch: all 10 done", "report: done"]


def test_the_time_left_of_an_array_is_known_once_it_has_begun(watched):
    """An array at which nothing has happened has no estimate, one at work has its own."""
    watched.begin()
    watched.move(0, TaskStatus.QUEUED)
    watched.clock.advance(1)
    for _ in range(4):
        watched.clock.advance(1)
    watched.move(0, TaskStatus.DONE)
    fetch, report = watched.watch.view(watched.clock.seconds()).rows
    assert fetch.left == pytest.approx(36.0)
    assert report.left is None


def test_failures_are_told_with_build_try_and_reason(watched):
    """One that is tried again, and one that is not."""
    watched.begin()
    watched.shown.new()
    watched.move(0, TaskStatus.QUEUED)
    reason = "step x: exit code 1"
    watched.move(0, TaskStatus.ERROR_RECOVERABLE, TaskStatus.REGISTERING, build_id=17, trouble=Trouble.FAILURE, reason=reason)
    watched.move(0, TaskStatus.QUEUED)
    watched.move(0, TaskStatus.ERROR_RECOVERABLE, TaskStatus.ERROR_FATAL, build_id=18, trouble=Trouble.FAILURE, reason=reason)
    assert watched.shown.new() == [
        "fetch/p0 failed (build 17, try 1 of 3): step x: exit code 1; it is tried again",
        "fetch/p0 failed (build 18, try 2 of 3): step x: exit code 1",
    ]


def test_a_flood_of_failures_is_counted(watched):
    """Only the first few of each while are told one by one."""
    watched.begin()
    watched.shown.new()
    for number in range(10):
        watched.move(number, TaskStatus.ERROR_FATAL, reason="no")
    told = watched.shown.new()
    assert len(told) == FAILURES + 1
    assert told[-1] == "fetch: 0 of 10 done, 10 failed"
    watched.clock.advance(SPAN)
    assert watched.shown.new() == ["and 2 more failures"]


def test_a_controller_that_is_away(watched):
    """Told once when it goes and when it comes back, and shown meanwhile."""
    watched.begin()
    watched.shown.new()
    watched.watch.away("connection refused; start it")
    watched.clock.advance(20)
    watched.watch.away("connection refused")
    watched.clock.advance(3)
    assert watched.watch.view(watched.clock.seconds()).notes == ["the controller does not answer: waiting for it (23s)"]
    watched.watch.back()
    watched.watch.back()
    assert watched.shown.new() == [
        "the controller does not answer: waiting for it (connection refused)",
        "the controller is back after 23s",
    ]
    assert watched.watch.view(watched.clock.seconds()).notes == []


def test_what_comes_before_the_first_task(watched):
    """Storing, waiting for who drives it, and reading back are shown."""
    watch, now = watched.watch, watched.clock.seconds()
    watch.start()
    watch.binding(5000, 20000)
    assert watch.view(now).notes == ["storing its tasks: 5,000 of 20,000"]
    assert watch.view(now).title == "workflow (packages)"
    watch.bound(Bound(workflow_id=7, first_task=0, arrays=(1, 2), tasks=11))
    watch.waits("2 builds to end")
    assert watch.view(now).notes == ["waiting for 2 builds to end"]
    watch.building(500, 20000)
    assert watch.view(now).notes == ["reading its tasks: 500 of 20,000"]
    assert watched.shown.new() == ["waiting for 2 builds to end"]


def test_a_view_is_drawn_now_and_then(watched):
    """As often as the display wants one, and once more in the end."""
    watched.begin()
    for _ in range(3):
        watched.clock.advance(1)
    assert len(watched.shown.views) == 4
    watched.watch.close()
    watched.watch.close()
    assert len(watched.shown.views) == 5
    assert watched.shown.closed


# --- drawn -------------------------------------------------------------------------------------------------------------------

ROWS = [
    Row("fetch", {Look.DONE: 30}),
    Row("count", {Look.DONE: 18, Look.RUNNING: 4, Look.WAITING: 8}, 62.0),
    Row("lint", {Look.DONE: 9, Look.FAILED: 2, Look.RUNNING: 6, Look.QUEUED: 4, Look.WAITING: 9}),
    Row("report", {Look.WAITING: 1}),
]
TOTAL = Row("", {Look.DONE: 57, Look.FAILED: 2, Look.RUNNING: 10, Look.QUEUED: 4, Look.WAITING: 18})
VIEW = View(title="workflow 7 (packages), run 9", rows=ROWS, total=TOTAL, seconds=130.0, left=80.0)


def drawn(view: View, width: int, height: int = 30) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), no_color=True)
    console.print(picture(view, width, height))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_bars_in_a_wide_terminal():
    """Everything in words; the bars tell what is over, at work and waiting apart without colours, too."""
    assert drawn(VIEW, 100) == [
        "workflow 7 (packages), run 9                                               2m 10s, about 1m 20s left",
        "fetch   " + "━" * 40 + "  30/30          done",
        "count   " + "━" * 25 + "╍" * 5 + "─" * 10 + "  18/30  1m 02s  4 running",
        "lint    " + "━" * 15 + "╍" * 13 + "─" * 12 + "   9/30          2 failed, 6 running, 4 queued",
        "report  " + "─" * 40 + "    0/1          waiting",
    ]


def test_bars_in_a_narrow_terminal():
    """Signs stand for the words, and are explained; no line is longer than the terminal is wide."""
    lines = drawn(VIEW, 60)
    assert lines[3] == "lint    " + "━" * 11 + "╍" * 8 + "─" * 8 + "   9/30          ✗2 ▶6 ◦4"
    assert lines[-1] == "✗ failed  ▶ running  ◦ queued"
    for width in (20, 35, 50):
        assert max(map(len, drawn(VIEW, width))) <= width


def test_more_arrays_than_lines():
    """What is at work is shown before what waits; the rest is counted. No view is higher than the terminal."""
    rows = [Row(f"done-{n}", {Look.DONE: 1}) for n in range(20)]
    rows += [Row(f"busy-{n}", {Look.RUNNING: 1}) for n in range(4)]
    rows += [Row(f"idle-{n}", {Look.WAITING: 1}) for n in range(20)]
    lines = drawn(View(title="w", rows=rows, total=TOTAL), 80, 12)
    assert len(lines) < 12
    assert [line.split()[0] for line in lines[1:-1]] == ["busy-0", "busy-1", "busy-2", "busy-3", "idle-0", "idle-1", "idle-2"]
    assert lines[-1] == "and 37 more arrays: 20 done with, 17 waiting"


def test_a_name_that_does_not_fit():
    """Its beginning and its end stay, and what could move the cursor goes."""
    (_, line) = drawn(View(title="w", rows=[Row("a\x1b[2J\x07" + "x" * 50 + "z", {Look.WAITING: 2})], total=TOTAL), 80)
    name = line.split()[0]
    assert name.startswith("a")
    assert name.endswith("xz")
    assert "…" in name
    assert "\x1b" not in line
    assert "\x07" not in line


@pytest.mark.parametrize("width", [7, 10, 33])
def test_shares_fill_the_bar(width):
    """A bar is exactly as wide as it is to be, and shows the least of what there is."""
    cells = shares({Look.DONE: 999_990, Look.FAILED: 1, Look.RUNNING: 5, Look.WAITING: 4}, width)
    assert sum(cells.values()) == width
    assert all(cells.values())
    assert shares({}, width) == {}


def test_lines_where_there_is_no_terminal():
    """A line with the time of day whenever something is new, and not otherwise."""
    out = io.StringIO()
    lines = Lines(out)
    lines.draw(VIEW, 0.0)
    lines.draw(VIEW, 10.0)
    lines.say("a\x07b")
    lines.close()
    first, said = out.getvalue().splitlines()
    assert first[8:] == (
        "  57 of 91 done, 2 failed, 10 running, 4 queued, 18 waiting (count 18/30, lint 9/30); about 1m 20s left"
    )
    assert said == "a�b"
    assert summary(View(title="workflow 7", notes=["reading"])) == "workflow 7; reading"


def test_the_display_suits_the_stream(monkeypatch):
    """Bars in a terminal, lines elsewhere."""
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(display(io.StringIO()), Lines)
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    bars = display(terminal)
    assert isinstance(bars, Bars)
    bars.say("a line that stays", "red")
    bars.draw(VIEW, 0.0)
    bars.close()
    shown = terminal.getvalue()
    assert "a line that stays" in shown
    assert "4 running" in shown
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(display(terminal), Lines)
