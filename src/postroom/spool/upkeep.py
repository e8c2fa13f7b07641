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
    out, also of probes: then a token is the detail of the sender."""
    before = find_list(connection, old)
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
        if isinstance(order, dict) and isinstance(sender := order.get("sender"), str):
            facts["order"] = order | {"sender": _moved(sender, before, renamed)}
        connection.execute(update(entry).where(entry.c.id == number).values(metadata=encode(facts)))
    return renamed


def _moved(sender: str, before: MailingList, after: MailingList) -> str:
    """An envelope sender as it is after a rename: of the list's bounce address the detail stays,
    any other stays what it is."""
    local, _, domain = sender.rpartition("@")
    (was, was_at), (becomes, at) = _bounces(before), _bounces(after)
    if domain != was_at or not f"{local}+".startswith(f"{was}+"):
        return sender
    return f"{becomes}{local.removeprefix(was)}@{at}"


def _bounces(of: MailingList) -> tuple[str, str]:
    """The local part and the domain of a list's bounce address."""
    local, _, domain = of.posting_address.rpartition("@")
    return f"{local}-bounces", domain


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
