"""Domains and lists: making, showing, renaming, removing.

For: what administrators do. Each function works in the caller's transaction. Guarantees:
bad input changes nothing. Fails with `ListError`, one sentence fit for a person.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from email_validator import EmailNotValidError, ValidatedEmail, validate_email
from sqlalchemy import Connection, Row, bindparam, delete, func, insert, or_, select, update

from postroom.lists.endpoint import MAX_NAME, POSTMASTER, SUBADDRESSES, host_of, shadowed
from postroom.mail.address import AddressError, Mailbox, fold, parse_mailbox
from postroom.store.schema import address as addresses
from postroom.store.schema import domain, mailing_list, member, notified, pending


class ListError(Exception):
    """It cannot be done; `str()` says why and what to do."""


class Domain(NamedTuple):
    """A mail domain; `alias_of` names the domain whose lists it also reaches."""

    mail_host: str
    alias_of: str | None
    description: str


class MailingList(NamedTuple):
    """A list. `list_id` stays when it is renamed."""

    key: int
    list_id: str
    posting_address: str
    display_name: str
    created_at: float

    def __repr__(self) -> str:
        return f'<mailing list "{self.posting_address}" at {id(self):#x}>'


_LIST = (
    mailing_list.c.id,
    mailing_list.c.list_id,
    mailing_list.c.posting_address,
    mailing_list.c.display_name,
    mailing_list.c.created_at,
)
_OF_KEY = select(*_LIST).where(mailing_list.c.id == bindparam("key"))


def add_domain(connection: Connection, host: str, alias_of: str | None = None) -> Domain:
    """Add a domain, or an alias of one that is there."""
    host = _checked_host(host)
    if _domain(connection, host) is not None:
        raise ListError(f"domain {host} exists already")
    if alias_of is not None:
        alias_of = host_of(alias_of)
        target = _domain(connection, alias_of)
        if target is None:
            raise ListError(f"domain {alias_of} does not exist: add it first")
        if target.alias_of is not None:
            raise ListError(f"{alias_of} is itself an alias: use --alias-of {target.alias_of}")
    connection.execute(insert(domain).values(mail_host=host, alias_of=alias_of))
    return Domain(host, alias_of, "")


def remove_domain(connection: Connection, host: str) -> None:
    """Remove a domain that has no lists and no aliases."""
    host = host_of(host)
    if _domain(connection, host) is None:
        raise ListError(f"domain {host} does not exist")
    lists = connection.scalar(
        select(func.count()).select_from(mailing_list).where(mailing_list.c.mail_host == host)
    )
    if lists:
        raise ListError(f"domain {host} has {lists} lists: remove or rename them first")
    aliases = connection.scalars(select(domain.c.mail_host).where(domain.c.alias_of == host)).all()
    if aliases:
        raise ListError(f"domain {host} has aliases ({', '.join(aliases)}): remove them first")
    connection.execute(delete(domain).where(domain.c.mail_host == host))


def domains(connection: Connection) -> Iterator[Domain]:
    """All domains, by name."""
    for row in connection.execute(select(domain).order_by(domain.c.mail_host)):
        yield Domain(row.mail_host, row.alias_of, row.description)


def posting_address(text: str) -> Mailbox:
    """Check the address of a list to be; returns it folded. Raises `ListError`. Pure."""
    folded = _parsed(text)
    address = str(folded)
    try:
        checked = validated(address)
    except EmailNotValidError as error:
        raise ListError(f"{text!r} cannot be a list: {error}") from None
    octets = len(folded.local.encode())
    if octets > MAX_NAME:
        raise ListError(
            f"{text!r} cannot be a list: its name has {octets} octets, at most {MAX_NAME} "
            "are allowed (RFC 5321 4.5.3.1.1)"
        )
    if checked.local_part != folded.local:  # RFC 6532 3.1
        raise ListError(
            f"{text!a} cannot be a list: its characters have a simpler form, "
            f"use {checked.local_part}"
        )
    if (lower := folded.local.casefold()) != folded.local:
        raise ListError(
            f"{text!r} cannot be a list: mail servers turn its name into {lower!r}, use that"
        )
    if folded.local == POSTMASTER:
        raise ListError(f"{address} is the site owner's (RFC 5321 4.5.1): choose another name")
    return Mailbox(folded.local, fold(checked.domain))


def validated(address: str) -> ValidatedEmail:
    """What an address is without asking the network. Raises `EmailNotValidError`. Pure."""
    return validate_email(
        address, check_deliverability=False, globally_deliverable=False, test_environment=True
    )


def create_lists(connection: Connection, boxes: Sequence[Mailbox], display_name: str = "") -> None:
    """Create lists at checked addresses, and their domains where they are new.

    All of them or, on a `ListError`, none. The number of statements does not grow with
    that of the lists, but for one query per thousand.
    """
    _refuse_aliases(connection, boxes)
    _refuse_taken(connection, boxes)
    known = {each.mail_host for each in domains(connection)}
    new_hosts = sorted({box.domain for box in boxes} - known)
    if new_hosts:
        connection.execute(insert(domain), [{"mail_host": host} for host in new_hosts])
    now = time.time()
    rows = [
        {
            "list_id": _list_id(box),
            "list_name": box.local,
            "mail_host": box.domain,
            "posting_address": str(box),
            "display_name": display_name or box.local,
            "created_at": now,
        }
        for box in boxes
    ]
    if rows:
        connection.execute(insert(mailing_list), rows)


def create_list(connection: Connection, address: str, display_name: str = "") -> MailingList:
    """Create one list."""
    box = posting_address(address)
    create_lists(connection, [box], display_name)
    return find_list(connection, str(box))


def find_list(connection: Connection, address: str) -> MailingList:
    """The list with this posting address (an alias domain will do)."""
    box = _parsed(address)
    host = _domain(connection, box.domain)
    real = host.alias_of if host and host.alias_of else box.domain
    row = connection.execute(
        select(*_LIST).where(mailing_list.c.posting_address == str(box._replace(domain=real)))
    ).first()
    if row is None:
        raise ListError(f"list {address} does not exist: `postroom list ls` shows those there are")
    return _list(row)


def list_of_key(connection: Connection, key: int) -> MailingList | None:
    """The list with this row id; None if it was removed."""
    row = connection.execute(_OF_KEY, {"key": key}).first()
    return _list(row) if row else None


def lists(connection: Connection) -> Iterator[MailingList]:
    """All lists, by posting address."""
    statement = select(*_LIST).order_by(mailing_list.c.mail_host, mailing_list.c.list_name)
    for row in connection.execute(statement):
        yield _list(row)


def count_lists(connection: Connection) -> int:
    """How many lists there are."""
    return connection.scalar(select(func.count()).select_from(mailing_list)) or 0


def rename_list(connection: Connection, old: str, new: str) -> MailingList:
    """Give a list another posting address; its list-id stays."""
    found = find_list(connection, old)
    box = posting_address(new)
    _refuse_aliases(connection, [box])
    if str(box) != found.posting_address and _exists(connection, str(box)):
        raise ListError(f"list {box} exists already")
    if _domain(connection, box.domain) is None:
        add_domain(connection, box.domain)
    connection.execute(
        update(mailing_list)
        .where(mailing_list.c.id == found.key)
        .values(list_name=box.local, mail_host=box.domain, posting_address=str(box))
    )
    return found._replace(posting_address=str(box))


def delete_list(connection: Connection, key: int) -> None:
    """Delete a list that no mail waits for, with its members and what is known of them alone."""
    if connection.execute(delete(member).where(member.c.list == key)).rowcount:
        elsewhere = select(member.c.id).where(member.c.address == addresses.c.id)
        connection.execute(delete(addresses).where(~elsewhere.exists()))
    connection.execute(delete(notified).where(notified.c.list == key))
    connection.execute(delete(pending).where(pending.c.list == key))
    connection.execute(delete(mailing_list).where(mailing_list.c.id == key))


def shadow_warnings(connection: Connection, boxes: Sequence[Mailbox]) -> list[str]:
    """What an administrator should know about the new lists at these addresses: which take
    the place of an endpoint of another list, and whose endpoints other lists have taken.

    The number of statements does not grow with that of the lists, but for one query per
    thousand.
    """
    takers = [*boxes, *_like_endpoints(connection, boxes)]
    owners = {taker: _owners(taker) for taker in takers}
    there = _those_there(connection, {owner for found in owners.values() for owner in found})
    new = set(boxes)
    warnings = []
    for taker, found in owners.items():
        owner = next((each for each in found if each in there), None)
        if owner is None or not {owner, taker} & new:
            continue
        suffix = taker.local.removeprefix(owner.local)
        warnings.append(
            f"{taker} was the {suffix} address of {owner}; mail to it now posts to the new list"
            if taker in new
            else f"{taker} is a list, so {owner} has no {suffix} address"
        )
    return warnings


def _owners(taker: Mailbox) -> list[Mailbox]:
    """The lists one of whose endpoints has this address, the one it belongs to first."""
    return [Mailbox(each.list_name, taker.domain) for each in shadowed(taker.local)]


def _like_endpoints(connection: Connection, boxes: Sequence[Mailbox]) -> Iterator[Mailbox]:
    """Lists in the domains of `boxes` whose names look like endpoints of other lists."""
    name, host = mailing_list.c.list_name, mailing_list.c.mail_host
    looks = or_(*(name.contains(f"-{suffix}") for suffix in SUBADDRESSES))
    for some in _thousands(sorted({box.domain for box in boxes})):
        for row in connection.execute(select(name, host).where(host.in_(some), looks)):
            yield Mailbox(*row)


def _those_there(connection: Connection, boxes: Collection[Mailbox]) -> set[Mailbox]:
    """Those of `boxes` that are addresses of lists."""
    address = mailing_list.c.posting_address
    found: set[str] = set()
    for some in _thousands([str(box) for box in boxes]):
        found.update(connection.scalars(select(address).where(address.in_(some))))
    return {box for box in boxes if str(box) in found}


def _thousands(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """A thousand at a time: a statement cannot take any number."""
    for first in range(0, len(values), 1000):
        yield values[first : first + 1000]


def _list(row: Row[int, str, str, str, float]) -> MailingList:
    return MailingList(*row)


def _domain(connection: Connection, host: str) -> Domain | None:
    row = connection.execute(select(domain).where(domain.c.mail_host == host)).first()
    return Domain(row.mail_host, row.alias_of, row.description) if row else None


def _list_id(box: Mailbox) -> str:
    return f"{box.local}.{box.domain}"


def _refuse_aliases(connection: Connection, boxes: Sequence[Mailbox]) -> None:
    aliases = {each.mail_host: each.alias_of for each in domains(connection) if each.alias_of}
    for box in boxes:
        if box.domain in aliases:
            raise ListError(f"{box.domain} is an alias of {aliases[box.domain]}: use that")


def _refuse_taken(connection: Connection, boxes: Sequence[Mailbox]) -> None:
    """Two lists may share neither an address nor a list-id (RFC 2919 3)."""
    seen: set[str] = set()
    for box in boxes:
        if _list_id(box) in seen:
            raise ListError(f"{box} is named twice, or another one has the same list-id")
        seen.add(_list_id(box))
    for first in range(0, len(boxes), 1000):
        some = boxes[first : first + 1000]
        row = connection.execute(
            select(mailing_list.c.posting_address, mailing_list.c.list_id).where(
                mailing_list.c.posting_address.in_([str(box) for box in some])
                | mailing_list.c.list_id.in_([_list_id(box) for box in some])
            )
        ).first()
        if row is None:
            continue
        if any(str(box) == row.posting_address for box in some):
            raise ListError(f"list {row.posting_address} exists already")
        raise ListError(f"list-id {row.list_id} is already that of list {row.posting_address}")


def _checked_host(host: str) -> str:
    """A domain name, folded."""
    try:
        return fold(validated(f"name@{host.strip()}").domain)
    except EmailNotValidError as error:
        raise ListError(f"{host!r} cannot be a mail domain: {error}") from None


def _exists(connection: Connection, address: str) -> bool:
    found = select(mailing_list.c.id).where(mailing_list.c.posting_address == address)
    return connection.scalar(found) is not None


def _parsed(address: str) -> Mailbox:
    """The folded mailbox of a posting address, syntax checked no further."""
    try:
        box, _ = parse_mailbox(address.strip())
    except AddressError as error:
        raise ListError(f"{address!r} is no address ({error}): use name@domain") from None
    if not box.domain:
        raise ListError(f"{address!r} has no domain: use name@domain")
    return Mailbox(fold(box.local), host_of(box.domain))
