"""What bots answered, for each run; and the last dispatch to each machine."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "answers",
        sa.Column("run_id", ID, autoincrement=False, nullable=False),
        sa.Column("type_url", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_answers_run_id")),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_answers")),
    )
    op.create_table(
        "dispatches",
        sa.Column("machine", sa.Text(), nullable=False),
        sa.Column("test_dir_hash", sa.Text(), nullable=False),
        sa.Column("build_id", ID, nullable=False),
        sa.ForeignKeyConstraint(["build_id"], ["builds.id"], name=op.f("fk_dispatches_build_id")),
        sa.PrimaryKeyConstraint("machine", name=op.f("pk_dispatches")),
    )


def downgrade() -> None:
    op.drop_table("dispatches")
    op.drop_table("answers")
