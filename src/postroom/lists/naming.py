"""Naming: whether lines of a list's settings name an address.

For: whoever asks who is banned, or what else a list is called. A line is an address, "@example.org"
(a domain and all below it), or "^PATTERN". Guarantees: bounded work, whatever the addresses; a
pattern that cannot be read names nobody. Pure, never raises.
"""

from collections.abc import Sequence
from typing import Final

from postroom.lists.endpoint import host_of
from postroom.lists.patterns import PatternError, compiled
from postroom.lists.roster import same_address
from postroom.mail.address import fold

MOST_MATCHED: Final = 100  # addresses that patterns are tried on
LONGEST: Final = 254  # characters of each; no longer address can be written to (RFC 5321)
MOST_LABELS: Final = 127  # of a domain name (RFC 1035 2.3.4)


def named_by(lines: Sequence[str], addresses: Sequence[str]) -> str:
    """The first of these addresses (as `same_address` gives them) that is named by a line; "" if
    there is none."""
    exact = {same_address(line) or fold(line) for line in lines if line[:1] not in ("@", "^")}
    hosts = {host_of(line[1:]) for line in lines if line.startswith("@")}
    patterns = [line for line in lines if line.startswith("^")]
    for place, address in enumerate(addresses):
        if address in exact or (hosts and hosts & _domains(address)):
            return address
        if place < MOST_MATCHED and any(_matches(each, address) for each in patterns):
            return address
    return ""


def _domains(address: str) -> set[str]:
    """The domain of an address and all above it."""
    labels = address.rpartition("@")[2].split(".")[-MOST_LABELS:]
    return {".".join(labels[place:]) for place in range(len(labels))}


def _matches(pattern: str, address: str) -> bool:
    try:
        return compiled(pattern).search(address[:LONGEST]) is not None
    except PatternError:
        return False
