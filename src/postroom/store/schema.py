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
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

REVISION = "0005"  # the newest migration

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

# Who reads and who runs the lists. One row per address, however many lists it is on.
address = Table(
    "address",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("email", Text, nullable=False),  # as its owner writes it
    Column("folded", Text, nullable=False, unique=True),
    Column("domain", Text, nullable=False),  # folded: posts go out in its order
    Column("name", Text, nullable=False, server_default=""),
)

member = Table(
    "member",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("list", _Id, ForeignKey("mailing_list.id"), nullable=False),
    Column("address", _Id, ForeignKey("address.id"), nullable=False),
    Column("role", Text, nullable=False),  # member, owner, moderator, nonmember
    Column("delivery", Text, nullable=False, server_default="on"),  # or off by whom
    Column("mode", Text, nullable=False, server_default="regular"),  # or digest
    Column("moderation", Text),  # an action; NULL: as the list says
    Column("own_posts", SmallInteger, nullable=False, server_default="1"),
    Column("duplicates", SmallInteger, nullable=False, server_default="1"),
    Column("joined_at", Double, nullable=False),
    Column("ack", SmallInteger, nullable=False, server_default="0"),
    UniqueConstraint("list", "role", "address"),
    Index(None, "address"),
)

# What only this site knows, for signing what it hands out.
secret = Table(
    "secret",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

# When somebody was last told something of a kind ("" stands for the list's owners).
notified = Table(
    "notified",
    metadata,
    Column("list", _Id, ForeignKey("mailing_list.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("email", Text, nullable=False),  # folded
    Column("at", Double, nullable=False),
    PrimaryKeyConstraint("list", "kind", "email"),
)

# Members whose mail comes back. There is no row for whom nothing has come back lately.
bounce = Table(
    "bounce",
    metadata,
    Column(
        "member",
        _Id,
        ForeignKey("member.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("state", Text, nullable=False),  # bounces.scoring says what they mean
    Column("score", Double, nullable=False),
    Column("counted_on", Integer, nullable=False),  # the last day that counted, since 1970
    Column("bounced_at", Double, nullable=False),  # the last time
    Column("status", Text, nullable=False),  # RFC 3463, "" if none was told
    Column("reason", Text, nullable=False),  # in the words of whoever refused
    Column("since", Double, nullable=False),  # in this state
    Column("warned", Integer, nullable=False),  # times, since delivery was turned off
    Column("token", Text, unique=True),  # that a probe was sent with
    Column("next_at", Double, nullable=False),  # when time moves it on
    Index(None, "next_at"),
)

# What somebody asked for, and who has to agree before it is done. The token is given to
# whoever that is, and is another one for each of them.
pending = Table(
    "pending",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("list", _Id, ForeignKey("mailing_list.id"), nullable=False),
    Column("action", Text, nullable=False),  # join, leave, change
    Column("email", Text, nullable=False),  # as it was written
    Column("folded", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("changes", Text, nullable=False),  # JSON: what is set with it
    Column("policy", Text, nullable=False),
    Column("state", Text, nullable=False),  # lists.subscription says what they mean
    Column("token", Text, nullable=False, unique=True),
    Column("asked_by", Text, nullable=False),
    Column("source", Text, nullable=False),  # the network it came from, "" if not known
    Column("created_at", Double, nullable=False),
    Column("told_at", Double, nullable=False),  # when the token was last sent
    Column("expires_at", Double, nullable=False),
    UniqueConstraint("list", "action", "folded"),
    Index(None, "expires_at"),
)

# How much of what is limited was used up lately: a bucket that leaks.
tally = Table(
    "tally",
    metadata,
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("level", Double, nullable=False),
    Column("at", Double, nullable=False),
    Column("empty_at", Double, nullable=False),
    PrimaryKeyConstraint("kind", "name"),
    Index(None, "empty_at"),
)

# Every change of who is on a list, and of how: who made it, when, and in which way. It outlives
# the list, so that its list-id stands here and not its row.
audit = Table(
    "audit",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("list_id", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("what", Text, nullable=False),
    Column("email", Text, nullable=False),  # folded; "" if it concerns the list
    Column("by", Text, nullable=False),
    Column("facts", Text, nullable=False),  # JSON
    Index(None, "list_id", "id"),
)

# What became of a message, step by step, for "where is my message?". Ids are those of
# spool.ids, so rows are purged in their order. Nothing else depends on these rows.
step = Table(
    "step",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("message_id", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("list", Text, nullable=False),  # the posting address at that time
    Column("what", Text, nullable=False),
    Column("facts", Text, nullable=False),  # JSON
    Index(None, "message_id"),
)

# A message on its way out, kept for a while when it is done. Its id is that of its entry in
# the queue `out`.
post = Table(
    "post",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("list", _Id),  # no foreign key: it may outlive the list
    Column("message_id", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("recipients", Integer, nullable=False),
    Column("done_at", Double),
    Index(None, "message_id"),
)

# One row for each recipient of each post, numbered in the order of domains. There may be
# hundreds of thousands: rows are narrow, lie together, and are changed many at a time.
delivery = Table(
    "delivery",
    metadata,
    Column("post", _Id, nullable=False),
    Column("n", Integer, nullable=False),
    Column("member", _Id),  # NULL: an address that is named in the order
    Column("email", Text, nullable=False),
    Column("state", SmallInteger, nullable=False),  # delivery.ledger says what they mean
    Column("attempts", Integer, nullable=False),
    Column("next_at", Double),
    Column("transmission", _Id),  # the last one that it was part of
    Column("reply", Text),  # what it was told itself, if not that transmission's reply
    PrimaryKeyConstraint("post", "n"),
    sqlite_with_rowid=False,
)

# One SMTP transaction with the mail server.
transmission = Table(
    "transmission",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=False),
    Column("post", _Id, nullable=False),
    Column("at", Double, nullable=False),
    Column("server", Text, nullable=False),
    Column("recipients", Integer, nullable=False),
    Column("reply", Text, nullable=False),
    Index(None, "post"),
)
