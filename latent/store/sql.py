"""Statements that run often, compiled once for each database and handed to its driver without detours.

SQLAlchemy's own execution costs 10 to 20 µs a statement, the driver's 2; a build's life has some thirty statements.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any

from sqlalchemy import Connection, text

from latent.errors import StoreCorrupt
from latent.model import JSON

Row = tuple[Any, ...]

_PARAMETER = re.compile(r"(?<![:\w]):(\w+)")

dumps: Callable[[JSON], str] = json.JSONEncoder(separators=(",", ":")).encode
"""Compact, and plain ASCII: a text column takes it whatever is in it."""


def loads(document: str, what: str) -> JSON:
    """Read a JSON column; ``what`` names it in the `StoreCorrupt` that is raised when it is damaged."""
    try:
        return json.loads(document)
    except (ValueError, TypeError) as error:
        raise StoreCorrupt(f"{what} is damaged: {error}") from error


class Statement:
    """An SQL statement with ``:name`` parameters, called with their values in the order of their first occurrence."""

    __slots__ = ("_compiled", "_names", "_text")

    def __init__(self, sql: str) -> None:
        self._text = text(sql)
        self._names = list(dict.fromkeys(_PARAMETER.findall(sql)))
        self._compiled: dict[str, tuple[str, Callable[[Row], Any] | None]] = {}

    def __call__(self, conn: Connection, *values: Any) -> Any:
        """Run it in the connection's transaction; returns the driver's cursor."""
        compiled = self._compiled.get(conn.dialect.name)
        if compiled is None:
            compiled = self._compile(conn)
        if not conn.in_transaction():
            conn.begin()
        sql, arrange = compiled
        driver: Any = conn.connection.driver_connection
        return driver.execute(sql, values if arrange is None else arrange(values))

    def many(self, conn: Connection, rows: Iterable[Row]) -> None:
        """Run it once for each of the rows, which are values in the order of `__call__`. Nothing is answered."""
        compiled = self._compiled.get(conn.dialect.name) or self._compile(conn)
        if not conn.in_transaction():
            conn.begin()
        sql, arrange = compiled
        driver: Any = conn.connection.driver_connection
        with closing(driver.cursor()) as cursor:
            cursor.executemany(sql, rows if arrange is None else [arrange(row) for row in rows])

    def one(self, conn: Connection, *values: Any) -> Row | None:
        """The only row, or None. All is fetched, so that no statement is left open at the commit."""
        rows = self(conn, *values).fetchall()
        return rows[0] if rows else None

    def all(self, conn: Connection, *values: Any) -> list[Row]:
        rows: list[Row] = self(conn, *values).fetchall()
        return rows

    def _compile(self, conn: Connection) -> tuple[str, Callable[[Row], Any] | None]:
        names = self._names
        compiled = self._text.compile(dialect=conn.dialect)
        arrange: Callable[[Row], Any] | None
        if not compiled.positional:

            def arrange(values: Row) -> Any:
                return dict(zip(names, values, strict=True))

        elif compiled.positiontup == names:
            arrange = None
        else:
            order = [names.index(name) for name in compiled.positiontup or ()]

            def arrange(values: Row) -> Any:
                return [values[position] for position in order]

        return self._compiled.setdefault(conn.dialect.name, (compiled.string, arrange))
