"""How far a workflow is: a bar for each array in a terminal, a line now and then elsewhere. Both write to standard error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING

import click

from latent.cli import words
from latent.cli.screen import CONTROLS
from latent.cli.watching import Display, Row, View
from latent.swarm.looks import Look, told

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

STYLES = {
    Look.DONE: "green",
    Look.FAILED: "red",
    Look.RUNNING: "blue",
    Look.STARTING: "cyan",
    Look.QUEUED: "magenta",
    Look.RETRYING: "yellow",
    Look.WAITING: "bright_black",
}

FINISHED, ACTIVE, WAITING = "━", "╍", "─"
"""What bars are drawn with: told apart without colours, too."""

CHARS = {look: FINISHED if look in (Look.DONE, Look.FAILED) else ACTIVE for look in Look} | {Look.WAITING: WAITING}

LONGEST = 28
"""Characters of an array's name that are shown."""

SHORT_BAR, LONG_BAR = 12, 40

APART = 2
"""Spaces between columns."""


def display(stream: IO[str]) -> Display:
    """The right one for where the text goes."""
    if not stream.isatty():
        return Lines(stream)
    console = _console(stream)
    return Lines(stream) if console.is_dumb_terminal else Bars(console)


class Bars:
    """Redrawn in place, below the lines that stay."""

    every = 0.25

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        # The reactor's thread draws: a thread of rich's own would come between.
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._live.start()

    def say(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(_clean(text), style=style), soft_wrap=True)

    def draw(self, view: View, now: float) -> None:
        self._live.update(picture(view, self._console.width, self._console.height), refresh=True)

    def close(self) -> None:
        self._live.stop()


class Lines:
    """A line every ten seconds, if there is anything new, each with the time of day."""

    every = 10.0

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._last = ""

    def say(self, text: str, style: str = "") -> None:
        click.echo(_clean(text), file=self._stream)

    def draw(self, view: View, now: float) -> None:
        if not view.rows and not view.notes:
            return
        line = summary(view)
        if line != self._last:
            self._last = line
            left = f"; about {words.duration(view.left, whole=True)} left" if view.left else ""
            moment = datetime.fromtimestamp(now, UTC).astimezone().strftime("%H:%M:%S")
            self.say(f"{moment}  {line}{left}")

    def close(self) -> None:
        self._stream.flush()


def summary(view: View) -> str:
    """How far it is, in a line. Arrays at which nothing happens are left out."""
    if not view.rows:
        return "; ".join([view.title, *view.notes])
    active = [f"{row.name} {row.counts.get(Look.DONE, 0)}/{row.total}" for row in view.rows if row.is_active]
    busy = f" ({', '.join(active[:6])}{', ...' if len(active) > 6 else ''})" if active else ""
    done = f"{view.total.counts.get(Look.DONE, 0):,} of {view.total.total:,} done"
    rest = told(view.total.counts, without=frozenset({Look.DONE}))
    return "; ".join([", ".join(filter(None, [done, rest])) + busy, *view.notes])


def picture(view: View, width: int, height: int) -> RenderableType:
    """The bars, for a terminal of that size."""
    from rich.console import Group
    from rich.text import Text

    rows, more = _chosen(view.rows, max(3, height - 4 - len(view.notes)))
    lines: list[Text] = [_head(view, width)]
    if rows:
        lines += _table(rows, width)
    if more:
        lines.append(Text(f"and {words.count(len(more), 'more array')}: {_standing(more)}", style="dim"))
    lines += [Text(_clean(note), style="bold yellow") for note in view.notes]
    return Group(*lines)


def _chosen(rows: Sequence[Row], room: int) -> tuple[list[Row], list[Row]]:
    """What there is room for, in the rows' order: what goes on before what waits, and that before what is over."""
    if len(rows) <= room:
        return list(rows), []

    def urgency(number: int) -> tuple[int, int]:
        row = rows[number]
        return (0 if row.is_active else 2 if row.finished == row.total else 1, number)

    chosen = set(sorted(range(len(rows)), key=urgency)[: room - 1])
    return [row for n, row in enumerate(rows) if n in chosen], [row for n, row in enumerate(rows) if n not in chosen]


def _standing(rows: Sequence[Row]) -> str:
    active = sum(row.is_active for row in rows)
    over = sum(row.finished == row.total for row in rows)
    counted = (("at work", active), ("done with", over), ("waiting", len(rows) - active - over))
    return ", ".join(f"{number} {what}" for what, number in counted if number)


def _head(view: View, width: int) -> Text:
    from rich.text import Text

    took = words.duration(view.seconds, whole=True)
    left = f", about {words.duration(view.left, whole=True)} left" if view.left else ""
    right = f"{took}{left}"
    title = _fitted(_clean(view.title), max(10, width - len(right) - APART))
    head = Text(title, style="bold")
    head.append(" " * max(APART, width - head.cell_len - len(right)))
    head.append(right, "not bold")
    return head


def _table(rows: Sequence[Row], width: int) -> list[Text]:
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    names = [_fitted(_clean(row.name), min(LONGEST, max(6, width // 3))) for row in rows]
    numbers = [f"{row.counts.get(Look.DONE, 0):,}/{row.total:,}" for row in rows]
    lefts = [words.duration(row.left, whole=True) if row.left else "" for row in rows]
    counts = [_counts(row) for row in rows]
    name = max(map(cell_len, names))
    fixed = name + APART + max(map(len, numbers)) + APART + max(map(len, lefts)) + APART
    room = width - fixed - APART
    longest = max(count.cell_len for count in counts)
    legend: list[Text] = []
    if room - longest < SHORT_BAR:
        counts = [_counts(row, signs=True) for row in rows]
        longest = max(count.cell_len for count in counts)
        legend = _legend(rows)
    bar = max(0, min(LONG_BAR, room - longest))
    lines = []
    for row, label, number, left, count in zip(rows, names, numbers, lefts, counts, strict=True):
        line = Text(set_cell_size(label, name))
        line.append(" " * APART)
        if bar >= SHORT_BAR // 2:
            line.append_text(_bar(row, bar))
            line.append(" " * APART)
        line.append(f"{number:>{max(map(len, numbers))}}")
        line.append(" " * APART)
        line.append(f"{left:>{max(map(len, lefts))}}", "dim")
        line.append(" " * APART if any(lefts) else "")
        line.append_text(count)
        line.rstrip()
        line.truncate(width, overflow="ellipsis")
        lines.append(line)
    return lines + legend


def _legend(rows: Sequence[Row]) -> list[Text]:
    """What the signs mean that stand for words."""
    from rich.text import Text

    used = [look for look in Look if look is not Look.DONE and look.sign and any(row.counts.get(look) for row in rows)]
    return [Text("  ").join(Text(f"{look.sign} {look.value}", STYLES[look]) for look in used)] if used else []


def _counts(row: Row, *, signs: bool = False) -> Text:
    """All but what is done, which has a column, and what waits, which the bar shows."""
    from rich.text import Text

    shown = [look for look in Look if row.counts.get(look) and look not in (Look.DONE, Look.WAITING)]
    if signs:
        return Text(" ").join(Text(f"{look.sign}{row.counts[look]:,}", STYLES[look]) for look in shown)
    if not shown:
        look = Look.DONE if row.finished == row.total else Look.WAITING
        return Text(look.value, STYLES[look])
    return Text(", ").join(Text(f"{row.counts[look]:,} {look.value}", STYLES[look]) for look in shown)


def _bar(row: Row, width: int) -> Text:
    from rich.text import Text

    bar = Text()
    for look, cells in shares(row.counts, width).items():
        bar.append(CHARS[look] * cells, STYLES[look])
    return bar


def shares(counts: Mapping[Look, int], width: int) -> dict[Look, int]:
    """The cells of a bar: each look's share, and one at least of what there is any; what is left over goes to the largest."""
    total = sum(counts.values())
    if not total:
        return {}
    cells = {look: max(1, counts[look] * width // total) for look in Look if counts.get(look)}
    largest = max(cells, key=lambda look: counts[look])
    cells[largest] = max(0, cells[largest] + width - sum(cells.values()))
    return cells


def _fitted(text: str, width: int) -> str:
    """The text, or its beginning and end."""
    from rich.cells import cell_len, chop_cells

    if cell_len(text) <= width:
        return text
    half = (width - 1) // 2
    begin = chop_cells(text, half)[0]
    end = chop_cells(text[::-1], width - 1 - half)[0][::-1]
    return f"{begin}…{end}"


def _clean(text: str) -> str:
    return click.unstyle(text).translate(CONTROLS)


def _console(stream: IO[str]) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False)
