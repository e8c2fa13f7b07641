"""Runs the examples of the pages in this directory as tests."""

from doctest import ELLIPSIS, IGNORE_EXCEPTION_DETAIL

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from postroom.testing import site


def _teardown(_: object) -> None:
    site.forget()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=ELLIPSIS | IGNORE_EXCEPTION_DETAIL)],
    pattern="*.md",
    teardown=_teardown,
).pytest()
