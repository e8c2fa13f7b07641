"""Routing: from the recipients of many envelopes to endpoints, in one statement.

For: the look-up that decides 250 or 550. Guarantees: one indexed statement for a whole
batch, whatever the number of lists; nothing is cached, so a list made a moment ago is
found. Fails with the database's own errors: the caller answers 4xx, never 550.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import msgspec

from postroom.lists.endpoint import POSTMASTER, Endpoint, Reading, host_of, readings
from postroom.mail.address import Mailbox, fold

_STATEMENT = """
SELECT c.name, c.host, l.id, l.list_id, l.posting_address
FROM {candidates}
{join} domain d {of_domain} ON d.mail_host = c.host
LEFT JOIN mailing_list l {of_list}
  ON l.mail_host = coalesce(d.alias_of, d.mail_host) AND l.list_name = c.name
"""
# The left join tells a domain that is ours, where postmaster is valid, from one that is not.
# SQLite is told the order (CROSS) and the indexes, which come with the tables' constraints:
# after an ANALYZE it may read whole tables, most of all if the site was small at that time.
_SQLITE = _STATEMENT.format(
    candidates="(SELECT value ->> 0 AS name, value ->> 1 AS host FROM json_each(?)) c",
    join="CROSS JOIN",
    of_domain="INDEXED BY sqlite_autoindex_domain_1",
    of_list="INDEXED BY sqlite_autoindex_mailing_list_1",
)
_POSTGRESQL = _STATEMENT.format(
    candidates="unnest(%s::text[], %s::text[]) AS c(name, host)",
    join="JOIN",
    of_domain="",
    of_list="",
)


class Query(Protocol):
    """Executes a statement in the driver's own words and returns its rows."""

    def __call__(self, statement: str, parameters: tuple[Any, ...]) -> Iterable[Any]: ...


_encode = msgspec.json.Encoder().encode
Found = tuple[int, str, str]  # row id, list-id, posting address
Key = tuple[str, str]  # list name and host, folded


def route(
    query: Query, is_sqlite: bool, recipients: Iterable[Mailbox]
) -> dict[Mailbox, Endpoint | None]:
    """The endpoint of each recipient, None where it names no valid one."""
    readings_of = {
        box: (host_of(box.domain), list(readings(box.local, fold(box.local))))
        for box in set(recipients)
    }
    wanted = {
        (reading.list_name, host) for host, every in readings_of.values() for reading in every
    }
    known = _look_up(query, is_sqlite, list(wanted))
    hosted = {host for _, host in known}
    return {box: _choose(host, every, known, hosted) for box, (host, every) in readings_of.items()}


def _look_up(query: Query, is_sqlite: bool, wanted: Sequence[Key]) -> dict[Key, Found | None]:
    """The lists among `wanted`; a key of a hosted domain without such a list gives None."""
    if is_sqlite:
        rows = query(_SQLITE, (_encode(wanted).decode(),))
    else:
        rows = query(_POSTGRESQL, ([name for name, _ in wanted], [host for _, host in wanted]))
    return {
        (name, host): None if key is None else (key, list_id, address)
        for name, host, key, list_id, address in rows
    }


def _choose(
    host: str,
    every: Sequence[Reading],
    known: dict[Key, Found | None],
    hosted: set[str],
) -> Endpoint | None:
    if every[0].list_name == POSTMASTER and (not host or host in hosted):
        return Endpoint(None, "", "", "", "")
    for reading in every:
        found = known.get((reading.list_name, host))
        if found is not None:
            return Endpoint(*found, reading.subaddress, reading.detail)
    return None
