"""The tables, the same on SQLite and PostgreSQL.

For: the one description of the data, from which statements and migrations are checked.
Guarantees: "schema equals the sum of migrations" is a test. Ids of messages and entries
are allocated by the writer (spool.ids), sortable by time; times are seconds since the
epoch. A change here needs a migration and a new `REVISION`.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

REVISION = "0002"  # the newest migration

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# On SQLite only "INTEGER PRIMARY KEY" is the row id itself; there it holds 64 bits too.
_Id = BigInteger().with_variant(Integer(), "sqlite")

domain = Table(
    "domain",
    metadata,
    Column("mail_host", Text, primary_key=True),
    Column("alias_of", Text, ForeignKey("domain.mail_host")),
    Column("description", Text, nullable=False, server_default=""),
)

mailing_list = Table(
    "mailing_list",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("list_id", Text, nullable=False, unique=True),  # never changes
    Column("list_name", Text, nullable=False),
    Column("mail_host", Text, ForeignKey("domain.mail_host"), nullable=False),
    Column("posting_address", Text, nullable=False, unique=True),  # folded
    Column("display_name", Text, nullable=False, server_default=""),
    Column("settings", Text, nullable=False, server_default="{}"),  # JSON
    Column("created_at", Double, nullable=False),
    UniqueConstraint("mail_host", "list_name"),
)

message = Table(
    "message",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("digest", LargeBinary, nullable=False),
    Column("sender", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("received_at", Double, nullable=False),
    Column("peer", Text, nullable=False),
    Column("lhlo", Text, nullable=False),
    Column("raw", LargeBinary, nullable=False),  # last: rows are read without it
)

entry = Table(
    "entry",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("queue", Text, nullable=False),
    Column("list", _Id, ForeignKey("mailing_list.id")),
    Column("message", _Id, ForeignKey("message.id"), nullable=False),
    Column("metadata", Text, nullable=False),  # JSON
    Column("available_at", Double, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("lease", Text),
    Column("lease_until", Double),
    Column("last_error", Text),
    Column("retried_at", Double),  # when it was last told to wait
    Index(None, "queue", "available_at", "id"),
    Index(None, "message"),
    Index(
        "ix_entry_leased",
        "lease",
        sqlite_where=text("lease IS NOT NULL"),
        postgresql_where=text("lease IS NOT NULL"),
    ),
)

# One row for each entry ever made, kept after it is gone. The key is random, so its index
# is kept apart and small; rows come, and are purged, in the order of entry ids.
receipt = Table(
    "receipt",
    metadata,
    Column("entry", _Id, primary_key=True, autoincrement=False),
    Column("key", LargeBinary, nullable=False, unique=True),
    Column("accepted_at", Double, nullable=False),
)
