"""What the database knows of a post, on both databases, in a constant number of statements."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event

from postroom.lists.keys import moderator_token, plain_token, site_secret
from postroom.lists.preferences import set_preferences
from postroom.lists.registry import ListError, MailingList, add_domain, create_list, find_list
from postroom.lists.roster import add_members, change_member, staff
from postroom.posting.decision import ListFacts, Membership, SenderFacts
from postroom.posting.facts import facts_for
from postroom.reading.post import Post, read
from postroom.store.engine import Store

ANTS = "ants@example.com"


@pytest.fixture
def ants(store: Store) -> MailingList:
    """A list, whose domain has an alias, and another one."""
    with store.begin() as connection:
        create_list(connection, ANTS, "The Ants")
        create_list(connection, "bees@example.com")
        add_domain(connection, "example.net", alias_of="example.com")
        return find_list(connection, ANTS)


def post(*lines: str, sender: str = "Anne@Example.org") -> Post:
    return read("".join(f"{line}\r\n" for line in lines).encode() + b"\r\nHello.\r\n", sender)


def look(store: Store, found: MailingList, what: Post) -> tuple[ListFacts, SenderFacts]:
    with store.read() as connection:
        return facts_for(connection, found, what)


@contextmanager
def counted(store: Store) -> Iterator[list[str]]:
    """The statements that are executed meanwhile."""
    statements: list[str] = []

    def note(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    event.listen(store.engine, "before_cursor_execute", note)
    yield statements
    event.remove(store.engine, "before_cursor_execute", note)


def test_a_list_is_known_by_its_addresses_and_settings(store: Store, ants: MailingList) -> None:
    with store.begin() as connection:
        settings = set_preferences(connection, ants.key, {"posting.emergency": "yes"})
    this, _ = look(store, ants, post())
    assert this == ListFacts(ANTS, "ants.example.com", "The Ants", settings, ("ants@example.net",))
    assert this.settings.posting.emergency


def test_senders_are_known_by_all_their_roles_on_this_list(store: Store, ants: MailingList) -> None:
    with store.begin() as connection:
        bees = find_list(connection, "bees@example.com").key
        add_members(connection, ants.key, [("anne@example.org", "")], "member")
        add_members(connection, ants.key, [("bo@example.org", ""), ("x@y.org", "")], "nonmember")
        add_members(connection, ants.key, [("anne@example.org", "")], "owner")
        add_members(connection, bees, [("bo@example.org", "")], "member")
        change_member(connection, ants.key, "anne@example.org", moderation="hold")
    _, senders = look(store, ants, post("From: BO@example.org"))
    assert sorted(senders.memberships) == [
        Membership("anne@example.org", "member", "hold"),
        Membership("anne@example.org", "owner", None),
        Membership("bo@example.org", "nonmember", None),
    ]


def test_d20_the_statements_are_as_many_for_one_as_for_thousands(
    store: Store, ants: MailingList
) -> None:
    with counted(store) as few:
        look(store, ants, post("From: a@example.org", "Approved: x"))
    with store.begin() as connection:
        for role in ("member", "owner", "nonmember"):
            people = [(f"a{n}@example.org", "") for n in range(2000)]
            add_members(connection, ants.key, people, role)
        site_secret(connection)
    authors = ", ".join(f"a{n}@example.org" for n in range(2000))
    with counted(store) as many:
        look(store, ants, post(f"From: {authors}", "Approved: x"))
    assert len(few) == len(many)
    assert len(many) < 8


def test_only_a_token_of_a_present_owner_or_moderator_of_the_list_approves(
    store: Store, ants: MailingList
) -> None:
    with store.begin() as connection:
        secret = site_secret(connection)
        add_members(connection, ants.key, [("olga@example.org", "")], "owner")
        add_members(connection, ants.key, [("mo@example.org", "")], "moderator")
        add_members(connection, ants.key, [("anne@example.org", "")], "member")

    with store.read() as connection:
        since = {each.email: each.joined_at for each in staff(connection, ants.key)}

    def approves(email: str, list_id: str = "ants.example.com") -> bool:
        token = moderator_token(secret, list_id, email, since.get(email.lower(), 0.0))
        return look(store, ants, post(f"Approved: {token.lower()}"))[1].approved

    assert approves("olga@example.org")
    assert approves("Mo@Example.org")
    assert not approves("anne@example.org")
    assert not approves("olga@example.org", "bees.example.com")
    assert not look(store, ants, post("Approved: \u212a" + "x" * 5000))[1].approved
    olga = moderator_token(
        secret, "ants.example.com", "olga@example.org", since["olga@example.org"]
    )
    senders = look(store, ants, post())[1]
    assert (len(senders.tokens), senders.approved) == (2, False)
    assert plain_token(olga) in senders.tokens


def test_where_no_token_was_ever_made_none_is_right_and_nothing_is_written(
    store: Store, ants: MailingList
) -> None:
    with store.begin() as connection:
        add_members(connection, ants.key, [("olga@example.org", "")], "owner")
    assert not look(store, ants, post("Approved: ABCD-EFGH-IJKL-MNOP"))[1].approved


def test_a_list_that_is_gone_is_one_sentence(store: Store, ants: MailingList) -> None:
    with pytest.raises(ListError, match="removed meanwhile"):
        look(store, ants._replace(key=ants.key + 1000), post())
