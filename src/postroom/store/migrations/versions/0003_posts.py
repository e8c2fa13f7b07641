"""Members, and what becomes of a post: addresses, steps, posts, deliveries.

For: databases made before. Guarantees: nothing that is there is changed.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    _people()
    _posts()


def _people() -> None:
    op.create_table(
        "address",
        sa.Column("id", ROW_ID, nullable=False, autoincrement=True),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("folded", sa.Text, nullable=False),
        sa.Column("domain", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("id", name="pk_address"),
        sa.UniqueConstraint("folded", name="uq_address_folded"),
    )
    op.create_table(
        "member",
        sa.Column("id", ROW_ID, nullable=False, autoincrement=True),
        sa.Column("list", ROW_ID, nullable=False),
        sa.Column("address", ROW_ID, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("delivery", sa.Text, nullable=False, server_default="on"),
        sa.Column("mode", sa.Text, nullable=False, server_default="regular"),
        sa.Column("moderation", sa.Text),
        sa.Column("own_posts", sa.SmallInteger, nullable=False, server_default="1"),
        sa.Column("duplicates", sa.SmallInteger, nullable=False, server_default="1"),
        sa.Column("joined_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_member"),
        sa.ForeignKeyConstraint(["list"], ["mailing_list.id"], name="fk_member_list"),
        sa.ForeignKeyConstraint(["address"], ["address.id"], name="fk_member_address"),
        sa.UniqueConstraint("list", "role", "address", name="uq_member_list_role_address"),
    )
    op.create_index("ix_member_address", "member", ["address"])
    op.create_table(
        "secret",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_secret"),
    )
    op.create_table(
        "notified",
        sa.Column("list", ROW_ID, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("list", "kind", "email", name="pk_notified"),
        sa.ForeignKeyConstraint(["list"], ["mailing_list.id"], name="fk_notified_list"),
    )


def _posts() -> None:
    op.create_table(
        "step",
        sa.Column("id", ROW_ID, nullable=False, autoincrement=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("list", sa.Text, nullable=False),
        sa.Column("what", sa.Text, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_step"),
    )
    op.create_index("ix_step_message_id", "step", ["message_id"])
    op.create_table(
        "post",
        sa.Column("id", ROW_ID, nullable=False, autoincrement=False),
        sa.Column("list", ROW_ID),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("recipients", sa.Integer, nullable=False),
        sa.Column("done_at", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_post"),
    )
    op.create_index("ix_post_message_id", "post", ["message_id"])
    op.create_table(
        "delivery",
        sa.Column("post", ROW_ID, nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("member", ROW_ID),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("state", sa.SmallInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", sa.Double),
        sa.Column("transmission", ROW_ID),
        sa.Column("reply", sa.Text),
        sa.PrimaryKeyConstraint("post", "n", name="pk_delivery"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "transmission",
        sa.Column("id", ROW_ID, nullable=False, autoincrement=False),
        sa.Column("post", ROW_ID, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("recipients", sa.Integer, nullable=False),
        sa.Column("reply", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_transmission"),
    )
    op.create_index("ix_transmission_post", "transmission", ["post"])
