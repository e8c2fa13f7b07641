"""`postroom migrate`."""

from pathlib import Path

import pytest
from sqlalchemy import text

from postroom.store import schema
from postroom.store.engine import Store
from tests.cli.conftest import Run


def test_an_empty_database_is_made_and_the_next_step_is_said(run: Run, place: Path) -> None:
    assert run("migrate").stdout == (
        f"sqlite:///{place}/postroom.db: made, with schema {schema.REVISION}\n"
        "Next: postroom serve\n"
    )
    run("list", "create", "ants@example.com")


def test_a_database_that_is_up_to_date_is_left_alone(run: Run, store: Store) -> None:
    assert run("migrate").stdout.endswith(f": schema {schema.REVISION} already, nothing to do\n")


def test_a_database_that_was_migrated_is_named_with_both_schemas(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.cli.migrate.bring_up_to_date", lambda url: ("0001", "0002"))
    assert run("migrate").stdout.endswith(": brought from schema 0001 to 0002\n")


def test_a_newer_database_is_one_sentence(run: Run, store: Store) -> None:
    with store.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    result = run("migrate", status=1)
    assert result.stderr.startswith("postroom: ")
    assert "was made by a newer postroom" in result.stderr
    assert result.stdout == ""
