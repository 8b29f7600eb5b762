"""Tables: plain aligned text, or rich's when a terminal shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console

GAP = 2
"""Spaces between columns."""

NARROW = 28
"""A column that wraps is not made narrower than this: rather, each of its cells goes below its row."""


class Cell(NamedTuple):
    """A text and its colour."""

    text: str
    style: str = ""


class Column(NamedTuple):
    """``right``: numbers. ``wraps``: the one column that gives way in a narrow terminal."""

    name: str
    right: bool = False
    wraps: bool = False


Columns = Sequence[Column]
Rows = Sequence[Sequence[Cell]]


def without_empty(columns: Columns, rows: Rows) -> tuple[Columns, Rows]:
    """The table without the columns that are empty in every row."""
    used = [i for i, _ in enumerate(columns) if not rows or any(row[i].text for row in rows)]
    return [columns[i] for i in used], [[row[i] for i in used] for row in rows]


def plain(columns: Columns, rows: Rows) -> Iterator[str]:
    """The lines of the table, as wide as its cells."""
    widths = _widths(columns, rows)
    for row in [_header(columns), *rows]:
        cells = (
            _aligned(cell.text.replace("\n", " "), width, col) for cell, width, col in zip(row, widths, columns, strict=True)
        )
        yield (" " * GAP).join(cells).rstrip()


def show(console: Console, columns: Columns, rows: Rows) -> None:
    """Print the table in colours, no wider than the console unless its narrow columns alone are."""
    widths = _widths(columns, rows)
    fixed = sum(width + GAP for width, column in zip(widths, columns, strict=True) if not column.wraps)
    wanted = max((width for width, column in zip(widths, columns, strict=True) if column.wraps), default=0)
    if console.width - fixed < min(NARROW, wanted):
        _stacked(console, columns, rows, widths)
    else:
        _side_by_side(console, columns, rows, widths)


def _side_by_side(console: Console, columns: Columns, rows: Rows, widths: Sequence[int]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(
            column.name.upper(),
            justify="right" if column.right else "left",
            no_wrap=not column.wraps,
            min_width=None if column.wraps else width,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(cell.text, style=cell.style) for cell in row))
    console.print(table, soft_wrap=not any(column.wraps for column in columns))


def _stacked(console: Console, columns: Columns, rows: Rows, widths: Sequence[int]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    for number, row in enumerate([_header(columns), *rows]):
        line, below = Text(), []
        for cell, width, column in zip(row, widths, columns, strict=True):
            if column.wraps:
                below.append(cell)
            else:
                line.append(_aligned(cell.text, width, column), cell.style or ("" if number else "bold"))
                line.append(" " * GAP)
        line.rstrip()
        console.print(line, soft_wrap=True)
        for cell in below:
            if cell.text and number:
                console.print(Padding(Text(cell.text, style=cell.style), (0, 0, 0, 4)))


def _header(columns: Columns) -> Sequence[Cell]:
    return [Cell(column.name.upper()) for column in columns]


def _widths(columns: Columns, rows: Rows) -> list[int]:
    return [max([len(column.name), *(len(row[i].text) for row in rows)]) for i, column in enumerate(columns)]


def _aligned(text: str, width: int, column: Column) -> str:
    return text.rjust(width) if column.right else text.ljust(width)
