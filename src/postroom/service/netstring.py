"""Netstrings: octets with their length in front, `5:hello,`.

For: the requests and replies of look-ups (cr.yp.to/proto/netstrings.txt). Pure. Guarantees:
nothing is read twice, so cutting takes linear time however the octets arrive. Fails with
`NetstringError` as soon as what is there cannot become a netstring that is short enough.
"""

import re

_HEAD = re.compile(rb"(0|[1-9][0-9]*):")
_HEAD_SO_FAR = re.compile(rb"0?|[1-9][0-9]*")


class NetstringError(ValueError):
    """These octets are no netstring, or one that is too long."""


def netstring(content: bytes) -> bytes:
    """`content` as a netstring."""
    return b"%d:%b," % (len(content), content)


def cut(octets: bytes | bytearray, start: int, most: int) -> tuple[bytes, int] | None:
    """The content of the netstring that begins at `start`, and where the next one begins.

    None if it is not all there yet. `most` is the length that is allowed. Raises
    `NetstringError`.
    """
    digits = len(str(most))
    head = _HEAD.match(octets, start, start + digits + 1)
    if head is None:
        if len(octets) - start > digits or not _HEAD_SO_FAR.fullmatch(octets, start):
            raise NetstringError("no length")
        return None
    length = int(head[1])
    if length > most:
        raise NetstringError("too long")
    first = head.end()
    end = first + length
    if len(octets) <= end:
        return None
    if octets[end] != ord(","):
        raise NetstringError("no comma at the end")
    return bytes(octets[first:end]), end + 1
