"""Seeds from the golden dialogues of tests/wire.

For: inputs that already reach far. Guarantees: what is too long to be mutated well is left
out. Fails with `DialogueError` if a dialogue cannot be read.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.wire.dialogue import Dialogue, load_all

FOLDER = Path(__file__).parent.parent / "tests" / "wire"
_DATA = re.compile(rb"(?i:DATA)\r\n(.*?\r\n\.\r\n|.*)", re.DOTALL)
_ARGUMENT = re.compile(rb"(?i:MAIL|RCPT|BDAT) ([^\r\n]*)")


@cache
def dialogues(longest: int = 2048) -> tuple[Dialogue, ...]:
    """All dialogues whose client says no more than `longest` octets."""
    return tuple(each for each in load_all(FOLDER) if len(each.sent) <= longest)


def bodies() -> Iterator[bytes]:
    """What clients send after DATA, its end included where there is one."""
    for each in dialogues():
        yield from _DATA.findall(each.sent)


def arguments() -> Iterator[bytes]:
    """What clients send after MAIL, RCPT and BDAT."""
    for each in dialogues():
        yield from _ARGUMENT.findall(each.sent)
