"""The tables. A change here goes with a new revision in `latent.store.migrations`; a test compares the two.

Times are POSIX seconds. Model values are JSON in text columns, so that both databases keep them byte for byte.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

Id = BigInteger().with_variant(Integer, "sqlite")

LIVE_RUN = "status IN ('pending', 'running')"
"""Literal, not bound: SQLite uses a partial index only where it can prove its condition from the text of the query."""

LIVE_ATTEMPT = "stopped_at IS NULL AND gone_at IS NULL"
CONDEMNED_ATTEMPT = "condemned_at IS NOT NULL AND gone_at IS NULL"
OPEN_SESSION = "closed_at IS NULL"
UNFINISHED_BUILD = "state <> 'finished'"
BUILDING_TASK = "status IN ('I', 'O', 'R')"
CHANGED_TASK = "changed_at IS NOT NULL"
OPEN_WORKFLOW_RUN = "ended_at IS NULL"
LOST_WORKFLOW_RUN = "lost_at IS NOT NULL"


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default="")


meta = Table("meta", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

workers = Table(
    "workers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("state", Text),
    Column("quarantine", Text),
)

journal = Table(
    "journal",
    metadata,
    Column("seq", Id, primary_key=True),
    Column("at", Double, nullable=False),
    Column("worker", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("event", Text, nullable=False),
    Column("state_name", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Index("ix_journal_worker", "worker", "seq"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("worker", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("token_hash", Text),
    Column("token_used_at", Double),
    Column("started_at", Double, nullable=False),
    Column("stopped_at", Double),
    Column("condemned_at", Double),
    Column("gone_at", Double),
    Column("next_at", Double),
    Column("tries", Integer, nullable=False, server_default="0"),
    _text("reason"),
    _text("error"),
    Column("handle", Text),
    Index("ix_attempts_token", "token_hash", unique=True),
    Index("ix_attempts_live", "worker", "number", **_where(LIVE_ATTEMPT)),
    Index("ix_attempts_condemned", "worker", "number", **_where(CONDEMNED_ATTEMPT)),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("worker", Text, nullable=False),
    Column("attempt", Integer),
    Column("protocol", Text, nullable=False),
    Column("token_hash", Text, nullable=False),
    Column("capacity", Integer, nullable=False, server_default="0"),
    Column("opened_at", Double, nullable=False),
    Column("closed_at", Double),
    _text("reason"),
    Column("labels", Text, nullable=False, server_default="{}"),
    Column("info", Text, nullable=False, server_default="{}"),
    Index("ix_sessions_token", "token_hash"),
    Index("ix_sessions_open", "id", **_where(OPEN_SESSION)),
    sqlite_autoincrement=True,
)

builds = Table(
    "builds",
    metadata,
    Column("id", Id, primary_key=True),
    Column("builder", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("result", Text),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("cancel_requested_at", Double),
    Column("submitted_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    _text("reason"),
    Column("request", Text, nullable=False),
    CheckConstraint("state IN ('queued', 'starting', 'running', 'finished')", name="state"),
    Index("ix_builds_unfinished", "id", **_where(UNFINISHED_BUILD)),
    Index("ix_builds_builder", "builder", "id"),
    sqlite_autoincrement=True,
)

runs = Table(
    "runs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("machine", Text, nullable=False),
    _text("test_dir"),
    _text("test_dir_hash"),
    Column("status", Text, nullable=False),
    Column("exit_code", BigInteger),
    Column("started_at", Double),
    Column("ended_at", Double),
    _text("artifacts_path"),
    _text("logs_path"),
    _text("error_code"),
    _text("error_msg"),
    _text("batch_id"),
    _text("plan_entry"),
    # From here on private: not in the public record.
    Column("build_id", Id, ForeignKey("builds.id")),
    Column("worker", Text),
    Column("attempt", Integer),
    Column("owner", Text),
    Column("deadline", Double),
    Column("lease_state", Text),
    Column("lease_session", Id),
    CheckConstraint("status IN ('pending', 'running', 'completed', 'failed', 'interrupted', 'timeout')", name="status"),
    CheckConstraint("lease_state IN ('pending', 'active', 'completed', 'cancelled')", name="lease_state"),
    Index("uq_runs_live_machine", "machine", unique=True, **_where(LIVE_RUN)),
    Index("uq_runs_live_build", "build_id", unique=True, **_where(LIVE_RUN)),
    Index("ix_runs_build", "build_id"),
    Index("ix_runs_hash", "test_dir_hash", "machine"),
    sqlite_autoincrement=True,
)

run_steps = Table(
    "run_steps",
    metadata,
    Column("seq", Id, primary_key=True),
    Column("run_id", Id, ForeignKey("runs.id"), nullable=False),
    Column("uuid", Text, nullable=False),
    _text("name"),
    Column("status", Text, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("exit_code", BigInteger),
    _text("error"),
    Index("uq_run_steps_uuid", "run_id", "uuid", unique=True),
)

# Apart from the runs, which are read often: an answer may be large.
answers = Table(
    "answers",
    metadata,
    Column("run_id", Id, ForeignKey("runs.id"), primary_key=True, autoincrement=False),
    Column("type_url", Text, nullable=False),
    Column("value", LargeBinary, nullable=False),
)

# The last one to each machine; it holds the machine until its build is finished.
dispatches = Table(
    "dispatches",
    metadata,
    Column("machine", Text, primary_key=True),
    Column("test_dir_hash", Text, nullable=False),
    Column("build_id", Id, ForeignKey("builds.id"), nullable=False),
)

# Statuses are the letters of latent.swarm.statuses.
workflows = Table(
    "workflows",
    metadata,
    Column("id", Id, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    # How many there are to be, how many are stored, and the id of the first: the others follow it without a gap.
    Column("tasks", Integer, nullable=False),
    Column("bound", Integer, nullable=False, server_default="0"),
    Column("first_task", Id, nullable=False),
    Column("max_running", Integer, nullable=False),
    Column("fail_fast", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Index("uq_workflows_digest", "digest", unique=True),
    sqlite_autoincrement=True,
)

workflow_arrays = Table(
    "workflow_arrays",
    metadata,
    Column("id", Id, primary_key=True),
    Column("workflow_id", Id, ForeignKey("workflows.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("definition", Text, nullable=False),
    Index("uq_workflow_arrays_position", "workflow_id", "position", unique=True),
    sqlite_autoincrement=True,
)

workflow_runs = Table(
    "workflow_runs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("workflow_id", Id, ForeignKey("workflows.id"), nullable=False),
    Column("status", Text, nullable=False),
    _text("driver"),
    Column("created_at", Double, nullable=False),
    Column("heartbeat_at", Double, nullable=False),
    Column("report_by", Double, nullable=False),
    Column("ended_at", Double),
    # Its driver was given up, and nobody has done anything about it since.
    Column("lost_at", Double),
    _text("reason"),
    Index("ix_workflow_runs_workflow", "workflow_id", "id"),
    Index("uq_workflow_runs_open", "workflow_id", unique=True, **_where(OPEN_WORKFLOW_RUN)),
    Index("ix_workflow_runs_lost", "id", **_where(LOST_WORKFLOW_RUN)),
    sqlite_autoincrement=True,
)

workflow_tasks = Table(
    "workflow_tasks",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("workflow_id", Id, ForeignKey("workflows.id"), nullable=False),
    Column("array_id", Id, ForeignKey("workflow_arrays.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("max_attempts", Integer, nullable=False),
    Column("level", Integer, nullable=False, server_default="0"),
    Column("resources", Text, nullable=False),
    # Properties and labels that only this task has; empty if there are none.
    _text("own"),
    Column("downstream", Text, nullable=False),
    Column("build_id", Id, ForeignKey("builds.id")),
    Column("trouble", Text),
    _text("reason"),
    # When its status last changed, for who follows it; NULL until it is first queued.
    Column("changed_at", Double),
    Index("ix_workflow_tasks_building", "workflow_id", "id", **_where(BUILDING_TASK)),
    Index("ix_workflow_tasks_changed", "workflow_id", "changed_at", **_where(CHANGED_TASK)),
)

# Each build of a task: no attempt of a run has two.
workflow_builds = Table(
    "workflow_builds",
    metadata,
    Column("build_id", Id, ForeignKey("builds.id"), primary_key=True, autoincrement=False),
    Column("task_id", Id, ForeignKey("workflow_tasks.id"), nullable=False),
    Column("run_id", Id, ForeignKey("workflow_runs.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Index("uq_workflow_builds_attempt", "task_id", "run_id", "attempt", unique=True),
)
