"""The first schema: domains, lists, messages, entries, receipts.

For: making a database from nothing. Guarantees: frozen in time, so it does not read
schema.py; a test holds that the two agree. Nothing lies before it, so there is no way back.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "domain",
        sa.Column("mail_host", sa.Text, nullable=False),
        sa.Column("alias_of", sa.Text),
        sa.Column("description", sa.Text, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("mail_host", name="pk_domain"),
        sa.ForeignKeyConstraint(["alias_of"], ["domain.mail_host"], name="fk_domain_alias_of"),
    )
    op.create_table(
        "mailing_list",
        sa.Column("id", ROW_ID, nullable=False, autoincrement=True),
        sa.Column("list_id", sa.Text, nullable=False),
        sa.Column("list_name", sa.Text, nullable=False),
        sa.Column("mail_host", sa.Text, nullable=False),
        sa.Column("posting_address", sa.Text, nullable=False),
        sa.Column("display_name", sa.Text, nullable=False, server_default=""),
        sa.Column("settings", sa.Text, nullable=False, server_default="{}"),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mailing_list"),
        sa.UniqueConstraint("mail_host", "list_name", name="uq_mailing_list_mail_host_list_name"),
        sa.UniqueConstraint("list_id", name="uq_mailing_list_list_id"),
        sa.ForeignKeyConstraint(
            ["mail_host"], ["domain.mail_host"], name="fk_mailing_list_mail_host"
        ),
        sa.UniqueConstraint("posting_address", name="uq_mailing_list_posting_address"),
    )
    op.create_table(
        "message",
        sa.Column("id", ROW_ID, nullable=False, autoincrement=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("sender", sa.Text, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("received_at", sa.Double, nullable=False),
        sa.Column("peer", sa.Text, nullable=False),
        sa.Column("lhlo", sa.Text, nullable=False),
        sa.Column("raw", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_message"),
    )
    op.create_table(
        "entry",
        sa.Column("id", ROW_ID, nullable=False, autoincrement=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("list", ROW_ID),
        sa.Column("message", ROW_ID, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("available_at", sa.Double, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("lease", sa.Text),
        sa.Column("lease_until", sa.Double),
        sa.Column("last_error", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_entry"),
        sa.ForeignKeyConstraint(["list"], ["mailing_list.id"], name="fk_entry_list"),
        sa.ForeignKeyConstraint(["message"], ["message.id"], name="fk_entry_message"),
    )
    op.create_index("ix_entry_queue_available_at_id", "entry", ["queue", "available_at", "id"])
    op.create_index("ix_entry_message", "entry", ["message"])
    leased = sa.text("lease IS NOT NULL")
    op.create_index(
        "ix_entry_leased", "entry", ["lease"], sqlite_where=leased, postgresql_where=leased
    )
    op.create_table(
        "receipt",
        sa.Column("entry", ROW_ID, nullable=False, autoincrement=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("accepted_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("entry", name="pk_receipt"),
        sa.UniqueConstraint("key", name="uq_receipt_key"),
    )
