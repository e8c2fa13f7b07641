"""Posts that nobody would write: each ends as the rules say, through real processes, and none
of them in `shunt`; what goes out has its body octet for octet."""

import json
from collections.abc import Iterator

import pytest

from postroom.testing.site import Site
from tests.delivery.servers import MailServer
from tests.integration.deliveries import (
    BOTH,
    OWNER,
    body,
    entries,
    join,
    make,
    once,
    people,
    prefer,
    prepare,
    settle,
)
from tests.integration.mail import ACCEPTED, LIST, begin_data, end_data
from tests.integration.processes import Follower
from tests.integration.sites import Sites

READERS = people(3)
EVE = "eve@banned.example.org"
LARGE = "large@example.com"  # without a limit of size
HEAD = b"From: anne@example.org\r\nTo: mylist@example.com\r\nMessage-ID: <odd@example.org>\r\n"
TEXT = b"\r\nHello.\r\n"
MIXED = HEAD + b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="x"\r\n'
NESTED = b"".join(
    b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (n, n) for n in range(10_000)
)
WRAPPED = b"0123456789abcdef" * 4 + b"\r\n"

GO_OUT = {
    "a part that never ends": MIXED + b"\r\n--x\r\nContent-Type: text/plain\r\n\r\nHello\r\n",
    "no part at all": MIXED + b"\r\nHello.\r\n",
    "parts within parts": HEAD + NESTED,
    "base64 that is none": MIXED + b"\r\n--x\r\nContent-Transfer-Encoding: base64\r\n\r\n!=\r\n",
    "unknown charset": HEAD + b"Content-Type: text/plain; charset=klingon\r\n\r\n\xfe\xff\r\n",
    "a type that is none": HEAD + b"Content-Type: ;;;=\xff\r\n" + TEXT,
    "no From": HEAD.partition(b"\r\n")[2] + TEXT,
    "two From": HEAD + b"From: other@example.org\r\n" + TEXT,
    "two authors": b"From: a@example.org, b@example.org\r\nTo: mylist@example.com\r\n" + TEXT,
    "a From that is none": HEAD.replace(b"anne@", b"<<>\xff") + TEXT,
    "List-Id of another": HEAD + b"List-Id: <other.example.net>\r\n" + TEXT,
    "NUL in header and body": HEAD + b"Subject: a\0b\r\nX-Nul: \0\r\n\r\n\0Hello\0\r\n\0\r\n",
    "8-bit header": HEAD + b"Subject: caf\xe9 \xff\xfe\r\nX-Odd: \xc3\xa9\r\n" + TEXT,
    "broken encoded words": HEAD + b"Subject: =?utf-8?b?!!?= =?x?q?=0A=0DBcc:_x?=\r\n" + TEXT,
    "no Message-ID, no Date": b"From: anne@example.org\r\nTo: mylist@example.com\r\n" + TEXT,
    "no body": HEAD + b"\r\n",
    "lines that begin with dots": HEAD + b"\r\n.\r\n..\r\n.x\r\n",
    "one long line": HEAD + b"\r\n" + b"x" * 60_000 + b"\r\n",
    "a megabyte": HEAD + b"\r\n" + WRAPPED * 16_000,
    "Urgent (D19)": HEAD + b"Urgent: yes\r\nX-Loop: yes\r\nPrecedence: bulk\r\n" + TEXT,
}
STAY = {
    "own List-Id": (HEAD + b"List-Id: x <mylist.example.com>\r\n" + TEXT, "discarded", "loop"),
    "51 hops": (b"Received: by x\r\n" * 51 + HEAD + TEXT, "discarded", "loop"),
    "a megabyte of Subject": (
        HEAD + b"Subject: " + b"x" * 60_000 + b"\r\n y" * 250_000 + b"\r\n" + TEXT,
        "held",
        "too-big",
    ),
    "ten megabytes": (HEAD + b"\r\n" + WRAPPED * 160_000, "held", "too-big"),
    "100,000 addresses": (
        HEAD + b"Cc: " + b"a@b.example,\r\n " * 100_000 + b"x@y.example\r\n" + TEXT,
        "held",
        "too-big",
    ),
    "100 addresses": (
        HEAD + b"Cc: " + b"a@b.example, " * 100 + b"x@y.example\r\n" + TEXT,
        "held",
        "too-many-recipients",
    ),
    "nothing": (b"", "held", "not-named"),
    "no header": (b"\r\nHello.\r\n", "held", "not-named"),
    "no empty line": (b"Hello, this is no header\r\n", "held", "not-named"),
    "a command": (HEAD + b"Subject: unsubscribe\r\n" + TEXT, "held", "administrivia"),
    "banned": (HEAD.replace(b"anne@", b"eve@banned.") + TEXT, "rejected", "banned"),
    "banned program": (
        HEAD.replace(b"anne@", b"eve@banned.") + b"Auto-Submitted: auto-replied\r\n" + TEXT,
        "discarded",
        "banned",
    ),
}


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Site, MailServer]]:
    """One site for all; whatever they post, it goes on."""
    with MailServer() as server, Sites() as sites:
        site = make(sites, server)
        prepare(site, *READERS)
        prepare(site, *READERS, to=LARGE)
        join(site, OWNER, role="owner")
        join(site, EVE, role="nonmember")  # of strangers only one is told now and then
        prefer(site, {"posting.banned": "@banned.example.org"})
        prefer(site, {"posting.max_size": "0", "posting.require_named": "no"}, LARGE)
        site.start(roles=BOTH)
        yield site, server


@pytest.fixture
def site(running: tuple[Site, MailServer]) -> Site:
    return running[0]


@pytest.fixture
def server(running: tuple[Site, MailServer]) -> MailServer:
    """It remembers nothing of the posts before."""
    running[1].taken.clear()
    return running[1]


def decided(site: Site, raw: bytes, to: str = LIST, sender: str = "anne@example.org") -> list[str]:
    """Post something, and wait until all is done that is to be done: what became of it, and
    why."""
    stuffed = (b"\r\n" + raw).replace(b"\r\n.", b"\r\n..")[2:]
    # Two, as the processes may write their lines in any order.
    with Follower(site.log) as door, Follower(site.log) as runners, site.client() as client:
        begin_data(client, [to], sender)
        assert end_data(client, stuffed, 1) == [ACCEPTED]
        (number,) = json.loads(door.wait_for('"event":"accepted"'))["entries"]
        said = json.loads(runners.wait_for(f'"entry":"{number}"'))
    settle(site)
    return [said["event"], said.get("reason", "")]


@pytest.mark.parametrize("raw", GO_OUT.values(), ids=GO_OUT)
def test_it_goes_out_and_its_body_is_unchanged(site: Site, server: MailServer, raw: bytes) -> None:
    assert decided(site, raw) == ["post accepted", "accepted"]
    (taken,) = server.taken
    assert list(taken.recipients) == READERS
    assert body(taken.content) == body(raw)
    head = taken.content.partition(b"\r\n\r\n")[0].lower()
    assert head.count(b"\r\nlist-id:") == 1
    assert b"\r\nlist-id: mylist <mylist.example.com>" in head
    assert not any(line.startswith(b"bcc:") for line in head.split(b"\r\n"))


@pytest.mark.parametrize(("raw", "what", "why"), STAY.values(), ids=STAY)
def test_it_does_not_go_out_and_the_reason_is_known(
    site: Site, server: MailServer, raw: bytes, what: str, why: str
) -> None:
    before = len(entries(site, "held"))
    sender = EVE if why == "banned" else "anne@example.org"
    assert decided(site, raw, sender=sender) == [f"post {what}", why]
    assert not {email for taken in server.taken for email in taken.recipients} & set(READERS)
    held = entries(site, "held")[before:]
    assert [(each.raw, each.metadata["reason"]) for each in held] == (
        [(raw, why)] if what == "held" else []
    )
    told = [taken for taken in server.taken if sender in taken.recipients]
    assert what == "held" or len(told) == (what == "rejected")
    for notice in server.taken:
        assert notice.sender in ("", OWNER)  # what bounces comes back to no list
        assert b"\r\nAuto-Submitted: auto-" in b"\r\n" + notice.content


def test_a_line_that_is_no_field_ends_the_header_for_everybody(
    site: Site, server: MailServer
) -> None:
    rest = b"\xc3\xa9\0: x\r\nBcc: eve@example.org\r\n" + TEXT
    assert decided(site, HEAD + rest) == ["post accepted", "accepted"]
    (taken,) = server.taken
    assert body(taken.content) == rest


def test_ten_megabytes_go_out_where_there_is_no_limit(site: Site, server: MailServer) -> None:
    raw = HEAD + b"\r\n" + WRAPPED * 160_000
    assert decided(site, raw, LARGE) == ["post accepted", "accepted"]
    (taken,) = server.taken
    assert body(taken.content) == body(raw)


@pytest.mark.parametrize("to", ["mylist-owner@example.com", "postmaster@example.com"])
def test_mail_for_owners_reaches_them_unchanged_and_no_reader(
    site: Site, server: MailServer, to: str
) -> None:
    raw = HEAD + b"Subject: \xff\0\r\n\r\n\0.\r\n\xff\r\n"
    assert decided(site, raw, to) == ["passed to the owners", ""]
    (taken,) = server.taken
    assert once(*taken.recipients) == once(OWNER)
    assert body(taken.content) == body(raw)
