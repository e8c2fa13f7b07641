"""What Prometheus reads, and that dashboard and alerts ask for nothing else."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from postroom.watch.figures import Status
from postroom.watch.metrics import exposition
from tests.watch.statuses import NOW, status, tally

ROOT = Path(__file__).parents[2]
UNITS = {"seconds", "bytes"}


def families(shown: Status) -> dict[str, Metric]:
    """What a scraper makes of the page."""
    found = list(text_string_to_metric_families(exposition(shown).decode()))
    assert len({family.name for family in found}) == len(found)
    return {family.name: family for family in found}


def values(shown: Status) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All samples by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families(shown).values()
        for sample in family.samples
    }


def value(shown: Status, name: str, **labels: str) -> float:
    """One sample."""
    return values(shown)[f"postroom_{name}", frozenset(labels.items())]


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("build_info", {"version": "1.2.3"}, 1),
        ("start_time_seconds", {}, NOW - 3600),
        ("health", {"state": "ok"}, 1),
        ("health", {"state": "failing"}, 0),
        ("intake_up", {}, 1),
        ("intake_report_age_seconds", {}, 0.25),
        ("replies_total", {"code": "550"}, 5),
        ("connections", {"state": "ready"}, 3),
        ("connections_limit", {}, 1000),
        ("connections_accepted_total", {}, 9),
        ("connections_refused_total", {"reason": "too many"}, 2),
        ("connections_timed_out_total", {}, 1),
        ("received_bytes_total", {}, 90_000),
        ("memory_bytes", {}, 134_000_000),
        ("memory_used_bytes", {}, 34_000_000),
        ("memory_waiting", {}, 0),
        ("disk_free_bytes", {}, 83_000_000_000),
        ("disk_reserve_bytes", {}, 67_108_864),
        ("messages_stored_total", {}, 20),
        ("stored_bytes_total", {}, 80_000),
        ("recipients_total", {"endpoint": "post"}, 18),
        ("recipients_total", {"endpoint": "unknown"}, 5),
        ("duplicates_suppressed_total", {}, 3),
        ("batch_messages_bucket", {"le": "1.0"}, 1),
        ("batch_messages_bucket", {"le": "20.0"}, 3),
        ("batch_messages_count", {}, 3),
        ("batch_messages_sum", {}, 25),
        ("commit_seconds_bucket", {"le": "0.0005"}, 1),
        ("commit_seconds_bucket", {"le": "+Inf"}, 3),
        ("commit_seconds_sum", {}, 0.0074),
        ("commit_failures_total", {"kind": "busy"}, 1),
        ("commit_failing", {}, 0),
        ("receipts_purged_total", {}, 7),
        ("queue_entries", {"queue": "in"}, 18),
        ("queue_entries", {"queue": "out"}, 0),
        ("queue_oldest_seconds", {"queue": "in"}, 90),
        ("queue_due_seconds", {"queue": "in"}, 30),
    ],
)
def test_each_figure_is_shown(name: str, labels: Mapping[str, str], expected: float) -> None:
    assert value(status(), name, **labels) == pytest.approx(expected)


def test_every_name_has_our_prefix_and_its_unit() -> None:
    for family in families(status()).values():
        assert family.name.startswith("postroom_")
        assert family.documentation.endswith(".")
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        words = set(family.name.split("_"))
        assert not words & {"octets", "ms", "milliseconds", "kb", "mb"}
        assert not words & UNITS or family.name.split("_")[-1] in UNITS


def test_what_is_not_known_is_left_out() -> None:
    everything = set(families(status()))
    without = set(families(status(tally=None, free=None)))
    assert without < everything
    assert not [name for name in without if "queue" in name or "commit" in name or "disk" in name]
    assert value(status(tally=None), "intake_up") == 0
    assert value(status(tally=None), "health", state="failing") == 1
    uncounted = set(families(status(tally=tally(queues=None))))
    queues = {f"postroom_queue_{name}" for name in ("entries", "oldest_seconds", "due_seconds")}
    assert everything - uncounted == queues


@pytest.mark.parametrize(("name", "queue"), [("oldest", "out"), ("due", "out"), ("due", "command")])
def test_where_nothing_waits_it_waits_for_no_time(name: str, queue: str) -> None:
    labels = frozenset({("queue", queue)})
    assert (f"postroom_queue_{name}_seconds", labels) not in values(status())


@pytest.mark.parametrize("name", ["oldest", "due"])
def test_a_clock_that_was_set_back_makes_no_entry_younger_than_new(name: str) -> None:
    assert value(status(time=NOW - 1000), f"queue_{name}_seconds", queue="in") == 0


def test_nothing_that_a_stranger_wrote_is_shown() -> None:
    assert b"anne" not in exposition(status())
    assert b"nope" not in exposition(status())


def named_in(path: str) -> set[str]:
    """The metrics that a file asks for, without what a histogram or counter adds."""
    text = (ROOT / path).read_text()
    if path.endswith(".json"):
        panels = json.loads(text)["panels"]
        text = "\n".join(each["expr"] for panel in panels for each in panel.get("targets", []))
    else:
        text = re.sub(r"(summary|description): .*", "", text)
    return set(re.findall(r"postroom_\w+", text))


@pytest.mark.parametrize("path", ["contrib/grafana/postroom.json", "contrib/prometheus/alerts.yml"])
def test_what_dashboard_and_alerts_ask_for_exists(path: str) -> None:
    samples = {name for name, _ in values(status())}
    assert named_in(path)
    assert named_in(path) - samples == set()


def test_the_dashboard_shows_every_kind_of_figure() -> None:
    shown = named_in("contrib/grafana/postroom.json")
    for name in (
        "messages_stored_total",
        "replies_total",
        "recipients_total",
        "commit_seconds_bucket",
        "batch_messages_bucket",
        "queue_entries",
        "queue_oldest_seconds",
        "queue_due_seconds",
        "connections",
        "health",
        "disk_free_bytes",
        "memory_used_bytes",
    ):
        assert f"postroom_{name}" in shown


def test_every_metric_is_explained_in_the_docs() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    missing = [
        name
        for name, family in families(status()).items()
        if f"`{name}{'_total' if family.type == 'counter' else ''}`" not in page
    ]
    assert not missing
