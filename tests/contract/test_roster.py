"""The roster: who is on a list, on both databases."""

from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, func, insert, select

from postroom.lists.registry import ListError, add_domain, create_list, delete_list, find_list
from postroom.lists.roster import (
    CHUNK,
    Member,
    Person,
    Role,
    add_members,
    change_member,
    find_member,
    members,
    memberships,
    person,
    remove_members,
    same_address,
    staff,
)
from postroom.store import schema
from postroom.store.engine import Store
from tests.contract.threads import at_once, overlap

ANN, BO = ("ann@example.org", "Ann Lee"), ("bo@example.org", "")


def key_of(connection: Connection, name: str = "ant") -> int:
    """The key of a list at example.com."""
    return find_list(connection, f"{name}@example.com").key


def add(store: Store, *people: Person, role: Role = "member", name: str = "ant") -> tuple[int, int]:
    """Add people in a transaction."""
    with store.begin() as connection:
        return add_members(connection, key_of(connection, name), people, role)


def everyone(store: Store, role: Role | None = None, name: str = "ant") -> list[Member]:
    """Those on a list."""
    with store.read() as connection:
        return list(members(connection, key_of(connection, name), role))


def emails(store: Store, role: Role | None = None, name: str = "ant") -> list[str]:
    """The addresses of those on a list."""
    return [each.email for each in everyone(store, role, name)]


def addresses(store: Store) -> list[tuple[str, str]]:
    """All addresses that are known, and their names."""
    with store.read() as connection:
        rows = connection.execute(select(schema.address.c.email, schema.address.c.name))
        return sorted((email, name) for email, name in rows)


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Every statement that is executed meanwhile."""
    seen: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield seen
    event.remove(Engine, "before_cursor_execute", note)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ann@example.org", ("ann@example.org", "")),
        ("  Ann@Example.ORG\t", ("Ann@Example.ORG", "")),
        ("<ann@example.org>", ("ann@example.org", "")),
        ("Ann Lee <ann@example.org>", ("ann@example.org", "Ann Lee")),
        ("Ann   Lee<ann@example.org>", ("ann@example.org", "Ann Lee")),
        ('"Lee, \\"Ann\\" <x>" <ann@example.org>', ("ann@example.org", 'Lee, "Ann" <x>')),
        ('"" <ann@example.org>', ("ann@example.org", "")),
        ('" <ann@example.org>', ("ann@example.org", '"')),
        ('"ann"@example.org', ("ann@example.org", "")),
        ("Änne <änne@bücher.example>", ("änne@bücher.example", "Änne")),
        ("ann@BÜCHER.example", ("ann@bücher.example", "")),
        ("ann@XN--bcher-kva.example", ("ann@XN--bcher-kva.example", "")),
        ("o'neil+ants=x@example.org", ("o'neil+ants=x@example.org", "")),
        ("a" * 242 + "@example.org", ("a" * 242 + "@example.org", "")),
        ("N" * 200 + " <ann@example.org>", ("ann@example.org", "N" * 200)),
    ],
)
def test_a_person_is_read_as_they_write_themselves(text: str, found: Person) -> None:
    assert person(text) == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no address"),
        ("ann", "'ann' has no domain: use name@domain"),
        ("ann@", "is no address"),
        ("@example.org", "is no address"),
        ("ann@@example.org", "is no address"),
        ("ann@example.org, bo@example.org", "is no address"),
        ("ann@example.org (Ann)", "is no address"),
        ("Ann ann@example.org>", 'has no "<"'),
        ("Ann <>", "is no address"),
        ("Ann <ann@example.org", "is no address"),
        ("a b@example.org", "is no address"),
        ('"a b"@example.org', "is no address"),
        ("ann@[192.0.2.1]", "is no address"),
        ("ann@exa_mple.org", "is no address"),
        ("ann@localhost", "is no address"),
        ("a" * 243 + "@example.org", "is longer than 254 octets"),
        ("é" * 122 + "@example.org", "is longer than 254 octets"),
        ("x" * 100_000, "is no address (address too long)"),
        ("x" * 100_000 + " <ann@example.org>", "too long: use at most 200 characters"),
        ("ann\0@example.org", "cannot be printed"),
        ("ann@example.org\nbo@example.org", "cannot be printed"),
        ("Ann\x1b[2J <ann@example.org>", "cannot be printed"),
        ("Ann\u202e <ann@example.org>", "cannot be printed"),
        ("\udc80@example.org", "cannot be printed"),
        ("a\u200db@example.org", "cannot be printed"),
        ("\u212aate@example.org", "simpler form: use Kate@example.org"),
        ("e\u0301@example.org", "simpler form"),
    ],
)
def test_what_is_no_person_is_refused_in_one_short_line(text: str, reason: str) -> None:
    with pytest.raises(ListError) as refusal:
        person(text)
    said = str(refusal.value)
    assert reason in said
    assert said.isprintable()
    assert len(said) < 400


@given(st.text(max_size=60) | st.from_regex(r"\A[^@]{0,9}<?[^@]{1,9}@[a-z.]{1,12}>?\Z"))
def test_whatever_is_read_is_a_person_or_refused(text: str) -> None:
    try:
        email, name = person(text)
    except ListError:
        return
    assert same_address(email)
    assert (email + name).isprintable()
    assert person(email) == (email, "")


def test_spellings_of_an_address_are_one_and_look_alikes_are_not() -> None:
    one = same_address("Ann@B\u00fccher.Example")
    assert one == same_address("ANN@xn--bcher-kva.EXAMPLE") == "ann@b\u00fccher.example"
    assert same_address("\u212aate@example.org") != same_address("kate@example.org")
    for text in ("", "<ann@example.org>", "ann\0@example.org", "\udc80@example.org", "x" * 2000):
        assert same_address(text) == ""


def test_people_are_added_with_defaults_and_kept_as_they_write_themselves(spool: Store) -> None:
    assert add(spool, ANN, ("Bo@Example.ORG", "")) == (2, 0)
    ann, bo = everyone(spool)
    assert (ann.email, ann.name, bo.email) == ("ann@example.org", "Ann Lee", "Bo@Example.ORG")
    assert ann[3:10] == ("member", "on", "regular", None, True, True, False)
    assert ann.own_posts is True
    assert ann.ack is False
    assert ann.joined_at > 1e9
    assert everyone(spool, name="bee") == []


def test_those_who_are_there_in_any_spelling_are_counted_and_not_changed(spool: Store) -> None:
    add(spool, ANN)
    twice = (("ANN@example.org", "Nobody"), ("cy@example.org", "Cy"), ("CY@Example.org", ""))
    assert add(spool, *twice) == (1, 2)
    assert addresses(spool) == [("ann@example.org", "Ann Lee"), ("cy@example.org", "Cy")]
    assert add(spool) == (0, 0)


def test_an_address_is_one_row_on_all_lists_and_gets_a_name_if_it_has_none(spool: Store) -> None:
    add(spool, BO)
    assert add(spool, ("BO@example.org", "Bo"), name="bee") == (1, 0)
    assert addresses(spool) == [("bo@example.org", "Bo")]
    [bo] = everyone(spool)
    assert bo.name == "Bo"


def test_roles_are_apart(spool: Store) -> None:
    add(spool, ANN, BO)
    assert add(spool, ANN, role="owner") == (1, 0)
    assert add(spool, BO, role="moderator") == (1, 0)
    assert add(spool, ("cy@example.net", ""), role="nonmember") == (1, 0)
    assert emails(spool, "member") == ["ann@example.org", "bo@example.org"]
    assert emails(spool, "owner") == ["ann@example.org"]
    with spool.read() as connection:
        ant = key_of(connection)
        assert [(each.email, each.role) for each in staff(connection, ant)] == [
            ("ann@example.org", "owner"),
            ("bo@example.org", "moderator"),
        ]
        assert len(list(members(connection, ant))) == 5
        assert len(list(members(connection, ant, "nonmember"))) == 1
        assert not list(members(connection, key_of(connection, "bee")))
        found = memberships(connection, ant, ["ANN@example.org", "cy@example.net", "dee@x.org"])
    assert [(each.email, each.role) for each in found] == [
        ("cy@example.net", "nonmember"),
        ("ann@example.org", "member"),
        ("ann@example.org", "owner"),
    ]


def test_members_come_in_order_of_their_domains(spool: Store) -> None:
    names = ["zoe@a.org", "bo@b.org", "ann@b.org", "ann@c.org", "Cy@a.org"]
    add(spool, *((name, "") for name in names))
    assert emails(spool) == ["Cy@a.org", "zoe@a.org", "ann@b.org", "bo@b.org", "ann@c.org"]


def test_any_text_may_be_asked_for(spool: Store) -> None:
    add(spool, ANN)
    texts = ["", "\0", "\udc80@example.org", "x" * 100_000, "' OR 1=1 --", "%", "ann@example.org"]
    with spool.read() as connection:
        found = memberships(connection, key_of(connection), texts)
    assert [each.email for each in found] == ["ann@example.org"]


@pytest.mark.parametrize(
    "own",
    [
        "ant@example.com",
        "ANT@Example.com",
        "ant-owner@example.com",
        "ant-unsubscribe@example.com",
        "ant-bounces+x=y@example.com",
        "ant@example.net",
        "ant-request@EXAMPLE.NET",
    ],
)
def test_a_list_is_never_its_own_member(spool: Store, own: str) -> None:
    with spool.begin() as connection:
        add_domain(connection, "example.net", alias_of="example.com")
    for role in ("member", "owner"):
        with pytest.raises(ListError, match=r"is an address of ant@example\.com itself"):
            add(spool, ANN, (own, ""), role=role)
    assert addresses(spool) == []
    assert add(spool, (own, ""), name="bee") == (1, 0)


def test_a_list_that_has_the_address_of_an_endpoint_may_be_a_member(spool: Store) -> None:
    with spool.begin() as connection:
        create_list(connection, "ant-join@example.com")
    others = ("ant-join@example.com", ""), ("ant-x@example.com", ""), ("ants@example.com", "")
    assert add(spool, *others) == (3, 0)


def test_statements_grow_with_thousands_of_people_only(spool: Store, statements: list[str]) -> None:
    counted = []
    for number in (1, CHUNK, 10 * CHUNK):
        people = [(f"p{each}@n{number}-{each % 7}.example.org", "P") for each in range(number)]
        people += [(email.upper(), "") for email, _ in people[:10]]
        with spool.begin() as connection:
            key = key_of(connection)
            statements.clear()
            added, already = add_members(connection, key, people, "member")
            counted.append(len(statements))
        assert (added, already) == (number, len(people) - number)
    assert counted == [3, 3, 21]
    with spool.read() as connection:
        assert len(list(members(connection, key))) == 11 * CHUNK + 1
        statements.clear()
        assert sum(1 for _ in members(connection, key)) == 11 * CHUNK + 1
        assert len(memberships(connection, key, ["P1@N1000-1.example.org"])) == 1
        assert len(statements) == 2


def test_a_refusal_late_in_a_transaction_undoes_it(spool: Store) -> None:
    people = [(f"p{each}@example.org", "") for each in range(2 * CHUNK)]
    with pytest.raises(ListError), spool.begin() as connection:
        add_members(connection, key_of(connection), people, "member")
        add_members(connection, key_of(connection), [("ant@example.com", "")], "member")
    assert addresses(spool) == []


def test_a_list_that_is_gone_takes_nobody(spool: Store) -> None:
    with pytest.raises(ListError, match="was removed"), spool.begin() as connection:
        add_members(connection, 999, [ANN], "member")
    assert addresses(spool) == []


def test_two_who_add_the_same_people_at_once_add_each_once(spool: Store) -> None:
    people = [(f"p{each}@example{each % 3}.org", "") for each in range(3000)]
    orders = people, people[::-1]
    counts = at_once([partial(add, spool, *order) for order in orders])
    assert sum(added for added, _ in counts) == 3000
    assert len(emails(spool)) == 3000


def test_a_person_who_is_added_while_another_list_loses_them_is_not_half_there(
    spool: Store,
) -> None:
    add(spool, ANN, name="bee")

    def join(connection: Connection) -> None:
        add_members(connection, key_of(connection), [ANN], "member")

    def leave(connection: Connection) -> None:
        remove_members(connection, key_of(connection, "bee"), [ANN[0]])

    overlap(spool, leave, join).result()
    assert (emails(spool), emails(spool, name="bee")) == (["ann@example.org"], [])
    assert addresses(spool) == [ANN]


def test_people_are_removed_in_one_role_or_in_all_and_forgotten_at_last(spool: Store) -> None:
    add(spool, ANN, BO)
    add(spool, ANN, role="owner")
    add(spool, ANN, name="bee")
    with spool.begin() as connection:
        ant, bee = key_of(connection), key_of(connection, "bee")
        wanted = ["ANN@example.org", "dee@example.org", "nonsense"]
        assert remove_members(connection, ant, wanted, "member") == (1, wanted[1:])
    assert [each.role for each in everyone(spool)] == ["owner", "member"]
    with spool.begin() as connection:
        assert remove_members(connection, ant, ["ann@example.org", "bo@example.org"]) == (2, [])
    assert emails(spool) == []
    assert addresses(spool) == [ANN]
    with spool.begin() as connection:
        assert remove_members(connection, bee, ["ann@example.org"]) == (1, [])
    assert addresses(spool) == []


def test_thousands_are_removed_in_few_statements(spool: Store, statements: list[str]) -> None:
    people = [(f"p{each}@example.org", "") for each in range(2 * CHUNK + 1)]
    add(spool, *people, ANN)
    with spool.begin() as connection:
        key = key_of(connection)
        statements.clear()
        removed, missing = remove_members(connection, key, [email for email, _ in people])
        assert len(statements) == 9
    assert (removed, missing) == (len(people), [])
    assert addresses(spool) == [ANN]


def test_what_is_given_of_a_member_is_changed_and_nothing_else(spool: Store) -> None:
    add(spool, ANN, BO)
    add(spool, ANN, role="owner")
    with spool.begin() as connection:
        ant = key_of(connection)
        before = find_member(connection, ant, "ann@example.org")
        now = change_member(connection, ant, "Ann@example.org", delivery="admin", own_posts=False)
        assert now == before._replace(delivery="admin", own_posts=False)
        now = change_member(
            connection, ant, "ann@example.org", name=" Ann  L. ", moderation="hold", mode="digest"
        )
        assert now[2:] == (
            *("Ann L.", "member", "admin", "digest", "hold", False, True, False),
            before.joined_at,
        )
        now = change_member(connection, ant, "ann@example.org", moderation=None, duplicates=False)
        assert (now.moderation, now.duplicates) == (None, False)
        now = change_member(connection, ant, "ann@example.org", ack=True)
        assert (now.duplicates, now.ack) == (False, True)
        assert now.ack is True
        assert find_member(connection, ant, "ann@example.org") == now
        owner = find_member(connection, ant, "ann@example.org", "owner")
        assert (owner.name, owner.delivery, owner.own_posts) == ("Ann L.", "on", True)
        assert find_member(connection, ant, "bo@example.org")[2:6] == (
            "",
            "member",
            "on",
            "regular",
        )


def test_who_is_not_there_is_neither_found_nor_changed(spool: Store) -> None:
    add(spool, ANN, role="owner")
    with spool.begin() as connection:
        ant = key_of(connection)
        with pytest.raises(ListError, match=r"'ann@.*' is not member .* but owner: "):
            find_member(connection, ant, "ann@example.org")
        with pytest.raises(ListError, match=r"'bo@.*' is not owner of this list: "):
            change_member(connection, ant, "bo@example.org", "owner", delivery="user")
        with pytest.raises(ListError, match="cannot be printed"):
            change_member(connection, ant, "ann@example.org", "owner", name="\x1b")
    assert addresses(spool) == [ANN]


def test_a_removed_list_takes_its_members_along_and_no_others(spool: Store) -> None:
    add(spool, ANN, BO)
    add(spool, ANN, name="bee")
    with spool.begin() as connection:
        for name in ("ant", "bee"):
            connection.execute(
                insert(schema.notified).values(
                    list=key_of(connection, name), kind="held", email="", at=1.0
                )
            )
        delete_list(connection, key_of(connection))
    assert addresses(spool) == [ANN]
    assert emails(spool, name="bee") == ["ann@example.org"]
    with spool.read() as connection:
        assert connection.scalar(select(func.count()).select_from(schema.notified)) == 1
