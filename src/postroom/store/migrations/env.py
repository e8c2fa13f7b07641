"""What alembic runs: the migrations, on the connection that `store.migrate` lends it.

For: alembic alone; nobody imports this file. Guarantees: the transaction is the caller's,
so all migrations are one commit. Fails with what a migration raises.
"""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
