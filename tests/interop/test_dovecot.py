"""Dovecot's LMTP proxy as the client.

UTF-8 addresses are left out: it does not offer SMTPUTF8 (version 2.3).
"""

import smtplib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from postroom.base.places import Tcp
from postroom.lmtp.client import LMTPClient
from postroom.testing.site import Site
from tests.integration.mail import new_message
from tests.integration.sites import Sites
from tests.interop.dovecot import Dovecot
from tests.interop.mail import (
    ANNE,
    HUGE,
    NO_MAILBOX,
    STORED,
    Since,
    ledger,
    marked,
    message_id,
    send_while_it_ends,
)

LAX, STRICT = "tcp.example.com", "strict.example.com"


class Chain(NamedTuple):
    """The servers by domain, and the Dovecot in front of them."""

    sites: dict[str, Site]
    dovecot: Dovecot

    def client(self) -> LMTPClient:
        return LMTPClient("127.0.0.1", self.dovecot.port)


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    """All of them running."""
    with Sites() as made:
        lax = made.start(f"mylist@{LAX}")
        strict = made.start(f"mylist@{STRICT}", LMTP__REFUSE_UNKNOWN="at-rcpt")
        sites = {LAX: lax, STRICT: strict}
        with Dovecot({d: Tcp("127.0.0.1", site.port) for d, site in sites.items()}) as dovecot:
            yield Chain(sites, dovecot)


@pytest.mark.parametrize("domain", [LAX, STRICT])
def test_a_post_arrives_with_its_envelope_sender(chain: Chain, domain: str) -> None:
    raw = new_message("Good morning.")
    with chain.client() as client:
        assert client.sendmail(ANNE, [f"mylist@{domain}"], raw) == {}
    [entry] = marked(chain.sites[domain], message_id(raw))
    assert (entry.queue, entry.sender) == ("in", ANNE)
    assert entry.where == (f"mylist@{domain}", "", "")
    assert entry.raw.endswith(b"\r\n\r\nGood morning.\r\n")


@pytest.mark.parametrize("domain", [LAX, STRICT])
def test_of_a_mixed_set_each_recipient_gets_its_own_reply(chain: Chain, domain: str) -> None:
    raw = new_message()
    valid = [f"mylist@{domain}", f"mylist-leave@{domain}"]
    unknown = [f"nobody@{domain}", f"mylist-bogus@{domain}"]
    log = Since(chain.dovecot)
    with chain.client() as client:
        refused = client.sendmail(ANNE, [unknown[0], valid[0], unknown[1], valid[1]], raw)
    said = "Requested action not taken: mailbox unavailable"
    assert refused == {each: (550, f"<{each}> {said}") for each in unknown}
    for recipient in valid:
        log.line((f"Sent message to <{recipient}>", STORED))
    for recipient in unknown if domain == LAX else ():  # of who is refused at RCPT it is silent
        log.line((f"to <{recipient}>", NO_MAILBOX))
    found = marked(chain.sites[domain], message_id(raw))
    assert sorted(each.where[1] for each in found) == ["", "leave"]


def test_a_bounce_with_the_null_sender_reaches_the_bounces_endpoint(chain: Chain) -> None:
    raw = new_message()
    with chain.client() as client:
        assert client.sendmail("", [f"mylist-bounces+ab23cd45+gone=example.com@{LAX}"], raw) == {}
    [entry] = marked(chain.sites[LAX], message_id(raw))
    assert (entry.queue, entry.sender) == ("bounces", "")
    assert entry.where == (f"mylist@{LAX}", "bounces", "ab23cd45+gone=example.com")


def test_a_message_of_almost_the_largest_size_arrives_whole(chain: Chain) -> None:
    raw = new_message(size=HUGE)
    with chain.client() as client:
        assert client.sendmail(ANNE, [f"mylist@{LAX}"], raw) == {}
    [entry] = marked(chain.sites[LAX], message_id(raw))
    assert entry.raw.endswith(raw)


def test_when_the_server_ends_in_mid_stream_its_client_hears_of_it_and_nothing_is_lost(
    chain: Chain,
) -> None:
    site = chain.sites[LAX]
    messages = [new_message() for _ in range(100)]

    def send(raw: bytes) -> bool:
        """Whether it is taken."""
        try:
            with chain.client() as client:
                client.sendmail(ANNE, [f"mylist@{LAX}"], raw)
        except smtplib.SMTPResponseException as error:
            assert 400 <= error.smtp_code < 500, error
            return False
        except smtplib.SMTPRecipientsRefused as error:
            assert all(400 <= code < 500 for code, _ in error.recipients.values()), error
            return False
        return True

    attempts = send_while_it_ends(site, send, messages)
    found = ledger(site, attempts)
    assert found.keys() == attempts.keys()
    # It writes a Received field of its own at each attempt, which does not make another message.
    assert set(found.values()) == {1}
