"""TLS as a client speaks it, octet by octet in the test's hands.

For: clients that do what no library does: send with the end of the handshake, close one
direction, leave without a word. Guarantees: `Tunnel.sent` octets leave when they are
written, in one write. Fails like `ssl`.
"""

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from postroom.mail import reply
from tests.wire.harness import INTRODUCTION, Client, Desk, House, house, line

READY = line(reply.START_TLS)
_SUBJECT = "/CN=lists.example.com"


def server_context(folder: Path) -> ssl.SSLContext:
    """A server's context with a certificate of its own, made in `folder`."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    program = shutil.which("openssl")
    if program is None:
        reason = "openssl is not there: it makes the certificate"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    command = [program, "req", "-x509", *new_key, "-days", "2", "-subj", _SUBJECT, *files]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def client_context() -> ssl.SSLContext:
    """A client's context that trusts anybody, as mail servers do without DANE."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Tunnel:
    """Both directions of a connection with TLS: a `Reader` and a `Writer`."""

    def __init__(self, plain: Client) -> None:
        self._plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = client_context().wrap_bio(self._incoming, self._outgoing)
        self._read = b""
        self._ended = False
        self.closed_in_order = False  # the server said that it closes

    async def shake_hands(self, with_it: bytes = b"") -> None:
        """Begin TLS; `with_it` leaves in one write with the last octets of the handshake."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush()
                await self._receive()
                if self._ended:
                    raise ConnectionResetError from None
            else:
                self.write(with_it)
                return

    def hello(self) -> bytes:
        """The first octets of the handshake, which are not sent."""
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._outgoing.read()

    def flush(self) -> None:
        """Send what is ready."""
        if octets := self._outgoing.read():
            self._plain.writer.write(octets)

    def say_close(self) -> None:
        """Say that we send nothing more (RFC 8446 6.1); go on reading."""
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        self.flush()

    async def _receive(self) -> None:
        octets = await self._plain.reader.read(65536)
        if octets:
            self._incoming.write(octets)
        else:
            self._ended = True

    async def _more(self) -> None:
        try:
            octets = self._tls.read(65536)
        except ssl.SSLWantReadError:
            await self._receive()
        except ssl.SSLZeroReturnError:  # both have said that they close
            self.closed_in_order = self._ended = True
        else:
            self._read += octets
            self.closed_in_order = self._ended = not octets

    # As a reader

    async def readline(self) -> bytes:
        while b"\n" not in self._read and not self._ended:
            await self._more()
        line, end, self._read = self._read.partition(b"\n")
        return line + end

    async def read(self, octets: int = -1) -> bytes:
        while not self._ended:
            await self._more()
        rest, self._read = self._read, b""
        return rest

    # As a writer

    @property
    def transport(self) -> asyncio.WriteTransport:
        return self._plain.writer.transport

    def write(self, data: bytes) -> None:
        if data:
            self._tls.write(data)
        self.flush()

    def write_eof(self) -> None:
        self._plain.writer.write_eof()

    def get_extra_info(self, name: str) -> Any:
        return self._plain.writer.get_extra_info(name)

    def close(self) -> None:
        self._plain.writer.close()

    async def wait_closed(self) -> None:
        await self._plain.writer.wait_closed()


@contextlib.asynccontextmanager
async def secure_house(
    context: ssl.SSLContext, desk: Desk | None = None, **config: Any
) -> AsyncIterator[House]:
    """A server that offers STARTTLS; nothing of any connection may be left of it."""
    async with house(desk, tls=context, **config) as home:
        yield home
        await home.until_left()
        assert home.server.admission._inside == 0
        assert home.server.admission._detained == 0
        assert home.budget.free == home.budget.total
        assert home.desk.defects == []
        assert len(home.server.gone) == len(set(home.server.gone)), "somebody has left twice"


async def begin_tls(client: Client, with_it: bytes = b"") -> tuple[Client, Tunnel]:
    """STARTTLS and the handshake."""
    client.send("STARTTLS")
    await client.expect(READY)
    tunnel = Tunnel(client)
    await tunnel.shake_hands(with_it)
    return Client(tunnel, tunnel), tunnel


async def introduce(client: Client, name: str = "client.example.org") -> list[str]:
    """LHLO within TLS."""
    client.send(f"LHLO {name}")
    return await client.lines(INTRODUCTION)


async def gone(home: House) -> None:
    """The one connection there was is gone."""
    await home.server.departures.get()
    assert home.server.connections == set()
