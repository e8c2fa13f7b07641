"""The power goes: every 250 that was read before is found afterwards, once and whole.

For: `python -m tests.crash.power_loss --messages 5000`, and the short run among the tests. A
server's writes and flushes are recorded while clients keep a ledger; then its files are
rebuilt as they could be found after a cut at each flush, opened and examined. What is assumed
of the disk stands in `disk.py`. Exits with status 1 if a promise was broken.
"""

import argparse
import itertools
import math
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select

from postroom.mail.address import parse_mailbox
from postroom.mail.envelope import Envelope, Peer
from postroom.spool.intake import Writer
from postroom.spool.metadata import Metadata, decode
from postroom.store import schema
from postroom.store.direct import Direct
from postroom.store.engine import Store, open_store
from tests.crash import ledger
from tests.crash.disk import FLUSH, SUFFIX, Disk, Image, read_records
from tests.crash.ledger import ENDPOINTS, SENDER, Ledger, Promise
from tests.crash.shims import build, environment
from tests.integration.mail import create_lists, queued
from tests.integration.sites import Sites

LISTS = sorted({where[0] for where in ENDPOINTS.values()})
ADDRESS_OF = {where: address for address, where in ENDPOINTS.items()}
SMALL_LOG = Path(__file__).with_name("small_log")
message, recipients = cache(ledger.message), cache(ledger.recipients)  # asked for again and again
SHOWN = 10  # problems that are told
NEW = 10**9  # a message that no client sent


class Recording(NamedTuple):
    """What a server did to a database that was there, and what was promised meanwhile."""

    records: Path
    database: bytes
    promised: Mapping[Promise, float]  # when 250 was read, as of time.monotonic()


class Report(NamedTuple):
    """What came of it."""

    cuts: int
    rebuilds: int
    problems: tuple[str, ...]


def record(
    place: Path, messages: int, threads: int = 4, starts: int = 2, small_log: bool = True
) -> Recording:
    """Let clients send so many messages to a server that is stopped and started meanwhile."""
    with Sites() as sites:
        site = sites.make()
        create_lists(site.store, *LISTS)
        site.store.close()
        path = Path(site.url.removeprefix("sqlite:///"))
        database = path.read_bytes()
        settings = {
            "LD_PRELOAD": str(build("record_writes", place)),
            "RECORD_DATABASE": str(path),
            "RECORD_TO": str(place / "records"),
        }
        if small_log:
            settings["PYTHONPATH"] = f"{SMALL_LOG}:{os.environ.get('PYTHONPATH', '')}"
        promises = sum(len(recipients(number)) for number in range(1, messages + 1))
        with environment(settings):
            site.start()
            with Ledger(site.port, threads, messages) as sent:
                for part in range(1, starts):
                    sent.wait_until(promises * part // starts)
                    assert site.stop() == 0
                    site.start()
                sent.wait_until(promises)
                sent.settle()
            assert site.stop() == 0
        sent.check(queued(site.store))
        return Recording(place / "records", database, sent.first)


class Cut(NamedTuple):
    """The moment before a flush is done. What was read by then must be found."""

    number: int
    when: float
    disk: Disk


def cuts(
    records: Path, database: bytes | None, ignored: frozenset[int] = frozenset()
) -> Iterator[Cut]:
    """A cut at each flush, and one at the end. `ignored` are files whose flushes the disk only
    says that it did."""
    disk, number = Disk(database), 0
    for each in read_records(records):
        if each.kind != FLUSH:
            disk.do(each)
        elif each.file not in ignored:
            yield Cut(number, each.when, disk)
            disk.do(each)
            number += 1
    yield Cut(number, math.inf, disk)


def rebuild(
    recording: Recording,
    ways: int = 2,
    jobs: int = 1,
    job: int = 0,
    seed: int = 0,
    ignored: frozenset[int] = frozenset(),
) -> Report:
    """Cut at each flush, or at the share of one of several jobs, and examine what is found.

    At each cut all that was not flushed is lost, or all is there, or a part of it in so many
    `ways`.
    """
    done, rebuilds, problems = 0, 0, list[str]()
    with scratch() as place:
        for cut in cuts(recording.records, recording.database, ignored):
            if cut.number % jobs != job:
                continue
            done += 1
            read = {one for one, when in recording.promised.items() if when < cut.when}
            for name, image in images(cut.disk, ways, random.Random(f"{seed} {cut.number}")):
                rebuilds += 1
                found = examine(image, read, place)
                problems += [f"cut {cut.number}, {name}: {problem}" for problem in found]
    return Report(done, rebuilds, tuple(problems[:SHOWN]))


def images(disk: Disk, ways: int, dice: random.Random) -> Iterator[tuple[str, Image]]:
    """Ways in which the disk can be found, with a name."""
    yield "nothing unflushed is there", disk.least()
    if not disk.is_flushed:
        yield "everything unflushed is there", disk.most()
        for way in range(ways):
            yield f"a part is there ({way})", disk.some(dice)


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory for what was found, in memory where that is possible."""
    memory = "/dev/shm"
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as directory:
        yield Path(directory)


def lay_out(image: Image, place: Path) -> Path:
    """Write the files; returns the path of the database. What was in memory is gone."""
    path = place / "postroom.db"
    for file, suffix in {**SUFFIX, -1: "-shm"}.items():
        name = path.with_name(path.name + suffix)
        name.unlink(missing_ok=True)
        if file in image:
            name.write_bytes(image[file])
    return path


def examine(image: Image, read: set[Promise], place: Path) -> list[str]:
    """Open what was found, as a server would; returns what is wrong with it.

    `read` is what must be there.
    """
    path = lay_out(image, place)
    problems: list[str] = []
    try:
        with closing(open_store(f"sqlite:///{path}", create=False)) as store:
            for look in (_structure, _mail, _goes_on):
                problems += look(store, read)
    except Exception as error:  # whatever it is, nobody can use what was found
        problems.append(f"{type(error).__name__}: {error}")
    return problems


def _structure(store: Store, _read: set[Promise]) -> Iterator[str]:
    """What SQLite and the references between the tables say."""
    with store.read() as connection:
        for (line,) in connection.exec_driver_sql("PRAGMA integrity_check"):
            if line != "ok":
                yield f"integrity: {line}"
        for row in connection.exec_driver_sql("PRAGMA foreign_key_check"):
            yield f"reference: {row}"
        entries = set(connection.scalars(select(schema.entry.c.id)))
        receipts = set(connection.scalars(select(schema.receipt.c.entry)))
        needed = set(connection.scalars(select(schema.entry.c.message)))
        messages = set(connection.scalars(select(schema.message.c.id)))
    if entries != receipts:
        yield f"entries without receipt, or the reverse: {entries ^ receipts}"
    if needed != messages:
        yield f"entries without message, or the reverse: {needed ^ messages}"


def _mail(store: Store, read: set[Promise]) -> Iterator[str]:
    """What the ledger says."""
    entry, sent = schema.entry.c, schema.message.c
    with store.read() as connection:
        entries = connection.execute(select(entry.message, entry.metadata)).all()
        messages = connection.execute(select(sent.id, sent.sender, sent.raw))
        number_of: dict[int, int] = {}
        for key, sender, raw in messages:
            number = number_of[key] = int(raw.split(b"X-Number: ", 1)[1].split(b"\r\n", 1)[0])
            if raw != message(number) or sender != SENDER:
                yield f"message {number} is not as it was sent"
    there: Counter[Promise] = Counter()
    of_message: defaultdict[int, set[str]] = defaultdict(set)
    for key, metadata in entries:
        number, address = number_of[key], ADDRESS_OF[_place(decode(metadata))]
        there[number, address] += 1
        of_message[number].add(address)
    for promise, times in there.items():
        if times > 1:
            yield f"{promise} is there {times} times"
    for promise in sorted(read - there.keys()):
        yield f"{promise} was answered 250 and is not there"
    for number, some in of_message.items():
        if some != set(recipients(number)):
            yield f"message {number} is there for {some} only"


def _place(facts: Metadata) -> tuple[str, str, str]:
    return facts.get("listname", ""), facts.get("subaddress", ""), facts.get("detail", "")


def _goes_on(store: Store, read: set[Promise]) -> Iterator[str]:
    """What a client that lost its connection sees when it sends again."""
    direct = Direct(store)
    writer = Writer(direct, "owner@example.org")
    again = max((number for number, _ in read), default=NEW)
    drafts = [writer.draft(_envelope(each), time.monotonic() + 60) for each in {again, NEW}]
    stored = {each.draft.envelope.raw: each for each in writer.commit(drafts)}
    direct.close()
    known, new = stored[message(again)], stored[message(NEW)]
    if again != NEW and (known.entries or known.again != len(recipients(again))):
        yield f"message {again} is not known again"
    if len(new.entries) != len(recipients(NEW)):
        yield "a new message is taken for an old one"


def _envelope(number: int) -> Envelope:
    boxes = tuple(parse_mailbox(each)[0] for each in recipients(number))
    return Envelope(SENDER, boxes, message(number), Peer("127.0.0.1"), time.time())


def main() -> int:
    """The long run."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.power_loss")
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=8, help="clients at once")
    parser.add_argument("--starts", type=int, default=3, help="of the server")
    parser.add_argument("--ways", type=int, default=4, help="rebuilds with a part, at each cut")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small-log", action="store_true", help="copy it back often")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        recording = record(
            Path(directory), options.messages, options.threads, options.starts, options.small_log
        )
        kinds = Counter((each.kind, each.file) for each in read_records(recording.records))
        print(f"{len(recording.promised)} promises; operations by kind and file: {dict(kinds)}")
        begun = time.monotonic()
        spawned = multiprocessing.get_context("spawn")  # SQLite is not to be taken along
        with ProcessPoolExecutor(options.jobs, spawned) as pool:
            shares = [
                pool.submit(rebuild, recording, options.ways, options.jobs, job, options.seed)
                for job in range(options.jobs)
            ]
            reports = [share.result() for share in shares]
    problems = list(itertools.chain.from_iterable(each.problems for each in reports))
    print(
        f"{sum(each.cuts for each in reports)} cuts, "
        f"{sum(each.rebuilds for each in reports)} rebuilds "
        f"in {time.monotonic() - begun:.0f} s, {len(problems) or 'no'} problems"
    )
    for problem in problems[:SHOWN]:
        print(f"  {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
