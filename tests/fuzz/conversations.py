"""What clients say, from honest to hostile.

For: hypothesis strategies of whole conversations, as the octets that a client sends after
the greeting. What they must be answered with is for the ledger to say.
"""

from hypothesis import strategies as st

from fuzz.target import pieces

END = b".\r\n"
SENDERS = ("", "anne@example.org", '"a b"@example.org', "Bart.O'Neil+x=y@example.org")
# Recipients as written -> the endpoint they reach: posting address, sub-address, detail.
RECIPIENTS = {
    "ant@example.com": ("ant@example.com", "", ""),
    "ANT@Example.COM": ("ant@example.com", "", ""),
    '"ant"@example.com': ("ant@example.com", "", ""),
    "@relay.example.net:ant@example.com": ("ant@example.com", "", ""),
    "ant-join@example.com": ("ant@example.com", "join", ""),
    "ant-subscribe@example.com": ("ant@example.com", "join", ""),
    "ant-confirm+T0ken@example.com": ("ant@example.com", "confirm", "T0ken"),
    "ant-bounces@example.com": ("ant@example.com", "bounces", ""),
    "bee@example.com": ("bee@example.com", "", ""),
    "postmaster": ("", "", ""),
}
LISTS = ("ant@example.com", "bee@example.com")
MAX_SIZE = 100_000  # octets; more than what needs no reservation
MAX_RECIPIENTS = 4
EDGE = 500  # octets at either end of a conversation that are cut finely

_spaces = st.sampled_from(["", "", "", " "])
senders = st.builds("MAIL FROM:{}<{}>{}\r\n".format, _spaces, st.sampled_from(SENDERS), _spaces)
_recipients = st.builds(
    "RCPT TO:{}<{}>{}\r\n".format, _spaces, st.sampled_from([*RECIPIENTS]), _spaces
)
_unknown = st.sampled_from(
    ["nobody@example.com", "ant@example.net", "ant-nothing@example.com", "x" * 300 + "@example.com"]
).map("RCPT TO:<{}>\r\n".format)
recipients = st.one_of(_recipients, _recipients, _recipients, _unknown)

# What framing looks at, in the groups that matter, and what is too large.
_parts = st.sampled_from(
    [
        b"\r\n",
        b"\r\n.",
        b"\r\n..",
        b"\n.\n",
        b"\r.\r",
        b"\r\n.\r",
        b".",
        b"\n",
        b"\r",
        b"\0",
        b"\xff",
    ]
)
_texts = st.one_of(_parts, _parts, _parts, st.binary(max_size=20))
_long = st.sampled_from([70_000, MAX_SIZE - 2, MAX_SIZE, MAX_SIZE + 1]).map(
    lambda size: b"x" * size
)
messages = st.builds(
    b"".join,
    st.tuples(
        st.integers(0, 10**6).map(lambda number: b"Message-ID: <%d@example.org>\r\n" % number),
        st.one_of(st.lists(_texts, max_size=10).map(b"".join), _long),
    ),
)


def stuffed(message: bytes) -> bytes:
    """As DATA sends it: dots doubled, with the end."""
    if not message.endswith(b"\r\n"):
        message += b"\r\n"
    if message.startswith(b"."):
        message = b"." + message
    return message.replace(b"\r\n.", b"\r\n..") + END


@st.composite
def _chunked(draw: st.DrawFn) -> bytes:
    """A message in chunks; a size may be wrong, and then the rest is read as commands."""
    message = draw(messages)
    edges = sorted(draw(st.lists(st.integers(0, len(message)), max_size=3)))
    starts, ends = [0, *edges], [*edges, len(message)]
    said = b""
    for start, end in zip(starts, ends, strict=True):
        last = b" LAST" if end == ends[-1] and draw(st.integers(0, 9)) else b""
        said += b"BDAT %d%b\r\n" % (end - start + (not draw(st.integers(0, 40))), last)
        said += message[start:end]
    return said


data = messages.map(lambda message: b"DATA\r\n" + stuffed(message))
transactions = st.builds(
    lambda sender, boxes, message: (sender + "".join(boxes)).encode() + message,
    senders,
    st.lists(recipients, min_size=1, max_size=MAX_RECIPIENTS + 1),
    st.one_of(data, _chunked()),
)
honest = st.sampled_from(
    [b"LHLO client.example.org\r\n", b"RSET\r\n", b"NOOP\r\n", b"VRFY ant\r\n", b"HELP\r\n"]
)
odd = st.sampled_from(
    [
        b"lhlo  x \r\n",
        b"noop text <>@\\\r\n",
        b"RSET now\r\n",
        b"MAIL FROM:<anne@example.org> SIZE=99999999\r\n",
        b"MAIL FROM:<anne@example.org> BODY=BINARYMIME\r\n",
        b"MAIL FROM:<> RET=FULL\r\n",
        "MAIL FROM:<änne@example.org> SMTPUTF8\r\n".encode(),
        b"RCPT TO:<>\r\n",
        b"RCPT TO:<ant@example.com> NOTIFY=NEVER\r\n",
        b"DATA\r\n",
        b"DATA now\r\n",
        b"EHLO x\r\n",
        b"STARTTLS\r\n",
        b"AUTH PLAIN AAAA\r\n",
        b"BDAT 3\r\nabc",
        b"BDAT 0 LAST\r\n",
        b"BDAT 4 FIRST\r\nabcd",
        b".\r\n",
        b"\r\n",
    ]
)
hostile = st.one_of(
    st.sampled_from(
        [
            b"NOOP\n",
            b"RCPT TO:<ant@example.com>\n",
            b"BDAT many\r\n",
            b"BDAT 99999999999999999999 LAST\r\n",
            b"GET / HTTP/1.1\r\n",
            b"NOOP " + b"x" * 5000 + b"\r\n",
            b"x" * 70_000,
            b"\r\n" * 30,
            b"NOOP\r\n" * 120,
            b"QUIT\r\n",
            b"\0\r\n",
        ]
    ),
    st.binary(max_size=40),
)
_whole = st.builds(bytes.__add__, st.sampled_from([b"RSET\r\n", b""]), transactions)
_fragments = st.one_of(honest, senders.map(str.encode), recipients.map(str.encode), odd, data)
_said = st.one_of(_whole, _whole, _whole, _whole, transactions, _fragments, odd, hostile)
conversations = st.builds(
    lambda first, said: first + b"".join(said),
    st.sampled_from([b"LHLO client.example.org\r\n"] * 9 + [b""]),
    st.lists(_said, min_size=1, max_size=8),
)
_lengths = st.one_of(
    st.just(b""),  # in one piece
    st.binary(min_size=1, max_size=4),
    st.lists(st.sampled_from([1, 2, 5, 250]), min_size=1, max_size=4).map(bytes),
)


def _cut(octets: bytes, lengths: bytes) -> list[bytes]:
    """In pieces of these lengths; but the middle of a long one is one piece."""
    if len(octets) <= 2 * EDGE:
        return pieces(octets, lengths)
    middle = octets[EDGE:-EDGE]
    return [*pieces(octets[:EDGE], lengths), middle, *pieces(octets[-EDGE:], lengths)]


# Each with the pieces in which it is said.
cut_conversations = conversations.flatmap(
    lambda octets: _lengths.map(lambda lengths: (octets, _cut(octets, lengths)))
)
