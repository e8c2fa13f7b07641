"""The page on lists documents every template and every variable."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from postroom.notices.render import NAMES
from tests.notices.every import given_to_templates

PAGE = Path(__file__).parents[2] / "docs" / "lists.md"
SECTION = PAGE.read_text(encoding="utf-8").partition("\n## Notices\n")[2].partition("\n## ")[0]
GIVEN = given_to_templates()


def test_the_page_on_lists_documents_every_template() -> None:
    templates = SECTION.partition("| variable")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", templates, re.M)) == sorted(NAMES)


def test_the_page_on_lists_documents_every_variable_of_every_template() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", SECTION.partition("| variable")[2], re.M)
    said = {
        (template, variable)
        for variable, where in rows
        for template in (NAMES if where == "all" else re.findall(r"`(\w+)`", where))
    }
    assert said == {(name, each) for name, values in GIVEN.items() for each in values}


@pytest.mark.parametrize(
    ("template", "variable"),
    [
        ("held_summary", "posts"),
        ("request_summary", "requests"),
        ("reply", "commands"),
        ("bounce_summary", "members"),
    ],
)
def test_the_page_on_lists_documents_what_stands_in_a_table(template: str, variable: str) -> None:
    values = GIVEN[template][variable]
    assert isinstance(values, Sequence)
    (line,) = (each for each in SECTION.splitlines() if each.startswith(f"| `{variable}` |"))
    assert all(f"`{name}`" in line for name in values[0])
