"""The tables of the first release."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "attempts",
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=True),
        sa.Column("token_used_at", sa.Double(), nullable=True),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("stopped_at", sa.Double(), nullable=True),
        sa.Column("condemned_at", sa.Double(), nullable=True),
        sa.Column("gone_at", sa.Double(), nullable=True),
        sa.Column("next_at", sa.Double(), nullable=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("handle", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("worker", "number", name=op.f("pk_attempts")),
    )
    op.create_index(
        "ix_attempts_condemned", "attempts", ["worker", "number"], **_where("condemned_at IS NOT NULL AND gone_at IS NULL")
    )
    op.create_index("ix_attempts_live", "attempts", ["worker", "number"], **_where("stopped_at IS NULL AND gone_at IS NULL"))
    op.create_index("ix_attempts_token", "attempts", ["token_hash"], unique=True)
    op.create_table(
        "builds",
        sa.Column("id", ID, nullable=False),
        sa.Column("builder", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("cancel_requested_at", sa.Double(), nullable=True),
        sa.Column("submitted_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.CheckConstraint("state IN ('queued', 'starting', 'running', 'finished')", name=op.f("ck_builds_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_builds")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_builds_builder", "builds", ["builder", "id"])
    op.create_index("ix_builds_unfinished", "builds", ["id"], **_where("state <> 'finished'"))
    op.create_table(
        "journal",
        sa.Column("seq", ID, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("state_name", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_journal")),
    )
    op.create_index("ix_journal_worker", "journal", ["worker", "seq"])
    op.create_table(
        "meta",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_meta")),
    )
    op.create_table(
        "sessions",
        sa.Column("id", ID, nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("protocol", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("capacity", sa.Integer(), server_default="0", nullable=False),
        sa.Column("opened_at", sa.Double(), nullable=False),
        sa.Column("closed_at", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("labels", sa.Text(), server_default="{}", nullable=False),
        sa.Column("info", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_sessions_open", "sessions", ["id"], **_where("closed_at IS NULL"))
    op.create_index("ix_sessions_token", "sessions", ["token_hash"])
    op.create_table(
        "workers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=True),
        sa.Column("quarantine", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.create_table(
        "runs",
        sa.Column("id", ID, nullable=False),
        sa.Column("machine", sa.Text(), nullable=False),
        sa.Column("test_dir", sa.Text(), server_default="", nullable=False),
        sa.Column("test_dir_hash", sa.Text(), server_default="", nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("exit_code", sa.BigInteger(), nullable=True),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("artifacts_path", sa.Text(), server_default="", nullable=False),
        sa.Column("logs_path", sa.Text(), server_default="", nullable=False),
        sa.Column("error_code", sa.Text(), server_default="", nullable=False),
        sa.Column("error_msg", sa.Text(), server_default="", nullable=False),
        sa.Column("batch_id", sa.Text(), server_default="", nullable=False),
        sa.Column("plan_entry", sa.Text(), server_default="", nullable=False),
        sa.Column("build_id", ID, nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("deadline", sa.Double(), nullable=True),
        sa.Column("lease_state", sa.Text(), nullable=True),
        sa.Column("lease_session", ID, nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'completed', 'failed', 'interrupted', 'timeout')", name=op.f("ck_runs_status")
        ),
        sa.CheckConstraint("lease_state IN ('pending', 'active', 'completed', 'cancelled')", name=op.f("ck_runs_lease_state")),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_runs_build_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_runs_build", "runs", ["build_id"])
    op.create_index("ix_runs_hash", "runs", ["test_dir_hash", "machine"])
    op.create_index("uq_runs_live_build", "runs", ["build_id"], unique=True, **_where("status IN ('pending', 'running')"))
    op.create_index("uq_runs_live_machine", "runs", ["machine"], unique=True, **_where("status IN ('pending', 'running')"))
    op.create_table(
        "run_steps",
        sa.Column("seq", ID, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("uuid", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), server_default="", nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("exit_code", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_run_steps_run_id")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_run_steps")),
    )
    op.create_index("uq_run_steps_uuid", "run_steps", ["run_id", "uuid"], unique=True)


def downgrade() -> None:
    for table in ("run_steps", "runs", "workers", "sessions", "meta", "journal", "builds", "attempts"):
        op.drop_table(table)


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}
