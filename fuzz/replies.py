"""Replies as a client reads them, and what is right for every one of them.

For: cutting a server's output into replies. Fails with `AssertionError` on any line that is
no line of a reply: a wrong form, over 512 octets, an enhanced code of another class.
"""

import re
from typing import NamedTuple

_LINE = re.compile(
    rb"(?P<code>[245]\d\d|354)(?P<mark>[ -])(?:(?P<enhanced>[245]\.\d{1,3}\.\d{1,3}) )?"
    rb"[\x20-\x7e]*\r\n"
)
LONGEST = 512  # octets of a reply line (RFC 5321 4.5.3.1.5)


class Answer(NamedTuple):
    """One reply; `enhanced` is False if a line of it has no enhanced code."""

    code: int
    enhanced: bool
    wire: bytes


def answers(output: bytes) -> list[Answer]:
    """All replies of an output, which must end with the end of one."""
    found: list[Answer] = []
    lines: list[re.Match[bytes]] = []
    for line in output.splitlines(keepends=True):
        match = _LINE.fullmatch(line)
        assert match is not None and len(line) <= LONGEST, f"no reply line: {line!r}"
        lines.append(match)
        if match["mark"] == b" ":
            found.append(_answer(lines))
            lines = []
    assert not lines, f"a reply without its last line: {lines[-1][0]!r}"
    return found


def _answer(lines: list[re.Match[bytes]]) -> Answer:
    code = lines[0]["code"]
    for line in lines:
        assert line["code"] == code, f"two codes in one reply: {line[0]!r}"
        assert line["enhanced"] is None or line["enhanced"][:1] == code[:1], f"{line[0]!r}"
    enhanced = all(line["enhanced"] is not None for line in lines)
    return Answer(int(code), enhanced, b"".join(line[0] for line in lines))
