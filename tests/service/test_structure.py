"""What the shape of the program guarantees."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import postroom

# What waits for a disk or a database server.
STORAGE = {
    "alembic",
    "postroom.store",
    "psycopg",
    "pysqlite3",
    "sqlalchemy",
    "sqlite3",
}


def imported_by(module: str) -> set[str]:
    """Modules that a new interpreter holds after importing this one."""
    code = f"import {module}, sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(found.stdout.split())


def storage_among(modules: set[str]) -> set[str]:
    return {
        found
        for found in modules
        if any(found == name or found.startswith(f"{name}.") for name in STORAGE)
    }


@pytest.mark.parametrize(
    "module", ["postroom.service.door", "postroom.service.supervisor", "postroom.lmtp.server"]
)
def test_d13_what_runs_the_event_loop_cannot_touch_storage(module: str) -> None:
    modules = imported_by(module)
    assert module in modules
    assert storage_among(modules) == set()


@pytest.mark.parametrize("module", ["postroom.service.door", "postroom.service.supervisor"])
def test_what_takes_mail_does_not_carry_what_sends_it(module: str) -> None:
    sending = ("postroom.runners", "postroom.posting", "postroom.delivery", "postroom.notices")
    assert [each for each in imported_by(module) if each.startswith(sending)] == []


def test_who_seals_nothing_does_not_carry_what_seals() -> None:
    modules = imported_by("postroom.service.runners")
    assert "postroom.runners.incoming" in modules
    assert not {"cryptography", "postroom.posting.arc"} & modules


def test_d13_the_intake_process_is_where_storage_is() -> None:
    assert {"sqlalchemy", "pysqlite3", "postroom.store"} <= storage_among(
        imported_by("postroom.service.intake")
    )


def imports(tree: ast.AST) -> set[str]:
    """The modules that a source file names in its imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_d16_nothing_that_is_stored_can_be_executed_by_reading_it() -> None:
    sources = sorted(Path(postroom.__path__[0]).rglob("*.py"))
    assert len(sources) > 30
    unsafe = {"pickle", "marshal", "shelve", "dill"}
    assert [path for path in sources if imports(ast.parse(path.read_bytes())) & unsafe] == []
