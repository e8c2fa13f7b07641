"""Commands by mail through Exim and OpenSMTPD. Postfix, in full: test_commands_postfix.py."""

from collections.abc import Iterator

import pytest

from postroom.lists.preferences import set_preferences
from postroom.lists.registry import find_list
from tests.integration.mail import postroom
from tests.integration.sites import Sites
from tests.interop.mail import Printed, hand_in, message_id
from tests.interop.mailboxes import Mailboxes
from tests.interop.office import LISTS, ROLES, Office, open_list, post, posting_site, smtp_port
from tests.interop.people import Person, goes_to, on, requests, text_of, token_of
from tests.interop.test_delivery_others import Make, exim, opensmtpd
from tests.interop.test_printed import tables

ANTS, WASPS = f"ants@{LISTS}", f"wasps@{LISTS}"
LONG = "a-list-whose-name-is-so-long-that-no-token-fits-or-anything-else"  # 64 octets


@pytest.fixture(scope="module", params=[exim, opensmtpd], ids=lambda each: each.__name__)
def office(request: pytest.FixtureRequest) -> Iterator[Office]:
    """All of it running; olga owns the lists."""
    make: Make = request.param
    with Sites() as made, Mailboxes("ann", "bob", "carol", "olga") as mailboxes:
        site = posting_site(made)
        for name in "ants", "wasps", LONG:
            open_list(site, name, "olga", role="owner")
        with site.store.begin() as connection:
            changes = {"subscriptions.join": "moderate"}
            set_preferences(connection, find_list(connection, WASPS).key, changes)
        text = postroom(site, "mta", make.__name__).stdout.decode()
        files = tables(site) if make is opensmtpd else {}
        with make(Printed(text, files), mailboxes, smtp_port(site)) as server:
            site.start(roles=ROLES)
            yield Office(site, server, mailboxes)


def test_a_person_joins_reads_and_leaves_by_answers_whatever_their_case(office: Office) -> None:
    ann = Person(office, "ann")
    ann.write(f"ants-join@{LISTS}")
    letter = ann.read()
    local, _, host = goes_to(letter).rpartition("@")
    assert local == f"ants-confirm+{token_of(letter)}"
    ann.answer(letter, to=f"{local.upper()}@{host}")
    assert "Welcome" in ann.read()["Subject"]
    raw = post(ANTS)
    hand_in(office.server, [ANTS], raw, ann.address)
    copy = ann.read()
    assert copy["Message-ID"].encode() == message_id(raw)
    ann.write(copy["List-Unsubscribe"].strip("<>").removeprefix("mailto:"), subject="unsubscribe")
    ann.answer(ann.read(), "Yes, please.")
    assert "no longer" in ann.read()["Subject"]
    assert (on(office, ANTS), requests(office, ANTS)) == (set(), [])


def test_owners_decide_by_reply_who_joins(office: Office) -> None:
    olga, bob = Person(office, "olga"), Person(office, "bob")
    bob.write(f"wasps-join@{LISTS}")
    assert "as soon as they agree" in " ".join(text_of(bob.read()).split())
    olga.answer(olga.read(), "accept")
    assert "is a member" in " ".join(text_of(olga.read()).split())
    assert on(office, WASPS) == {bob.address}


def test_a_list_whose_name_leaves_no_room_for_a_token_asks_at_its_address_for_commands(
    office: Office,
) -> None:
    carol = Person(office, "carol")
    carol.write(f"{LONG}-join@{LISTS}")
    letter = carol.read()
    assert goes_to(letter) == f"{LONG}-request@{LISTS}"
    carol.answer(letter, f"confirm {token_of(letter)}")
    assert "Welcome" in carol.read()["Subject"]
    assert on(office, f"{LONG}@{LISTS}") == {carol.address}
