"""Look-ups for mail servers: which addresses and domains are ours, at this moment.

For: Postfix's socketmap_table(5), sendmail's socket maps and Exim's readsocket, so that
nobody generates map files. Guarantees: answers come from the registry and nothing is kept,
so a list made a moment ago is found; only the registry's own answer says NOTFOUND, every
trouble is TEMP or TIMEOUT; answers come in the order of the requests; memory for each
connection and the number of connections are bounded. A request that cannot be understood
is answered PERM, one that cannot be delimited ends its connection.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, cast

from postroom.base.observe import Log
from postroom.base.places import Tcp, Unix
from postroom.lists.endpoint import POSTMASTER
from postroom.lmtp.connection import Answer
from postroom.lmtp.server import accept
from postroom.mail.address import AddressError, Mailbox, fold, parse_mailbox
from postroom.mail.reply import LOCAL_ERROR, Reply
from postroom.service.netstring import NetstringError, cut, netstring

POSTFIX_QUEUE = "/var/spool/postfix/"
MAPS = ("recipients", "transport", "domains")
MAX_REQUEST = 16_384  # octets; Postfix sends keys of at most 10,000
MAX_AT_ONCE = 100  # requests of one connection in one question to the registry
MAX_UNREAD = 65_536  # octets that a connection may have waiting before it is not read
MAX_CONNECTIONS = 1000  # each process of a mail server holds one
IDLE = 60.0  # seconds; Postfix itself closes after 10, and waits 100 for an answer


class Registry(Protocol):
    """Who knows the lists."""

    def verify(self, recipients: tuple[Mailbox, ...], answer: Answer) -> None:
        """Look up; `answer` is called once with a reply per recipient, later."""


class Request(NamedTuple):
    """One look-up: the map ("" if there is no such), its key, and the recipient that exists
    if the key is to be found; if there can be none, `refusal` is the answer."""

    map: str
    key: str
    recipient: Mailbox | None
    refusal: str = "NOTFOUND "


def next_hop(place: Tcp | Unix) -> str:
    """A place where we listen for LMTP, as Postfix's transport(5) wants it."""
    if isinstance(place, Unix):
        # Postfix works in its queue directory, be that also the root it sees or not.
        return f"lmtp:unix:{place.path.removeprefix(POSTFIX_QUEUE)}"
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return f"lmtp:inet:{Tcp(local.get(place.host, place.host), place.port)}"


def understand(octets: bytes) -> Request:
    """Read a request, `NAME KEY`. Pure."""
    name, space, raw = octets.partition(b" ")
    if not space:
        return Request("", "", None, "PERM a request is the name of a map, a space and a key")
    found = name.decode("ascii", "replace")
    if found not in MAPS:
        return Request("", "", None, f"PERM no such map: there are {', '.join(MAPS)}")
    try:
        key = raw.decode()
        recipient = _recipient(found, key)
    except (UnicodeDecodeError, AddressError):
        return Request(found, "", None)
    return Request(found, key, recipient)


def _recipient(name: str, key: str) -> Mailbox | None:
    if name == "domains":
        if "@" in key:
            key = parse_mailbox(key)[0].domain
        box, text = parse_mailbox(f"{POSTMASTER}@{key}")
        # In hosted domains it is valid, and nowhere else.
        return box if text == f"{POSTMASTER}@{key}" and key else None
    box, _ = parse_mailbox(key)
    if not box.domain:
        return None
    # Where a domain is shared, its postmaster is that of the mail server.
    return None if name == "transport" and fold(box.local) == POSTMASTER else box


def answers(requests: Iterable[Request], replies: Iterable[Reply], where: str) -> Iterator[str]:
    """The answers to requests, given the replies for those that have a recipient. Pure."""
    left = iter(replies)
    for request in requests:
        if request.recipient is None:
            yield request.refusal
            continue
        reply = next(left, LOCAL_ERROR)
        if reply.accepted:
            yield f"OK {request.key if request.map == 'recipients' else where}"
        elif reply.code < 500:
            yield f"TEMP {reply.text}"
        else:
            yield "NOTFOUND "


class MapServer:
    """All look-ups of one process. Used in the event loop's thread only."""

    def __init__(self, registry: Registry, log: Log, where: str) -> None:
        """`where` is the `next_hop` of the first listener for LMTP."""
        self.registry, self.log, self.where = registry, log, where
        self.answers: Counter[tuple[str, str]] = Counter()  # by map ("" if none) and outcome
        self.connections: set[_Connection] = set()
        self._listeners: list[asyncio.Server] = []
        self._full = False

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on bound sockets. Raises OSError."""
        for bound in sockets:
            self._listeners.append(await accept(lambda: _Connection(self), bound))

    def close(self) -> None:
        """Stop accepting, and close every connection after what was answered already."""
        for listener in self._listeners:
            listener.close()
        for connection in list(self.connections):
            connection.close()

    def joined(self, connection: "_Connection") -> bool:
        """Whether there is room for one more."""
        if len(self.connections) >= MAX_CONNECTIONS:
            if not self._full:
                self.log.warning("too many connections for look-ups", most=MAX_CONNECTIONS)
            self._full = True
            return False
        self.connections.add(connection)
        return True

    def left(self, connection: "_Connection") -> None:
        """A connection is gone."""
        if connection in self.connections:
            self.connections.remove(connection)
            self._full = False


class _Connection(asyncio.Protocol):
    """One client. At most one question of it is under way; what comes meanwhile waits."""

    def __init__(self, server: MapServer) -> None:
        self._server = server
        self._transport: asyncio.Transport
        self._input = bytearray()
        self._asked: list[Request] = []
        self._ended = False  # the client has said all
        self._clogged = False
        self._reading = True
        self._gone = False
        self._active_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._server.joined(self):
            self.abort()
            return
        self._active_at = asyncio.get_running_loop().time()
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._active_at = asyncio.get_running_loop().time()
        self._input += data
        self._go_on()

    def eof_received(self) -> bool:
        """A client that only stopped sending still gets its answers."""
        self._ended = True
        self._go_on()
        return not self._gone

    def pause_writing(self) -> None:
        self._clogged = True

    def resume_writing(self) -> None:
        self._clogged = False
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        if self._timer is not None:
            self._timer.cancel()
        self._server.left(self)

    def close(self) -> None:
        """Say no more than what has been said."""
        self._gone = True
        self._transport.close()

    def abort(self) -> None:
        """Close now, without a word."""
        self._gone = True
        self._transport.abort()

    # Requests and answers

    def _go_on(self) -> None:
        """Answer the next requests or ask for them, and read or do not read."""
        if self._gone:
            return
        try:
            self._work()
        except NetstringError:
            self._server.answers["", "malformed"] += 1
            self.close()
        except Exception as error:
            self._defect(error)
        wanted = len(self._input) < MAX_UNREAD
        if wanted != self._reading and not self._gone:
            self._reading = wanted
            (self._transport.resume_reading if wanted else self._transport.pause_reading)()

    def _work(self) -> None:
        if self._asked or self._clogged:
            return
        requests = self._take()
        if requests:
            self._ask(requests)
            if not self._asked:  # a long input must not hold up the others
                asyncio.get_running_loop().call_soon(self._go_on)
        elif self._ended:
            self.close()

    def _take(self) -> list[Request]:
        """The next requests that are here, as far as they are not malformed.

        Raises `NetstringError` if the very next one is.
        """
        found: list[Request] = []
        start = 0
        try:
            while len(found) < MAX_AT_ONCE and (piece := cut(self._input, start, MAX_REQUEST)):
                octets, start = piece
                found.append(understand(octets))
        except NetstringError:
            if not found:
                raise
        del self._input[:start]
        return found

    def _ask(self, requests: list[Request]) -> None:
        self._asked = requests
        recipients = tuple(each.recipient for each in requests if each.recipient is not None)
        if recipients:
            self._server.registry.verify(recipients, self._answered)
        else:
            self._answer(())

    def _answered(self, replies: Sequence[Reply] | None) -> None:
        if self._gone:
            return
        try:
            self._answer(replies or ())
        except Exception as error:
            self._defect(error)
        self._go_on()

    def _answer(self, replies: Sequence[Reply]) -> None:
        asked, self._asked = self._asked, []
        self._say(asked, answers(asked, replies, self._server.where))

    def _say(self, asked: Sequence[Request], said: Iterable[str]) -> None:
        pieces = []
        for request, answer in zip(asked, said, strict=True):
            self._server.answers[request.map, answer.partition(" ")[0]] += 1
            pieces.append(netstring(answer.encode()))
        self._transport.write(b"".join(pieces))

    # Ends

    def _watch(self) -> None:
        """Close when nothing has happened for too long, whatever did not happen."""
        loop = asyncio.get_running_loop()
        if self._asked and loop.time() >= self._active_at + IDLE:
            asked, self._asked = self._asked, []
            self._say(asked, ["TIMEOUT the registry does not answer"] * len(asked))
            self.close()
            self._active_at = loop.time()  # there is this much time to read it
        if (left := self._active_at + IDLE - loop.time()) > 0:
            self._timer = loop.call_later(left, self._watch)
        else:
            self.abort()

    def _defect(self, error: Exception) -> None:
        self._server.log.error("look-ups of a client ended by a defect", exc_info=error)
        self.abort()
