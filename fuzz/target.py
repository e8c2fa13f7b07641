"""What a fuzz target is."""

from collections.abc import Callable, Iterable
from random import Random
from typing import NamedTuple

Mutator = Callable[[bytes, Random], bytes]


class Target(NamedTuple):
    """One target.

    `check` raises if the code breaks a promise on these octets; `seeds` gives inputs to
    start from; `tokens` are words worth trying; `longest` is the size in octets of the
    largest input worth trying; `share` is its part of the time when all targets run;
    `mutate`, if there is one, changes an input in a way that keeps its structure.
    """

    check: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    tokens: tuple[bytes, ...]
    longest: int
    share: int = 1
    mutate: Mutator | None = None


class Octets:
    """An input taken apart from the front. Never fails: what is not there is zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def number(self, below: int) -> int:
        """A number from 0, out of one octet."""
        first, self._data = self._data[:1], self._data[1:]
        return first[0] % below if first else 0

    def take(self, count: int) -> bytes:
        """So many octets, or those there are."""
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))


def pieces(octets: bytes, lengths: bytes) -> list[bytes]:
    """`octets` cut into pieces of these lengths, over and over; a length of 0 is one of 1.

    With no length at all it is one piece.
    """
    found: list[bytes] = []
    at = 0
    while at < len(octets):
        length = max(1, lengths[len(found) % len(lengths)]) if lengths else len(octets)
        found.append(octets[at : at + length])
        at += length
    return found
