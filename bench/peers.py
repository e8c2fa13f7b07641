"""The peers: other LMTP servers, each as its own manual would have it run.

For: each a function that, given a directory to work in, is a context manager that yields a
`Server` that answers. Guarantees: nothing of this machine's own set-up is used or changed.
Fails with `Skip`, which says why a peer cannot take part.
"""

import contextlib
import os
import pwd
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from bench import load, process
from bench.process import Skip
from bench.servers import Server

ROOT = Path(__file__).parent.parent
NOBODY = "nobody"

Start = Callable[[Path], AbstractContextManager[Server]]


def peers(out: Path) -> dict[str, Start]:
    """All peers, by name; what has to be installed goes below `out`."""
    return {
        "smtp-sink": sink,
        "aiosmtpd": bare,
        "mailman": mailman(out / "mailman-venv"),
        "dovecot": dovecot,
    }


@contextlib.contextmanager
def sink(directory: Path) -> Iterator[Server]:
    """Postfix's smtp-sink: C, stores nothing."""
    path = load.program("smtp-sink")
    if path is None:
        raise Skip("smtp-sink is not here (it comes with Postfix)")
    directory.mkdir(parents=True)
    port, log = process.free_port(), directory / "smtp-sink.log"
    user = ["-u", NOBODY] if os.geteuid() == 0 else []
    command: list[str | Path] = [path, "-L", *user, f"127.0.0.1:{port}", "128"]
    with process.running(command, log, directory) as running:
        process.await_greeting(running, port, log)
        yield Server("smtp-sink", port, running.pid)


@contextlib.contextmanager
def bare(directory: Path) -> Iterator[Server]:
    """A bare aiosmtpd LMTP handler: Python, stores nothing."""
    directory.mkdir(parents=True)
    log = directory / "aiosmtpd.log"
    environment = process.clean_environment(PYTHONPATH=str(ROOT))
    command = [sys.executable, "-m", "bench.bare"]
    with process.running(command, log, directory, environment) as running:
        yield Server("aiosmtpd", process.await_ready(running, log), running.pid)


def mailman(venv: Path) -> Start:
    """GNU Mailman 3.3's LMTP runner: Python, stores durably. Installed in `venv` if need be."""

    @contextlib.contextmanager
    def start(directory: Path) -> Iterator[Server]:
        _install_mailman(venv)
        directory.mkdir(parents=True)
        port, log = process.free_port(), directory / "runner.log"
        config = directory / "mailman.cfg"
        config.write_text(_MAILMAN.format(var=directory / "var", port=port))
        as_root = ["--run-as-root"] if os.geteuid() == 0 else []
        programs = venv / "bin"
        process.run(
            [programs / "mailman", "-C", str(config), *as_root, "create", load.LIST], directory
        )
        command: list[str | Path] = [programs / "runner", "-C", str(config), "-r", "lmtp"]
        with process.running(command, log, directory) as running:
            process.await_greeting(running, port, log)
            yield Server("mailman", port, running.pid)

    return start


def _install_mailman(venv: Path) -> None:
    done = venv / "installed"
    if done.exists():
        return
    venv.parent.mkdir(parents=True, exist_ok=True)
    process.run([sys.executable, "-m", "venv", "--clear", venv], venv.parent)
    process.run([venv / "bin/pip", "install", "--quiet", "mailman==3.3.*"], venv)
    done.touch()


_MAILMAN = """\
[mailman]
layout: bench
site_owner: owner@example.org
[paths.bench]
var_dir: {var}
[mta]
incoming: mailman.mta.null.NullMTA
lmtp_host: 127.0.0.1
lmtp_port: {port}
"""


@contextlib.contextmanager
def dovecot(directory: Path) -> Iterator[Server]:
    """Dovecot's LMTP: C, stores durably in a maildir."""
    path = load.program("dovecot")
    if path is None:
        raise Skip("dovecot is not here (Debian: apt install dovecot-lmtpd)")
    mail = directory / "mail"
    mail.mkdir(parents=True)
    directory.chmod(0o711)
    root = os.geteuid() == 0
    owner = pwd.getpwnam(NOBODY) if root else pwd.getpwuid(os.geteuid())
    os.chown(mail, owner.pw_uid, owner.pw_gid)
    internal = "" if root else _DOVECOT_NOT_ROOT.format(user=owner.pw_name)
    port, log = process.free_port(), directory / "dovecot.log"
    # The path of a Unix socket is at most 107 octets: its directory must not be deep.
    with tempfile.TemporaryDirectory(prefix="dovecot-", ignore_cleanup_errors=True) as run:
        os.chmod(run, 0o755)
        config = directory / "dovecot.conf"
        config.write_text(
            internal
            + _DOVECOT.format(
                run=run,
                mail=mail,
                port=port,
                uid=owner.pw_uid,
                gid=owner.pw_gid,
                log=directory / "dovecot-log",
            )
        )
        with process.running([path, "-F", "-c", config], log, directory) as running:
            process.await_greeting(running, port, log)
            yield Server("dovecot", port, running.pid)


_DOVECOT_NOT_ROOT = """\
default_internal_user = {user}
default_login_user = {user}
service anvil {{
  chroot =
}}
"""

_DOVECOT = """\
base_dir = {run}/run
state_dir = {run}/state
instance_name = bench
log_path = {log}
protocols = lmtp
listen = 127.0.0.1
ssl = no
first_valid_uid = 1
mail_location = maildir:~/Maildir
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={mail}/%n allow_all_users=yes
}}
service lmtp {{
  inet_listener lmtp {{
    port = {port}
  }}
}}
"""
