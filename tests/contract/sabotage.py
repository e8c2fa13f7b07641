"""Making a database refuse what it is told.

For: the tests of faults. Each works with triggers, on a marked sender, so that the writer
and its connection are the real ones.
"""

from sqlalchemy import text

from postroom.store.engine import Store

BAD = "bad@example.org"  # the marked sender


def run(store: Store, *statements: str) -> None:
    """Execute statements in one transaction."""
    with store.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def refuse(store: Store, code: str = "23514") -> None:
    """Refuse every message of the marked sender at once; `code` is the error's (PostgreSQL)."""
    if store.is_sqlite:
        run(
            store,
            f"CREATE TRIGGER sabotage BEFORE INSERT ON message WHEN NEW.sender = '{BAD}' "
            "BEGIN SELECT RAISE(ABORT, 'refused'); END",
        )
    else:
        run(
            store,
            "CREATE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{code}'; END $$",
            "CREATE TRIGGER sabotage BEFORE INSERT ON message FOR EACH ROW "
            f"WHEN (NEW.sender = '{BAD}') EXECUTE FUNCTION sabotage()",
        )


def refuse_at_commit(store: Store) -> None:
    """Let every message of the marked sender pass, and refuse to commit it."""
    if store.is_sqlite:
        run(
            store,
            "CREATE TABLE absent (id INTEGER PRIMARY KEY)",
            "CREATE TABLE tripped (id INTEGER REFERENCES absent DEFERRABLE INITIALLY DEFERRED)",
            f"CREATE TRIGGER sabotage AFTER INSERT ON message WHEN NEW.sender = '{BAD}' "
            "BEGIN INSERT INTO tripped VALUES (1); END",
        )
    else:
        at_commit(store, "RAISE EXCEPTION 'refused' USING ERRCODE = '23514';")


def at_commit(store: Store, action: str) -> None:
    """PostgreSQL: do this when a message of the marked sender is being committed."""
    run(
        store,
        "CREATE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {action} RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER sabotage AFTER INSERT ON message "
        f"DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.sender = '{BAD}') "
        "EXECUTE FUNCTION sabotage()",
    )


def repair(store: Store) -> None:
    """Undo any of these."""
    on_message = "" if store.is_sqlite else " ON message"
    run(store, f"DROP TRIGGER sabotage{on_message}")
    if not store.is_sqlite:
        run(store, "DROP FUNCTION sabotage()")
