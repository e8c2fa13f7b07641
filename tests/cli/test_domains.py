"""`postroom domain`."""

import json

import pytest

from tests.cli.conftest import Run


def test_no_domains_yet_says_what_to_do(run: Run) -> None:
    assert run("domain", "ls").stdout == "No domains yet: postroom domain add example.com\n"
    assert json.loads(run("domain", "ls", "--json").stdout) == []


def test_a_domain_is_added_and_shown(run: Run) -> None:
    added = run("domain", "add", "Example.COM").stdout
    assert added == "added example.com\nNext: postroom list create mylist@example.com\n"
    assert "example.com" in run("domain", "ls").stdout
    assert json.loads(run("domain", "ls", "--json").stdout) == [
        {"mail_host": "example.com", "alias_of": None, "description": ""}
    ]


def test_an_alias_is_added_and_reaches_the_lists_of_its_domain(run: Run) -> None:
    run("list", "create", "ants@example.com")
    added = run("domain", "add", "example.net", "--alias-of", "example.com").stdout
    assert added == "added example.net: mail to NAME@example.net reaches NAME@example.com\n"
    assert run("domain", "ls").stdout.splitlines()[-1].split() == ["example.net", "example.com"]
    assert "ants@example.com" in run("list", "show", "ants@example.net").stdout


def test_a_domain_is_removed(run: Run) -> None:
    run("domain", "add", "example.com")
    assert run("domain", "remove", "EXAMPLE.com").stdout == "removed example.com\n"
    assert json.loads(run("domain", "ls", "--json").stdout) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("add", "example.com"), "domain example.com exists already"),
        (("add", "a b"), "cannot be a mail domain"),
        (("add", "example..org"), "cannot be a mail domain"),
        (("add", "b.com", "--alias-of", "none.com"), "domain none.com does not exist: add it"),
        (("add", "b.com", "--alias-of", "example.net"), "use --alias-of example.com"),
        (("remove", "none.com"), "domain none.com does not exist"),
        (("remove", "example.com"), "domain example.com has 1 lists: remove or rename them"),
        (("remove", "bare.com"), "domain bare.com has aliases (b.bare.com): remove them first"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    run: Run, arguments: tuple[str, ...], sentence: str
) -> None:
    run("list", "create", "ants@example.com")
    run("domain", "add", "example.net", "--alias-of", "example.com")
    run("domain", "add", "bare.com")
    run("domain", "add", "b.bare.com", "--alias-of", "bare.com")
    before = run("domain", "ls", "--json").stdout
    result = run("domain", *arguments, status=1)
    assert result.stderr.startswith("postroom: ")
    assert sentence in result.stderr
    assert result.stdout == ""
    assert run("domain", "ls", "--json").stdout == before


@pytest.mark.parametrize("host", ["exa\x1b[2Jmple.com", "exa\udcffmple.com", "exa‮mple.com"])
def test_a_host_that_cannot_be_printed_is_wrong_usage(run: Run, host: str) -> None:
    result = run("domain", "add", host, status=2)
    assert "holds what cannot be printed" in result.stderr
    assert host not in result.stderr
