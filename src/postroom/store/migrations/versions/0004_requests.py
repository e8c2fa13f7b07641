"""Requests that wait for somebody's consent, what is limited, and the audit log.

For: databases made before. Guarantees: nothing that is there is changed.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables, and the column for those who want their posts acknowledged."""
    op.add_column("member", sa.Column("ack", sa.SmallInteger, nullable=False, server_default="0"))
    op.create_table(
        "pending",
        sa.Column("id", ROW_ID, nullable=False, autoincrement=False),
        sa.Column("list", ROW_ID, nullable=False),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in (
                *("action", "email", "folded", "name", "changes", "policy", "state", "token"),
                *("asked_by", "source"),
            )
        ),
        *(
            sa.Column(name, sa.Double, nullable=False)
            for name in ("created_at", "told_at", "expires_at")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_pending"),
        sa.ForeignKeyConstraint(["list"], ["mailing_list.id"], name="fk_pending_list"),
        sa.UniqueConstraint("list", "action", "folded", name="uq_pending_list_action_folded"),
        sa.UniqueConstraint("token", name="uq_pending_token"),
    )
    op.create_index("ix_pending_expires_at", "pending", ["expires_at"])
    op.create_table(
        "tally",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        *(sa.Column(name, sa.Double, nullable=False) for name in ("level", "at", "empty_at")),
        sa.PrimaryKeyConstraint("kind", "name", name="pk_tally"),
    )
    op.create_index("ix_tally_empty_at", "tally", ["empty_at"])
    op.create_table(
        "audit",
        sa.Column("id", ROW_ID, nullable=False, autoincrement=False),
        sa.Column("list_id", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("what", "email", "by", "facts")),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_list_id_id", "audit", ["list_id", "id"])
