"""What commands print on: tables with colours in a terminal, plain aligned text elsewhere, documents with ``--json``."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from latent.cli import tables
from latent.cli.tables import Cell, Column

if TYPE_CHECKING:
    from rich.console import Console

CONTROLS = {code: "�" for code in [*range(32), *range(127, 160)] if code not in (9, 10)}
"""Characters that could move a terminal's cursor: names and reasons come from others, and are shown without them."""

Value = str | int | Cell


class Screen:
    """Standard output. ``width`` and ``terminal`` are for tests."""

    def __init__(self, *, terminal: bool | None = None, width: int | None = None) -> None:
        self.terminal = sys.stdout.isatty() if terminal is None else terminal
        self._width = width
        self._console: Console | None = None

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[Value]]) -> None:
        """A table, without its columns that are empty in every row."""
        columns, cells = tables.without_empty(columns, [[_cell(value) for value in row] for row in rows])
        if self.terminal:
            tables.show(self._rich(), columns, cells)
        else:
            for line in tables.plain(columns, cells):
                click.echo(line)

    def fields(self, pairs: Iterable[tuple[str, Value]]) -> None:
        """Names and values, a line each; values that are empty are left out."""
        shown = [(name, _cell(value)) for name, value in pairs if _cell(value).text]
        wide = max((len(name) for name, _ in shown), default=0)
        for name, cell in shown:
            label = f"{name + ':':<{wide + 2}}"
            text = cell.text.replace("\n", "\n" + " " * (wide + 2))
            self.line((label, "bold" if self.terminal else ""), (text, cell.style))

    def line(self, *parts: str | tuple[str, str]) -> None:
        """One line of texts, each plain or with its colour."""
        texts = [(part, "") if isinstance(part, str) else part for part in parts]
        if not self.terminal:
            click.echo(_clean("".join(text for text, _ in texts)))
            return
        from rich.text import Text

        whole = Text()
        for text, style in texts:
            whole.append(_clean(text), style or None)
        self._rich().print(whole, soft_wrap=True)

    def raw(self, text: str, *, bold: bool = False) -> None:
        """One line of a log, with the control characters that its program printed."""
        if bold and self.terminal and "NO_COLOR" not in os.environ:
            text = click.style(text, bold=True)
        click.echo(text, color=self.terminal or None)

    def document(self, doc: Any) -> None:
        """A JSON document for people and programs."""
        click.echo(json.dumps(doc, indent=2))

    def document_line(self, doc: Any) -> None:
        """A JSON document of a stream: one line."""
        click.echo(json.dumps(doc))

    def _rich(self) -> Console:
        if self._console is None:
            from rich.console import Console

            out: Any = _Out()
            # Written through click, so that what is printed by either keeps its order.
            self._console = Console(file=out, force_terminal=True, width=self._width or _columns(), highlight=False)
        return self._console


class _Out(io.TextIOBase):
    def write(self, text: str) -> int:
        click.echo(text, nl=False, color=True)
        return len(text)

    def flush(self) -> None:
        sys.stdout.flush()


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns


def _cell(value: Value) -> Cell:
    if isinstance(value, Cell):
        return Cell(_clean(value.text), value.style)
    return Cell(_clean(str(value)))


def _clean(text: str) -> str:
    return click.unstyle(text).translate(CONTROLS)
