"""An observatory over a real intake process, in a thread, for tests that look from outside.

For: tests of pages and of the commands that read them. Guarantees: everything ends with the
block. `figures` may be changed at any time: the next page shows it.
"""

import asyncio
import io
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Self

from postroom.base.observe import Log
from postroom.base.places import Tcp, Unix
from postroom.base.settings import LogSettings, Settings
from postroom.lmtp.budget import Budget
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope, Peer
from postroom.mail.reply import Reply
from postroom.service.front import Front
from postroom.store.engine import Store
from postroom.watch.http import fetch
from postroom.watch.observatory import DoorFigures, Observatory

PATIENCE = 30.0  # seconds; a wait that takes as long has failed
QUIET = Settings()


def door_figures(**changes: Any) -> DoorFigures:
    """A door that has done little."""
    quiet = DoorFigures(QUIET, {}, [], 0, {}, 0, Budget(1000))
    return quiet._replace(**changes)


class Watched:
    """A context manager; `place` is where the pages are."""

    def __init__(self, store: Store, bound: socket.socket | None = None, **settings: str) -> None:
        self.figures = door_figures()
        self.logged = io.StringIO()
        self._bound = bound or socket.create_server(("127.0.0.1", 0))
        name = self._bound.getsockname()
        self.place = Unix(name) if isinstance(name, str) else Tcp(*name[:2])
        url = store.engine.url.render_as_string(hide_password=False)
        ours = {"STORE__URL": url, "LOG__FORMAT": "json", **settings}
        clean = {k: v for k, v in os.environ.items() if not k.startswith("POSTROOM_")}
        self._environment = clean | {f"POSTROOM_{key}": text for key, text in ours.items()}
        self._runner = asyncio.Runner()
        self._thread = threading.Thread(target=self._serve)
        self._up = threading.Event()
        self.front: Front
        self.intake: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair()
        self.intake = subprocess.Popen(
            [sys.executable, "-m", "postroom.service.intake", str(theirs.fileno())],
            env=self._environment,
            pass_fds=[theirs.fileno()],
            stderr=subprocess.DEVNULL,
        )
        theirs.close()
        self._ours = ours
        self._thread.start()
        assert self._up.wait(PATIENCE)
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End it before the block does."""
        if not self._thread.is_alive():
            return
        self.intake.send_signal(signal.SIGCONT)
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        self._runner.close()
        self.intake.wait(PATIENCE)

    def _serve(self) -> None:
        self._runner.run(self._main())

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        log = Log(LogSettings("json"), self.logged)
        self.front = Front(QUIET, log, lambda: None)
        await self._loop.create_unix_connection(lambda: self.front, sock=self._ours)
        await self.front.ready
        observatory = Observatory(lambda: self.figures, self.front, log)
        await observatory.listen([self._bound])
        self._up.set()
        await self._stop.wait()
        observatory.close()
        self.front.close()

    def get(self, path: str) -> tuple[int, bytes]:
        """A page, as a client gets it."""
        return fetch(self.place, path, PATIENCE)

    def send(self, *recipients: str, raw: bytes = b"\r\nhello\r\n") -> Sequence[Reply] | None:
        """Have a message stored, as the LMTP server does."""
        boxes = tuple(Mailbox(*each.split("@")) for each in recipients)
        peer = Peer("127.0.0.1:5", "client")
        envelope = Envelope("anne@example.org", boxes, raw, peer, 1_700_000_000.0)
        answer: Future[Sequence[Reply] | None] = Future()
        self._loop.call_soon_threadsafe(self.front.deliver, envelope, answer.set_result)
        return answer.result(PATIENCE)
