"""What Alembic runs for every command. The connection, inside a transaction of the caller's, comes with the config."""

from __future__ import annotations

from alembic import context

from latent.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
