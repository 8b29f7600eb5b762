"""Workflows, their arrays and tasks, their runs, and which build is which attempt of a task."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    op.create_table(
        "workflows",
        sa.Column("id", ID, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("tasks", sa.Integer(), nullable=False),
        sa.Column("bound", sa.Integer(), server_default="0", nullable=False),
        sa.Column("first_task", ID, nullable=False),
        sa.Column("max_running", sa.Integer(), nullable=False),
        sa.Column("fail_fast", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workflows")),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_workflows_digest", "workflows", ["digest"], unique=True)
    op.create_table(
        "workflow_arrays",
        sa.Column("id", ID, nullable=False),
        sa.Column("workflow_id", ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("definition", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflows.id"], name=op.f("fk_workflow_arrays_workflow_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workflow_arrays")),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_workflow_arrays_position", "workflow_arrays", ["workflow_id", "position"], unique=True)
    op.create_table(
        "workflow_runs",
        sa.Column("id", ID, nullable=False),
        sa.Column("workflow_id", ID, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("driver", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("heartbeat_at", sa.Double(), nullable=False),
        sa.Column("report_by", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("lost_at", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflows.id"], name=op.f("fk_workflow_runs_workflow_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workflow_runs")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_workflow_runs_workflow", "workflow_runs", ["workflow_id", "id"])
    op.create_index("uq_workflow_runs_open", "workflow_runs", ["workflow_id"], unique=True, **where("ended_at IS NULL"))
    op.create_index("ix_workflow_runs_lost", "workflow_runs", ["id"], **where("lost_at IS NOT NULL"))
    op.create_table(
        "workflow_tasks",
        sa.Column("id", ID, autoincrement=False, nullable=False),
        sa.Column("workflow_id", ID, nullable=False),
        sa.Column("array_id", ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("level", sa.Integer(), server_default="0", nullable=False),
        sa.Column("resources", sa.Text(), nullable=False),
        sa.Column("own", sa.Text(), server_default="", nullable=False),
        sa.Column("downstream", sa.Text(), nullable=False),
        sa.Column("build_id", ID, nullable=True),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflows.id"], name=op.f("fk_workflow_tasks_workflow_id")),
        sa.ForeignKeyConstraint(["array_id"], ["workflow_arrays.id"], name=op.f("fk_workflow_tasks_array_id")),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_workflow_tasks_build_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workflow_tasks")),
    )
    op.create_index("ix_workflow_tasks_building", "workflow_tasks", ["workflow_id", "id"], **where("status IN ('I', 'O', 'R')"))
    op.create_index(
        "ix_workflow_tasks_changed", "workflow_tasks", ["workflow_id", "changed_at"], **where("changed_at IS NOT NULL")
    )
    op.create_table(
        "workflow_builds",
        sa.Column("build_id", ID, autoincrement=False, nullable=False),
        sa.Column("task_id", ID, nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_workflow_builds_build_id")),
        sa.ForeignKeyConstraint(["task_id"], ["workflow_tasks.id"], name=op.f("fk_workflow_builds_task_id")),
        sa.ForeignKeyConstraint(["run_id"], ["workflow_runs.id"], name=op.f("fk_workflow_builds_run_id")),
        sa.PrimaryKeyConstraint("build_id", name=op.f("pk_workflow_builds")),
    )
    op.create_index("uq_workflow_builds_attempt", "workflow_builds", ["task_id", "run_id", "attempt"], unique=True)


def downgrade() -> None:
    op.drop_table("workflow_builds")
    op.drop_table("workflow_tasks")
    op.drop_table("workflow_runs")
    op.drop_table("workflow_arrays")
    op.drop_table("workflows")
