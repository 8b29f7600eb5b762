"""Workflows in the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from latent.errors import StoreCorrupt
from latent.store import tasks
from latent.store import workflows as rows
from tests.store.helpers import open_inline, result
from tests.store.workflow_life import bind, lead, new


def test_a_workflows_life(tmp_path: Path) -> None:
    """Every statement that it takes; on PostgreSQL too (test_postgresql)."""
    store = open_inline(tmp_path)
    lead(store)
    result(store.close())


def test_all_of_it_is_there_after_a_restart(tmp_path: Path) -> None:
    store = open_inline(tmp_path)
    workflow = result(store.write(lambda conn: bind(conn, "d", 3)))
    (array, _) = result(store.read(lambda conn: rows.array_ids(conn, workflow.id)))
    result(store.write(lambda conn: tasks.add(conn, workflow, 0, new(2, array, 1))))
    result(store.close())
    store = open_inline(tmp_path)
    assert result(store.write(lambda conn: bind(conn, "d", 3))) == workflow
    assert len(result(store.read(lambda conn: tasks.page(conn, workflow, 0, 9, "G")))) == 2
    result(store.close())


@pytest.mark.parametrize(
    ("sql", "read"),
    [
        ("UPDATE workflow_arrays SET definition = '{'", lambda conn, w: rows.arrays(conn, w.id)),
        ("UPDATE workflow_tasks SET own = '{'", lambda conn, w: tasks.several(conn, w, [w.first_task])),
        (
            "UPDATE workflow_tasks SET resources = '3'",
            lambda conn, w: [tasks.resources_of(row[6], row[0]) for row in tasks.page(conn, w, 0, 9, "G")],
        ),
        (
            "UPDATE workflow_tasks SET downstream = '{}'",
            lambda conn, w: [tasks.ids_of(text, id) for id, text in tasks.downstream(conn, w, [w.first_task])],
        ),
    ],
)
def test_damage_is_named(tmp_path: Path, sql: str, read: Any) -> None:
    store = open_inline(tmp_path)
    workflow = result(store.write(lambda conn: bind(conn, "d", 3)))
    (array, _) = result(store.read(lambda conn: rows.array_ids(conn, workflow.id)))
    result(store.write(lambda conn: tasks.add(conn, workflow, 0, new(2, array, 1))))
    result(store.write(lambda conn: conn.exec_driver_sql(sql)))
    with pytest.raises(StoreCorrupt, match=r"(array|task) 1.* is damaged"):
        result(store.read(lambda conn: read(conn, workflow)))
    result(store.close())
