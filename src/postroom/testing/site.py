"""A throwaway site: a database of its own and, if started, a real server on a free port.

For: what `helpers` and `documentation` share. Guarantees: nothing is configured, nothing
outside a temporary directory is touched, and the server is the one that is shipped, in
its own processes. It asks no DNS, and what it sends stays in a `Sink`, unless settings say
otherwise. Fails with `SiteError` if the server does not come up.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, RootTransaction

from postroom.base.places import Tcp, parse_listen
from postroom.lmtp.client import LMTPClient
from postroom.store.engine import Store, open_store
from postroom.testing.sink import Sink


class SiteError(Exception):
    """The server did not start or stop as it should; `str()` holds what it said."""


class Site:
    """One throwaway site. `url` is another database to use instead of a new SQLite file."""

    def __init__(self, url: str | None = None, **settings: str) -> None:
        """`settings` are environment names without prefix: LMTP__REFUSE_UNKNOWN="at-rcpt"."""
        self._directory = tempfile.TemporaryDirectory(prefix="postroom-")
        self.directory = Path(self._directory.name)
        self.url = url or f"sqlite:///{self.directory}/postroom.db"
        self.log = self.directory / "log"
        self.config = self.directory / "postroom.toml"
        self.config.touch()
        self._settings = settings
        self._server: subprocess.Popen[bytes] | None = None
        self._store: Store | None = None
        self._pending: tuple[Connection, RootTransaction] | None = None
        self.sink: Sink | None = None  # there while a server with the role "runners" may send
        self.port = 0
        # More places to listen on than 127.0.0.1, as `lmtp.listen` spells them.
        self.listen: tuple[str, ...] = ()
        self.addresses: tuple[str, ...] = ()  # where it listens, as its `ready` line says

    @property
    def store(self) -> Store:
        """The database."""
        if self._store is None:
            self._store = open_store(self.url)
        return self._store

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which any `postroom` command works on this site."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("POSTROOM_")}
        ours = {
            "CONFIG": str(self.config),
            "STORE__URL": self.url,
            "LMTP__LISTEN": ",".join((f"127.0.0.1:{self.port}", *self.listen)),
            "MAPS__LISTEN": "",
            "METRICS__LISTEN": "",
            "LOG__FORMAT": "json",
            "DNS__OFFLINE": "true",
        }
        if self.sink is not None:
            ours |= {"SMTP__HOST": "127.0.0.1", "SMTP__PORT": str(self.sink.port)}
        ours |= self._settings
        return clean | {f"POSTROOM_{name}": value for name, value in ours.items()}

    @property
    def supervisor(self) -> int:
        """Process id of the running server's supervisor."""
        if self._server is None:
            raise SiteError("the server is not running")
        return self._server.pid

    def start(self, *arguments: str, roles: Sequence[str] = ("lmtp",)) -> None:
        """Start `postroom serve` and wait until it serves. Without the role "runners" accepted
        mail stays in its queues."""
        if self._server is not None:
            raise SiteError("the server is running already")
        if "runners" in roles and self.sink is None and "SMTP__HOST" not in self._settings:
            self.sink = Sink()
        only = ["--only", *roles] if len(roles) == 1 else []
        self._server = subprocess.Popen(
            [sys.executable, "-m", "postroom", "serve", *only, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,  # what stands after the line that we look for is for the log
        )
        ready: list[str] | None = None
        assert self._server.stderr is not None
        with self.log.open("ab") as log:
            for line in self._server.stderr:
                log.write(line)
                if line.split()[:1] == [b"ready"]:
                    ready = line.decode().split()[1:]
                    break
        if ready is None:
            self._server.wait()
            self._server.stderr.close()
            self._server = None
            raise SiteError(self.log.read_text(errors="replace"))
        self.addresses = tuple(ready)
        ports = [each.port for each in map(parse_listen, ready) if isinstance(each, Tcp)]
        self.port = ports[0] if ports else 0
        self._drain_log()

    def _drain_log(self) -> None:
        """Keep reading the log, or the server would block; `cat` does so without a thread."""
        assert self._server is not None and self._server.stderr is not None
        with self.log.open("ab") as log:
            self._reader = subprocess.Popen(["cat"], stdin=self._server.stderr, stdout=log)
        self._server.stderr.close()

    def stop(self) -> int:
        """Stop the server; returns its exit status."""
        if self._server is None:
            raise SiteError("the server is not running")
        self._server.terminate()
        status = self._server.wait(timeout=60)
        self._reader.wait(timeout=60)
        self._server = None
        return status

    def client(self, address: str = "") -> LMTPClient:
        """A connected client; `address` is one of `addresses`."""
        where = parse_listen(address) if address else Tcp("127.0.0.1", self.port)
        return LMTPClient(*where)

    def pending(self) -> Connection:
        """The open transaction; begun if there is none."""
        if self._pending is None:
            connection = self.store.engine.connect()
            self._pending = connection, connection.begin()
        return self._pending[0]

    @property
    def has_pending(self) -> bool:
        """True while a transaction is open."""
        return self._pending is not None

    def end_transaction(self, commit: bool) -> None:
        """Commit or roll back the open transaction, if any."""
        if self._pending is None:
            return
        connection, transaction = self._pending
        self._pending = None
        with connection:
            if commit:
                transaction.commit()
            else:
                transaction.rollback()

    def close(self) -> None:
        """Stop the server if it runs, and remove everything."""
        if self._server is not None:
            self.stop()
        if self.sink is not None:
            self.sink.close()
            self.sink = None
        self.end_transaction(commit=False)
        if self._store is not None:
            self._store.close()
            self._store = None
        self._directory.cleanup()

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


_current: list[Site] = []


def current() -> Site:
    """The site of this process's documentation; made at its first use."""
    if not _current:
        _current.append(Site())
    return _current[0]


def forget() -> None:
    """Close the current site; the next use makes a new one."""
    while _current:
        _current.pop().close()
