"""Posts through Exim, OpenSMTPD and sendmail and back, with what `postroom mta` prints for them.

None of them has XVERP: a part of the recipients, here all, get a transaction of their own, so
that a bounce names the member.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.integration.mail import postroom
from tests.integration.sites import Sites
from tests.interop.exim import Exim
from tests.interop.mail import MailServer, Printed, hand_in, message_id
from tests.interop.mailboxes import DOMAIN, GONE, Mailboxes
from tests.interop.office import (
    LISTS,
    ROLES,
    Office,
    open_list,
    post,
    posting_site,
    smtp_port,
)
from tests.interop.opensmtpd import OpenSMTPD
from tests.interop.sendmail import Sendmail
from tests.interop.test_printed import tables

# More than these mail servers let a client hand in, or deliver at once, in one session.
USERS = tuple(f"m{number}" for number in range(110))
MOTH, NOBODY = "m7", f"nobody@{DOMAIN}"


def exim(printed: Printed, mailboxes: Mailboxes, port: int) -> Exim:
    return Exim(printed=printed, mailboxes=mailboxes, port=port)


def opensmtpd(printed: Printed, mailboxes: Mailboxes, port: int) -> OpenSMTPD:
    return OpenSMTPD(printed=printed, mailboxes=mailboxes, port=port)


def sendmail(printed: Printed, mailboxes: Mailboxes, port: int) -> Sendmail:
    return Sendmail(printed=printed, mailboxes=mailboxes, port=port)


Make = Callable[[Printed, Mailboxes, int], AbstractContextManager[MailServer]]


@pytest.fixture(scope="module", params=[exim, opensmtpd, sendmail], ids=lambda each: each.__name__)
def office(request: pytest.FixtureRequest) -> Iterator[Office]:
    """All of it running."""
    make: Make = request.param
    with Sites() as made, Mailboxes(*USERS) as mailboxes:
        site = posting_site(made, DELIVERY__VERP_SHARE="1", SMTP__CONNECTIONS="1")
        open_list(site, "ants", *USERS)
        open_list(site, "bees", MOTH, GONE)
        open_list(site, "wasps", NOBODY, MOTH)
        text = postroom(site, "mta", make.__name__).stdout.decode()
        files = tables(site) if make is opensmtpd else {}
        with make(Printed(text, files), mailboxes, smtp_port(site)) as server:
            site.start(roles=ROLES)
            yield Office(site, server, mailboxes)


def test_a_post_reaches_every_member_once_and_names_them_in_the_envelope_sender(
    office: Office,
) -> None:
    ants = f"ants@{LISTS}"
    raw = post(ants, author=MOTH)
    hand_in(office.server, [ants], raw, f"{MOTH}@{DOMAIN}")
    for user, letter in office.letters(USERS, message_id(raw)).items():
        tag = office.tag("ants", f"{user}@{DOMAIN}")
        assert letter.return_path == f"ants-bounces+{tag}+{user}={DOMAIN}@{LISTS}"
        assert letter.header["List-Id"].endswith(f"<ants.{LISTS}>")
        assert letter.body.startswith(b"Hello.\n")
    # Exim: what came in after the first ten waits, unless it was told otherwise.
    assert "no immediate delivery" not in office.server.log.read_text()


def test_a_bounce_comes_to_the_address_that_names_the_member(office: Office) -> None:
    bees = f"bees@{LISTS}"
    raw = post(bees, author=MOTH)
    hand_in(office.server, [bees], raw, f"{MOTH}@{DOMAIN}")
    standing = office.counted("bees", GONE)
    assert standing.score == 1.0  # it counts in full: the address it came to is one of ours
    assert standing.status.startswith("5.")
    office.letters([MOTH], message_id(raw))


def test_who_is_refused_at_rcpt_is_a_bounce_with_its_reply(office: Office) -> None:
    wasps = f"wasps@{LISTS}"
    raw = post(wasps, author=MOTH)
    hand_in(office.server, [wasps], raw, f"{MOTH}@{DOMAIN}")
    assert office.counted("wasps", NOBODY).score == 1.0
    office.letters([MOTH], message_id(raw))
