"""Templates: the packaged ones, and those of a site that may be wrong in every way."""

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment, meta, nodes

from postroom.notices.language import ENGLISH, LANGUAGES
from postroom.notices.render import LONGEST, MOST, NAMES, WIDTH, Templates, Text, Value, one_line
from tests.notices.every import given_to_templates
from tests.notices.house import log

VALUES: dict[str, Value] = {
    "list": "ants@example.com",
    "owner": "ants-owner@example.com",
    "id": "0ca67e92d7f5b000",
    "sender": "anne@example.org",
    "author": "anne@example.org",
    "subject": "Leaf cutting",
    "size": 1234,
    "reason": "You are not a member.",
}
OURS = "Your post to ants@example.com was not accepted"
Write = Callable[..., Text]


class Site:
    """A directory of templates, and the log of who reads it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        made, self._said = log()
        self.templates = Templates(str(directory), made)

    def put(self, path: str, source: str | bytes) -> None:
        """Put a template there."""
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(source if isinstance(source, bytes) else source.encode())

    def write(
        self, list_id: str = "ants.example.com", values: Mapping[str, Value] = VALUES
    ) -> Text:
        """The notice `rejected`."""
        return self.templates.write("rejected", values, list_id)

    @property
    def said(self) -> list[dict[str, str]]:
        """What the log holds."""
        return [json.loads(line) for line in self._said.getvalue().splitlines()]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


GIVEN = given_to_templates()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", NAMES)
def test_every_packaged_template_renders(name: str, language: str) -> None:
    made, said = log()
    text = Templates("", made).write(name, GIVEN[name], language=language)
    assert text.subject
    assert max(map(len, text.body.splitlines())) <= WIDTH
    assert "{" not in text.body
    assert "\n\n\n" not in text.body
    assert said.getvalue() == ""


def long(value: Any) -> Any:
    """The value with long text in place of all text."""
    if isinstance(value, str):
        return " ".join(["word"] * 80)
    if isinstance(value, Mapping):
        return {name: long(each) for name, each in value.items()}
    if isinstance(value, Sequence) and all(isinstance(each, Mapping) for each in value):
        return [long(each) for each in value]
    return value  # numbers, and lines, which are broken before they come to a template


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", NAMES)
def test_every_packaged_template_stays_within_its_columns(name: str, language: str) -> None:
    values = {key: long(value) for key, value in GIVEN[name].items()}
    body = Templates("", log()[0]).write(name, values, language=language).body
    assert max(map(len, body.splitlines())) <= WIDTH


def source(name: str, language: str) -> str:
    """The packaged template; English has no directory of its own."""
    place = files("postroom.notices").joinpath("templates", *([language] if language else []))
    return place.joinpath(f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("language", [each for each in LANGUAGES if each != ENGLISH])
@pytest.mark.parametrize("name", NAMES)
def test_a_template_uses_the_same_variables_in_every_language(name: str, language: str) -> None:
    english, other = (Environment().parse(source(name, each)) for each in ("", language))
    assert meta.find_undeclared_variables(other) == meta.find_undeclared_variables(english)
    fields = [{each.attr for each in tree.find_all(nodes.Getattr)} for tree in (english, other)]
    assert fields[0] == fields[1]
    assert source(name, language) != source(name, "")


@pytest.mark.parametrize("name", NAMES)
def test_a_template_uses_what_it_is_given(name: str) -> None:
    used = meta.find_undeclared_variables(Environment().parse(source(name, "")))
    assert used <= set(GIVEN[name])


def test_a_sites_template_takes_the_place_of_ours_and_a_lists_that_of_the_site(site: Site) -> None:
    assert site.write().subject == OURS
    site.put("rejected.txt", "Subject: No, {{ subject }}\n\nThe site says {{ reason }}\n")
    assert site.write() == Text("No, Leaf cutting", "The site says You are not a member.\n")
    site.put("ants.example.com/rejected.txt", "Subject: Sorry\n\nThe ants say no.\n")
    assert site.write() == Text("Sorry", "The ants say no.\n")
    assert site.write("bees.example.com").subject == "No, Leaf cutting"
    assert site.said == []


def test_own_templates_are_looked_for_by_list_then_language_then_site(site: Site) -> None:
    def subject(language: str, list_id: str = "ants.example.com") -> str:
        return site.templates.write("rejected", VALUES, list_id, language).subject

    assert (subject("en"), subject("de")[:3]) == (OURS, "Ihr")
    site.put("rejected.txt", "Subject: any\n\ntext\n")
    assert (subject("en"), subject("de")) == ("any", "any")
    site.put("de/rejected.txt", "Subject: German\n\ntext\n")
    assert (subject("en"), subject("de")) == ("any", "German")
    site.put("en/rejected.txt", "Subject: English\n\ntext\n")
    assert (subject("en"), subject("de")) == ("English", "German")
    site.put("ants.example.com/rejected.txt", "Subject: ants\n\ntext\n")
    assert (subject("en"), subject("de")) == ("ants", "ants")
    assert (subject("en", "bees.example.com"), subject("de", "")) == ("English", "German")
    site.put("ants.example.com/rejected.txt", BROKEN["syntax"])
    assert (subject("en"), subject("de")) == ("English", "German")


@pytest.mark.parametrize("language", ["fr", "", "..", "../templates/de", "/", "de\0"])
def test_a_language_that_is_not_there_is_english(site: Site, language: str) -> None:
    site.put("fr/rejected.txt", "Subject: French\n\ntext\n")
    assert site.templates.write("rejected", VALUES, "", language).subject == OURS
    assert site.said == []


def test_a_template_that_is_changed_is_used_at_once(site: Site) -> None:
    for word in ("one", "two"):
        site.put("rejected.txt", f"Subject: {word}\n\ntext\n")
        assert site.write().subject == word


BROKEN: dict[str, str | bytes] = {
    "syntax": "Subject: x\n\n{% if %}",
    "unknown variable": "Subject: x\n\n{{ nobody }}",
    "unknown field of a variable": "Subject: x\n\n{{ list.nobody }}",
    "unknown filter": "Subject: x\n\n{{ list|pprint }}",
    "no subject": "Dear author,\n\nno.\n",
    "empty subject": "Subject: \n\nno.\n",
    "subject that is empty when rendered": "Subject: {{ '' }}\n\nno.\n",
    "no blank line": "Subject: x\nno.\n",
    "no text": "Subject: x\n\n \n",
    "nothing": "",
    "not UTF-8": b"Subject: x\n\n\xff\n",
    "too long": "Subject: x\n\n" + "x" * MOST,
    "runaway loop": "Subject: x\n\n{% for i in range(10**9) %}x{% endfor %}",
    "runaway output": "Subject: x\n\n" + "{% for a in list %}" * 5 + "x" + "{% endfor %}" * 5,
    "runaway product": "Subject: x\n\n{{ 'x' * 999999999 }}",
    "runaway power": "Subject: x\n\n{{ 9 ** 9 ** 9 }}",
    "runaway format": "Subject: x\n\n{{ '%999999999d' % 1 }}",
    "runaway method": "Subject: x\n\n{{ list.ljust(999999999) }}",
    "any call": "Subject: x\n\n{{ list.upper() }}",
    "recursion": "Subject: x\n\n{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "another file": "Subject: x\n\n{% include '/etc/passwd' %}",
    "the interpreter": "Subject: x\n\n{{ ''.__class__.__mro__ }}",
    "division": "Subject: x\n\n{{ 1 // 0 }}",
}


@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN)
def test_a_broken_template_gives_way_and_the_log_says_so_once(
    site: Site, source: str | bytes
) -> None:
    site.put("ants.example.com/rejected.txt", source)
    assert [site.write().subject, site.write().subject] == [OURS, OURS]
    [line] = site.said
    assert line["event"] == "template not used"
    assert line["path"] == f"{site.directory}/ants.example.com/rejected.txt"
    assert line["reason"]


def test_a_lists_broken_template_gives_way_to_the_sites(site: Site) -> None:
    site.put("ants.example.com/rejected.txt", BROKEN["syntax"])
    site.put("rejected.txt", "Subject: The site's\n\ntext\n")
    assert site.write().subject == "The site's"


def test_a_template_that_breaks_anew_is_said_anew(site: Site) -> None:
    for source in (BROKEN["syntax"], "Subject: x\n\ngood\n", BROKEN["syntax"]):
        site.put("rejected.txt", source)
        site.write()
    assert len(site.said) == 2
    site.put("rejected.txt", BROKEN["no subject"])
    site.write()
    assert len(site.said) == 3


def test_a_template_that_is_no_file_or_may_not_be_read_gives_way(site: Site) -> None:
    (site.directory / "rejected.txt").mkdir()
    assert site.write().subject == OURS
    assert site.said[0]["reason"] == "this is no file"


def test_a_directory_that_is_not_there_is_said_when_it_is_opened(tmp_path: Path) -> None:
    made, said = log()
    templates = Templates(f"{tmp_path}/nowhere", made)
    assert "no such directory" in json.loads(said.getvalue())["reason"]
    assert templates.write("rejected", VALUES, "ants.example.com").subject == OURS


@pytest.mark.parametrize(
    "list_id",
    [
        "..",
        ".",
        "",
        "../secret",
        "/",
        "a/../../secret",
        "secret\n",
        "sec\0ret",
        ".hidden",
        "x" * 999,
    ],
)
def test_a_list_id_never_leads_out_of_the_directory(tmp_path: Path, list_id: str) -> None:
    site = Site(tmp_path / "inside")
    for place in (".", "secret", "inside/.hidden"):
        Site(tmp_path / place).put("rejected.txt", "Subject: outside\n\ntext\n")
    assert site.write(list_id).subject == OURS
    assert site.said == []


def test_an_absolute_list_id_leads_nowhere(tmp_path: Path) -> None:
    Site(tmp_path / "elsewhere").put("rejected.txt", "Subject: outside\n\ntext\n")
    assert Site(tmp_path / "inside").write(str(tmp_path / "elsewhere")).subject == OURS


def test_what_a_stranger_wrote_is_no_template(site: Site) -> None:
    text = site.write(values=VALUES | {"reason": "{{ 7 }} {% raw %} {# x #}"})
    assert "{{ 7 }} {% raw %} {# x #}" in text.body


HOSTILE = (
    "one\r\nBcc: all@example.com\n\n\x1b[2J\x00\x07 \u202egnp.exe \u2066 \ud800 two\u2028three\x85"
)


def test_line_ends_controls_and_bidi_do_not_survive(site: Site) -> None:
    site.put("rejected.txt", "Subject: {{ subject }}\n\n{{ subject }}.\n")
    text = site.write(values=VALUES | {"subject": HOSTILE})
    assert text.subject == (
        "one Bcc: all@example.com \ufffd[2J\ufffd\ufffd \ufffdgnp.exe \ufffd \ufffd two three"
    )
    assert text.body == f"{text.subject}.\n"


def test_what_stands_in_a_table_is_made_plain_too(site: Site) -> None:
    site.put("held_summary.txt", "Subject: x\n\n{% for p in posts %}{{ p.author }}{% endfor %}\n")
    rows = [{"author": HOSTILE}]
    text = site.templates.write("held_summary", {"posts": rows}, "")
    assert text.body.startswith("one Bcc: all@example.com")


@given(st.text(alphabet=st.characters(), max_size=3 * LONGEST))
def test_one_line_is_one_printable_line_of_bounded_length(text: str) -> None:
    found = one_line(text)
    assert len(found) <= LONGEST
    assert found.replace("\u200c", "").replace("\u200d", "").isprintable()
    assert one_line(found) == found
    if text.isprintable() and len(text) <= LONGEST:
        assert found == " ".join(text.split())


def test_persian_keeps_its_joiners() -> None:
    assert one_line("می\u200cخواهم") == "می\u200cخواهم"
