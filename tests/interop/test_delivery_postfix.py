"""Posts from Postfix to postroom and back to the same Postfix, with what `postroom mta postfix`
prints for both ways: members, bounces, notices, owners, loops, and a mail server that is away.
"""

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from postroom.delivery.ledger import SENT
from postroom.spool.steps import Step, steps_of
from postroom.store.schema import delivery, transmission
from postroom.store.schema import post as posts
from postroom.testing.site import Site
from tests.integration.mail import postroom
from tests.integration.processes import RUNNERS, Follower, process_of
from tests.integration.sites import Sites
from tests.interop.mail import Since, hand_in, message_id
from tests.interop.mailboxes import DOMAIN, GONE, Mailboxes
from tests.interop.office import (
    LISTS,
    ROLES,
    Office,
    let_in,
    open_list,
    post,
    posting_site,
    smtp_port,
)
from tests.interop.postfix import Postfix, settings_of

USERS = ("ann", "bob", "carol", "dora", "olga", "root", "stranger")
AT_ONCE = 5  # members in one transaction, one transaction at a time
MANY = tuple(f"m{number}" for number in range(300))
NOBODY = f"nobody@{DOMAIN}"  # refused at RCPT
NOT_READABLE = b"\xe4\xf6\xfc \xff\r\n"


class BothWays(Postfix):
    """Hands posts to a site and takes what it sends; the users of `DOMAIN` have mailboxes."""

    def __init__(self, site: Site, mailboxes: Mailboxes) -> None:
        super().__init__(port=smtp_port(site))
        file = self.configuration / "main.cf"
        table = self.configuration / "users"
        table.write_text("".join(f"{each}@{DOMAIN} {each}/\n" for each in mailboxes.users))
        printed = settings_of(postroom(site, "mta", "postfix").stdout.decode())
        gone = GONE.rpartition("@")[2]
        settings = settings_of(file.read_text()) | {
            "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
            "virtual_mailbox_domains": DOMAIN,
            "virtual_mailbox_maps": f"texthash:{table}",
            "virtual_mailbox_base": str(mailboxes.directory),
            "virtual_uid_maps": "static:65534",
            "virtual_gid_maps": "static:65534",
            "virtual_alias_maps": f"inline:{{ {{ forward@{DOMAIN} = moths@{LISTS} }} }}",
        }
        settings |= printed
        settings["transport_maps"] = f"inline:{{ {gone}=virtual: }}, {printed['transport_maps']}"
        file.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))


@pytest.fixture(scope="module")
def office() -> Iterator[Office]:
    """All of it running."""
    with Sites() as made, Mailboxes(*USERS, *MANY) as mailboxes:
        site = posting_site(made, SMTP__RECIPIENTS=str(AT_ONCE), SMTP__CONNECTIONS="1")
        postfix = BothWays(site, mailboxes)
        site.start(roles=ROLES)
        with postfix:
            yield Office(site, postfix, mailboxes)


@contextlib.contextmanager
def at_a_standstill(site: Site) -> Iterator[None]:
    """The runners do nothing, and lose no connection by it."""
    runners = process_of(site.supervisor, RUNNERS)
    os.kill(runners, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(runners, signal.SIGCONT)


def steps(office: Office, raw: bytes) -> list[Step]:
    """What became of a post."""
    with office.site.store.read() as connection:
        return list(steps_of(connection, message_id(raw).decode()))


def test_a_post_reaches_every_member_once_and_its_body_as_it_was(office: Office) -> None:
    ants = open_list(office.site, "ants", "ann", "bob", "carol", "dora")
    body = b".\r\n..\r\n \r\n" + b"y" * 998 + b"\r\n" + NOT_READABLE + b"-- \r\nAnn\r\n\r\n\r\n"
    raw = post(ants, body=body)
    hand_in(office.server, [ants], raw, f"ann@{DOMAIN}", ["BODY=8BITMIME"])
    found = office.letters(["ann", "bob", "carol", "dora"], message_id(raw))
    for user, letter in found.items():
        assert letter.body == body.replace(b"\r\n", b"\n")
        assert letter.header["Delivered-To"] == f"{user}@{DOMAIN}"


def test_a_post_has_the_fields_of_its_list_and_the_trace_of_its_way(office: Office) -> None:
    ants = open_list(office.site, "ants", "ann", "bob")
    raw = post(ants)
    hand_in(office.server, [ants], raw, f"ann@{DOMAIN}")
    header = office.letter("bob", message_id(raw)).header
    assert header["From"] == f"ann@{DOMAIN}"
    assert header["List-Id"].endswith(f"<ants.{LISTS}>")
    assert header["List-Post"] == f"<mailto:{ants}>"
    assert header["List-Unsubscribe"] == f"<mailto:ants-leave@{LISTS}>"
    assert (header["Precedence"], header["X-Postroom-Loop"]) == ("list", f"ants.{LISTS}")
    # From below: handed in, through the door, back to Postfix.
    last, door, first = (" ".join(each.split()) for each in header.get_all("Received", []))
    assert "by mta.example.net (Postfix) with ESMTP" in first
    assert "from mta.example.net (127.0.0.1:" in door and f"by {LISTS} with LMTP id " in door
    assert f"from {LISTS} (localhost [127.0.0.1])" in last


def test_postfix_names_each_member_in_the_envelope_sender_of_one_copy_for_many(
    office: Office,
) -> None:
    readers = ["ann", "bob", "carol", "dora"]
    ants = open_list(office.site, "ants", *readers)
    raw, log = post(ants), Since(office.server)
    hand_in(office.server, [ants], raw, f"ann@{DOMAIN}")
    tag = office.tag("ants")
    for user, letter in office.letters(readers, message_id(raw)).items():
        assert letter.return_path == f"ants-bounces+{tag}+{user}={DOMAIN}@{LISTS}"
    log.line((f"from=<ants-bounces+{tag}@{LISTS}>", "nrcpt="))  # it is Postfix who names them
    statement = select(transmission.c.id).join(posts, posts.c.id == transmission.c.post)
    with office.site.store.read() as connection:
        mine = statement.where(posts.c.message_id == message_id(raw).decode())
        assert len(connection.execute(mine).all()) <= 2


def test_a_bounce_of_postfix_comes_to_the_address_that_names_the_member(office: Office) -> None:
    bees = open_list(office.site, "bees", "ann", "bob", GONE)
    raw = post(bees)
    hand_in(office.server, [bees], raw, f"ann@{DOMAIN}")
    office.letters(["ann", "bob"], message_id(raw))
    standing = office.counted("bees", GONE)
    assert standing.score == 1.0  # it counts in full: the address it came to is one of ours
    assert standing.status.startswith("5.")


def test_who_is_refused_at_rcpt_is_a_bounce_with_its_reply_and_others_get_the_post(
    office: Office,
) -> None:
    wasps = open_list(office.site, "wasps", "ann", NOBODY, "bob")
    raw = post(wasps)
    hand_in(office.server, [wasps], raw, f"ann@{DOMAIN}")
    office.letters(["ann", "bob"], message_id(raw))
    standing = office.counted("wasps", NOBODY)
    assert (standing.score, standing.status) == (1.0, "5.1.1")
    assert f"<{NOBODY}>: Recipient address rejected: User" in standing.reason


def test_the_owner_and_the_author_are_told_of_a_post_that_is_held(office: Office) -> None:
    ants = open_list(office.site, "ants", "ann")
    open_list(office.site, "ants", "olga", role="owner")
    raw = post(ants, author="stranger")
    hand_in(office.server, [ants], raw, f"stranger@{DOMAIN}")
    told = office.letter("olga", b"held")
    assert told.header["Auto-Submitted"] == "auto-generated"
    assert f"stranger@{DOMAIN}".encode() in told.raw
    assert office.letter("stranger", b"ants").header["Auto-Submitted"]
    office.settled()
    assert [each.what for each in steps(office, raw)] == ["received", "held"]
    assert office.mailboxes.of("ann", message_id(raw)) == []


def test_mail_for_owners_and_for_postmaster_reaches_people(office: Office) -> None:
    assert isinstance(office.server, Postfix)
    open_list(office.site, "ants", "ann")
    open_list(office.site, "ants", "olga", role="owner")
    owners, postmaster = f"ants-owner@{LISTS}", f"postmaster@{LISTS}"
    for to, reader in (owners, "olga"), (postmaster, "root"):
        raw = post(to, author="stranger")
        office.server.submit(f"stranger@{DOMAIN}", [to], raw.replace(b"\r\n", b"\n"))
        [letter] = office.letters([reader], message_id(raw)).values()
        assert letter.header["From"] == f"stranger@{DOMAIN}"
        assert letter.body == b"Hello.\n"


def test_a_list_that_is_a_member_of_a_list_gets_its_posts_and_the_other_way_round_it_ends(
    office: Office,
) -> None:
    bugs = open_list(office.site, "bugs", "ann", f"beetles@{LISTS}")
    open_list(office.site, "beetles", "bob", bugs)  # each is a member of the other
    for each in "bugs", "beetles":
        let_in(office.site, each)
    raw = post(bugs)
    hand_in(office.server, [bugs], raw, f"ann@{DOMAIN}")
    found = office.letters(["ann", "bob"], message_id(raw))
    assert found["bob"].header["List-Id"].endswith(f"<beetles.{LISTS}>")
    marks = found["bob"].header.get_all("X-Postroom-Loop", [])
    assert sorted(marks) == [f"beetles.{LISTS}", f"bugs.{LISTS}"]
    [ended] = [each for each in steps(office, raw) if each.what == "discarded"]
    assert (ended.list, ended.facts["reason"]) == (bugs, "loop")


def test_a_post_that_a_member_has_forwarded_to_the_list_ends_there(office: Office) -> None:
    moths = open_list(office.site, "moths", "ann", "bob", "forward")
    raw = post(moths)
    hand_in(office.server, [moths], raw, f"ann@{DOMAIN}")
    office.letters(["ann", "bob"], message_id(raw))
    discarded = [each for each in steps(office, raw) if each.what == "discarded"]
    assert [each.facts["reason"] for each in discarded] == ["loop"]


def test_a_post_reaches_everybody_though_postfix_is_stopped_in_the_middle(office: Office) -> None:
    assert isinstance(office.server, Postfix)
    many = open_list(office.site, "many", *MANY)
    let_in(office.site, "many")
    raw = post(many)
    hand_in(office.server, [many], raw, f"ann@{DOMAIN}")
    of_many = delivery.c.email.in_([f"{user}@{DOMAIN}" for user in MANY])
    sent = select(delivery.c.email).where(delivery.c.state == SENT, of_many)

    def reached() -> int:
        with office.site.store.read() as connection:
            return len(connection.execute(sent).all())

    office.wait(lambda: reached() >= 20, "some have it")
    with Follower(office.site.log) as log:
        with at_a_standstill(office.site):  # or all might have it before Postfix is stopped
            office.server.run("stop")
            assert reached() < len(MANY)
        log.wait_for('"event":"mail server"', '"trouble":')
    office.server.run("start")
    for user in MANY:
        office.letter(user, message_id(raw))
    office.settled()
    with office.site.store.read() as connection:
        again = set(connection.execute(sent.where(delivery.c.attempts > 1)).scalars())
    # Whose reply was lost after the dot is sent to again: nobody can know whether it was taken.
    copies = {user: len(office.mailboxes.of(user, message_id(raw))) for user in MANY}
    assert {f"{user}@{DOMAIN}" for user, number in copies.items() if number > 1} <= again
    assert len(again) <= AT_ONCE
