"""The figures of a server as Prometheus reads them.

For: `/metrics`. Guarantees: every name begins with postroom_ and ends in its unit; what is not
known is left out, never 0; what comes from outside is in no label, so their number is
bounded. Pure; nothing here can fail.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from postroom.watch.figures import Histogram, Status, Tally
from postroom.watch.health import STATES, judge

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Families(Collector):
    """What there is to be written."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(status: Status) -> bytes:
    """The text format of Prometheus."""
    return generate_latest(_Families(families(status)))


def families(status: Status) -> Iterator[Metric]:
    """Every metric."""
    yield from _server(status)
    yield from _door(status)
    yield from _database(status)
    if status.tally is not None:
        yield from _intake(status.tally)
        yield from _queues(status.tally, status.time)


def _server(status: Status) -> Iterator[Metric]:
    health = judge(status)
    yield _labelled(Gauge, "build_info", "Version of postroom.", "version", {status.version: 1})
    yield Gauge("postroom_start_time_seconds", "When the door process started.", status.started_at)
    yield _labelled(
        Gauge,
        "health",
        "1 for the state that /healthz gives, 0 for the others.",
        "state",
        {state: int(state == health.status) for state in STATES},
    )
    yield Gauge(
        "postroom_intake_up",
        "1 if the intake process answered in time.",
        int(status.tally is not None),
    )
    yield Gauge(
        "postroom_intake_report_age_seconds",
        "How long the intake process has been silent.",
        status.heard_ago,
    )


def _door(status: Status) -> Iterator[Metric]:
    yield _labelled(Counter, "replies", "Replies sent, by code.", "code", status.replies)
    yield _labelled(Gauge, "connections", "Connections, by state.", "state", status.connections)
    yield Gauge(
        "postroom_connections_limit", "Connections that are let in at most.", status.max_connections
    )
    yield Counter("postroom_connections_accepted", "Connections let in.", status.accepted)
    yield _labelled(
        Counter, "connections_refused", "Connections refused, by reason.", "reason", status.refused
    )
    yield Counter(
        "postroom_connections_timed_out",
        "Connections ended because a client was silent or slow.",
        status.timed_out,
    )
    yield Counter("postroom_received_bytes", "Octets from clients.", status.octets_in)
    memory = status.memory
    yield Gauge("postroom_memory_bytes", "Memory for messages in flight.", memory.total)
    yield Gauge(
        "postroom_memory_used_bytes", "What messages in flight hold of it.",
        memory.total - memory.free,
    )  # fmt: skip
    yield Gauge("postroom_memory_waiting", "Messages that wait for memory.", memory.waiting)


def _database(status: Status) -> Iterator[Metric]:
    if status.free is not None:
        yield Gauge("postroom_disk_free_bytes", "Free space on the database's disk.", status.free)
        yield Gauge(
            "postroom_disk_reserve_bytes", "What must stay free: less, and mail is put off.",
            status.reserve,
        )  # fmt: skip


def _intake(tally: Tally) -> Iterator[Metric]:
    yield Counter("postroom_messages_stored", "Messages stored.", tally.messages)
    yield Counter("postroom_stored_bytes", "Their octets.", tally.octets)
    yield _labelled(
        Counter,
        "recipients",
        "Recipients of messages, by what they were to us.",
        "endpoint",
        tally.recipients,
    )
    yield Counter(
        "postroom_duplicates_suppressed",
        "Recipients that had the message already.",
        tally.again,
    )
    yield _histogram("batch_messages", "Messages in one commit.", tally.batches)
    yield _histogram("commit_seconds", "Time to store a batch durably.", tally.commits)
    yield _labelled(
        Counter, "commit_failures", "Batches that were not stored.", "kind", tally.troubles
    )
    yield Gauge("postroom_commit_failing", "1 if the last commit failed.", int(bool(tally.failed)))
    yield Counter("postroom_receipts_purged", "Receipts forgotten.", tally.purged)


def _queues(tally: Tally, now: float) -> Iterator[Metric]:
    if tally.queues is None:
        return
    depths = {name: depth.entries for name, depth in tally.queues.items()}
    ages = {
        name: max(0.0, now - depth.oldest)
        for name, depth in tally.queues.items()
        if depth.oldest is not None
    }
    due = {
        name: max(0.0, now - depth.due)
        for name, depth in tally.queues.items()
        if depth.due is not None
    }
    yield _labelled(Gauge, "queue_entries", "Entries in a queue.", "queue", depths)
    yield _labelled(
        Gauge, "queue_oldest_seconds", "Age of the oldest entry of a queue.", "queue", ages
    )
    yield _labelled(
        Gauge,
        "queue_due_seconds",
        "How long an entry of a queue is due that no runner takes.",
        "queue",
        due,
    )


def _labelled(
    kind: type[Counter] | type[Gauge],
    name: str,
    text: str,
    label: str,
    values: Mapping[str, float],
) -> Metric:
    family = kind(f"postroom_{name}", text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family


def _histogram(name: str, text: str, values: Histogram) -> Metric:
    bounds = [*map(str, values.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(values.counts), strict=True))
    return HistogramMetricFamily(f"postroom_{name}", text, buckets, values.total)
