"""The pages say what is true: diagram, links to tests and files, settings."""

import re
import runpy
from pathlib import Path

import msgspec
import pytest

from postroom.base.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_state_diagram_is_made_from_the_table_of_legal_order() -> None:
    mermaid = runpy.run_path(str(ROOT / "docs" / "diagram.py"))["mermaid"]()
    assert mermaid in (ROOT / "docs" / "architecture.md").read_text()


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
