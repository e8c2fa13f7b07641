"""Endpoints: what the addresses of a list promise.

For: reading a local part as list, sub-address and detail. Pure; any string is fit.
Guarantees: every reading that can name a list is tried, the longest list name first, so a
list whose own name ends in a sub-address wins over that sub-address; their number is
bounded by the length of a list name, however long the local part.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from postroom.mail.address import fold

# Sub-address as written -> its canonical form.
SUBADDRESSES: Final = {
    "bounces": "bounces",
    "confirm": "confirm",
    "join": "join",
    "leave": "leave",
    "owner": "owner",
    "request": "request",
    "subscribe": "join",
    "unsubscribe": "leave",
}
POSTMASTER: Final = "postmaster"  # RFC 5321 4.5.1
MAX_NAME: Final = 64  # octets of a list name (RFC 5321 4.5.3.1.1)
_LONGEST: Final = MAX_NAME + max(len(suffix) + 1 for suffix in SUBADDRESSES)


class Reading(NamedTuple):
    """One way to read a local part: list name, canonical sub-address ("" for a post) and
    what stands after "+" (case kept)."""

    list_name: str
    subaddress: str
    detail: str


class Endpoint(NamedTuple):
    """A valid recipient. `list_key` is the list's row id; None is the site's postmaster.

    `listname` is the posting address, `list_id` what never changes.
    """

    list_key: int | None
    list_id: str
    listname: str
    subaddress: str
    detail: str


def host_of(domain: str) -> str:
    """The one form of a domain name: folded, and in Unicode if it is an A-label, which is
    how a client without SMTPUTF8 writes it (RFC 5890 2.3.2.1)."""
    host = fold(domain)
    if "xn--" not in host:
        return host
    return ".".join(_unicode(label) if label[:4] == "xn--" else label for label in host.split("."))


def _unicode(label: str) -> str:
    try:
        found = label[4:].encode("ascii").decode("punycode")
        same = found.encode("punycode").decode() == label[4:]
    except UnicodeError:
        return label
    # Another spelling of a name, or one with hidden characters, must not match.
    return found if same and not found.isascii() and found.isprintable() else label


@lru_cache(maxsize=4096)
def name_of(endpoint: Endpoint) -> str:
    """One text per endpoint, for telling whether two recipients are the same."""
    # What an address cannot hold divides: a list-id may look like anything else.
    return f"{endpoint.list_id}\0{endpoint.subaddress}\0{endpoint.detail}"


def readings(local: str, folded: str) -> Iterator[Reading]:
    """All readings of a local part, longest list name first.

    `folded` is `local` in lower case, of the same length.
    """
    yield Reading(folded, "", "")
    if "-" not in folded:
        return
    if "+" in folded:
        found: list[Reading] = []
        plus = folded.find("+")
        while 0 <= plus <= _LONGEST:
            found.extend(_split(folded[:plus], local[plus + 1 :]))
            plus = folded.find("+", plus + 1)
        found.extend(_split(folded, ""))
        found.sort(key=lambda reading: -len(reading.list_name))
        yield from found
    else:
        yield from _split(folded, "")


def _split(name: str, detail: str) -> Iterator[Reading]:
    base, _, suffix = name.rpartition("-")
    canonical = SUBADDRESSES.get(suffix)
    if canonical and base and len(base) <= MAX_NAME:
        yield Reading(base, canonical, detail)


def shadowed(list_name: str) -> list[Reading]:
    """The endpoints of other lists that a list of this name takes the place of."""
    return list(readings(list_name, list_name))[1:]
