"""The pages say what is true: diagram, links to tests and files, settings, templates."""

import ast
import re
import runpy
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import msgspec
import pytest

from postroom.base.settings import Settings
from postroom.lists.settings import ListSettings
from postroom.posting.rules import CHAIN

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "postroom"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(
    ("diagram", "page"),
    [
        ("mermaid", "architecture.md"),
        ("subscription", "subscriptions.md"),
        ("bounces", "bounces.md"),
    ],
)
def test_each_state_diagram_is_made_from_the_table_that_is_obeyed(diagram: str, page: str) -> None:
    drawn = runpy.run_path(str(ROOT / "docs" / "diagram.py"))[diagram]()
    assert f"```mermaid\n{drawn}\n```" in (ROOT / "docs" / page).read_text(), (
        f"docs/{page}: a diagram is not as `python docs/diagram.py` prints it"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text())
    missing = [f"{path}::{name}" for path, name in named if not _defines(path, name)]
    assert not missing


def _defines(path: str, name: str) -> bool:
    file = ROOT / path
    if not file.exists():
        return False
    return re.search(rf"(?:def|class) {name}\b|^{name} = ", file.read_text(), re.M) is not None


def test_the_floors_are_those_that_imports_are_held_to() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    section = page.partition("## The rooms")[2].partition("\n## ")[0]
    shown: dict[int, set[str]] = {}
    for floor, packages in re.findall(r"^\| (\d+) \| ([^|]*) \|", section, re.M):
        shown.setdefault(int(floor), set()).update(re.findall(r"`(\w+)`", packages))
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(each["layers"] for each in contracts["contracts"] if each["type"] == "layers")
    held = [set(re.findall(r"postroom\.(\w+)", layer)) for layer in layers]
    assert [shown[floor] for floor in sorted(shown, reverse=True)] == held
    assert set.union(*held) == {each.parent.name for each in SRC.glob("*/__init__.py")}


def test_each_promise_names_a_test() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    section = page.partition("## The promises")[2].partition("\n## ")[0]
    promises = re.split(r"\n\d\. ", section)[1:]
    assert len(promises) == 8
    assert all("tests/" in promise for promise in promises)


def test_readme_shows_every_setting() -> None:
    readme = (ROOT / "README.md").read_text()
    for section in msgspec.structs.fields(Settings):
        assert f"[{section.name}]" in readme
        for field in msgspec.structs.fields(section.type):
            assert re.search(rf"^{field.name} = ", readme, re.M), field.name


def test_the_page_on_lists_shows_every_setting_with_its_default() -> None:
    page = (ROOT / "docs" / "lists.md").read_text()
    tables = runpy.run_path(str(ROOT / "docs" / "settings.py"))["tables"]()
    assert list(tables) == [group.name for group in msgspec.structs.fields(ListSettings)]
    for group, table in tables.items():
        assert table in page, (
            f"docs/lists.md: {group} is not as `python docs/settings.py` prints it"
        )


def test_the_page_on_lists_has_the_rules_in_their_order() -> None:
    page = (ROOT / "docs" / "lists.md").read_text()
    section = page.partition("## What becomes of a post")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", section, re.M) == [name for name, _ in CHAIN]


# D21: a setting that nobody reads does nothing, and its owner believes it does.

# Where settings are defined, read from files, checked and shown.
NO_USE = (
    "base/settings.py",
    "base/loading.py",
    "base/faults.py",
    "lists/settings.py",
    "lists/preferences.py",
    "cli/",
    "doctor/",
    "testing/",
)
GROUPS = {
    group.type.__name__: group.name
    for of in (Settings, ListSettings)
    for group in msgspec.structs.fields(of)
}
EVERY = [
    pytest.param(group.name, field.name, id=f"{of.__name__}.{group.name}.{field.name}")
    for of in (Settings, ListSettings)
    for group in msgspec.structs.fields(of)
    for field in msgspec.structs.fields(group.type)
]


@pytest.mark.parametrize(("group", "name"), EVERY)
def test_d21_every_setting_is_read_by_what_it_is_for(group: str, name: str) -> None:
    assert (group, name) in _reads(), f"nothing reads {group}.{name}"


@lru_cache(maxsize=1)
def _reads() -> frozenset[tuple[str, str]]:
    """Attributes of groups of settings that the source reads."""
    files = [file for file in SRC.rglob("*.py") if not _is_no_use(file)]
    return frozenset(read for file in files for read in _reads_of(ast.parse(file.read_text())))


def _is_no_use(file: Path) -> bool:
    return file.relative_to(SRC).as_posix().startswith(NO_USE)


def _reads_of(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """`settings.smtp.port`; `smtp.port` where smtp is said, or was made, to be that group."""
    stands_for: dict[str, set[str]] = {}
    for name, group in (pair for node in ast.walk(tree) for pair in _named(node)):
        stands_for.setdefault(name, set()).add(group)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        if isinstance(node.value, ast.Attribute):
            yield node.value.attr, node.attr
        for group in stands_for.get(_last(node.value), ()):
            yield group, node.attr


def _named(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Names that stand for a group from here on: `smtp: Smtp`, `smtp = settings.smtp`."""
    if isinstance(node, ast.arg) and node.annotation is not None:
        if group := GROUPS.get(_last(node.annotation)):
            yield node.arg, group
    elif isinstance(node, ast.AnnAssign):
        if group := GROUPS.get(_last(node.annotation)):
            yield _last(node.target), group
    elif isinstance(node, ast.Assign):
        target, value = node.targets[0], node.value
        pairs: list[tuple[ast.expr, ast.expr]] = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = list(zip(target.elts, value.elts, strict=True))
        for target, value in pairs:
            if isinstance(value, ast.Attribute) and value.attr in GROUPS.values():
                yield _last(target), value.attr


def _last(node: ast.AST) -> str:
    """`c` of `a.b.c`."""
    return getattr(node, "attr", "") or getattr(node, "id", "")
