"""OpenSMTPD as the client: where it does not do what a client of LMTP should (version 6.8).

For: knowing what our documentation has to say, and that nothing is lost or doubled by it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from postroom.base.places import Tcp
from postroom.testing.site import Site
from tests.integration.mail import new_message
from tests.integration.sites import Sites
from tests.interop.mail import (
    NO_MAILBOX,
    Since,
    arrived,
    hand_in,
    listening_at,
    message_id,
    unix_socket,
    until,
)
from tests.interop.opensmtpd import OpenSMTPD

TCP, UNIX, STRICT = "tcp.example.com", "unix.example.com", "strict.example.com"


class Pair(NamedTuple):
    """A server and the OpenSMTPD that delivers to it; `strict` refuses at RCPT."""

    site: Site
    strict: Site
    opensmtpd: OpenSMTPD


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """All of them running."""
    with unix_socket() as place, Sites() as made:
        site = listening_at(made, place, f"mylist@{TCP}", f"mylist@{UNIX}")
        strict = made.start(f"mylist@{STRICT}", LMTP__REFUSE_UNKNOWN="at-rcpt")
        tcp, other = Tcp("127.0.0.1", site.port), Tcp("127.0.0.1", strict.port)
        with OpenSMTPD({TCP: tcp, UNIX: place, STRICT: other}) as opensmtpd:
            yield Pair(site, strict, opensmtpd)


def test_who_is_refused_at_rcpt_is_bounced_and_the_valid_one_is_sent(pair: Pair) -> None:
    raw = new_message()
    recipients = [f"nobody@{STRICT}", f"mylist@{STRICT}", f"mylist-bogus@{STRICT}"]
    log = Since(pair.opensmtpd)
    hand_in(pair.opensmtpd, recipients, raw)
    log.line(pair.opensmtpd.says_bounced(recipients[0]))
    log.line(pair.opensmtpd.says_sent(recipients[1]))
    log.line(pair.opensmtpd.says_bounced(recipients[2]))
    arrived(pair.strict, pair.opensmtpd, message_id(raw))


def test_its_relay_reads_one_reply_for_each_attempt_and_nothing_is_doubled(pair: Pair) -> None:
    raw = new_message()
    recipients = [f"mylist@{TCP}", f"mylist-leave@{TCP}"]
    log = Since(pair.opensmtpd)
    hand_in(pair.opensmtpd, recipients, raw)
    # Replies that come together are too many for it: it takes the first and tries again.
    log.line(('result="TempFail" stat="Remote host sent too much data"',))
    for each in recipients:
        log.line(pair.opensmtpd.says_sent(each))
    found = arrived(pair.site, pair.opensmtpd, message_id(raw), 2)
    assert sorted(each.where[1] for each in found) == ["", "leave"]


def test_its_delivery_agent_tries_the_unknown_again_and_delivers_to_the_valid(pair: Pair) -> None:
    raw = new_message()
    log = Since(pair.opensmtpd)
    hand_in(pair.opensmtpd, [f"nobody@{UNIX}", f"mylist@{UNIX}"], raw)
    log.line(pair.opensmtpd.says_sent(f"mylist@{UNIX}"))
    line = log.line((f" to=<nobody@{UNIX}> ", "result=TempFail"))
    assert f"LMTP server error: {NO_MAILBOX}" in line
    arrived(pair.site, pair.opensmtpd, message_id(raw))
    until(
        pair.opensmtpd,
        lambda: pair.opensmtpd.waiting().count("\n") == 1,
        "only one recipient left to deliver to",
    )
