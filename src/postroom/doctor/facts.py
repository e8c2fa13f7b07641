"""Gathers what the doctor looks at: database, disk, listeners, files, machine.

For: `postroom doctor`. Guarantees: nothing is changed, and what cannot be had in a few seconds
becomes a fact of its own. It raises nothing that a sick installation could cause.
"""

import contextlib
import itertools
import os
import resource
import shutil
import smtplib
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pysqlite3.dbapi2 as sqlite
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import DBAPIError

from postroom.base.places import Unix, parse_listen
from postroom.base.settings import Lmtp
from postroom.doctor.certificate import not_after
from postroom.doctor.findings import MOST_DOMAINS, Answer, Certificate, Database, Disk, Machine
from postroom.lists import registry
from postroom.lists.endpoint import POSTMASTER
from postroom.lmtp.client import LMTPClient
from postroom.service.netstring import cut, netstring
from postroom.store import schema
from postroom.store.engine import Store, StoreError, make_engine, open_store, version_table
from postroom.watch.figures import Status
from postroom.watch.http import connect, fetch
from postroom.watch.observatory import decode_status

PATIENCE = 5.0  # seconds for one answer
CHECKING = 10.0  # seconds for looking at a whole database
MOST_ANSWER = 100_000  # octets
_SQLITE = ("journal_mode", "synchronous")
_SYNCHRONOUS = ("off", "normal", "full", "extra")
_POSTGRESQL = ("fsync", "full_page_writes", "synchronous_commit")


def database(url: str) -> Database:
    """Everything about the database."""
    try:
        store = open_store(url, create=False)
    except StoreError as error:
        return Database("", str(error))
    try:
        with store.read() as connection:
            facts = _contents(store, connection)
        damage = _damage(store) if store.is_sqlite else ""
        return facts._replace(damage=damage, not_writable=_not_writable(store))
    except (DBAPIError, sqlite.Error) as error:
        return Database("", f"{store.name} cannot be read ({_reason(error)})")
    finally:
        store.close()


def _contents(store: Store, connection: Connection) -> Database:
    accepted = select(schema.receipt.c.accepted_at).order_by(schema.receipt.c.entry.desc())
    names = _SQLITE if store.is_sqlite else _POSTGRESQL
    word = "PRAGMA" if store.is_sqlite else "SHOW"
    settings = {name: str(connection.exec_driver_sql(f"{word} {name}").scalar()) for name in names}
    if "synchronous" in settings:
        settings["synchronous"] = _SYNCHRONOUS[int(settings["synchronous"])]
    version = f"SQLite {sqlite.sqlite_version}"
    if not store.is_sqlite:
        version = f"PostgreSQL {connection.exec_driver_sql('SHOW server_version').scalar()}"
    return Database(
        store.name,
        version=version,
        lists=registry.count_lists(connection),
        domains=sum(1 for _ in registry.domains(connection)),
        addresses=tuple(_addresses(connection)),
        settings=settings,
        newest=connection.scalar(accepted.limit(1)),
    )


def _damage(store: Store) -> str | None:
    """What SQLite finds, "" if nothing; None if it takes too long."""
    deadline = time.monotonic() + CHECKING
    with store.read() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
        try:
            found = driver.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite.OperationalError as error:
            return None if "interrupted" in str(error) else str(error)
        finally:
            driver.set_progress_handler(None, 0)
    return "" if found == "ok" else str(found)


def _not_writable(store: Store) -> str:
    """Why nothing can be written, "" if it can: tried, and taken back."""
    same = update(version_table).values(version_num=version_table.c.version_num)
    try:
        with store.engine.connect() as connection:
            driver = connection.connection.driver_connection
            if store.is_sqlite and driver is not None:
                driver.execute(f"PRAGMA busy_timeout = {int(PATIENCE * 1000)}")
            connection.execute(same)
            connection.rollback()
    except (DBAPIError, sqlite.Error) as error:
        return _reason(error)
    return ""


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _addresses(connection: Connection) -> Iterator[str]:
    """One address in each of the first domains: a list's, or the postmaster's."""
    lists = schema.mailing_list.c
    for each in itertools.islice(registry.domains(connection), MOST_DOMAINS):
        there = select(lists.list_name).where(lists.mail_host == (each.alias_of or each.mail_host))
        name = connection.scalar(there.limit(1))
        yield f"{name or POSTMASTER}@{each.mail_host}"


def disk(url: str) -> Disk | None:
    """The disk of a database file; None if it is not here."""
    path = Store(make_engine(url)).path
    if path is None:
        return None
    place = path.parent
    try:
        found = os.statvfs(place)
        return Disk(str(place), shutil.disk_usage(place).free, found.f_favail, found.f_files)
    except OSError:
        return None


def lmtp(address: str) -> Answer:
    """Say LHLO."""
    where = parse_listen(address)
    host, port = (where.path, 0) if isinstance(where, Unix) else _reachable(*where)
    if not isinstance(where, Unix) and not port:
        return Answer(address, "")
    try:
        with contextlib.closing(LMTPClient(host, port, timeout=PATIENCE)) as client:
            said = client.lhlo()
            return Answer(address, "" if said.accepted else f"{said.code} {said.text}")
    except smtplib.SMTPResponseException as error:
        text = error.smtp_error
        told = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return Answer(address, f"{error.smtp_code} {told}")
    except (OSError, smtplib.SMTPException) as error:
        return Answer(address, _words(error))


def _reachable(host: str, port: int) -> tuple[str, int]:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port


def maps(address: str) -> Answer:
    """Look an address up that is nobody's."""
    where = parse_listen(address)
    if address.endswith(":0"):
        return Answer(address, "")
    try:
        with contextlib.closing(connect(where, PATIENCE)) as connected:
            connected.sendall(netstring(b"recipients nobody@doctor.invalid"))
            said = b""
            while (taken := cut(said, 0, MOST_ANSWER)) is None:
                if not (more := connected.recv(4096)):
                    return Answer(address, "it closed the connection")
                said += more
    except (OSError, ValueError) as error:
        return Answer(address, _words(error))
    text = taken[0].decode("utf-8", "replace").strip()
    return Answer(address, "" if text == "NOTFOUND" else text)


def status(address: str) -> tuple[Status | None, str]:
    """What the server says of itself, or why it says nothing."""
    if not address or address.endswith(":0"):
        return None, ""
    try:
        code, body = fetch(parse_listen(address), "/status", PATIENCE)
        return (decode_status(body), "") if code == 200 else (None, f"HTTP {code}")
    except OSError as error:
        return None, _words(error)
    except msgspec.DecodeError:
        return None, "this is no postroom, or one of another version"


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def certificate(lmtp: Lmtp) -> Certificate:
    """The files of TLS."""
    key = lmtp.tls_key or lmtp.tls_certificate
    for path in dict.fromkeys([lmtp.tls_certificate, key]):
        try:
            Path(path).read_bytes()
        except OSError as error:
            return Certificate(f"{path} cannot be read ({error.strerror})")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        ends = not_after(Path(lmtp.tls_certificate).read_text("utf-8", "replace"))
        # Without an answer OpenSSL would ask the terminal for the password of a key.
        context.load_cert_chain(lmtp.tls_certificate, key, lambda: "")
    except (OSError, ValueError) as error:
        name = lmtp.tls_certificate if key == lmtp.tls_certificate else f"{key} and its certificate"
        return Certificate(f"{name} cannot be used ({getattr(error, 'reason', None) or error})")
    return Certificate("", ends, bool(os.stat(key).st_mode & stat.S_IROTH))


def machine(hostname: str) -> Machine:
    """The computer that we are on."""
    try:
        resolves = bool(socket.getaddrinfo(hostname, None))
    except (OSError, UnicodeError):
        resolves = False
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return Machine(time.time(), resolves, _synchronised(), files, _memory())


def _synchronised() -> bool | None:
    program = shutil.which("timedatectl")
    if program is None:
        return None
    command = [program, "show", "--property=NTPSynchronized", "--value"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return {b"yes": True, b"no": False}.get(done.stdout.strip())


def _memory() -> int | None:
    """The machine's, or what our control group may have of it."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None
    with contextlib.suppress(OSError, ValueError):
        group = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip().lstrip("/")
        return min(whole, int(Path("/sys/fs/cgroup", group, "memory.max").read_text()))
    return whole
