"""The schema's revisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from latent.errors import StoreError
from latent.store import migrations, schema
from latent.store.engine import open_engines
from latent.store.runs_sql import SqlRunStore
from tests.store.helpers import open_inline, result, url

ROOT = Path(__file__).parents[2]


def config(conn: Any = None) -> Config:
    made = Config()
    made.set_main_option("script_location", str(Path(migrations.__file__).parent))
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = conn
    return made


def sql_of(conn: Any) -> dict[str, str]:
    rows = conn.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE '%alembic%'")
    return {name: " ".join((sql or "").split()) for name, sql in rows}


def test_the_revisions_add_up_to_the_schema(tmp_path: Path) -> None:
    """A database made by the revisions is the same, down to checks and conditions of indexes, as one made from the schema."""
    store = open_inline(tmp_path)
    fresh = create_engine("sqlite://")
    with store.engine.begin() as ours, fresh.connect() as theirs:
        schema.metadata.create_all(theirs)
        assert compare_metadata(MigrationContext.configure(ours), schema.metadata) == []
        assert sql_of(ours) == sql_of(theirs)
    result(store.close())
    fresh.dispose()


def test_head_is_the_last_revision() -> None:
    assert ScriptDirectory.from_config(config()).get_heads() == [migrations.HEAD]


def test_the_revisions_can_be_undone(tmp_path: Path) -> None:
    store = open_inline(tmp_path)
    with store.engine.begin() as conn:
        command.downgrade(config(conn), "base")
        assert set(inspect(conn).get_table_names()) <= {"alembic_version", "sqlite_sequence"}
    result(store.close())


def test_a_store_of_a_newer_latent_is_refused(tmp_path: Path) -> None:
    """The message tells what to install; nothing is changed."""
    store = open_inline(tmp_path)
    with store.engine.begin() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    result(store.close())
    with pytest.raises(StoreError, match=r"made by another version of latent .*'9999'.*; install that version"):
        open_inline(tmp_path)


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    """A database with a table of one of our names that we did not make is left alone."""
    engines = open_engines(url(tmp_path))
    with engines.write.begin() as conn:
        conn.execute(text("CREATE TABLE runs (x)"))
    engines.write.dispose()
    with pytest.raises(StoreError, match=r"has tables that latent did not make \(runs\); name another"):
        SqlRunStore.open(url(tmp_path))


def test_the_revisions_are_packaged() -> None:
    """They are packages and so are installed, and the template for new ones with them."""
    folder = ROOT / "latent/store/migrations"
    assert (folder / "__init__.py").exists()
    assert (folder / "versions/__init__.py").exists()
    assert "store/migrations/*.mako" in (ROOT / "setup.cfg").read_text()
    assert (folder / "script.py.mako").exists()
