"""When an entry was last told to wait: a clock set back must not make it wait longer.

For: databases made before. Guarantees: entries that wait keep their times.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.add_column("entry", sa.Column("retried_at", sa.Double))
