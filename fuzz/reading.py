"""Target: what a message says, to those who read commands, and where it came from.

For: holding `reading` to what it promises of any bytes: nothing is raised, lines can be shown,
what the author wrote stands in the message and was not quoted, a source is a network.
"""

from collections.abc import Iterator
from ipaddress import ip_network

from fuzz.dialogues import bodies
from fuzz.target import Octets, Target
from postroom.reading.authentication import verdict
from postroom.reading.post import read
from postroom.reading.source import source_of
from postroom.reading.text import LONGEST, own_lines, without_quotes

SERVER = "mx.example.com"
SENDERS = ("", "anne@example.org", '"a b"@example.org', "änne@exämple.org", "a@b@c")


def check(data: bytes) -> None:
    """One octet chooses the sender; the rest is the message."""
    octets = Octets(data)
    sender = SENDERS[octets.number(below=len(SENDERS))]
    raw = octets.rest()
    post = read(raw, sender)
    assert all(each.isprintable() for each in (post.subject, post.author_name, *post.first_lines))
    assert post.size == len(raw)

    lines = own_lines(raw)
    assert all(each.isprintable() and len(each) <= LONGEST for each in lines)
    own = without_quotes(lines)
    said = iter(lines)
    assert all(each in said for each in own), "not in the message, or in another order"
    assert not any(each.startswith(">") for each in own)
    assert not own or (own[0] and own[-1])

    source = source_of(post)
    assert not source or ip_network(source).prefixlen in (32, 64)
    assert verdict(post, SERVER) in ("pass", "fail", "none")
    assert verdict(post, "") == "none"


def _seeds() -> Iterator[bytes]:
    html = b"Content-Type: text/html\r\n\r\n"
    server = b"Authentication-Results: " + SERVER.encode()
    mixed = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n"
    for raw in (
        b"From: Anne <anne@example.org>\r\nSubject: join\r\n\r\njoin\r\n",
        b"\r\naccept\r\n\r\nOn 5 Jan 2026, Anne <\r\na@example.org> wrote:\r\n> leave\r\nleave\r\n",
        b"\r\nAnne wrote:\r\n\r\n> leave\r\n\r\naccept\r\n-- \r\nBart\r\n",
        b"\r\naccept\r\nFrom: Anne\r\nSent: Monday\r\n\r\nleave\r\n",
        b"\r\naccept\r\n-----Original Message-----\r\nleave\r\nSent from my phone\r\n",
        html + b"<p>a&nbsp;&#65;<br><blockquote>b</blockquote><pre>\nc</pre>",
        html + b"<!-- x --><style>p</style><div class='gmail_quote'>b</div>",
        mixed + b"--x\r\n\r\nplain\r\n--x--\r\n",
        mixed + b"--x\r\nContent-Type: text/html\r\n\r\n<i>html\r\n--x\r\n\r\n\r\n--x--\r\nbelow",
        mixed + b"--x\r\nContent-Type: message/rfc822\r\n\r\n\r\ninside\r\n--x--\r\n",
        mixed + b"--x\r\nContent-Disposition: attachment\r\n\r\ninside\r\n--x--\r\n",
        b"Content-Transfer-Encoding: base64\r\n\r\nam9pbg==\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\nj=6Fin=\r\n\r\n",
        b"Content-Type: text/plain; charset=utf-16\r\n\r\nj\0o\0i\0n\0",
        b"Received: from x (y [192.0.2.1]) by z\r\n\r\n",
        b"Received: from [127.0.0.1]\r\n"
        b"Received: from [2001:db8::1] (helo=[192.0.2.1]) by z\r\n\r\n",
        server + b" 1; dmarc=fail (p=none)\r\nFrom: a@b.example\r\n\r\n",
        server + b'; spf=fail smtp.mailfrom="a b"@c;\r\n dkim=pass'
        b" reason=x header.d=b.example\r\nFrom: a@b.example\r\n\r\n",
        *bodies(),
    ):
        yield b"\0" + raw
        yield b"\1" + raw


TARGET = Target(
    check,
    _seeds,
    tokens=(
        b"Content-Type: text/html\r\n",
        b"Content-Type: multipart/mixed; boundary=x\r\n",
        b"Content-Transfer-Encoding: base64\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n",
        b"charset=utf-7",
        b"\r\n--x\r\n",
        b"\r\n--x--\r\n",
        b"From: ",
        b"Received: from [",
        b"helo=",
        b"192.0.2.1]",
        b"Authentication-Results: mx.example.com; ",
        b"dmarc=pass",
        b"spf=fail",
        b"smtp.mailfrom=",
        b"header.d=",
        b"<blockquote>",
        b"<script>",
        b"<pre>",
        b"<br>",
        b"&#",
        b"<!--",
        b" wrote:",
        b"On 5 ",
        b"\r\n> ",
        b"\r\n-- \r\n",
        b"----",
        b"\xe2\x80\x8b",
        b"\r\n\r\n",
    ),
    longest=600,
)
