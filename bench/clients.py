"""Clients that bring no mail: idle, slow and flooding ones, in a process of their own.

For: `python -m bench.clients KIND PORT COUNT`, as `bench.crowd` runs it. Guarantees: those
that are slow or flood have the least priority, so what is measured beside them is how a
server shares itself out, not how they take the processor from it. Says `ready` once each has
been let in; every line of input is answered with what they did so far, in JSON. Ends with its
input. Who cannot connect tries again.
"""

import asyncio
import contextlib
import json
import os
import resource
import socket
import sys
import time
from pathlib import Path
from typing import cast

HOST = "127.0.0.1"
IP_BIND_ADDRESS_NO_PORT = 24  # ip(7): the port is chosen together with where it connects to
BUFFER = 65_536  # octets that the system takes from a client before the server reads them
AT_ONCE = 100  # connections being made: a server's backlog is not what is measured
AGAIN = 0.1  # seconds until one that could not connect tries again
ANSWER_LIMIT = 30.0  # seconds for all to get an answer
DRIP = 1.0  # seconds between two octets of a slow client
FEW, MANY = 50, 2000  # commands that a flood sends at once

LHLO = b"LHLO bench\r\n"
MAIL = b"MAIL FROM:<sender@example.org>\r\n"
RCPT = b"RCPT TO:<%d@bench.example.com>\r\n"
# What a flood says first, and then without end.
FLOODS = (
    (b"", b"XYZZY plugh\r\n"),
    (LHLO, b"NOOP\r\n"),
    (LHLO + MAIL, RCPT % 1),
    (b"", b"GET / HTTP/1.1\r\nHost: bench.example.com\r\n\r\n"),
)


class Crowd:
    """All clients of this process, and what they did."""

    def __init__(self, kind: "type[Client]", port: int) -> None:
        self._kind, self._port = kind, port
        self._few = asyncio.Semaphore(AT_ONCE)
        self._comings = set[asyncio.Task[None]]()
        self._wanted = self._settled = 0
        self._over = False
        self.inside = set[Client]()
        self.connections = self.answers = self.octets = 0
        self.all_in = asyncio.Event()
        self._all_answered = asyncio.Event()

    def gather(self, count: int) -> None:
        """Have so many come in."""
        self._wanted = count
        for number in range(count):
            self.come(number)

    def come(self, number: int) -> None:
        """Have one come in, for the first time or again."""
        if not self._over:
            coming = asyncio.get_running_loop().create_task(self._come(number))
            self._comings.add(coming)
            coming.add_done_callback(self._comings.discard)

    async def _come(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        client = self._kind(self, number)
        async with self._few:
            while True:
                sock = socket.socket()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
                try:
                    sock.bind((client.source, 0))
                    await loop.sock_connect(sock, (HOST, self._port))
                    await loop.create_connection(lambda: client, sock=sock)
                    return
                except OSError:
                    sock.close()
                    await asyncio.sleep(AGAIN)

    def settle(self, client: "Client") -> None:
        """One is where it wants to be, for the first time or again."""
        self.inside.add(client)
        self._settled += 1
        if self._settled == self._wanted:
            self.all_in.set()

    def answered(self, good: int) -> None:
        """One has got an answer, or is gone."""
        self.answers += good
        if self.answers >= len(self.inside):
            self._all_answered.set()

    def disperse(self) -> None:
        """From now on nobody comes again."""
        self._over = True

    async def told(self) -> dict[str, float]:
        """What they did so far; `answering` is how many of the idle get an answer now."""
        self.answers = 0
        self._all_answered.clear()
        asked = [client.ask() for client in self.inside]
        if any(asked):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_answered.wait(), ANSWER_LIMIT)
        return {
            "answering": self.answers,
            "connections": self.connections,
            "octets": self.octets,
            "processor": time.process_time(),
        }


class Client(asyncio.Protocol):
    """One client. It comes again when it is thrown out."""

    source = HOST

    def __init__(self, crowd: Crowd, number: int) -> None:
        self._crowd, self._number = crowd, number
        self._transport: asyncio.Transport
        self._gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._crowd.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._crowd.inside.discard(self)
        self.thrown_out()

    def thrown_out(self) -> None:
        """The connection is gone."""
        self._crowd.come(self._number)

    def say(self, octets: bytes) -> None:
        """Send, and count it."""
        self._crowd.octets += len(octets)
        self._transport.write(octets)

    def ask(self) -> bool:
        """Ask the server for an answer; False for a client that would not."""
        return False


class Idle(Client):
    """Says LHLO, and then nothing unless it is asked. It does not come again."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        super().__init__(crowd, number)
        # One address has too few ports for many who come and go.
        self.source = f"127.0.0.{2 + number % 100}"

    def data_received(self, data: bytes) -> None:
        crowd = self._crowd
        if self in crowd.inside:
            crowd.answered(data.startswith(b"250 "))
        elif data.startswith(b"220 "):
            self.say(LHLO)
        elif b"250 " in data:
            crowd.settle(self)

    def thrown_out(self) -> None:
        self._crowd.answered(0)  # it will not

    def ask(self) -> bool:
        self.say(b"NOOP\r\n")
        return True


class Slow(Client):
    """Sends one octet a second: half of them of a command, half of a message."""

    source = "127.0.0.3"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._crowd.settle(self)
        if self._number % 2:
            self.say(LHLO + MAIL + RCPT % self._number + b"DATA\r\n")
        self._drip()

    def _drip(self) -> None:
        if not self._gone:
            self.say(b"x")
            asyncio.get_running_loop().call_later(DRIP, self._drip)


class Flood(Client):
    """Sends commands without end. Half of them do so as fast as they are taken, and hang up
    when they are told 421; half go on whenever there is an answer, and wait to be closed."""

    source = "127.0.0.2"

    def __init__(self, crowd: Crowd, number: int) -> None:
        super().__init__(crowd, number)
        self._first, line = FLOODS[number % len(FLOODS)]
        self._patient = number // len(FLOODS) % 2 == 1
        self._words = line * (FEW if self._patient else MANY)
        self._clogged = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._crowd.settle(self)
        self.say(self._first)
        self._go_on()

    def data_received(self, data: bytes) -> None:
        if b"421 " in data:
            if not self._patient:
                self._transport.abort()
        elif self._patient:
            self._go_on()

    def pause_writing(self) -> None:
        self._clogged = True

    def resume_writing(self) -> None:
        self._clogged = False
        self._go_on()

    def _go_on(self) -> None:
        if self._clogged or self._gone:
            return
        self.say(self._words)
        if not self._patient:
            asyncio.get_running_loop().call_soon(self._go_on)


KINDS: dict[str, type[Client]] = {"idle": Idle, "slow": Slow, "flood": Flood}


def step_back() -> None:
    """Take the least priority there is."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with contextlib.suppress(OSError):
        # sched(7): where each session is a group, priority counts within a session only.
        Path("/proc/self/autogroup").write_text("19")


async def main(kind: str, port: int, count: int) -> None:
    """Gather, and tell what they did until nobody asks any more."""
    loop = asyncio.get_running_loop()
    crowd = Crowd(KINDS[kind], port)
    crowd.gather(count)
    ready = loop.create_task(crowd.all_in.wait())
    ready.add_done_callback(lambda _: print("ready", flush=True))
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await crowd.told()), flush=True)
    crowd.disperse()


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if sys.argv[1] != "idle":
        step_back()
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
