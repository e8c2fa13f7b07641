"""Requests that wait: who asked to join, leave or change what, and who has to agree.

For: whoever handles requests, answers to them and their end. Each function works in the caller's
transaction, which must be a writing one where rows are locked. Guarantees: of one address one
request of a kind waits for a list; each state has another token, so what was sent for one state
moves no other; of two who answer at once one does, and the other gets `Gone`. What moves a
request, and where to, is for `lists.subscription` to say. A row that cannot be read is no
request: asked for by itself it raises `ListError`, among others it is left out, and it expires
like all. Times are seconds since the epoch. Otherwise fails with the database's errors.
"""

import base64
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, get_args

import msgspec
from sqlalchemy import Connection, Row, Select, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from postroom.lists.registry import ListError
from postroom.lists.roster import same_address
from postroom.lists.subscription import Action, Policy, State
from postroom.store.schema import mailing_list, pending

TOKEN_SIZE: Final = 16  # octets
MOST: Final = 2**63 - 1
_TOKEN: Final = re.compile(r"[A-Za-z2-7]{26}")
_ACTIONS: Final = get_args(Action)
_CHANGES: Final = msgspec.json.Decoder(dict[str, str])


class Wanted(NamedTuple):
    """What somebody asks for: `changes` are set with it, `source` is the network that it came
    from, "" if that is not known."""

    action: Action
    email: str
    name: str
    changes: Mapping[str, str]
    policy: Policy
    state: State
    asked_by: str
    source: str


class Request(NamedTuple):
    """A request that waits. `told_at` is when its token was last sent."""

    id: int
    list_key: int
    action: Action
    email: str
    name: str
    changes: Mapping[str, str]
    policy: Policy
    state: State
    token: str
    asked_by: str
    source: str
    created_at: float
    told_at: float
    expires_at: float


class Gone(Exception):
    """Somebody else moved or ended this request; `str()` is a sentence for people."""

    def __init__(self) -> None:
        super().__init__("somebody else has answered this request meanwhile, or it was asked anew")


_COLUMNS: Final = (
    pending.c.id,
    pending.c.list,
    pending.c.action,
    pending.c.email,
    pending.c.name,
    pending.c.changes,
    pending.c.policy,
    pending.c.state,
    pending.c.token,
    pending.c.asked_by,
    pending.c.source,
    pending.c.created_at,
    pending.c.told_at,
    pending.c.expires_at,
)


# Statements of every request are made once: to put them together takes as long as to run them.
_ASKED: Final = select(*_COLUMNS).where(
    pending.c.list == bindparam("list"),
    pending.c.action == bindparam("action"),
    pending.c.folded == bindparam("folded"),
)


def _adding(insert: Any) -> Any:
    """The statement that adds a request. One that has expired makes room. One that has not is
    left as it is, but locked: on PostgreSQL that is so even where the condition does not hold."""
    adding = insert(pending)
    adding = adding.on_conflict_do_update(
        index_elements=[pending.c.list, pending.c.action, pending.c.folded],
        set_={each.name: adding.excluded[each.name] for each in pending.c},
        where=pending.c.expires_at <= adding.excluded.created_at,
    )
    return adding.execution_options(preserve_rowcount=True)


_ADDING: Final = {"sqlite": _adding(sqlite.insert), "postgresql": _adding(postgresql.insert)}


def new_token() -> str:
    """A token that nobody guesses: 26 characters of base32, lower case."""
    return base64.b32encode(secrets.token_bytes(TOKEN_SIZE)).decode().rstrip("=").lower()


def ask(
    connection: Connection,
    new_id: Callable[[], int],
    list_key: int,
    wanted: Wanted,
    expire_after: float,
    now: float,
) -> tuple[Request, bool]:
    """The request of this kind that waits for this list and address, as it was asked, and
    False; or else a new one, for `expire_after` seconds, and True. It is locked. Two
    statements. Raises `ListError`."""
    folded = same_address(wanted.email)
    if "@" not in folded:
        raise ListError(f"{wanted.email[:100]!a} is no address: use name@domain")
    values = _asked(wanted) | {
        "id": new_id(),
        "list": list_key,
        "action": wanted.action,
        "email": wanted.email,
        "folded": folded,
        "token": new_token(),
        "created_at": now,
        "told_at": now,
        "expires_at": now + expire_after,
    }
    is_new = connection.execute(_ADDING[connection.dialect.name], values).rowcount == 1
    row = connection.execute(_ASKED, values).one()
    if _readable(row) is None:  # of another age, or damaged: it makes room, too
        connection.execute(update(pending).where(pending.c.id == row.id).values(values))
        row, is_new = connection.execute(_ASKED, values).one(), True
    return _request(row), is_new


def renew(
    connection: Connection, request: Request, wanted: Wanted, expire_after: float, now: float
) -> Request:
    """Replace what is asked for, all but the action and the address; with another token, told
    now. Raises `Gone`."""
    values = _asked(wanted) | _anew(expire_after, now)
    return _changed(connection, request, values)._replace(changes=dict(wanted.changes))


def by_token(connection: Connection, token: str, now: float) -> Request | None:
    """The request with this token, in any case, locked; None if there is none or it has
    expired. Any text will do. Raises `ListError`."""
    token = token.strip()
    if not _TOKEN.fullmatch(token):
        return None
    this = (pending.c.token == token.lower()) & (pending.c.expires_at > now)
    row = connection.execute(select(*_COLUMNS).where(this).with_for_update()).first()
    return _request(row) if row else None


def find(connection: Connection, number: int) -> Request:
    """The request with this id, whether or not it has expired. Raises `ListError`."""
    row = connection.execute(select(*_COLUMNS).where(pending.c.id == number)).first()
    if row is None:
        raise ListError(
            f"there is no request {number:016x}: it was answered, it has expired, or it never was"
        )
    return _request(row)


def move(
    connection: Connection, request: Request, state: State, expire_after: float, now: float
) -> Request:
    """Bring a request into another state: with another token, told now, and with
    `expire_after` seconds left. Raises `Gone`."""
    return _changed(connection, request, {"state": state} | _anew(expire_after, now))


def told(connection: Connection, request: Request, now: float) -> Request:
    """Note that its token was sent once more. Raises `Gone`."""
    return _changed(connection, request, {"told_at": now})


def end(connection: Connection, request: Request) -> None:
    """Remove a request. Raises `Gone`."""
    if connection.execute(delete(pending).where(_as_it_was(request))).rowcount != 1:
        raise Gone


def waiting(
    connection: Connection,
    list_key: int | None = None,
    limit: int = MOST,
    state: State | None = None,
) -> Iterator[tuple[Request, str]]:
    """The requests of a list, or of all, that have not expired and are in a state, or in any,
    oldest first, each with the list's posting address; read as they are asked for."""
    found = _with_list(mailing_list.c.posting_address).where(pending.c.expires_at > time.time())
    if list_key is not None:
        found = found.where(pending.c.list == list_key)
    if state is not None:
        found = found.where(pending.c.state == state)
    found = found.order_by(pending.c.created_at, pending.c.id).limit(limit)
    for row in connection.execute(found.execution_options(yield_per=100)):
        if request := _readable(row):
            yield request, row[-1]


def expire(connection: Connection, now: float, limit: int) -> list[tuple[Request, str]]:
    """Remove requests that have expired, at most `limit`; returns them, each with its list-id.
    What somebody works on is left for another time."""
    found = _with_list(mailing_list.c.list_id).where(pending.c.expires_at <= now)
    found = found.order_by(pending.c.expires_at).limit(limit)
    rows = connection.execute(found.with_for_update(of=pending, skip_locked=True)).all()
    if rows:
        connection.execute(delete(pending).where(pending.c.id.in_([row.id for row in rows])))
    return [(request, row[-1]) for row in rows if (request := _readable(row))]


def _asked(wanted: Wanted) -> dict[str, Any]:
    """What a request has from whoever asks, but what identifies it."""
    return {
        "name": wanted.name,
        "changes": msgspec.json.encode(dict(wanted.changes)).decode(),
        "policy": wanted.policy,
        "state": wanted.state,
        "asked_by": wanted.asked_by,
        "source": wanted.source,
    }


def _anew(expire_after: float, now: float) -> dict[str, Any]:
    return {"token": new_token(), "told_at": now, "expires_at": now + expire_after}


def _as_it_was(request: Request) -> Any:
    """That the row is still what was read: each change of state has another token."""
    return (pending.c.id == request.id) & (pending.c.token == request.token)


def _changed(connection: Connection, request: Request, values: dict[str, Any]) -> Request:
    this = update(pending).where(_as_it_was(request)).values(values)
    if connection.execute(this).rowcount != 1:
        raise Gone
    return request._replace(**values)


def _with_list(column: Any) -> Select[Any]:
    return select(*_COLUMNS, column).join_from(pending, mailing_list)


def _readable(row: Row[*tuple[Any, ...]]) -> Request | None:
    try:
        return _request(row)
    except ListError:
        return None


def _request(row: Row[*tuple[Any, ...]]) -> Request:
    try:
        if row.action not in _ACTIONS:
            raise ValueError(f"{row.action!r} is no action")
        changes = _CHANGES.decode(row.changes)
        policy, state = Policy(row.policy), State(row.state)
    except ValueError as error:
        raise ListError(f"the request {row.id:016x} cannot be read: {error}") from None
    found = Request._make(row[: len(_COLUMNS)])
    return found._replace(changes=changes, policy=policy, state=state)
