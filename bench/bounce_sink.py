"""A mail sink that refuses whom it is told to, in a process of its own.

For: posts of which much is refused, as the best of mail servers would: with pipelining, at once.
Guarantees: whose address begins with `GONE` is refused at RCPT with 550 5.1.1, everybody else is
taken and thrown away; who came is counted as `bench.post_sink` counts, so that its `Sink` can tell,
and who was refused likewise. Prints `ready HOST:PORT` on stderr; ends on SIGTERM. BDAT is not
understood.
"""

import asyncio
import contextlib
import mmap
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import uvloop

from bench import process
from bench.load import LoadError
from bench.post_sink import APART, RECORD, RECORDS, Arrived, Sink

GONE = "gone."
LOOK = 0.01  # seconds between looks
ROOT = Path(__file__).parent.parent
HELLO = b"250-sink\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"
REFUSAL = b"550 5.1.1 No such user here\r\n"
SIMPLE = {
    b"RSET": b"250 2.0.0 Ok\r\n",
    b"NOOP": b"250 2.0.0 Ok\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}
LINE_END, END = b"\r\n", b"\r\n.\r\n"
_NUMBERS = RECORD.size // 8
_OTHERS, _APART, _REFUSED = range(0, (RECORDS + 1) * _NUMBERS, _NUMBERS)
_REFUSED_TO, _APART_TO = (f"RCPT TO:<{each}".encode() for each in (GONE, APART))


class Refuser(Sink):
    """A running sink that refuses."""

    def clear(self) -> None:
        """Begin to count anew; only while nothing comes in."""
        with self._counts.open("r+b") as counts:
            counts.write(bytes(RECORD.size * (RECORDS + 1)))

    def refused(self) -> Arrived:
        """Who was refused; `messages` is 0, `last` is when the last one was."""
        return Arrived(*_times(RECORD.unpack_from(self._counts.read_bytes(), 8 * _REFUSED)))

    def answered(self) -> int:
        """How many were taken or refused, those apart not."""
        return self.arrived().recipients + self.refused().recipients

    def wait_answered(self, recipients: int, limit: float) -> float:
        """Wait until that many were; returns when the last one was, as of time.monotonic().
        Raises `LoadError` after `limit` seconds."""
        deadline = time.monotonic() + limit
        while (found := self.answered()) < recipients:
            if time.monotonic() > deadline:
                raise LoadError(f"{found:,} of {recipients:,} recipients within {limit:.0f} s")
            time.sleep(LOOK)
        return max(self.arrived().last, self.refused().last)


def _times(record: tuple[int, ...]) -> tuple[int, int, float, float]:
    recipients, messages, first, last = record
    return recipients, messages, first / 1e9, last / 1e9


@contextlib.contextmanager
def refuser(directory: Path) -> Iterator[Refuser]:
    """Run one for as long as the block lasts. Raises `Skip`."""
    directory.mkdir(parents=True)
    counts, log = directory / "counts", directory / "sink.log"
    counts.write_bytes(bytes(RECORD.size * (RECORDS + 1)))
    environment = process.clean_environment(PYTHONPATH=str(ROOT))
    command: list[str | Path] = [sys.executable, "-m", "bench.bounce_sink", counts]
    with process.running(command, log, directory, environment) as running:
        yield Refuser(process.await_ready(running, log), running.pid, counts)


# In the process of the sink


class Client(asyncio.Protocol):
    """One connection. `counts` are three records of `post_sink.RECORD`: others, apart, refused."""

    _transport: asyncio.Transport

    def __init__(self, counts: "memoryview[int]") -> None:
        self._counts = counts
        self._rest = b""  # of what came, not yet looked at
        self._data = False
        self._began = 0
        self._pending = {_OTHERS: 0, _APART: 0}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        """Answer all that came with one write."""
        octets, at = self._rest + data, 0
        answers: list[bytes] = []
        while (found := octets.find(END if self._data else LINE_END, at)) >= 0:
            if self._data:
                at = found + len(END)
                answers.append(self._delivered())
            else:
                line, at = octets[at:found], found + len(LINE_END)
                answers.append(self._answer(line))
                if self._data:  # the end of this line may be the beginning of that of the text
                    at -= len(LINE_END)
        self._rest = octets[at:]
        if answers:
            self._transport.write(b"".join(answers))

    def _answer(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"RCPT":
            return self._recipient(line)
        if verb == b"MAIL":
            self._pending = dict.fromkeys(self._pending, 0)
            self._began = time.monotonic_ns()
            return b"250 2.1.0 Ok\r\n"
        if verb == b"DATA":
            if not any(self._pending.values()):
                return b"503 5.5.1 No recipients\r\n"
            self._data = True
            return b"354 Go on\r\n"
        if verb in (b"EHLO", b"HELO"):
            return HELLO
        return SIMPLE.get(verb, b"502 5.5.2 What?\r\n")

    def _recipient(self, line: bytes) -> bytes:
        if line.startswith(_REFUSED_TO):
            self._count(_REFUSED, 1, 0)
            return REFUSAL
        self._pending[_APART if line.startswith(_APART_TO) else _OTHERS] += 1
        return b"250 2.1.5 Ok\r\n"

    def _delivered(self) -> bytes:
        self._data = False
        for record, number in self._pending.items():
            if number:
                self._count(record, number, 1)
        self._pending = dict.fromkeys(self._pending, 0)
        return b"250 2.0.0 Ok\r\n"

    def _count(self, record: int, recipients: int, messages: int) -> None:
        counts = self._counts
        if not counts[record] or self._began < counts[record + 2]:
            counts[record + 2] = self._began
        counts[record + 3] = time.monotonic_ns()  # before the number, as somebody waits for that
        counts[record + 1] += messages
        counts[record] += recipients


async def main(counts: Path) -> None:
    """Serve until the process is ended."""
    with counts.open("r+b") as file, memoryview(mmap.mmap(file.fileno(), 0)) as page:
        numbers = page.cast("Q")
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Client(numbers), "127.0.0.1", 0, backlog=128)
        host, port = server.sockets[0].getsockname()
        print(f"ready {host}:{port}", file=sys.stderr, flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
