"""postroom with members, delivering into a sink; what its runners process takes and asks.

For: a post's way through, end to end, as a user would set it up: by the command line, and by
`postroom serve`. Guarantees: the runners process is found by what it runs; its statements are
those that SQLite itself saw. Fails with `Skip` and `LoadError`, which say what went wrong.
"""

import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench import process
from bench.load import LoadError
from bench.servers import POSTROOM, Postroom, Server

NAME, DEFAULT = "postroom", "postroom, VERP"
CONFIGURATION = (
    f'{NAME}: `postroom serve` with SQLite and delivery.verp_share=0; "{DEFAULT}": the same '
    "with its default, a twentieth of the members in transactions of their own, since smtp-sink "
    "offers no XVERP. Both with their defaults otherwise: up to 8 connections and 500 "
    "recipients a transaction; DMARC mitigation is off, as it is in the peer."
)
RUNNERS = "postroom.service.runners"
ON_THE_WAY = ("in", "command", "out")  # queues that something goes through
ASTRAY = ("held", "shunt")  # and where nothing should be
SETTLE_LIMIT = 60.0  # seconds after the last recipient until nothing is left to do
LOOK = 0.1  # seconds between looks
TRACES = Path(__file__).with_name("post_trace")
ASIDE = Path(__file__).with_name("post_aside")
UNSERVED = "bounces"  # the queue that the runners leave alone, if they are told to


class Site(Postroom):
    """A postroom that delivers into a sink, with `more` settings by SECTION__KEY. With `trace`
    its statements are written there, with `aside` nobody serves the queue `UNSERVED`: not
    both."""

    def __init__(
        self,
        directory: Path,
        sink_port: int,
        verp: bool,
        trace: Path | None = None,
        more: Mapping[str, str] | None = None,
        aside: bool = False,
    ) -> None:
        settings = {"SMTP__HOST": f"127.0.0.1:{sink_port}"} | dict(more or {})
        if not verp:
            settings["DELIVERY__VERP_SHARE"] = "0"
        watched = {"PYTHONPATH": str(TRACES), "POST_TRACE": str(trace)} if trace else {}
        left = {"PYTHONPATH": str(ASIDE)} if aside else {}
        super().__init__(directory, watched | left, settings)

    def create(self, lists: Mapping[str, Sequence[str]]) -> None:
        """Make lists with their members."""
        self.create_lists(lists)
        for address, members in lists.items():
            text = "".join(f"{each}\n" for each in members)
            if members:
                self._command("member", "add", address, "-", text=text)
            self._command("list", "set", address, "dmarc.mitigation=none")

    @contextlib.contextmanager
    def serve(self, name: str = NAME) -> Iterator[Server]:
        """Run `postroom serve`, in all its roles."""
        environment = self._environment | self._preload
        with process.running(
            [*POSTROOM, "serve"], self.log, self.directory, environment
        ) as running:
            yield Server(name, process.await_ready(running, self.log), running.pid)

    def settle(self) -> None:
        """Wait until nothing is on its way. Raises `LoadError`."""
        deadline = time.monotonic() + SETTLE_LIMIT
        while left := {name: n for name, n in self.depths().items() if name in ON_THE_WAY and n}:
            if time.monotonic() > deadline:
                raise LoadError(f"messages do not get on: {left}")
            time.sleep(LOOK)
        if astray := {name: n for name, n in self.depths().items() if name in ASTRAY and n}:
            raise LoadError(f"messages went astray: {astray}")

    def members(self, address: str) -> int:
        """How many members a list has."""
        found = self._command("member", "ls", address, "--role", "member", "--json")
        return len(json.loads(found))

    def depths(self) -> dict[str, int]:
        """How many entries wait in each queue."""
        stats = json.loads(self._command("queue", "stats", "--json"))
        return {each["queue"]: each["depth"] for each in stats}


def runners_of(root: int) -> int:
    """The process id of the runners of a server. Raises `Skip`."""
    return process.find(root, RUNNERS)


# Statements

_VALUES = re.compile(
    r"x?'(?:[^']|'')*(?:'|$)|\b\d+(?:\.\d+)?(?:e[+-]?\d+)?\b|\bNULL\b", re.IGNORECASE
)
_SHOWN = 160  # characters of a shape
TRANSACTIONS = ("BEGIN", "BEGIN IMMEDIATE", "ROLLBACK", "SAVEPOINT", "RELEASE")


def shape(statement: str) -> str:
    """A statement without its values."""
    return re.sub(r"\?(?:, ?\?)+", "?", _VALUES.sub("?", statement))[:_SHOWN].strip()


class Trace:
    """What a trace tells, piece by piece."""

    def __init__(self, trace: Path) -> None:
        self._trace, self._seen = trace, 0

    def idle(self, seconds: float) -> Counter[str]:
        """What is run while nothing is to be done."""
        self.since()
        time.sleep(seconds)
        return self.since()

    def since(self) -> Counter[str]:
        """The shapes of what was run since the last call, COMMIT included; what else begins
        and ends transactions is left out."""
        with self._trace.open("rb") as trace:
            trace.seek(self._seen)
            octets = trace.read()
        self._seen += len(octets)
        lines = octets.decode(errors="replace").splitlines()
        return Counter(shape(each) for each in lines if not each.startswith(TRANSACTIONS))
