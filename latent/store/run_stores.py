"""Opens a store of runs by its address."""

from __future__ import annotations

from pathlib import Path

from latent.store.runs import RunStore


def open_runs(address: str) -> RunStore:
    """The store at a database's URL or, a single file, in a directory; made where there is none. Raises StoreError."""
    # Here, because a file needs no database library.
    if "://" in address:
        from latent.store.runs_sql import SqlRunStore

        return SqlRunStore.open(address)
    from latent.store.runs_json import JsonRunStore

    return JsonRunStore(Path(address))
