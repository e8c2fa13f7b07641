"""Endpoints: what the addresses of a list promise.

For: reading a local part as list, sub-address and detail. Pure; any string is fit.
Guarantees: every reading is tried, the longest list name first, so a list whose own name
ends in a sub-address wins over that sub-address.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

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


@lru_cache(maxsize=4096)
def name_of(endpoint: Endpoint) -> str:
    """One text per endpoint, for telling whether two recipients are the same."""
    return f"{endpoint.list_id}/{endpoint.subaddress}+{endpoint.detail}"


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
        while plus >= 0:
            found.extend(_split(folded[:plus], local[plus + 1 :]))
            plus = folded.find("+", plus + 1)
        found.extend(_split(folded, ""))
        found.sort(key=lambda reading: -len(reading.list_name))
        yield from found
    else:
        yield from _split(folded, "")


def _split(name: str, detail: str) -> Iterator[Reading]:
    base, dash, suffix = name.rpartition("-")
    canonical = SUBADDRESSES.get(suffix)
    if dash and base and canonical:
        yield Reading(base, canonical, detail)


def shadowed(list_name: str) -> Reading | None:
    """The endpoint of another list that a list of this name would take the place of."""
    return next(_split(list_name, ""), None)
