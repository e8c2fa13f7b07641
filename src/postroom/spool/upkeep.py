"""Renaming and removing lists that mail may be waiting for.

For: keeping lists and spool in step in one transaction. Guarantees: removing a list never
makes mail vanish. Fails with `ListError`.
"""

from sqlalchemy import Connection, func, select, update

from postroom.lists.registry import ListError, MailingList, delete_list, find_list
from postroom.lists.registry import rename_list as rename_row
from postroom.spool.metadata import decode, encode
from postroom.spool.queue import set_aside
from postroom.store.schema import entry, mailing_list


def rename_list(connection: Connection, old: str, new: str) -> MailingList:
    """Rename a list; entries that wait for it follow, and so do the bounces of what is on its way
    out."""
    before = _bounces(find_list(connection, old))
    renamed = rename_row(connection, old, new)
    waiting = select(entry.c.id, entry.c.metadata).where(entry.c.list == renamed.key)
    waiting = waiting.with_for_update()
    for number, text in connection.execute(waiting).all():
        try:
            facts = decode(text)
        except ValueError:
            continue  # the runner that claims it will set it aside
        facts["listname"] = renamed.posting_address
        order = facts.get("order")
        if isinstance(order, dict) and order.get("sender") == before:
            facts["order"] = order | {"sender": _bounces(renamed)}
        connection.execute(update(entry).where(entry.c.id == number).values(metadata=encode(facts)))
    return renamed


def _bounces(of: MailingList) -> str:
    local, _, domain = of.posting_address.rpartition("@")
    return f"{local}-bounces@{domain}"


def remove_list(connection: Connection, address: str, force: bool) -> int:
    """Remove a list; returns how many entries went to `shunt`. Only `force` allows any."""
    found = find_list(connection, address)
    # Locked, so that mail that is being accepted either is seen here or finds no list.
    this = select(mailing_list.c.id).where(mailing_list.c.id == found.key)
    connection.execute(this.with_for_update())
    ours = entry.c.list == found.key
    waiting = connection.scalar(select(func.count()).select_from(entry).where(ours)) or 0
    if waiting and not force:
        raise ListError(
            f"list {found.posting_address} has {waiting} entries waiting: let them be "
            "worked off, or use --force to put them into the shunt queue"
        )
    set_aside(connection, ours, f"list {found.posting_address} was removed")
    connection.execute(update(entry).where(ours).values(list=None))
    delete_list(connection, found.key)
    return waiting
