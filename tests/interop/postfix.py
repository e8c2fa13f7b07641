"""A Postfix of the tests' own, which delivers to a server over LMTP.

For: letting the client that matters most talk to us. Guarantees: its configuration, queue
and log are in a temporary directory, it listens on a loopback port that was free, what is
for anybody but our lists is discarded, and its processes end with the block. Needs root.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import pytest

from postroom.service.maps import next_hop
from tests.integration.processes import eventually, listens
from tests.interop.mail import NO_MAILBOX, NOWHERE, STORED, Routes, free_port
from tests.peers import need

_SERVICES = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup   unix n - n 60 1 pickup
cleanup  unix n - n - 0 cleanup
qmgr     unix n - n 1 1 qmgr
rewrite  unix - - n - - trivial-rewrite
bounce   unix - - n - 0 bounce
defer    unix - - n - 0 bounce
trace    unix - - n - 0 bounce
verify   unix - - n - 1 verify
flush    unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
showq    unix n - n - - showq
error    unix - - n - - error
retry    unix - - n - - error
discard  unix - - n - - discard
virtual  unix - n n - - virtual
lmtp     unix - - n - - lmtp
anvil    unix - - n - 1 anvil
scache   unix - - n - 1 scache
postlog  unix-dgram n - n - 1 postlogd
"""


def settings_of(text: str) -> dict[str, str]:
    """Lines of main.cf, by name."""
    logical = text.replace("\n  ", " ")
    lines = (line for line in logical.splitlines() if line and not line.startswith("#"))
    return {
        name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)
    }


class Postfix:
    """Delivers as `routes` says. A context manager."""

    def __init__(self, routes: Routes = NOWHERE, port: int = 0) -> None:
        self._postfix = need("postfix")
        if os.geteuid() != 0:
            pytest.skip("Postfix needs root")
        self._home = Path(tempfile.mkdtemp(prefix="postroom-postfix-"))
        self._home.chmod(0o755)  # its processes are those of another user
        self.configuration = self._home / "etc"
        self.log = self._home / "log"
        self.port = port or free_port()
        self._configure(routes)

    def _configure(self, routes: Routes) -> None:
        for name in "etc", "queue", "data":
            (self._home / name).mkdir()
        account = pwd.getpwnam("postfix")
        os.chown(self._home / "data", account.pw_uid, account.pw_gid)
        daemons = subprocess.run(
            [str(Path(self._postfix).with_name("postconf")), "-d", "-h", "daemon_directory"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        hops = (f"{{ {domain} = {next_hop(place)} }}" for domain, place in routes.items())
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": self._home / "queue",
            "data_directory": self._home / "data",
            "daemon_directory": daemons,
            "command_directory": Path(self._postfix).parent,
            "maillog_file": self.log,
            "maillog_file_prefixes": self._home,
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "myhostname": "mta.example.net",
            "mynetworks": "127.0.0.0/8",
            "mydestination": "",
            "alias_maps": "",
            "alias_database": "",
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "message_size_limit": "50000000",
            "default_transport": "discard",
            "smtpd_client_connection_count_limit": "0",
            "in_flow_delay": "0",
            # Trying again soon is all that is not as Postfix comes.
            "queue_run_delay": "1s",
            "minimal_backoff_time": "1s",
            "maximal_backoff_time": "1s",
            "transport_retry_time": "1s",
        }
        if routes:
            settings["relay_domains"] = ", ".join(routes)
            settings["transport_maps"] = f"inline:{{ {', '.join(hops)} }}"
        lines = [f"{name} = {value}\n" for name, value in settings.items()]
        (self.configuration / "main.cf").write_text("".join(lines))
        (self.configuration / "master.cf").write_text(_SERVICES.format(port=self.port))

    def run(self, *command: str) -> None:
        """`postfix` with these arguments."""
        done = subprocess.run(
            [self._postfix, "-c", str(self.configuration), *command],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def submit(self, sender: str, recipients: list[str], raw: bytes) -> None:
        """Hand in a message with its `sendmail` command, as a program on the machine does."""
        command = [str(Path(self._postfix).with_name("sendmail")), "-C", str(self.configuration)]
        subprocess.run([*command, "-i", "-f", sender, *recipients], input=raw, check=True)

    def says_sent(self, recipient: str) -> tuple[str, ...]:
        return f" to=<{recipient}>, ", f" dsn=2.0.0, status=sent ({STORED})"

    def says_bounced(self, recipient: str) -> tuple[str, ...]:
        return f" to=<{recipient}>, ", " dsn=5.1.1, status=bounced ", f" said: {NO_MAILBOX} "

    def push(self) -> None:
        self.run("flush")

    def waiting(self) -> str:
        """The files of its queues that hold messages."""
        queues = "incoming", "active", "deferred", "maildrop"
        return " ".join(
            str(path)
            for name in queues
            for path in (self._home / "queue" / name).rglob("*")
            if path.is_file()
        )

    def __enter__(self) -> Self:
        try:
            self.run("start")
            eventually(lambda: listens(self.port), "Postfix accepts mail")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        pid = self._home / "queue" / "pid" / "master.pid"
        if pid.exists():
            self.run("stop")
        shutil.rmtree(self._home)
