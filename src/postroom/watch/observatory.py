"""What can be seen of a running server: /metrics, /healthz and /status.

For: Prometheus, load balancers, `postroom top` and `postroom doctor`. Guarantees: the intake is
asked once however many look at the same time, and nobody waits longer for it than `PATIENCE`;
to be looked at costs the mail nothing but that one question.
"""

import asyncio
import resource
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import msgspec

from postroom import __version__
from postroom.base.observe import Log
from postroom.base.settings import Settings
from postroom.lmtp.budget import Budget
from postroom.lmtp.protocol import State
from postroom.watch.figures import Memory, Refusal, Status, Tally
from postroom.watch.health import FAILING, PATIENCE, judge
from postroom.watch.http import Page, Responder
from postroom.watch.metrics import CONTENT_TYPE, exposition

JSON = "application/json"
_QUIET = {state.value: 0 for state in State if state is not State.CLOSED}
_TIMED_OUT = b"421 4.4.2"  # whoever was silent or slow is told this
_encode = msgspec.json.Encoder().encode
decode_status = msgspec.json.Decoder(Status).decode


class Intake(Protocol):
    """What the door knows of its intake process."""

    free: int | None
    heard_at: float  # time.monotonic()
    refusals: deque[Refusal]
    ready: "asyncio.Future[Any]"

    @property
    def connected(self) -> bool:
        """Whether it is there."""

    def stats(self, answer: Callable[[Tally | None], None]) -> None:
        """Ask it how it is going; `answer` is called once, later."""


class DoorFigures(NamedTuple):
    """What the LMTP server counted. `replies` are counted as they were sent; `states` has one
    for each connection; `unbound` names the settings of listeners that are not there."""

    settings: Settings
    replies: Mapping[bytes, int]
    states: Iterable[str]
    accepted: int
    refused: Mapping[str, int]
    octets_in: int
    budget: Budget
    unbound: Sequence[str] = ()


class Observatory:
    """The pages. Used in the event loop's thread only."""

    def __init__(self, figures: Callable[[], DoorFigures], front: Intake, log: Log) -> None:
        self._figures, self._front = figures, front
        self._started_at = time.time()
        self._open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._asked: asyncio.Future[Tally | None] | None = None
        self._responder = Responder(self._page, log)

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on bound sockets. Raises OSError."""
        await self._responder.listen(sockets)

    def close(self) -> None:
        """Stop."""
        self._responder.close()

    async def status(self) -> Status:
        """Everything, as of now."""
        tally, door, front = await self._tally(), self._figures(), self._front
        codes: Counter[str] = Counter()
        for line, count in door.replies.items():
            codes[line[:3].decode("ascii")] += count
        lmtp, budget = door.settings.lmtp, door.budget
        return Status(
            version=__version__,
            hostname=door.settings.site.hostname,
            time=time.time(),
            started_at=self._started_at,
            replies=dict(codes),
            connections=_QUIET | Counter(door.states),
            max_connections=lmtp.max_connections,
            open_files=self._open_files,
            accepted=door.accepted,
            refused=dict(door.refused),
            timed_out=sum(n for line, n in door.replies.items() if line.startswith(_TIMED_OUT)),
            octets_in=door.octets_in,
            memory=Memory(budget.total, budget.free, budget.waiting),
            max_message_size=lmtp.max_message_size,
            free=front.free,
            reserve=door.settings.store.min_free_space,
            unbound=tuple(door.unbound),
            ready=front.ready.done(),
            connected=front.connected,
            heard_ago=time.monotonic() - front.heard_at,
            tally=tally,
            refusals=tuple(front.refusals),
        )

    async def _tally(self) -> Tally | None:
        """The intake's answer; None if it does not come in time."""
        asked = self._asked
        if asked is None or asked.done():
            asked = self._asked = asyncio.get_running_loop().create_future()
            self._front.stats(asked.set_result)
        await asyncio.wait([asked], timeout=PATIENCE)
        return asked.result() if asked.done() else None

    async def _page(self, path: str) -> Page | None:
        if path not in ("/metrics", "/healthz", "/status"):
            return None
        status = await self.status()
        if path == "/metrics":
            return Page(exposition(status), CONTENT_TYPE)
        if path == "/status":
            return Page(_encode(status), JSON)
        health = judge(status)
        bad = health.status == FAILING
        code = HTTPStatus.SERVICE_UNAVAILABLE if bad else HTTPStatus.OK
        return Page(_encode(health._asdict()), JSON, code)
