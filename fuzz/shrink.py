"""Making a finding small.

For: showing people the octets that matter. Guarantees: what is returned still fails in the
same way, by type and place of the exception; it ends after a bounded number of attempts.
"""

import traceback
from collections.abc import Callable

ATTEMPTS = 5000
Check = Callable[[bytes], None]


def shrunk(check: Check, data: bytes) -> bytes:
    """The smallest input that could be had by leaving pieces of `data` out."""
    failure = _failure(check, data)
    attempts, size = ATTEMPTS, max(1, len(data) // 2)
    while failure is not None and attempts:
        at, before = 0, len(data)
        while at < len(data) and attempts:
            attempts -= 1
            shorter = data[:at] + data[at + size :]
            if _failure(check, shorter) == failure:
                data = shorter
            else:
                at += size
        if size == 1 and len(data) == before:
            break
        size = max(1, size // 2)
    return data


def _failure(check: Check, data: bytes) -> tuple[type[Exception], str, int | None] | None:
    try:
        check(data)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return type(error), place.filename, place.lineno
    return None
