"""GNU Mailman 3.3 with members, delivering into a sink.

For: the way of a post, or of a command, through the peer, end to end. Guarantees: installed from
PyPI below the results, with a database and queues of its own; all its runners at work, as
`mailman start` runs them; every setting at its default except where it listens, the mail server,
and that no mail server's files are written. Members are subscribed by its own command. Fails with
`Skip`.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench import process
from bench.peers import _install_mailman as install_mailman
from bench.process import Skip
from bench.servers import Server

NAME = "mailman"
TRIES = 6  # times as long as other servers are given to start
CONFIGURATION = (
    "mailman: version 3.3 from PyPI, SQLite, all default runners in processes of their own; its "
    "defaults for delivery, which are 10 recipients a transaction, one connection, no VERP, no "
    "DMARC mitigation, and runners that look into their queues once a second."
)


@contextlib.contextmanager
def mailman(
    venv: Path, directory: Path, sink_port: int, lists: Mapping[str, Sequence[str]]
) -> Iterator[Server]:
    """Run Mailman with these lists and members."""
    install_mailman(venv)
    directory.mkdir(parents=True)
    port, log = process.free_port(), directory / "master.log"
    config = directory / "mailman.cfg"
    config.write_text(
        _CONFIG.format(var=directory / "var", lmtp=port, smtp=sink_port, rest=process.free_port())
    )
    command = _command(venv, directory)
    for address, members in lists.items():
        process.run([*command, "create", address], directory)
        text = "".join(f"{each}\n" for each in members)
        if members:
            process.run([*command, "addmembers", "-W", "-", address], directory, text)
    master: list[str | Path] = [venv / "bin/master", "-C", str(config)]
    with process.running(master, log, directory) as running:
        _await(running, port, log)
        yield Server(NAME, port, running.pid)


def waiting(directory: Path, *queues: str) -> int:
    """How many entries wait in these queues of the Mailman in `directory`."""
    found = 0
    for name in queues:
        with contextlib.suppress(FileNotFoundError):  # made when something first comes
            found += len(os.listdir(directory / "var/queue" / name))
    return found


def members(venv: Path, directory: Path, address: str) -> int:
    """How many members a list has."""
    found = process.run([*_command(venv, directory), "members", address], directory)
    return sum("@" in line for line in found.splitlines())


def _command(venv: Path, directory: Path) -> list[str | Path]:
    as_root = ["--run-as-root"] if os.geteuid() == 0 else []
    return [venv / "bin/mailman", "-C", str(directory / "mailman.cfg"), *as_root]


def _await(running: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Its dozen processes take long to start on a busy machine. Raises `Skip`."""
    for left in reversed(range(TRIES)):
        try:
            process.await_greeting(running, port, log)
            return
        except Skip:
            if not left or running.poll() is not None:
                raise


_CONFIG = """\
[mailman]
layout: bench
site_owner: owner@example.org
[paths.bench]
var_dir: {var}
[mta]
incoming: mailman.mta.null.NullMTA
lmtp_host: 127.0.0.1
lmtp_port: {lmtp}
smtp_host: 127.0.0.1
smtp_port: {smtp}
[webservice]
port: {rest}
"""
