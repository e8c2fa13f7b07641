"""Language: sentences of ours in the language of a list.

For: replies to commands, whose sentences are made one by one. A sentence is written in English
where it is needed, with names in braces for what is put into it, and translated when it is said.
Guarantees: a language or a sentence that is not there is said in English; what is put in is never
read as a sentence. Whole letters have a template for each language (see `render`).
"""

from collections.abc import Mapping
from functools import lru_cache
from gettext import GNUTranslations, NullTranslations
from importlib.resources import files
from typing import Final, NamedTuple

ENGLISH: Final = "en"
LANGUAGES: Final = (ENGLISH, "de")


class Sentence(NamedTuple):
    """A sentence in English, and what is put into it; a sentence that is put in is said in the
    same language."""

    text: str
    values: "Mapping[str, str | int | Sentence]"


def sentence(text: str, /, **values: str | int | Sentence) -> Sentence:
    """A sentence to be said; its text is found by whoever collects what is to be translated, so
    it must stand here as it is."""
    return Sentence(text, values)


def say(what: Sentence, language: str = ENGLISH) -> str:
    """The sentence in a language."""
    values = {
        name: say(value, language) if isinstance(value, Sentence) else value
        for name, value in what.values.items()
    }
    return _catalogue(language).gettext(what.text).format(**values)


@lru_cache(maxsize=16)
def _catalogue(language: str) -> NullTranslations:
    """The sentences of a language; English where there are none."""
    found = files("postroom.notices").joinpath("locale", language, "LC_MESSAGES", "postroom.mo")
    if language == ENGLISH or language not in LANGUAGES or not found.is_file():
        return NullTranslations()
    with found.open("rb") as file:
        return GNUTranslations(file)
