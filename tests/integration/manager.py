"""systemd's part in the life of a service: hands over sockets, hears what it is told.

For: starting a server as a unit would. Guarantees: a context manager after which the server
has ended; every wait has a deadline.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from postroom.testing.site import Site
from tests.integration.processes import PATIENCE

# Only the process itself knows its number before it runs; no descriptor must be in the way.
_LAUNCH = """
import fcntl, os, sys
away = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 100) for each in sys.argv[2:]]
for number, each in enumerate(away, 3):
    os.dup2(each, number)
    os.close(each)
os.environ["LISTEN_PID"] = str(os.getpid() + int(sys.argv[1]))
os.execv(sys.executable, [sys.executable, "-m", "postroom", "serve"])
"""


class Systemd:
    """One start of a site's server. `wrong_pid` hands the sockets to somebody else."""

    def __init__(
        self,
        site: Site,
        sockets: Sequence[socket.socket] = (),
        names: str = "",
        watchdog: float = 0.0,
        notify: str = "",
        wrong_pid: bool = False,
    ) -> None:
        self._site, self._sockets = site, sockets
        self._notify = notify or str(site.directory / "notify")
        self._arguments = [str(int(wrong_pid)), *(str(each.fileno()) for each in sockets)]
        self._variables = {"NOTIFY_SOCKET": self._notify}
        if sockets:
            self._variables |= {"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": names}
        if watchdog:
            self._variables["WATCHDOG_USEC"] = str(int(watchdog * 1e6))
        self._process: subprocess.Popen[bytes]
        self._heard: socket.socket

    @property
    def pid(self) -> int:
        """The main process of the service."""
        return self._process.pid

    def __enter__(self) -> Self:
        self._heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._heard.bind(self._notify.replace("@", "\0"))
        with self._site.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, *self._arguments],
                env=self._site.environment | self._variables,
                pass_fds=[each.fileno() for each in self._sockets],
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        return self

    def hear(self, within: float = PATIENCE) -> Mapping[str, str]:
        """The next thing that it is told. Raises TimeoutError."""
        self._heard.settimeout(within)
        lines = self._heard.recv(65536).decode().splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    def hear_of(self, name: str) -> Mapping[str, str]:
        """The next thing that it is told with this name in it; others are passed over."""
        deadline = time.monotonic() + PATIENCE
        while name not in (told := self.hear()):
            assert time.monotonic() < deadline, f"{name} was not told"
        return told

    def stop(self) -> int:
        """SIGTERM to the main process, as KillMode=mixed says; returns its exit status."""
        self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; returns its exit status."""
        return self._process.wait(PATIENCE)

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop()
        self._process.kill()
        self._process.wait()
        self._heard.close()
        if not self._notify.startswith("@"):
            Path(self._notify).unlink()


def environment_of(pid: int) -> set[str]:
    """The names of the variables that a process was started with."""
    octets = Path(f"/proc/{pid}/environ").read_bytes()
    return {os.fsdecode(each).partition("=")[0] for each in octets.split(b"\0") if each}
