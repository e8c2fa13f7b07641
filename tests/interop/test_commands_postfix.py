"""Commands by mail through Postfix: joining, leaving, owners' decisions, and what is no answer."""

import re
import subprocess
from collections.abc import Iterator

import pytest

from postroom.lists.preferences import set_preferences
from postroom.lists.registry import find_list
from tests.integration.sites import Sites
from tests.interop.mail import hand_in, message_id
from tests.interop.mailboxes import DOMAIN, GONE, Mailboxes
from tests.interop.office import LISTS, ROLES, Office, open_list, post, posting_site
from tests.interop.people import (
    Person,
    audited,
    goes_to,
    on,
    requests,
    settle,
    text_of,
    token_of,
)
from tests.interop.test_delivery_postfix import BothWays
from tests.peers import need

USERS = ("ann", "bob", "carol", "dora", "eve", "fay", "gus", "hal", "olga", "root", "swan")
LONG = "a-list-whose-name-is-so-long-that-no-token-fits-or-anything-else"  # 64 octets


@pytest.fixture(scope="module")
def office() -> Iterator[Office]:
    """All of it running."""
    with Sites() as made, Mailboxes(*USERS) as mailboxes:
        site = posting_site(made)
        postfix = BothWays(site, mailboxes)
        site.start(roles=ROLES)
        with postfix:
            yield Office(site, postfix, mailboxes)


def opened(office: Office, name: str, **settings: str) -> str:
    """A list whose owner is olga; returns its address."""
    address = open_list(office.site, name, "olga", role="owner")
    with office.site.store.begin() as connection:
        changes = {key.replace("__", "."): value for key, value in settings.items()}
        set_preferences(connection, find_list(connection, address).key, changes)
    return address


def joined(office: Office, address: str, person: Person) -> None:
    """A person joins by mail."""
    person.write(address.replace("@", "-join@"))
    person.answer(person.read())
    assert "Welcome" in person.read()["Subject"]
    assert person.address in on(office, address)


def test_a_person_joins_reads_and_leaves_with_what_the_letters_say(office: Office) -> None:
    ants, ann = opened(office, "ants"), Person(office, "ann")
    joined(office, ants, ann)
    raw = post(ants, author="ann")
    hand_in(office.server, [ants], raw, ann.address)
    copy = ann.read()
    assert copy["Message-ID"].encode() == message_id(raw)
    ann.write(f"ants-leave@{LISTS}")
    letter = ann.read()
    assert on(office, ants) == {ann.address}
    ann.answer(letter)
    assert "no longer" in ann.read()["Subject"]
    assert on(office, ants) == set()
    whats = [what for what, by in audited(office, ants, ann.address) if by == ann.address]
    assert whats == ["asked", "joined", "asked", "left"]


def test_what_asks_comes_with_the_null_sender_and_no_program_may_answer_it(
    office: Office,
) -> None:
    ants, bob = opened(office, "ants"), Person(office, "bob")
    bob.write(f"ants-join@{LISTS}", "Hello, I would like to read this.\n", "Ants")
    letter = bob.read()
    assert letter["Return-Path"].strip() == "<>"
    assert letter["Auto-Submitted"].startswith("auto-")
    assert letter["To"] == bob.address
    assert goes_to(letter) == f"ants-confirm+{token_of(letter)}@{LISTS}"
    assert letter["Reply-To"] is None
    # A vacation program that knows neither sends its note all the same.
    note = b"From: %s\r\nTo: %s\r\nAuto-Submitted: auto-replied\r\n\r\nI am away.\r\n"
    to = goes_to(letter)
    for sender in bob.address, "":
        hand_in(office.server, [to], note % (bob.address.encode(), to.encode()), sender)
    settle(office)
    assert requests(office, ants) == [bob.address]
    bob.answer(letter)
    assert "Welcome" in bob.read()["Subject"]


@pytest.mark.parametrize("user", ["carol", "dora"])
def test_an_answer_arrives_whatever_programs_do_to_the_case_of_its_address(
    office: Office, user: str
) -> None:
    ants, person = opened(office, "ants"), Person(office, user)
    person.write(f"Ants-Join@{LISTS.upper()}")
    letter = person.read()
    local, _, host = goes_to(letter).rpartition("@")
    name, plus, token = local.partition("+")
    to = f"{name}{plus}{token.upper()}@{host}" if user == "carol" else f"{local}@{host}".upper()
    person.answer(letter, to=to)
    assert "Welcome" in person.read()["Subject"]
    assert person.address in on(office, ants)


@pytest.mark.parametrize(("policy", "asks"), [("confirm", True), ("open", False)])
def test_a_client_unsubscribes_with_the_mailto_of_a_post(
    office: Office, policy: str, asks: bool
) -> None:
    bees = opened(office, f"bees-{policy}", subscriptions__leave=policy)
    eve = Person(office, "eve")
    joined(office, bees, eve)
    raw = post(bees, author="eve")
    hand_in(office.server, [bees], raw, eve.address)
    found = re.search(r"<mailto:([^>?]+)", eve.read()["List-Unsubscribe"])
    assert found and found[1] == bees.replace("@", "-leave@")
    eve.write(found[1], "unsubscribe\n", "unsubscribe")
    if asks:
        eve.answer(eve.read())
    assert "no longer" in eve.read()["Subject"]
    assert on(office, bees) == set()


def test_who_writes_as_somebody_else_with_swaks_has_them_asked_even_on_an_open_list(
    office: Office,
) -> None:
    moths, swan = opened(office, "moths", subscriptions__join="open"), Person(office, "swan")

    def swaks(sender: str) -> None:
        command = ["--from", sender, "--h-From", swan.address, "--to", f"moths-join@{LISTS}"]
        server = ["--server", f"127.0.0.1:{office.server.port}", "--silent", "2"]
        subprocess.run([need("swaks"), *server, *command], check=True, timeout=60)
        settle(office)

    swaks("<>")
    assert requests(office, moths) == []
    swaks("other@example.net")
    assert requests(office, moths) == [swan.address]
    assert on(office, moths) == set()
    asked = swan.read()
    swaks(swan.address)
    assert "Welcome" in swan.read()["Subject"]
    assert (on(office, moths), requests(office, moths)) == ({swan.address}, [])
    swan.answer(asked)
    assert "not valid" in " ".join(text_of(swan.read()).split())


def test_owners_decide_by_reply_who_joins(office: Office) -> None:
    wasps = opened(office, "wasps", subscriptions__join="confirm-then-moderate")
    olga, fay, gus = (Person(office, user) for user in ("olga", "fay", "gus"))
    for person in fay, gus:
        person.write(f"wasps-join@{LISTS}")
        person.answer(person.read())
        assert "as soon as they agree" in " ".join(text_of(person.read()).split())
    assert on(office, wasps) == set()
    of_fay = olga.read_all(1)[0]  # of the others they are told in one summary
    assert fay.address in of_fay["Subject"]
    assert goes_to(of_fay) == f"wasps-confirm+{token_of(of_fay)}@{LISTS}"
    olga.answer(of_fay, "I have to think about it.")
    assert "Nothing is decided" in text_of(olga.read())
    olga.answer(of_fay, "Accept")
    assert "is a member" in " ".join(text_of(olga.read()).split())
    assert "Welcome" in fay.read()["Subject"]
    assert on(office, wasps) == {fay.address}
    assert audited(office, wasps, fay.address)[-1] == ("joined", olga.address)
    assert requests(office, wasps) == [gus.address]


def test_owners_reject_by_reply_and_the_person_is_told_their_reason(office: Office) -> None:
    flies = opened(office, "flies", subscriptions__join="moderate")
    olga, hal = Person(office, "olga"), Person(office, "hal")
    hal.write(f"flies-join@{LISTS}", subject="subscribe")
    hal.read()
    olga.answer(olga.read(), "reject This list is for flies.")
    olga.read()
    assert "This list is for flies." in text_of(hal.read())
    assert (on(office, flies), requests(office, flies)) == (set(), [])


def test_owners_decide_by_reply_on_a_held_post(office: Office) -> None:
    gnats, fay = opened(office, "gnats"), Person(office, "fay")
    open_list(office.site, "gnats", "gus")
    olga, gus = Person(office, "olga"), Person(office, "gus")
    raw = post(gnats, author="fay")
    hand_in(office.server, [gnats], raw, fay.address)
    asked = olga.read()
    assert goes_to(asked) == f"gnats-confirm+{token_of(asked)}@{LISTS}"
    olga.answer(
        asked, "accept", to=goes_to(asked).replace(token_of(asked), token_of(asked).upper())
    )
    assert gus.read()["Message-ID"].encode() == message_id(raw)
    assert fay.address in text_of(olga.read())


def test_a_list_whose_name_leaves_no_room_for_a_token_asks_at_its_address_for_commands(
    office: Office,
) -> None:
    long, ann = opened(office, LONG), Person(office, "ann")
    ann.write(f"{LONG}-join@{LISTS}")
    letter = ann.read()
    assert goes_to(letter) == f"{LONG}-request@{LISTS}"
    ann.answer(letter)  # the token stands in what is quoted alone
    assert on(office, long) == set()
    assert ann.read()["Auto-Submitted"] == "auto-replied"
    ann.answer(letter, f"confirm {token_of(letter)}")
    assert "Welcome" in " ".join(str(each["Subject"]) for each in ann.read_all(1))
    assert on(office, long) == {ann.address}


def test_the_longest_name_that_leaves_room_for_a_token_has_it_in_the_address(
    office: Office,
) -> None:
    name = "b" * 29
    address, bob = opened(office, name), Person(office, "bob")
    bob.write(f"{name}-join@{LISTS}")
    letter = bob.read()
    assert len(goes_to(letter).partition("@")[0]) == 64
    bob.answer(letter)
    assert "Welcome" in bob.read()["Subject"]
    assert on(office, address) == {bob.address}


def test_a_letter_that_comes_back_does_nothing(office: Office) -> None:
    ants = opened(office, "ants")
    head = f"From: {GONE}\r\nTo: ants-join@{LISTS}\r\nMessage-ID: <gone@{DOMAIN}>\r\n"
    hand_in(office.server, [f"ants-join@{LISTS}"], f"{head}\r\n\r\n".encode(), GONE)
    office.wait(lambda: GONE in requests(office, ants), "it is asked")
    settle(office)
    assert audited(office, ants, GONE) == [("asked", GONE)]
    assert GONE not in on(office, ants)
