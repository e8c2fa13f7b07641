"""Language: what is said in German, what is said in English for want of it, and that nothing is
left to be translated."""

import ast
import io
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from string import Formatter
from typing import get_args, get_type_hints

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import read_mo
from babel.messages.pofile import read_po

import postroom
from postroom.lists.settings import Notices
from postroom.notices.language import ENGLISH, LANGUAGES, Sentence, say, sentence

SOURCES = Path(postroom.__file__).parent
OTHERS = [each for each in LANGUAGES if each != ENGLISH]
each_language = pytest.mark.parametrize("language", OTHERS)


def catalogue(language: str, suffix: str) -> Catalog:
    place = files("postroom.notices").joinpath("locale", language, "LC_MESSAGES")
    octets = io.BytesIO(place.joinpath(f"postroom.{suffix}").read_bytes())
    return read_po(octets, locale=language) if suffix == "po" else read_mo(octets)


def messages(language: str, suffix: str) -> dict[str, str]:
    """What a language has for each sentence."""
    return {str(each.id): str(each.string) for each in catalogue(language, suffix) if each.id}


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Where the sources make a sentence."""
    for file in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id == "sentence":
                yield f"{file.relative_to(SOURCES)}:{node.lineno}", node


def names_in(text: str) -> set[str]:
    """The names in braces."""
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


CALLS = dict(calls())


def test_there_are_sentences() -> None:
    assert len(CALLS) > 50
    assert len({str(each[2]) for each in found_by_babel()}) > 50


def found_by_babel() -> list[tuple[str, int, object, list[str], str | None]]:
    return list(extract_from_dir(str(SOURCES), keywords={"sentence": None}))


@pytest.mark.parametrize("place", CALLS)
def test_a_sentence_stands_where_it_is_found_and_names_what_is_put_in(place: str) -> None:
    call = CALLS[place]
    [text] = call.args
    assert isinstance(text, ast.Constant), "a sentence that is put together is never translated"
    assert isinstance(text.value, str)
    assert text.value
    given = {each.arg for each in call.keywords}
    assert None in given or given == names_in(text.value)


@each_language
def test_every_sentence_is_there_and_translated_and_no_other(language: str) -> None:
    known = messages(language, "po")
    assert set(known) == {str(each[2]) for each in found_by_babel()}, "run `make messages`"
    assert [text for text, said in known.items() if not said] == []
    assert [each.id for each in catalogue(language, "po") if each.id and each.fuzzy] == []


@each_language
def test_what_is_put_in_is_the_same_in_every_language(language: str) -> None:
    for text, said in messages(language, "po").items():
        assert names_in(said) == names_in(text), text


@each_language
def test_what_is_used_is_what_was_translated(language: str) -> None:
    assert messages(language, "mo") == messages(language, "po"), "run `make messages`"


def test_a_list_can_have_the_languages_there_are() -> None:
    assert get_args(get_type_hints(Notices)["language"]) == LANGUAGES


HOURS = sentence("{n} hours", n="4")


def test_a_sentence_is_said_in_the_language_that_is_asked_for() -> None:
    assert say(HOURS) == say(HOURS, "en") == "4 hours"
    assert say(HOURS, "de") == "4 Stunden"


@pytest.mark.parametrize("language", ["fr", "", "..", "de/../de", "de\0", "DE"])
def test_a_language_that_is_not_there_is_english(language: str) -> None:
    assert say(HOURS, language) == "4 hours"


def test_what_nobody_translated_is_said_in_english() -> None:
    assert say(Sentence("Nobody said {this} before.", {"this": "so"}), "de") == (
        "Nobody said so before."
    )


@pytest.mark.parametrize("hostile", ["{n}", "{0}", "{", "%s", "{n.__class__}", "one hour"])
def test_what_is_put_in_is_not_read(hostile: str) -> None:
    assert say(sentence("{n} hours", n=hostile), "de") == f"{hostile} Stunden"


def test_a_sentence_that_is_put_in_is_said_in_the_same_language() -> None:
    within = sentence("{n} minutes", n=sentence("one hour"))
    assert say(within) == "one hour minutes"
    assert say(within, "de") == "einer Stunde Minuten"


def test_a_value_may_have_any_name() -> None:
    assert say(sentence("{text}", text="x")) == "x"
