"""The arguments of MAIL, RCPT and BDAT: any octets give a value or a refusal."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.lmtp.grammar import (
    Chunk,
    Mail,
    Refused,
    parse_chunk,
    parse_mail,
    parse_recipient,
)
from postroom.mail import reply
from postroom.mail.address import Mailbox

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_pieces = st.sampled_from(
    [*'<>"\\@:,.=[] \t\r\n\0\x851aä', "FROM:", "TO:", "from:", "SIZE=", "BODY=8BITMIME", "SMTPUTF8"]
)
_likely = st.lists(_pieces, max_size=15).map(lambda pieces: "".join(pieces).encode())
arguments = st.one_of(
    st.binary(),
    _likely,
    st.builds(lambda inside: b"FROM:<" + inside + b">", _likely),
    st.builds(lambda inside: b"TO:<" + inside + b">", _likely),
)
_chunks = st.builds(
    lambda number, rest: b"%d" % number + rest,
    st.integers(0, 10**20 - 1),
    st.one_of(st.sampled_from([b" LAST", b" last ", b"\tLAST"]), _likely),
)
_atoms = st.text("abcXYZ019.-_+=!#$%&'*/?^`{|}~", min_size=1, max_size=30)
_hosts = st.text("abcXYZ019.-_", min_size=1, max_size=30)


def refusal(parse: Callable[..., object], *given: object) -> reply.Reply:
    """The reply with which this is refused."""
    with pytest.raises(Refused) as refused:
        parse(*given)
    return refused.value.reply


@given(arguments)
def test_any_argument_of_mail_is_parsed_or_refused(argument: bytes) -> None:
    try:
        mail = parse_mail(argument)
    except Refused as refused:
        assert refused.reply.code // 100 == 5
    else:
        assert not _CONTROL.search(mail.sender)
        assert mail.sender.isascii() or mail.smtputf8


@given(arguments, st.booleans())
def test_any_argument_of_rcpt_is_parsed_or_refused(argument: bytes, smtputf8: bool) -> None:
    try:
        box = parse_recipient(argument, smtputf8)
    except Refused as refused:
        assert refused.reply.code // 100 == 5
    else:
        assert box.local and not _CONTROL.search(str(box))
        assert box.domain or box.local.lower() == "postmaster"
        assert str(box).isascii() or smtputf8


@given(_atoms, _hosts)
def test_the_short_way_for_common_addresses_agrees_with_the_long_way(local: str, host: str) -> None:
    """A space at the end, which is tolerated, makes the parser take the long way."""
    address = f"{local}@{host}"
    mail, rcpt = f"FROM:<{address}>".encode(), f"to:<{address}>".encode()
    assert parse_mail(mail) == parse_mail(mail + b" ") == Mail(address)
    box = parse_recipient(rcpt, False)
    assert box == parse_recipient(rcpt + b" ", False) == Mailbox(local, host)


def test_the_short_way_does_not_take_one_keyword_for_the_other() -> None:
    assert refusal(parse_mail, b"TO:<a@example.com>") is reply.BAD_SYNTAX
    assert refusal(parse_recipient, b"FROM:<a@example.com>", False) is reply.BAD_SYNTAX


@pytest.mark.parametrize(
    ("argument", "mail"),
    [
        (b"FROM:<>", Mail("")),
        (b"FROM:<> SIZE=12", Mail("", 12)),
        (b"from: <a@b>  size=007  body=7bit", Mail("a@b", 7)),
        (b'FROM:<"a b"@C> SMTPUTF8', Mail('"a b"@C', None, True)),
        (b"FROM:<@relay:a@b>", Mail("a@b")),
        (b"FROM:<a@b> BODY=BinaryMime SIZE=1", Mail("a@b", 1, False, True)),
        (b"FROM:<> SMTPUTF8 BODY=BINARYMIME", Mail("", None, True, True)),
        (b"FROM:<postmaster>", Mail("postmaster")),
        (b"FROM:<a@b> SIZE=99999999999999999999", Mail("a@b", 99999999999999999999)),
    ],
)
def test_mail_is_parsed(argument: bytes, mail: Mail) -> None:
    assert parse_mail(argument) == mail


@pytest.mark.parametrize(
    ("argument", "answer"),
    [
        (b"FROM:<a@b> SIZE=100000000000000000000", reply.BAD_PARAMETER),
        ("FROM:<a@b> SIZE=\u0661".encode(), reply.BAD_PARAMETER),
        (b"FROM:<a@b> SIZE=1 size=1", reply.BAD_PARAMETER),
        (b"FROM:<a@b> BODY=BINARY", reply.UNKNOWN_PARAMETER),
        (b"FROM:<a@b> BODY", reply.UNKNOWN_PARAMETER),
        (b"FROM:<a@b> RET=FULL", reply.UNKNOWN_PARAMETER),
        (b"FROM:<a@b>SIZE=1", reply.BAD_SENDER),
        (b"FROM:<a@b", reply.BAD_SENDER),
        (b"FROM:a@b", reply.BAD_SENDER),
        (b"FROM:<\xff@b>", reply.NOT_UTF8),
        ("FROM:<ä@b>".encode(), reply.NEED_SMTPUTF8),
        ("FROM:<a\x85@b> SMTPUTF8".encode(), reply.BAD_SENDER),
        (b"FROM:<" + b"x" * 1100 + b"@b>", reply.BAD_SENDER),
    ],
)
def test_mail_is_refused(argument: bytes, answer: reply.Reply) -> None:
    assert refusal(parse_mail, argument) is answer


@pytest.mark.parametrize(
    ("argument", "answer"),
    [
        (b"TO:<a@example.com> NOTIFY=NEVER", reply.UNKNOWN_PARAMETER),
        (b"TO:<nobody>", reply.BAD_RECIPIENT),
        (b'TO:<"">', reply.BAD_RECIPIENT),
        (b"TO:<a@example.com> \0", reply.BAD_RECIPIENT),
        (b"TO:<\xff@example.com>", reply.NOT_UTF8),
        ("TO:<ä@example.com>".encode(), reply.NEED_SMTPUTF8),
    ],
)
def test_rcpt_is_refused(argument: bytes, answer: reply.Reply) -> None:
    assert refusal(parse_recipient, argument, False) is answer


@pytest.mark.parametrize(
    ("argument", "chunk"),
    [
        (b"0", Chunk(0)),
        (b"17", Chunk(17)),
        (b"0 LAST", Chunk(0, last=True)),
        (b"00017 last", Chunk(17, last=True)),
        (b"17 \t LaSt", Chunk(17, last=True)),
        (b"99999999999999999999", Chunk(99999999999999999999)),
        (b"17 LASTLY", Chunk(17, sound=False)),
        (b"17 LAST LAST", Chunk(17, sound=False)),
        (b"17 18", Chunk(17, sound=False)),
        (b"17 \xff\0", Chunk(17, sound=False)),
    ],
)
def test_bdat_is_parsed_wherever_it_has_a_number(argument: bytes, chunk: Chunk) -> None:
    """Item 44: whatever else is wrong with it, so many octets follow."""
    assert parse_chunk(argument) == chunk


@pytest.mark.parametrize(
    "argument",
    [b"", b"LAST", b"-1", b"+1", b"1.5", b"0x10", b"17LAST", b"1_0", b"1" * 21, "\u0661".encode()],
)
def test_bdat_without_a_number_is_refused(argument: bytes) -> None:
    assert refusal(parse_chunk, argument) is reply.BAD_CHUNK


@given(st.one_of(st.binary(), _chunks))
def test_any_argument_of_bdat_is_parsed_or_refused(argument: bytes) -> None:
    try:
        chunk = parse_chunk(argument)
    except Refused as refused:
        assert refused.reply is reply.BAD_CHUNK
    else:
        assert argument.lstrip(b"0").startswith(str(chunk.octets).encode().lstrip(b"0"))
        assert not chunk.last or (chunk.sound and b"LAST" in argument.upper())


@pytest.mark.parametrize("filler", [b'"', b"\\", b'\\"', b'"a"', b"<", b"@a,", b"a"])
def test_a_line_full_of_what_makes_parsers_slow_is_still_answered(filler: bytes) -> None:
    """Time is linear: what could backtrack is tried at the length that a session allows."""
    argument = b"TO:<" + (filler * 4096)[:4000]
    assert refusal(parse_recipient, argument, True) is reply.BAD_RECIPIENT
    assert refusal(parse_recipient, argument + b">", True) is reply.BAD_RECIPIENT
