"""What the doctor says of what it sees."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from postroom.base.settings import Settings
from postroom.doctor import findings
from postroom.doctor.findings import (
    FAILURE,
    OK,
    WARNING,
    Answer,
    Certificate,
    Database,
    Disk,
    Finding,
    Machine,
)
from tests.watch.statuses import NOW, status

DAY = 86_400.0
WAL = {"journal_mode": "wal", "synchronous": "full"}
POSTGRESQL = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
WELL = Database("sqlite:///mail.db", version="SQLite 3.51.3", lists=3, domains=1, settings=WAL)
MACHINE = Machine(NOW, True, True, 65_536, 8_000_000_000)
DISK = Disk("/srv", 80_000_000_000, 1_000_000, 2_000_000)


def settings(**sections: Any) -> Settings:
    return msgspec.convert(sections, Settings)


def levels(found: Iterable[Finding]) -> dict[str, str]:
    """Each check with what it found; what is not ok says what to do."""
    every = list(found)
    for each in every:
        assert each.text
        assert each.level == OK or each.to_do or each.check in ("database", "health"), each
    assert len({each.check for each in every}) == len(every)
    return {each.check: each.level for each in every}


def test_a_database_that_is_well_is_well() -> None:
    assert levels(findings.database(WELL)) == {
        "database": OK,
        "integrity": OK,
        "durability": OK,
    }


@pytest.mark.parametrize(
    ("change", "check", "level"),
    [
        ({"lists": 0}, "database", WARNING),
        ({"not_writable": "attempt to write a readonly database"}, "database", FAILURE),
        ({"damage": "row 7 missing from index"}, "integrity", FAILURE),
        ({"damage": None}, "integrity", WARNING),
        ({"settings": WAL | {"journal_mode": "delete"}}, "durability", FAILURE),
    ],
)
def test_what_ails_a_database_is_one_finding(change: Any, check: str, level: str) -> None:
    found = levels(findings.database(WELL._replace(**change)))
    assert found == dict.fromkeys(["database", "integrity", "durability"], OK) | {check: level}


def test_of_a_database_that_cannot_be_used_nothing_else_is_said() -> None:
    [found] = findings.database(Database("", "mail.db is damaged: restore a backup"))
    assert found == Finding("database", FAILURE, "mail.db is damaged: restore a backup")


@pytest.mark.parametrize(
    ("said", "level"),
    [
        (WAL, OK),
        (WAL | {"synchronous": "normal"}, FAILURE),
        (WAL | {"journal_mode": "memory"}, FAILURE),
        (POSTGRESQL, OK),
        (POSTGRESQL | {"fsync": "off"}, FAILURE),
        (POSTGRESQL | {"full_page_writes": "off"}, FAILURE),
        (POSTGRESQL | {"synchronous_commit": "local"}, FAILURE),
    ],
)
def test_a_database_that_does_not_flush_is_a_failure(said: dict[str, str], level: str) -> None:
    found = findings.durability(said)
    assert found.level == level
    assert all(f"{name} = {value}" in found.text for name, value in said.items())


@pytest.mark.parametrize(
    ("synchronised", "newest", "level"),
    [
        (True, NOW - 5, OK),
        (None, None, OK),
        (None, NOW + 59, OK),
        (None, NOW + 61, WARNING),
        (True, NOW + DAY, WARNING),
        (False, NOW, WARNING),
    ],
)
def test_a_clock_is_wrong_if_mail_came_in_its_future(
    synchronised: bool | None, newest: float | None, level: str
) -> None:
    found = findings.clock(MACHINE._replace(synchronised=synchronised), newest)
    assert levels([found]) == {"clock": level}


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        (DISK, {"space": OK, "inodes": OK}),
        (DISK._replace(free=1_000_000_000), {"space": WARNING, "inodes": OK}),
        (DISK._replace(free=100_000_000), {"space": FAILURE, "inodes": OK}),
        (DISK._replace(inodes_free=9_999), {"space": OK, "inodes": WARNING}),
        (DISK._replace(inodes_free=0), {"space": OK, "inodes": FAILURE}),
        (DISK._replace(inodes_free=0, inodes=0), {"space": OK}),  # btrfs has none
    ],
)
def test_space_runs_out_in_octets_and_in_inodes(disk: Disk, expected: dict[str, str]) -> None:
    assert levels(findings.space(disk, Settings())) == expected


@pytest.mark.parametrize(
    ("answer", "level", "told"),
    [
        (Answer("127.0.0.1:8024", ""), OK, "127.0.0.1:8024 answers"),
        (Answer("127.0.0.1:8024", "Connection refused"), FAILURE, "Connection refused"),
        (Answer("127.0.0.1:0", ""), WARNING, "chooses the port"),
    ],
)
def test_a_listener_that_does_not_answer_is_a_failure(
    answer: Answer, level: str, told: str
) -> None:
    [found] = findings.listeners("lmtp", [answer])
    assert found.level == level
    assert told in found.text
    assert level == OK or found.to_do


@pytest.mark.parametrize(
    ("changes", "level", "told"),
    [
        ({}, OK, "says ok"),
        ({"unbound": ("maps.listen",)}, WARNING, "nobody listens on maps.listen"),
        ({"connected": False}, FAILURE, "the intake process is gone"),
    ],
)
def test_what_the_server_says_of_itself_is_repeated(changes: Any, level: str, told: str) -> None:
    found = findings.metrics("127.0.0.1:9125", status(**changes), "")
    assert (found.check, found.level) == ("health", level)
    assert told in found.text


def test_a_server_that_does_not_show_itself_by_choice_is_no_failure() -> None:
    assert findings.metrics("", None, "").level == OK
    assert findings.metrics("127.0.0.1:9125", None, "timed out").level == FAILURE


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Certificate("", NOW + 90 * DAY), [OK]),
        (Certificate("", NOW + 14 * DAY), [OK]),
        (Certificate("", NOW + 13.9 * DAY), [WARNING]),
        (Certificate("", NOW + 1), [WARNING]),
        (Certificate("", NOW - 1), [FAILURE]),
        (Certificate("", NOW + 90 * DAY, exposed=True), [OK, WARNING]),
        (Certificate("key.pem cannot be read (Permission denied)"), [FAILURE]),
    ],
)
def test_a_certificate_is_told_before_it_ends(facts: Certificate, expected: list[str]) -> None:
    found = list(findings.certificate(facts, NOW))
    assert [each.level for each in found] == expected
    assert all(each.to_do for each in found if each.level != OK)


@pytest.mark.parametrize(
    ("site", "machine", "expected"),
    [
        ({"hostname": "lists.example.com", "owner": "anne@example.com"}, MACHINE, [OK, OK]),
        ({"hostname": "lists.example.com"}, MACHINE, [WARNING, OK]),
        ({"hostname": "localhost", "owner": "a@b.c"}, MACHINE, [OK, WARNING]),
        ({"hostname": "localhost.localdomain", "owner": "a@b.c"}, MACHINE, [OK, WARNING]),
        ({"hostname": "vm", "owner": "a@b.c"}, MACHINE, [OK, WARNING]),
        (
            {"hostname": "nowhere.example.com", "owner": "a@b.c"},
            MACHINE._replace(resolves=False),
            [OK, WARNING],
        ),
    ],
)
def test_a_site_needs_a_name_and_an_owner(site: Any, machine: Machine, expected: list[str]) -> None:
    found = findings.identity(settings(site=site).site, machine)
    assert list(levels(found).values()) == expected


def test_an_owner_who_is_an_address_of_the_site_is_a_warning() -> None:
    site = settings(site={"hostname": "lists.example.com", "owner": "postmaster@a.b"}).site
    found = list(findings.identity(site, MACHINE, circular=True))
    assert levels(found) == {"owner": WARNING, "hostname": OK}
    assert "postmaster@a.b, an address of this site" in found[0].text


@pytest.mark.parametrize(
    ("connections", "own", "served", "level"),
    [
        (1000, 1700, None, OK),
        (1000, 1699, None, WARNING),
        (1000, -1, None, OK),  # no limit
        (1000, 65_536, 1024, WARNING),  # the server's limit is what counts
        (1000, 1024, 65_536, OK),
    ],
)
def test_files_must_suffice_for_the_connections_that_are_allowed(
    connections: int, own: int, served: int | None, level: str
) -> None:
    running = None if served is None else status(open_files=served)
    machine = MACHINE._replace(open_files=own)
    given = settings(lmtp={"max_connections": connections})
    assert levels(findings.limits(given, machine, running))["files"] == level


@pytest.mark.parametrize(("memory", "expected"), [(8e9, OK), (5.3e8, WARNING), (None, None)])
def test_messages_in_flight_must_not_take_most_of_the_memory(
    memory: float | None, expected: str | None
) -> None:
    machine = MACHINE._replace(memory=None if memory is None else int(memory))
    assert levels(findings.limits(Settings(), machine, None)).get("memory") == expected
