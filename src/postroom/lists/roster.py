"""The roster: who reads a list, who runs it, and who was told apart from strangers.

For: commands, rules and delivery. Each function works in the caller's transaction, on SQLite
and PostgreSQL. Guarantees: one person is one row however their address is capitalised, and is
shown as they write it; the number of statements grows with thousands of people only; no list
becomes a member of itself. Bad input changes nothing. Fails with `ListError`, one sentence.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple, TypedDict, TypeVar, Unpack

from email_validator import EmailNotValidError
from sqlalchemy import (
    Connection,
    Row,
    and_,
    bindparam,
    delete,
    literal,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from postroom.lists.endpoint import host_of
from postroom.lists.registry import ListError, validated
from postroom.lists.routing import route
from postroom.lists.settings import Action
from postroom.mail.address import AddressError, Mailbox, fold, parse_mailbox
from postroom.store.schema import address, bounce, domain, mailing_list, member

Role = Literal["member", "owner", "moderator", "nonmember"]
Delivery = Literal["on", "user", "bounces", "admin"]  # "on", or who turned it off
Mode = Literal["regular", "digest"]
Person = tuple[str, str]  # address and name

CHUNK: Final = 1000  # people per statement
MAX_NAME: Final = 200  # characters of a person's name
MAX_EMAIL: Final = 254  # octets (RFC 5321 4.5.3.1.3, without the brackets)

_T = TypeVar("_T")
_QUOTED_PAIR = re.compile(r"\\(.)")


class Member(NamedTuple):
    """Somebody in one role on one list. `key` is the row; `moderation` None means as the list
    says; without `own_posts` they do not get what they wrote, without `duplicates` not what
    also went to them directly; with `ack` they are told that what they wrote goes out."""

    key: int
    email: str
    name: str
    role: Role
    delivery: Delivery
    mode: Mode
    moderation: Action | None
    own_posts: bool
    duplicates: bool
    ack: bool
    joined_at: float


class Changes(TypedDict, total=False):
    """What can be changed of a member. The name is the same on all lists."""

    name: str
    delivery: Delivery
    mode: Mode
    moderation: Action | None
    own_posts: bool
    duplicates: bool
    ack: bool


_COLUMNS: Final = (
    member.c.id,
    address.c.email,
    address.c.name,
    member.c.role,
    member.c.delivery,
    member.c.mode,
    member.c.moderation,
    member.c.own_posts,
    member.c.duplicates,
    member.c.ack,
    member.c.joined_at,
)
MEMBERS: Final = select(*_COLUMNS).join_from(member, address)


def same_address(email: str) -> str:
    """The one form of all spellings of an address, to compare by: ASCII letters folded, the
    domain in Unicode. Pure. Any text will do: "" stands for what nobody's address can be."""
    try:
        box, _ = parse_mailbox(email)
        email.encode()
    except (AddressError, UnicodeEncodeError):
        return ""
    return str(Mailbox(fold(box.local), host_of(box.domain)))


def person(text: str) -> Person:
    """Address and name ("" if none) from `ann@example.org` or `Ann Lee <ann@example.org>`, the
    name quoted or not. Pure. Raises `ListError`."""
    text = text.strip()
    if not text.isprintable():
        raise ListError(f"{text!a} holds what cannot be printed")
    if not text.endswith(">"):
        return _email(text), ""
    before, bracket, inside = text[:-1].rpartition("<")
    if not bracket:
        raise ListError(f'{_short(text)} has no "<": use Name <name@domain>')
    return _email(inside.strip()), checked_name(_unquoted(before.strip()))


def checked_name(name: str) -> str:
    """A person's name without needless blanks. Raises `ListError`. Pure."""
    if not name.isprintable():
        raise ListError(f"the name {_short(name)} holds what cannot be printed")
    if len(name) > MAX_NAME:
        raise ListError(f"the name {_short(name)} is too long: use at most {MAX_NAME} characters")
    return " ".join(name.split())


def _unquoted(name: str) -> str:
    if len(name) > 1 and name[0] == name[-1] == '"':
        return _QUOTED_PAIR.sub(r"\1", name[1:-1])
    return name


def _email(text: str) -> str:
    """A checked address as it is written, but that a Unicode domain has its normal form."""
    try:
        box, _ = parse_mailbox(text)
        if not box.domain:
            raise ListError(f"{_short(text)} has no domain: use name@domain")
        if len(str(box).encode()) > MAX_EMAIL:
            raise ListError(f"{_short(text)} is longer than {MAX_EMAIL} octets (RFC 5321)")
        checked = validated(str(box))
    except (AddressError, EmailNotValidError) as error:
        reason = str(error).rstrip(".")
        raise ListError(f"{_short(text)} is no address ({reason}): use name@domain") from None
    if checked.local_part != box.local:  # RFC 6532 3.1
        raise ListError(
            f"{text!a} has characters with a simpler form: use {checked.local_part}@{box.domain}"
        )
    return str(box if box.domain.isascii() else box._replace(domain=checked.domain))


def _short(text: str) -> str:
    """Text from outside, quoted, its first part if it is long."""
    return repr(text if len(text) <= 100 else f"{text[:100]}...")


def add_members(
    connection: Connection,
    list_key: int,
    people: Iterable[Person],
    role: Role,
    advance: Callable[[int], None] = lambda number: None,
) -> tuple[int, int]:
    """Add checked people (see `person`) in a role; returns how many were added, and how many
    were there already or named twice. `advance` is told how many more are done.

    A name is kept for an address that has none yet. Two statements per thousand.
    """
    given = list(people)
    rows = {
        folded: {
            "email": email,
            "folded": folded,
            "domain": folded.rpartition("@")[2],
            "name": name,
        }
        for email, name in reversed(given)
        if (folded := same_address(email))
    }
    _refuse_itself(connection, list_key, rows)
    # In one order, so that two who add the same people do not wait for each other in a ring;
    # and it is the order in which posts go out.
    ordered = sorted(rows.values(), key=lambda row: (row["domain"], row["folded"]))
    added = 0
    advance(len(given) - len(ordered))
    for some in _chunks(ordered):
        added += _add(connection, list_key, some, role)
        advance(len(some))
    return added, len(given) - added


def _add(connection: Connection, list_key: int, rows: Sequence[dict[str, str]], role: Role) -> int:
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    people = insert(address)
    people = people.on_conflict_do_update(
        index_elements=[address.c.folded],
        set_={"name": people.excluded.name},
        where=and_(address.c.name == "", people.excluded.name != ""),
    )
    connection.execute(people, rows)
    found = select(literal(list_key), address.c.id, literal(role), literal(time.time())).where(
        address.c.folded.in_([row["folded"] for row in rows])
    )
    found = found.order_by(address.c.domain, address.c.folded)
    joining = insert(member).from_select(["list", "address", "role", "joined_at"], found)
    joining = joining.on_conflict_do_nothing().execution_options(preserve_rowcount=True)
    return connection.execute(joining).rowcount


def _refuse_itself(connection: Connection, list_key: int, folded: Iterable[str]) -> None:
    """Refuse the list's own addresses: what is sent to the members would come back."""
    this = mailing_list.c.id == list_key
    home = select(mailing_list.c.mail_host).where(this).scalar_subquery()
    hosts = set(
        connection.scalars(
            select(domain.c.mail_host).where(
                (domain.c.mail_host == home) | (domain.c.alias_of == home)
            )
        )
    )
    if not hosts:
        raise ListError("this list was removed meanwhile")
    boxes = [parse_mailbox(each)[0] for each in folded if each.rpartition("@")[2] in hosts]

    def query(statement: str, parameters: tuple[Any, ...]) -> Iterable[Any]:
        return connection.exec_driver_sql(statement, parameters)

    for some in _chunks(boxes):
        for box, found in route(query, connection.dialect.name == "sqlite", some).items():
            if found is not None and found.list_key == list_key:
                raise ListError(
                    f"{box} is an address of {found.listname} itself: mail would go in circles"
                )


def members(connection: Connection, list_key: int, role: Role | None = None) -> Iterator[Member]:
    """Those on a list, by domain and address; read as they are asked for."""
    found = MEMBERS.where(member.c.list == list_key)
    if role is not None:
        found = found.where(member.c.role == role)
    found = found.order_by(address.c.domain, address.c.folded, member.c.role)
    for row in connection.execute(found.execution_options(yield_per=CHUNK)):
        yield as_member(row)


_OF_THEM = MEMBERS.where(
    member.c.list == bindparam("key"), address.c.folded.in_(bindparam("some", expanding=True))
).order_by(address.c.domain, address.c.folded, member.c.role)


def memberships(connection: Connection, list_key: int, emails: Iterable[str]) -> list[Member]:
    """All roles that these addresses have on a list; any text will do for an address. One
    statement per thousand."""
    wanted = sorted({same_address(email) for email in emails})
    return [
        as_member(row)
        for some in _chunks(wanted)
        for row in connection.execute(_OF_THEM, {"key": list_key, "some": some})
    ]


def staff(connection: Connection, list_key: int) -> list[Member]:
    """Owners and moderators; one who is both is there twice."""
    ours = (member.c.list == list_key) & member.c.role.in_(["owner", "moderator"])
    found = MEMBERS.where(ours).order_by(address.c.domain, address.c.folded, member.c.role)
    return [as_member(row) for row in connection.execute(found)]


def find_member(connection: Connection, list_key: int, email: str, role: Role = "member") -> Member:
    """The one with this address in this role. Raises `ListError` if there is none."""
    roles = memberships(connection, list_key, [email])
    for each in roles:
        if each.role == role:
            return each
    instead = f" but {roles[0].role}" if roles else ""
    raise ListError(
        f"{_short(email)} is not {role} of this list{instead}: "
        "`postroom member ls LIST` shows who is on it"
    )


def remove_members(
    connection: Connection, list_key: int, emails: Iterable[str], role: Role | None = None
) -> tuple[int, list[str]]:
    """Remove people from one role or from all; returns how many roles ended, and those of
    `emails` that had none. Who is on no list any more is forgotten."""
    given = {email: same_address(email) for email in emails}
    wanted = sorted(set(given.values()))
    found = select(member.c.id, member.c.list, member.c.role, address.c.id, address.c.folded)
    found = found.join_from(member, address)
    elsewhere = select(member.c.id).where(member.c.address == address.c.id).exists()
    removed = 0
    seen: set[str] = set()
    for some in _chunks(wanted):
        # The list is not asked for here: PostgreSQL may think that it has few members, read them
        # all, and compare each with the thousand.
        rows = [
            row
            for row in connection.execute(found.where(address.c.folded.in_(some)))
            if row[1] == list_key and role in (None, row[2])
        ]
        connection.execute(delete(member).where(member.c.id.in_([row[0] for row in rows])))
        gone = list({row[3] for row in rows})
        connection.execute(delete(address).where(address.c.id.in_(gone), ~elsewhere))
        removed += len(rows)
        seen.update(row[4] for row in rows)
    return removed, [email for email, folded in given.items() if folded not in seen]


def change_member(
    connection: Connection,
    list_key: int,
    email: str,
    role: Role = "member",
    **changes: Unpack[Changes],
) -> Member:
    """Change what is given of a member; returns them as they are now. Who is to get posts again
    is one whose mail never came back. Raises `ListError`."""
    before = find_member(connection, list_key, email, role)
    values: dict[str, Any] = dict(changes)
    for flag in {"own_posts", "duplicates", "ack"} & values.keys():
        values[flag] = int(values[flag])
    if "name" in values:
        name = checked_name(values.pop("name"))
        mine = select(member.c.address).where(member.c.id == before.key).scalar_subquery()
        connection.execute(update(address).where(address.c.id == mine).values(name=name))
    if values:
        connection.execute(update(member).where(member.c.id == before.key).values(values))
    if values.get("delivery") == "on":
        connection.execute(delete(bounce).where(bounce.c.member == before.key))
    row = connection.execute(MEMBERS.where(member.c.id == before.key)).one()
    return as_member(row)


def as_member(row: Row[*tuple[Any, ...]]) -> Member:
    """The member that a row of `MEMBERS` stands for; columns that were added to it come after
    and are left out."""
    found = Member._make(row[: len(Member._fields)])
    return found._replace(
        own_posts=bool(found.own_posts), duplicates=bool(found.duplicates), ack=bool(found.ack)
    )


def _chunks(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for first in range(0, len(values), CHUNK):
        yield values[first : first + CHUNK]
