"""Every input of every corpus, and every seed, breaks nothing; no atheris is needed."""

from collections.abc import Iterator

import pytest

from fuzz.run import CORPUS
from fuzz.targets import TARGETS


def known(name: str) -> Iterator[bytes]:
    """All inputs for a target that are part of the repository."""
    yield from TARGETS[name].seeds()
    for each in sorted((CORPUS / name).iterdir()):
        yield each.read_bytes()


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_known_breaks_no_promise(name: str) -> None:
    inputs = list(known(name))
    for each in inputs:
        TARGETS[name].check(each)
    assert len(inputs) > 50


def test_every_corpus_is_that_of_a_target() -> None:
    assert {each.name for each in CORPUS.iterdir()} == TARGETS.keys()
