"""The schema's history. Every release's database is brought to `HEAD` when it is opened; `latent.store.schema` is the sum."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect

from latent.errors import StoreError
from latent.store.schema import metadata
from latent.store.sql import Statement

HEAD = "0003"

_VERSION = Statement("SELECT version_num FROM alembic_version")


def upgrade(engine: Engine, place: str) -> None:
    """Bring the schema to `HEAD` in one transaction; raises `StoreError` where the database is not one of ours, or newer."""
    if engine.dialect.name == "sqlite":
        # Kept in the file; it can't be changed inside of a transaction.
        with engine.connect() as conn:
            driver = conn.connection.driver_connection
            assert driver is not None
            mode = driver.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode not in ("wal", "memory"):
            raise StoreError(f"{place} can't have a write-ahead log (mode {mode}); put it on a local disk")
    with engine.begin() as conn:
        if conn.dialect.name == "postgresql":
            # Two processes that open a new database must not both create its tables. The number is arbitrary but ours.
            conn.exec_driver_sql("SELECT pg_advisory_xact_lock(7163924)")
        found = version(conn)
        if found == HEAD:
            return
        if found is None and (foreign := set(inspect(conn).get_table_names()) & set(metadata.tables)):
            raise StoreError(
                f"{place} has tables that latent did not make ({', '.join(sorted(foreign))}); name another database in db url"
            )
        _upgrade(conn, found, place)


def version(conn: Connection) -> str | None:
    """The revision that the database is at; None when it has none."""
    if not inspect(conn).has_table("alembic_version"):
        return None
    row = _VERSION.one(conn)
    return None if row is None else str(row[0])


def _upgrade(conn: Connection, found: str | None, place: str) -> None:
    # Imported only where there is something to do: Alembic costs a tenth of a second, at every start.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = conn
    try:
        if found is not None:
            ScriptDirectory.from_config(config).get_revision(found)
        command.upgrade(config, HEAD)
    except CommandError as error:
        raise StoreError(
            f"{place} was made by another version of latent (its schema is {found!r}, this one's {HEAD!r}); "
            "install that version, or name another database in db url"
        ) from error
