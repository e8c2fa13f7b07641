"""Members whose mail comes back.

For: databases made before. Guarantees: nothing that is there is changed.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "bounce",
        sa.Column("member", ROW_ID, nullable=False, autoincrement=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("counted_on", sa.Integer, nullable=False),
        sa.Column("bounced_at", sa.Double, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", sa.Double, nullable=False),
        sa.Column("warned", sa.Integer, nullable=False),
        sa.Column("token", sa.Text),
        sa.Column("next_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("member", name="pk_bounce"),
        sa.ForeignKeyConstraint(
            ["member"], ["member.id"], name="fk_bounce_member", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("token", name="uq_bounce_token"),
    )
    op.create_index("ix_bounce_next_at", "bounce", ["next_at"])
