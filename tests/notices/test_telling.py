"""Telling: who gets which notice, on both databases."""

import re
import time
from collections.abc import Sequence

import pytest
from sqlalchemy import Connection

from postroom.base.settings import DEFAULT_OWNER
from postroom.lists.audit import Change, write
from postroom.lists.keys import read_held_token, site_secret
from postroom.lists.pending import Request, Wanted, ask, waiting
from postroom.lists.preferences import set_preferences
from postroom.lists.registry import MailingList, create_list, rename_list
from postroom.lists.roster import add_members
from postroom.lists.settings import Notices
from postroom.lists.subscription import Policy, State
from postroom.mail.fields import take_apart
from postroom.notices.courtesy import AUTHORS_EVERY, DAY, HELD_EVERY, REJECTED_EVERY, SETTLED
from postroom.notices.letters import Stopped
from postroom.notices.telling import (
    bounce_summaries,
    pass_to_owners,
    summaries,
    tell_held,
    tell_mass,
    tell_rejected,
    tell_request,
)
from postroom.spool.handing import Handed, Letter, hand_on
from postroom.spool.held import Held, held, hold
from postroom.spool.ids import IdMaker
from postroom.spool.orders import order_of
from postroom.spool.queue import claim
from postroom.store.engine import Store
from tests.notices.every import read as read_message
from tests.notices.house import HEADER, NOW, POST, SITE_OWNER, house

HOUR = 3600.0
CARLA, DAN = "carla@example.net", "dan@example.com"
RAW = b"From: anne@example.org\r\nSubject: Help\r\n\r\nHelp!\r\n"


@pytest.fixture
def ants(store: Store) -> MailingList:
    """A list with an owner who is also moderator, and another moderator."""
    with store.begin() as connection:
        made = create_list(connection, "ants@example.com")
        add_members(connection, made.key, [(CARLA, "Carla")], "owner")
        add_members(connection, made.key, [(CARLA, ""), (DAN, "")], "moderator")
    return made


def envelopes(told: Sequence[Handed]) -> list[tuple[str, ...]]:
    return [tuple(sorted(order_of(each.metadata).recipients)) for each in told]


def reject(
    store: Store,
    ants: MailingList,
    now: float = NOW,
    post: Held = POST,
    automatic: bool = False,
    every: float = REJECTED_EVERY,
) -> Handed | str:
    with store.begin() as connection:
        return tell_rejected(connection, house(), ants, post, HEADER, "No.", automatic, now, every)


def reject_with(
    store: Store, ants: MailingList, header: bytes, every: float, now: float = NOW
) -> Handed | str:
    with store.begin() as connection:
        return tell_rejected(connection, house(), ants, POST, header, "No.", False, now, every)


def attached(told: Handed) -> bytes:
    """The part that holds the header of the post."""
    [beside] = read_message(told).iter_attachments()
    payload = beside.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload


def tell(
    store: Store,
    ants: MailingList,
    now: float = NOW,
    post: Held = POST,
    notices: Notices = Notices(),  # noqa: B008
    automatic: bool = False,
) -> list[tuple[str, ...]]:
    with store.begin() as connection:
        told = tell_held(connection, house(), ants, notices, post, ["Hi"], automatic, now)
    return envelopes(told)


STAFF = (CARLA, DAN)
AUTHOR = ("anne@example.org",)


def test_author_and_staff_are_told_of_a_held_post(store: Store, ants: MailingList) -> None:
    assert tell(store, ants) == [AUTHOR, STAFF]


def test_both_are_told_again_only_after_their_intervals(store: Store, ants: MailingList) -> None:
    told = {hours: tell(store, ants, NOW + hours * HOUR) for hours in (0, 1, 3.9, 4, 23, 24)}
    assert HELD_EVERY == 24 * HOUR
    assert told == {0: [AUTHOR, STAFF], 1: [], 3.9: [], 4: [STAFF], 23: [STAFF], 24: [AUTHOR]}


@pytest.mark.parametrize(
    ("notices", "expected"),
    [
        (Notices(authors=False), [STAFF]),
        (Notices(owners=False), [AUTHOR]),
        (Notices(owners=False, authors=False), []),
    ],
)
def test_the_lists_settings_say_who_is_told(
    store: Store, ants: MailingList, notices: Notices, expected: list[tuple[str, ...]]
) -> None:
    assert tell(store, ants, notices=notices) == expected


@pytest.mark.parametrize("sender", ["", "mailer-daemon@example.org", "ants-owner@example.com"])
def test_authors_that_must_not_be_answered_are_not_but_staff_is_told(
    store: Store, ants: MailingList, sender: str
) -> None:
    post = POST._replace(sender=sender)
    assert tell(store, ants, post=post) == [STAFF]
    assert isinstance(reject(store, ants, post=post), str)


def test_what_a_program_sent_is_not_answered(store: Store, ants: MailingList) -> None:
    assert tell(store, ants, automatic=True) == [STAFF]
    assert reject(store, ants, automatic=True) == "a program sent it"


def test_without_staff_the_sites_owner_is_told(store: Store) -> None:
    with store.begin() as connection:
        bees = create_list(connection, "bees@example.com")
    assert tell(store, bees) == [AUTHOR, (SITE_OWNER,)]


def test_staff_that_leads_back_to_the_list_is_not_told(store: Store) -> None:
    with store.begin() as connection:
        wasps = create_list(connection, "wasps@example.com")
        add_members(connection, wasps.key, [("bees@example.com", ""), (DAN, "")], "owner")
    assert tell(store, wasps) == [AUTHOR, ("bees@example.com", DAN)]
    with store.begin() as connection:
        bees = rename_list(connection, "wasps@example.com", "bees@example.com")
    assert tell(store, bees, NOW + HELD_EVERY) == [AUTHOR, (DAN,)]


def test_a_site_owner_who_leads_back_to_the_list_is_not_told(store: Store) -> None:
    with store.begin() as connection:
        bees = create_list(connection, "bees@example.com")
        owned = house()._replace(owner="bees@example.com")
        assert tell_held(connection, owned, bees, Notices(), POST, [], True, NOW) == []


def test_a_site_that_has_not_named_its_owner_tells_nobody_in_its_place(store: Store) -> None:
    with store.begin() as connection:
        bees = create_list(connection, "bees@example.com")
        unnamed = house()._replace(owner=DEFAULT_OWNER)
        assert tell_held(connection, unnamed, bees, Notices(), POST, [], True, NOW) == []
        add_members(connection, bees.key, [(DAN, "")], "owner")
        later = NOW + 5 * HOUR
        [told] = tell_held(connection, unnamed, bees, Notices(), POST, [], True, later)
    assert (order_of(told.metadata).recipients, order_of(told.metadata).sender) == ((DAN,), "")


def test_a_rejection_is_told_and_again_after_a_while(store: Store, ants: MailingList) -> None:
    first = reject(store, ants)
    assert isinstance(first, Handed)
    assert envelopes([first]) == [AUTHOR]
    assert "a moment ago" in str(reject(store, ants, NOW + REJECTED_EVERY - 1))
    assert isinstance(reject(store, ants, NOW + REJECTED_EVERY), Handed)


def test_a_moderators_rejections_are_all_told(store: Store, ants: MailingList) -> None:
    assert all(isinstance(reject(store, ants, every=0.0), Handed) for _ in range(3))


# Strangers


def test_one_stranger_after_the_other_is_told_but_each_member(
    store: Store, ants: MailingList
) -> None:
    """Else a flood of forged senders is a flood of notices."""

    def told(sender: str, now: float) -> list[bool]:
        post = POST._replace(sender=sender)
        held = tell(store, ants, now, post, Notices(owners=False))
        return [bool(held), isinstance(reject(store, ants, now, post), Handed)]

    with store.begin() as connection:
        people = [(f"m{n}@example.org", "") for n in range(3)]
        add_members(connection, ants.key, people, "member")
        bees = create_list(connection, "bees@example.com")
    flood = [told(f"s{n}@example.net", NOW) for n in range(50)]
    assert flood == [[True, False]] + [[False, False]] * 49
    assert [told(f"m{n}@example.org", NOW) for n in range(3)] == [[True, True]] * 3
    assert told(CARLA, NOW) == [True, True]
    later = NOW + AUTHORS_EVERY
    assert told("s50@example.net", later - 0.1) == [False, False]
    assert tell(store, bees, later - 0.1, notices=Notices(owners=False)) == [AUTHOR]
    assert told("s50@example.net", later) == [True, False]
    assert told("s50@example.net", later + AUTHORS_EVERY) == [False, True]
    later += AUTHORS_EVERY
    assert reject(store, ants, later + 1) == (
        "somebody else who is not on the list was told a moment ago"
    )
    assert isinstance(reject(store, ants, later + 1, every=0.0), Handed)


@pytest.mark.parametrize("every", [REJECTED_EVERY, 0.0])
def test_a_stranger_gets_of_the_header_what_tells_which_message_it_was(
    store: Store, ants: MailingList, every: float
) -> None:
    spam = b"X-Spam: buy\r\n" * 1000 + HEADER.replace(b"Subject:", b"Subject: " + b"buy " * 2000)
    told = reject_with(store, ants, spam, every)
    assert isinstance(told, Handed)
    beside = attached(told)
    assert [each.name for each in take_apart(beside).fields] == ["from", "subject", "message-id"]
    assert len(beside) < 2000
    told = reject_with(store, ants, HEADER, every, now=NOW + REJECTED_EVERY)
    assert isinstance(told, Handed)
    names = [each.name for each in take_apart(attached(told)).fields]
    assert names == ["from", "subject", "message-id"]
    with store.begin() as connection:
        add_members(connection, ants.key, [(POST.sender, "")], "member")
    told = reject_with(store, ants, HEADER, every, now=NOW + 2 * REJECTED_EVERY)
    assert isinstance(told, Handed)
    assert [each.name for each in take_apart(attached(told)).fields][1] == "to"


# Summaries


def post_and_hold(connection: Connection, ants: MailingList, number: int, now: float) -> None:
    letter = Letter(b"Subject: Leaf %d\r\n\r\n" % number, "anne@example.org")
    hand_on(connection, IdMaker(), [Handed("in", ants.key, {"to_list": True}, letter)])
    [claimed] = claim(connection, "in", 1, 60.0)
    hold(connection, claimed, "nonmember", "Not a member.", "anne@example.org", now)


def test_what_was_held_meanwhile_comes_in_one_summary(store: Store, ants: MailingList) -> None:
    with store.begin() as connection:
        for number in range(30):
            post_and_hold(connection, ants, number, NOW + number)
    assert tell(store, ants, NOW)
    with store.begin() as connection:
        assert summaries(connection, house(), NOW + 3.9 * HOUR) == []
        [told] = summaries(connection, house(), NOW + 4 * HOUR)
        assert summaries(connection, house(), NOW + 4 * HOUR) == []
        assert summaries(connection, house(), NOW + 40 * HOUR) == []  # they know of these
    assert envelopes([told]) == [STAFF]
    assert isinstance(told.what, Letter)
    shown = told.what.raw.decode()
    assert "30 posts await" in shown
    assert [f"Leaf {number}\r\n" in shown for number in range(30)] == [True] * 25 + [False] * 5
    assert "And 5 more." in shown


def test_the_order_of_a_summary_can_be_handed_on(store: Store, ants: MailingList) -> None:
    with store.begin() as connection:
        post_and_hold(connection, ants, 1, NOW)
        hand_on(connection, IdMaker(), summaries(connection, house(), NOW + HOUR))
    with store.begin() as connection:
        [claimed] = claim(connection, "out", 10, 60.0)
    assert (claimed.list_key, claimed.sender) == (ants.key, SITE_OWNER)
    assert order_of(claimed.metadata).kind == "notice"


# Requests


WEEK = 7 * 24 * HOUR


def request_of(
    connection: Connection, ants: MailingList, email: str = "anne@example.org", now: float = NOW
) -> Request:
    wanted = Wanted("join", email, "Anne", {}, Policy.MODERATE, State.MODERATE, email, "")
    # What `waiting` shows must not have expired by the clock on the wall.
    expire_after = time.time() - now + WEEK
    return ask(connection, IdMaker(), ants.key, wanted, expire_after, now)[0]


def tell_of(
    store: Store,
    ants: MailingList,
    now: float = NOW,
    email: str = "anne@example.org",
    notices: Notices = Notices(),  # noqa: B008
) -> list[Handed]:
    with store.begin() as connection:
        request = request_of(connection, ants, email, now)
        return tell_request(connection, house(), ants, notices, request, now)


def test_staff_is_told_of_a_request_with_its_token(store: Store, ants: MailingList) -> None:
    [told] = tell_of(store, ants)
    assert envelopes([told]) == [STAFF]
    with store.read() as connection:
        [(request, _)] = waiting(connection, ants.key)
    message = read_message(told)
    assert message["Reply-To"] == f"ants-confirm+{request.token}@example.com"
    assert f"    accept {request.token}" in message.get_content()


def test_staff_is_told_of_requests_again_only_after_the_interval(
    store: Store, ants: MailingList
) -> None:
    told = {
        hours: envelopes(tell_of(store, ants, NOW + hours * HOUR, f"a{hours}@example.org"))
        for hours in (0, 1, 3.9, 4)
    }
    assert told == {0: [STAFF], 1: [], 3.9: [], 4: [STAFF]}


def test_posts_do_not_silence_requests(store: Store, ants: MailingList) -> None:
    assert tell(store, ants) == [AUTHOR, STAFF]
    assert envelopes(tell_of(store, ants)) == [STAFF]


def test_owners_who_want_no_notices_are_not_told_of_requests(
    store: Store, ants: MailingList
) -> None:
    assert tell_of(store, ants, notices=Notices(owners=False)) == []


def test_requests_that_came_meanwhile_come_in_one_summary(store: Store, ants: MailingList) -> None:
    assert tell_of(store, ants)
    with store.begin() as connection:
        unconfirmed = Wanted(
            "join", "x@example.org", "", {}, Policy.CONFIRM, State.CONFIRM, "x@example.org", ""
        )
        ask(connection, IdMaker(), ants.key, unconfirmed, WEEK * 99, NOW - 1)
        for number in range(30):
            request_of(connection, ants, f"a{number}@example.org", NOW + 1 + number)
        tokens = [each.token for each, _ in waiting(connection, ants.key)]
    with store.begin() as connection:
        assert summaries(connection, house(), NOW + 3.9 * HOUR) == []
        [told] = summaries(connection, house(), NOW + 4 * HOUR)
        assert summaries(connection, house(), NOW + 4 * HOUR) == []
        assert summaries(connection, house(), NOW + 40 * HOUR) == []  # they know of these
    assert envelopes([told]) == [STAFF]
    message = read_message(told)
    assert "31 requests await" in message["Subject"]
    shown = message.get_content()
    assert "x@example.org" not in shown
    assert [each for each in tokens if each in shown] == tokens[1:26]
    assert "And 6 more." in shown


def test_posts_and_requests_have_a_summary_each(store: Store, ants: MailingList) -> None:
    with store.begin() as connection:
        post_and_hold(connection, ants, 1, NOW)
        request_of(connection, ants)
    with store.begin() as connection:
        told = summaries(connection, house(), NOW)
    subjects = [read_message(each)["Subject"] for each in told]
    assert ["post" in each for each in subjects] == [True, False]
    assert ["request" in each for each in subjects] == [False, True]


# Mail that came back


def lose(
    connection: Connection, number: int, what: str = "stopped", at: float = NOW, **facts: object
) -> None:
    """A member loses their posts."""
    made = (int(at * 1000) - 1_577_836_800_000 << 22) + number  # as `spool.ids` would
    change = Change("ants.example.com", what, f"m{number}@example.org", "postroom", facts)
    write(connection, lambda: made, [change], at)


def test_owners_hear_once_a_day_who_gets_no_posts_any_more(store: Store, ants: MailingList) -> None:
    soon = NOW + SETTLED
    with store.begin() as connection:
        for number in range(30):
            lose(connection, number, reason=f"No. {number}.")
    with store.begin() as connection:
        assert bounce_summaries(connection, house(), soon - 1) == []
        [told] = bounce_summaries(connection, house(), soon)
        assert bounce_summaries(connection, house(), soon) == []
        lose(connection, 30, "removed", NOW + 1)
        lose(connection, 31, "complained", NOW + 1, odd=[])
        assert bounce_summaries(connection, house(), soon + DAY - 1) == []
        [then] = bounce_summaries(connection, house(), soon + DAY)
        assert bounce_summaries(connection, house(), soon + 3 * DAY) == []
    assert envelopes([told, then]) == [STAFF, STAFF]
    shown = read_message(told).get_content()
    assert [f"    No. {number}." in shown for number in range(30)] == [True] * 25 + [False] * 5
    assert "And 5 more." in shown
    shown = read_message(then).get_content()
    assert [f"m{number}@" in shown for number in (29, 30, 31)] == [False, True, True]
    assert "And " not in shown


def test_what_came_meanwhile_is_not_told_before_it_is_counted(
    store: Store, ants: MailingList
) -> None:
    with store.begin() as connection:
        lose(connection, 1)
        lose(connection, 2, at=NOW + 1)
        [told] = bounce_summaries(connection, house(), NOW + SETTLED)
    shown = read_message(told).get_content()
    assert ("m1@" in shown, "m2@" in shown, "And " in shown) == (True, False, False)


def test_owners_who_do_not_want_to_know_who_bounced_are_not_told(
    store: Store, ants: MailingList
) -> None:
    with store.begin() as connection:
        set_preferences(connection, ants.key, {"bounces.owners": "no"})
        lose(connection, 1)
        assert bounce_summaries(connection, house(), NOW + SETTLED) == []


def test_a_list_without_anybody_to_tell_is_left_out(store: Store) -> None:
    with store.begin() as connection:
        create_list(connection, "ants@example.com")
        lose(connection, 1)
        unnamed = house()._replace(owner=DEFAULT_OWNER)
        assert bounce_summaries(connection, unnamed, NOW + SETTLED) == []


def mass(store: Store, of: MailingList, now: float = NOW, owner: str = SITE_OWNER) -> list[Handed]:
    with store.begin() as connection:
        at = house()._replace(owner=owner)
        return tell_mass(connection, at, of, Notices(language="de"), 50, 20, now)


def test_that_too_many_bounced_is_told_once_a_day_for_each_list_and_once_to_the_site(
    store: Store, ants: MailingList
) -> None:
    with store.begin() as connection:
        bees = create_list(connection, "bees@example.com")
        add_members(connection, bees.key, [(DAN, "")], "owner")
    everybody = tuple(sorted((*STAFF, SITE_OWNER)))
    [told] = mass(store, ants)
    assert envelopes([told]) == [everybody]
    assert "mehr als 50 Mitglieder" in " ".join(read_message(told).get_content().split())
    assert envelopes(mass(store, bees)) == [(DAN,)]
    assert mass(store, ants, NOW + DAY - 1) == []
    assert envelopes(mass(store, ants, NOW + DAY)) == [everybody]


@pytest.mark.parametrize("owner", [DEFAULT_OWNER, "ants-owner@example.com", "CARLA@example.net"])
def test_a_site_without_an_owner_of_its_own_tells_those_of_the_list(
    store: Store, ants: MailingList, owner: str
) -> None:
    assert envelopes(mass(store, ants, owner=owner)) == [STAFF]


def test_where_nobody_can_be_told_that_too_many_bounced_nobody_is(store: Store) -> None:
    with store.begin() as connection:
        bees = create_list(connection, "bees@example.com")
    assert mass(store, bees, owner=DEFAULT_OWNER) == []


# Deciding by mail


def test_the_token_in_a_notice_is_that_of_the_post(store: Store, ants: MailingList) -> None:
    with store.begin() as connection:
        told = tell_held(connection, house(), ants, Notices(), POST, [], True, NOW)
        secret = site_secret(connection)
    [message] = [read_message(each) for each in told]
    token = message["Reply-To"].partition("+")[2].partition("@")[0]
    assert read_held_token(secret, ants.list_id, token) == POST.id


def test_each_post_of_a_summary_has_its_own_token(store: Store, ants: MailingList) -> None:
    with store.begin() as connection:
        for number in range(3):
            post_and_hold(connection, ants, number, NOW)
        secret, ids = site_secret(connection), [each.post.id for each in held(connection, ants.key)]
    with store.begin() as connection:
        [told] = summaries(connection, house(), NOW)
    message = read_message(told)
    found = re.findall(r"^    accept ([a-z2-7]{39})\r?$", message.get_content(), re.M)
    assert [read_held_token(secret, ants.list_id, each) for each in found] == ids
    assert message["Reply-To"] == "ants-request@example.com"


# Languages


def test_people_are_told_in_the_language_of_the_list(store: Store, ants: MailingList) -> None:
    german = Notices(language="de")
    with store.begin() as connection:
        set_preferences(connection, ants.key, {"notices.language": "de"})
        told = tell_held(connection, house(), ants, german, POST, [], False, NOW)
        request = request_of(connection, ants)
        told += tell_request(connection, house(), ants, german, request, NOW)
        rejected = tell_rejected(
            connection, house(), ants, POST, HEADER, "Nein.", False, NOW, 0.0, "de"
        )
        assert isinstance(rejected, Handed)
        told.append(rejected)
        post_and_hold(connection, ants, 1, NOW + 1)
        request_of(connection, ants, "bart@example.org", NOW + 1)
        told += summaries(connection, house(), NOW + 5 * HOUR)
    subjects = [str(read_message(each)["Subject"]) for each in told]
    assert len(subjects) == 6
    words = ("Ihr", "wartet", "möchte", "warten")
    assert [each for each in subjects if not any(word in each for word in words)] == []


# Mail for owners


def send_owners(store: Store, ants: MailingList | None, site_owner: str) -> Handed | Stopped:
    facts: dict[str, object] = {"to_owner": True, "envsender": site_owner}
    if ants:
        facts["listname"] = ants.posting_address
    with store.read() as connection:
        key = ants.key if ants else None
        return pass_to_owners(connection, site_owner, RAW, "anne@example.org", facts, key)


def test_mail_for_owners_goes_to_each_of_them_once(store: Store, ants: MailingList) -> None:
    handed = send_owners(store, ants, SITE_OWNER)
    assert isinstance(handed, Handed)
    assert envelopes([handed]) == [STAFF]


def test_postmasters_mail_goes_to_the_sites_owner(store: Store, ants: MailingList) -> None:
    handed = send_owners(store, None, SITE_OWNER)
    assert isinstance(handed, Handed)
    assert envelopes([handed]) == [(SITE_OWNER,)]


def test_a_site_whose_owner_is_its_own_postmaster_makes_no_loop(
    store: Store, ants: MailingList
) -> None:
    assert isinstance(send_owners(store, None, "postmaster@example.com"), Stopped)


def test_mail_for_owners_goes_round_once_and_then_stops(store: Store, ants: MailingList) -> None:
    handed = send_owners(store, ants, SITE_OWNER)
    assert isinstance(handed, Handed)
    assert isinstance(handed.what, Letter)
    assert take_apart(handed.what.raw).fields[0].name == "x-postroom-loop"
    facts = {"listname": ants.posting_address, "to_owner": True, "envsender": SITE_OWNER}
    with store.read() as connection:
        again = pass_to_owners(connection, SITE_OWNER, handed.what.raw, SITE_OWNER, facts, ants.key)
    assert isinstance(again, Stopped)
