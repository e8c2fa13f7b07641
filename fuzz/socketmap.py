"""Target: look-ups of mail servers (socketmap_table(5)).

For: holding `service.netstring` to a reference that reads octet by octet, however the
octets are cut, and `service.maps` to what it promises: whatever is asked, each request gets
one answer that the protocol knows, and OK only if the registry says so.
"""

from collections.abc import Iterator

from fuzz.target import Octets, Target, pieces
from postroom.mail import reply
from postroom.mail.address import parse_mailbox
from postroom.service.maps import MAPS, Request, answers, understand
from postroom.service.netstring import NetstringError, cut, netstring

MOST = 300  # octets of a request; small, so that inputs reach it
WHERE = "lmtp:inet:127.0.0.1:8024"
REPLIES = (reply.RECIPIENT_OK, reply.NO_MAILBOX, reply.LOCAL_ERROR)


def check(data: bytes) -> None:
    """One octet says how many lengths follow, then the lengths, one octet for what the
    registry says, then what a client sends."""
    source = Octets(data)
    lengths = source.take(source.number(below=6))
    first = source.number(below=len(REPLIES))
    octets = source.rest()
    expected = _reference(octets)
    for parts in ([octets], pieces(octets, lengths), pieces(octets, b"\1")):
        assert _read(parts) == expected

    requests = [understand(each) for each in expected[0]]
    wanted = [each for each in requests if each.recipient is not None]
    replies = [REPLIES[(first + number) % len(REPLIES)] for number in range(len(wanted))]
    told = list(answers(requests, replies, WHERE))
    assert len(told) == len(requests)
    left = iter(replies)
    for asked, request, answer in zip(expected[0], requests, told, strict=True):
        _check_request(asked, request)
        said = next(left) if request.recipient is not None else None
        _check_answer(request, answer, said.accepted if said else None)
    # Replies that are missing are our trouble, not the sender's.
    missing = list(answers(requests, [], WHERE))
    for request, answer in zip(requests, missing, strict=True):
        assert request.recipient is None or answer.startswith("TEMP ")


def _check_request(asked: bytes, request: Request) -> None:
    name, _, key = asked.partition(b" ")
    assert request.map in ("", *MAPS) and (not request.map or request.map.encode() == name)
    if request.recipient is None:
        return
    assert request.key.encode() == key
    if request.map == "domains":
        assert request.recipient.local == "postmaster" and request.recipient.domain
    else:
        assert request.recipient == parse_mailbox(request.key)[0] and request.recipient.domain


def _check_answer(request: Request, answer: str, accepted: bool | None) -> None:
    status, space, text = answer.partition(" ")
    assert space and status in ("OK", "NOTFOUND", "TEMP", "PERM")
    assert (status == "OK") == (accepted is True)
    if accepted:
        assert text == (request.key if request.map == "recipients" else WHERE)
    assert status != "PERM" or not request.map
    wire = netstring(answer.encode())
    assert cut(wire, 0, len(wire)) == (answer.encode(), len(wire))


def _read(parts: list[bytes]) -> tuple[list[bytes], bool]:
    """All requests, and whether something malformed followed."""
    found: list[bytes] = []
    buffer, start = b"", 0
    try:
        for part in parts:
            buffer += part
            while (piece := cut(buffer, start, MOST)) is not None:
                content, start = piece
                found.append(content)
    except NetstringError:
        return found, True
    return found, False


def _reference(octets: bytes) -> tuple[list[bytes], bool]:
    found: list[bytes] = []
    while octets:
        head, colon, _ = octets[: len(str(MOST)) + 1].partition(b":")
        if head and (not head.isdigit() or (head[:1] == b"0" and head != b"0")):
            return found, True
        if not colon:
            return found, len(head) > len(str(MOST))
        if not head or int(head) > MOST:
            return found, True
        first = len(head) + 1
        end = first + int(head)
        if octets[end : end + 1] not in (b"", b","):
            return found, True
        if len(octets) <= end:
            return found, False
        found.append(octets[first:end])
        octets = octets[end + 1 :]
    return found, False


def _seeds() -> Iterator[bytes]:
    for name in (*MAPS, "others"):
        for key in ("ant@example.com", "example.com", "postmaster@example.com", "x", "", "@a", "é"):
            asked = f"{name} {key}".encode()
            yield b"\0\0" + netstring(asked)
            yield b"\2\3\1\1" + netstring(asked) * 3
    for odd in (b"0:,5:hello,", b"5:hello,05:hello,", b"5:hello;", b"301:", b"x"):
        yield b"\0\0" + odd


TARGET = Target(
    check,
    _seeds,
    tokens=(
        *(f"{name} ".encode() for name in MAPS),
        b"26:recipients ant@example.com,",
        b"22:domains xn--a.Example.c,",
        b"0:,",
        b"300:",
        b"301:",
        b"@example.com",
        b"postmaster@",
    ),
    longest=700,
)
