"""Lists the settings that a list has, from where they are defined.

`python docs/settings.py` prints the tables that docs/lists.md holds, one for each group; a test
keeps the two the same.
"""

from collections.abc import Iterator
from typing import Literal, get_args, get_origin

from postroom.lists.preferences import KINDS, describe, in_words
from postroom.lists.settings import ListSettings

WORDS = {str: "text", bool: "yes or no", int: "a whole number", float: "a number"}


def tables() -> dict[str, str]:
    """A table for each group of settings."""
    rows: dict[str, list[str]] = {}
    for key, _, default, meaning in describe(ListSettings()):
        group = key.partition(".")[0]
        shown = f"`{in_words(default)}`" if in_words(default) else "nothing"
        row = f"| `{key}` | {_allowed(KINDS[key].plain)} | {shown} | {meaning} |"
        rows.setdefault(group, []).append(row)
    return {group: "\n".join(_table(lines)) for group, lines in rows.items()}


def _table(rows: list[str]) -> Iterator[str]:
    yield "| setting | may be | default | meaning |"
    yield "|---|---|---|---|"
    yield from rows


def _allowed(kind: object) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(kind))
    if get_origin(kind) is tuple:
        return "several"
    return next(words for each, words in WORDS.items() if each is kind)


if __name__ == "__main__":
    print("\n\n".join(tables().values()))
