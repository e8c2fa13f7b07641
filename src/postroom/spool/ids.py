"""Ids of messages and entries: 63 bits, sortable by time, made by the writer.

For: knowing an id before the row is written. Guarantees: strictly rising from one maker even if
the clock goes back; the makers of one process never collide, those of two processes only if they
have the same 10-bit mark and count in the same millisecond, and then the database refuses the
row and the batch is tried again. Shown to people as 16 hexadecimal digits.
"""

import itertools
import secrets
import threading
import time

_EPOCH_MS = 1_577_836_800_000  # 2020-01-01; 41 bits of milliseconds reach 2089
_MARK_BITS, _COUNT_BITS = 10, 12

_MARKS = itertools.count(secrets.randbits(_MARK_BITS))  # no two makers of a process share one


class IdMaker:
    """Makes ids; safe to share between threads."""

    def __init__(self) -> None:
        self._mark = next(_MARKS) % (1 << _MARK_BITS) << _COUNT_BITS
        self._last = (0, 0)
        self._lock = threading.Lock()

    def __call__(self) -> int:
        """The next id."""
        with self._lock:
            tick, count = self._last
            now = time.time_ns() // 1_000_000 - _EPOCH_MS
            if now > tick:
                tick, count = now, 0
            elif count + 1 < 1 << _COUNT_BITS:
                count += 1
            else:
                tick, count = tick + 1, 0
            self._last = (tick, count)
            return tick << (_MARK_BITS + _COUNT_BITS) | self._mark | count


def first_at(seconds: float) -> int:
    """The lowest id that is made at a time (seconds since the epoch), to look from there on."""
    tick = max(0, int(seconds * 1000) - _EPOCH_MS)
    return tick << (_MARK_BITS + _COUNT_BITS)


def show(number: int) -> str:
    """An id as people and logs see it."""
    return f"{number:016x}"


def read(text: str) -> int:
    """The id that `show` wrote. Raises ValueError."""
    number = int(text, 16)
    if not 0 <= number < 1 << 63:
        raise ValueError("no id")
    return number
