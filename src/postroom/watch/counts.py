"""What the intake process counts while it works.

For: being asked, a few times a minute, how it is going. Guarantees: plain additions, once a
batch where that is enough, so that the mail does not notice. Used in the intake's thread;
`failed` also by `Survey`, which finds out when a database is well again.
"""

import time
from collections import Counter
from collections.abc import Sequence

from postroom.lists.endpoint import SUBADDRESSES, Endpoint
from postroom.mail.reply import NO_ROOM
from postroom.spool.intake import Draft, Stored, Writer
from postroom.spool.trouble import Trouble
from postroom.store.direct import Direct
from postroom.watch.figures import Buckets, Depth, Tally

BATCHES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)  # messages
SECONDS = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0
)  # fmt: skip
ENDPOINTS = ("post", *sorted(set(SUBADDRESSES.values())), "site_owner", "unknown")
TROUBLES = ("busy", "damaged", "no_room", "one_envelope", "outcome_unknown", "unavailable")


class Counts:
    """Counts from the start of the process on."""

    def __init__(self) -> None:
        self._batches, self._commits = Buckets(BATCHES), Buckets(SECONDS)
        self._messages = self._octets = self._again = 0
        # All from the start: a rate needs a 0 to begin with.
        self._recipients = Counter(dict.fromkeys(ENDPOINTS, 0))
        self._troubles = Counter(dict.fromkeys(TROUBLES, 0))
        self.purged = 0
        self.failed = ""

    def committed(self, stored: Sequence[Stored], seconds: float) -> None:
        """A batch was stored."""
        self._batches.add(len(stored))
        self._commits.add(seconds)
        for each in stored:
            self._again += each.again
            self._recipients.update(map(kind_of, each.endpoints))
            if each.entries:
                self._messages += 1
                self._octets += len(each.draft.envelope.raw)
        self.failed = ""

    def troubled(self, trouble: Trouble) -> None:
        """A batch was not stored. One envelope that cannot be is no fault of the database."""
        self._troubles[name_of(trouble)] += 1
        if not trouble.one_envelope:
            self.failed = str(trouble)

    def tally(self, queues: dict[str, Depth] | None) -> Tally:
        """As of now."""
        return Tally(
            self._batches.histogram(),
            self._commits.histogram(),
            self._messages,
            self._octets,
            dict(self._recipients),
            self._again,
            dict(self._troubles),
            self.purged,
            queues,
            self.failed,
        )


class CountedWriter(Writer):
    """A writer that counts what it commits."""

    def __init__(self, store: Direct, site_owner: str, counts: Counts) -> None:
        super().__init__(store, site_owner)
        self._counts = counts

    def commit(self, drafts: Sequence[Draft]) -> list[Stored]:
        began = time.perf_counter()
        stored = super().commit(drafts)
        self._counts.committed(stored, time.perf_counter() - began)
        return stored


def kind_of(endpoint: Endpoint | None) -> str:
    """What a recipient was to us."""
    if endpoint is None:
        return "unknown"
    if endpoint.list_key is None:
        return "site_owner"
    return endpoint.subaddress or "post"


def name_of(trouble: Trouble) -> str:
    """One word for what went wrong."""
    if trouble.unhealthy:
        return "damaged"
    if trouble.unknown:
        return "outcome_unknown"
    if trouble.reply is NO_ROOM:
        return "no_room"
    if trouble.retry:
        return "busy"
    return "one_envelope" if trouble.one_envelope else "unavailable"
