"""A disk as the power may leave it: from what a process wrote and flushed, in order.

For: rebuilding the files of a database after a cut. What is assumed of a disk and its file
system: an fsync that returned has put everything written to that file before onto the disk,
one of a directory its names; without it any part of what was written, in units of a sector,
may be there or not, in any order. A write does not change octets outside of its range
(sqlite.org/psow.html), and names appear and disappear in the order in which they were told
to, as journalling file systems do it.
"""

import random
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

DATABASE, LOG, JOURNAL, DIRECTORY = range(4)
SUFFIX: Final = {DATABASE: "", LOG: "-wal", JOURNAL: "-journal"}
CREATE, WRITE, TRUNCATE, FLUSH, UNLINK = range(1, 6)
SECTORS: Final = (512, 4096)  # octets
_HEAD: Final = struct.Struct("=QIIQQ")


class Record(NamedTuple):
    """One operation; `when` as of time.monotonic(), `offset` is the size for TRUNCATE."""

    when: float
    kind: int
    file: int
    offset: int
    data: bytes


def read_records(path: Path) -> Iterator[Record]:
    """What `record_writes.c` wrote."""
    with path.open("rb") as file:
        while head := file.read(_HEAD.size):
            when, kind, which, offset, length = _HEAD.unpack(head)
            data = file.read(length)
            assert len(data) == length, "the last record is incomplete"
            yield Record(when / 1e9, kind, which, offset, data)


class _File:
    """One file, however it was or is called."""

    def __init__(self, content: bytes = b"") -> None:
        self.flushed = bytearray(content)
        self.pending: list[Record] = []

    def flush(self) -> None:
        for each in self.pending:
            _apply(self.flushed, each)
        self.pending.clear()


Image = dict[int, bytes]  # what is found, by file


class Disk:
    """Files and names, those on the disk and those that are only promised."""

    def __init__(self, database: bytes | None) -> None:
        """`database` is there, and flushed, from the start."""
        self._files: dict[int, _File] = {}  # as the process sees them
        if database is not None:
            self._files[DATABASE] = _File(database)
        self._names = dict(self._files)  # as they are on the disk
        self._renamed: list[tuple[int, _File | None]] = []  # promised, in order

    def do(self, record: Record) -> None:
        """Take note of an operation that was done."""
        kind, file = record.kind, record.file
        if kind == CREATE:
            self._files[file] = _File()
            self._renamed.append((file, self._files[file]))
        elif kind == UNLINK:
            del self._files[file]
            self._renamed.append((file, None))
        elif kind == FLUSH and file == DIRECTORY:
            self._names = self._after(len(self._renamed))
            self._renamed.clear()
        elif kind == FLUSH:
            self._files[file].flush()
        else:
            self._files[file].pending.append(record)

    def _after(self, number: int) -> dict[int, _File]:
        """The names on the disk after the first so many promised changes of them."""
        names = dict(self._names)
        for file, content in self._renamed[:number]:
            if content is None:
                names.pop(file, None)
            else:
                names[file] = content
        return names

    @property
    def is_flushed(self) -> bool:
        """Whether there is only one way in which the disk can be found."""
        return not self._renamed and not any(each.pending for each in self._files.values())

    def least(self) -> Image:
        """What is there for certain, and nothing else."""
        return {name: bytes(file.flushed) for name, file in self._names.items()}

    def most(self) -> Image:
        """Everything, as if it had been flushed."""
        return {name: _content(file, file.pending) for name, file in self._files.items()}

    def some(self, dice: random.Random) -> Image:
        """A part of what was not flushed, as chance has it."""
        names = self._after(dice.randint(0, len(self._renamed)))
        way = dice.choice((_first, _any, _torn, _torn, _scattered))
        return {
            name: _content(file, way(file.pending, dice), dice.choice((b"\0", b"\xa5")))
            for name, file in names.items()
        }


def _content(file: _File, records: Iterable[Record], unwritten: bytes = b"\0") -> bytes:
    content = bytearray(file.flushed)
    for each in records:
        _apply(content, each, unwritten)
    return bytes(content)


def _apply(content: bytearray, record: Record, unwritten: bytes = b"\0") -> None:
    if record.kind == TRUNCATE:
        del content[record.offset :]
        content.extend(unwritten * (record.offset - len(content)))
    else:
        content.extend(unwritten * (record.offset - len(content)))
        content[record.offset : record.offset + len(record.data)] = record.data


# Which part of what was not flushed: each returns operations that did reach the disk.


def _first(pending: list[Record], dice: random.Random) -> list[Record]:
    """The first ones."""
    return pending[: dice.randint(0, len(pending))]


def _any(pending: list[Record], dice: random.Random) -> list[Record]:
    """Any of them."""
    share = dice.random()
    return [each for each in pending if dice.random() < share]


def _torn(pending: list[Record], dice: random.Random) -> list[Record]:
    """All but for one that is torn, or only the ones before and a part of that one."""
    if not pending:
        return []
    number = dice.randrange(len(pending))
    pieces = list(_pieces(pending[number], dice.choice(SECTORS)))
    kept = pieces[: dice.randint(0, len(pieces))]
    if dice.random() < 0.5:
        kept = [each for each in pieces if each not in kept]
    after = pending[number + 1 :] if dice.random() < 0.5 else []
    return [*pending[:number], *kept, *after]


def _scattered(pending: list[Record], dice: random.Random) -> list[Record]:
    """Any sectors of any of them."""
    size, share = dice.choice(SECTORS), dice.random()
    return [piece for each in pending for piece in _pieces(each, size) if dice.random() < share]


def _pieces(record: Record, sector: int) -> Iterator[Record]:
    """A write, cut at the borders of sectors."""
    if record.kind == TRUNCATE:
        yield record
        return
    start, end = record.offset, record.offset + len(record.data)
    while start < end:
        stop = min(end, (start // sector + 1) * sector)
        part = record.data[start - record.offset : stop - record.offset]
        yield record._replace(offset=start, data=part)
        start = stop
