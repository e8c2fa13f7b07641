"""Addresses that are meant to be more than addresses: they are compared, and nothing else
(faults 33, 34)."""

import json

import pytest

from postroom.testing.site import Site
from tests.integration.mail import ACCEPTED, LIST, SENDER, create_lists, new_message, queued
from tests.integration.sites import Sites

INERT = (
    "../../mylist@example.com",
    '"../../../etc/passwd"@example.com',
    '"mylist/../mylist"@example.com',
    "mylist%@example.com",
    "%@example.com",
    "%s%n%x@example.com",
    "_ylist@example.com",
    "mylist'--@example.com",
    "\"x' OR '1'='1\"@example.com",
    '"\'; DROP TABLE mailing_list; --"@example.com',
    '"mylist@example.com"@example.com',
    '"mylist\\\x1b[2J"@example.com',
    '"mylist\\\x7f"@example.com',
    "mylist\t@example.com",
    "$(touch${IFS}x)@example.com",
    "`touch x`@example.com",
    "|mylist@example.com",
)
HIDDEN = (
    "my\u200blist@example.com",
    "mylist\u200b@example.com",
    "my\u00adlist@example.com",
    "mylist\ufeff@example.com",
    "\u202emylist@example.com",
    "m\u0443list@example.com",  # a Cyrillic letter
    "ｍylist@example.com",
    "mylist@ex\u0430mple.com",
    "mylist@example.com\u200b",
    "mylist-jo\u0131n@example.com",  # an i without its dot
    "post\u200bmaster@example.com",
)


def verdict(site: Site, address: str, raw: bytes) -> int:
    """What becomes of a message to this address and to the list: the code for the address."""
    with site.client() as client:
        assert client.lhlo("client.example.org").accepted
        assert client.docmd(f"MAIL FROM:<{SENDER}> SMTPUTF8").code == 250
        assert client.sock is not None
        client.sock.sendall(f"RCPT TO:<{address}>\r\nRCPT TO:<{LIST}>\r\nDATA\r\n".encode())
        at_rcpt, at_list, data = client.getreply(), client.getreply(), client.getreply()
        assert (at_list.code, data.code) == (250, 354)
        client.sock.sendall(raw + b".\r\n")
        answers = [client.getreply() for _ in range(1 + at_rcpt.accepted)]
        assert answers[-1] == ACCEPTED
        assert client.noop().accepted  # in step
        return at_rcpt.code if len(answers) == 1 else answers[0].code


@pytest.mark.parametrize("mode", ["after-data", "at-rcpt"])
def test_fault_33_and_34_no_address_is_more_than_an_address(sites: Sites, mode: str) -> None:
    site = sites.make(LMTP__REFUSE_UNKNOWN=mode)
    create_lists(site.store, LIST)
    site.start()
    files = {path.name for path in site.directory.iterdir()}
    messages = {address: new_message() for address in (*INERT, *HIDDEN)}
    codes = {address: verdict(site, address, raw) for address, raw in messages.items()}
    assert {codes[address] for address in HIDDEN} == {550}
    assert set(codes.values()) <= {550, 501}
    found = queued(site.store)
    assert [each.raw for each in found] == list(messages.values())
    assert {each.where for each in found} == {(LIST, "", "")}
    assert {path.name for path in site.directory.iterdir()} == files
    assert site.stop() == 0
    for line in site.log.read_text().splitlines():
        assert line.startswith("ready ") or json.loads(line)["level"] == "info"
