"""The URL of the store's database, which may hold a password: no message shows it whole."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from latent.errors import ConfigError

DEFAULT = "sqlite:///state/latent.sqlite"
"""Where the store is when ``c["db"]`` does not say, beside master.cfg."""

_REMEDY = f"write '{DEFAULT}' or 'postgresql+psycopg://USER@HOST/DATABASE'"


def checked_url(subject: str, text: str, *, directory: Path) -> str:
    """The URL with an absolute SQLite path; a relative one begins at ``directory``. Raises `ConfigError`."""
    try:
        url = make_url(text)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError):
        raise ConfigError(f"{subject} is no database URL; {_REMEDY}") from None
    if backend not in ("sqlite", "postgresql"):
        raise ConfigError(f"{subject} names a database of kind {backend!r}, which latent can't use; {_REMEDY}")
    if not url.database or url.database == ":memory:":
        if backend == "postgresql":
            raise ConfigError(f"{subject} does not name a database; {_REMEDY}")
        raise ConfigError(f"{subject} is a database in memory, which forgets its instances at a restart; {_REMEDY}")
    if backend == "sqlite":
        url = url.set(database=str(directory / url.database))
    return url.render_as_string(hide_password=False)


def without_password(url: str) -> str:
    """For messages."""
    return make_url(url).difference_update_query(("password", "sslpassword")).render_as_string(hide_password=True)
