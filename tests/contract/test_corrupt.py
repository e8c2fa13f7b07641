"""Rows that somebody or something damaged: set aside with the reason, and the rest flows
(fault 12)."""

from pathlib import Path

import pysqlite3.dbapi2 as sqlite
import pytest

from postroom.spool.care import entries, headers_of, raw_of, remove, requeue
from postroom.spool.depth import depths
from postroom.spool.queue import QueueError
from postroom.spool.upkeep import rename_list
from tests.contract.desk import Desk, counts, endpoints, envelope
from tests.contract.queues import Filler, do, everything, seen, take


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """A new SQLite file: PostgreSQL looks at every text, and at every reference, it is given."""
    return f"sqlite:///{tmp_path}/postroom.db"


def damage(desk: Desk, statement: str, *values: object) -> None:
    """Change one row of the file by hand, with nothing that checks it."""
    assert desk.store.path is not None
    connection = sqlite.connect(str(desk.store.path), isolation_level=None)
    assert connection.execute(statement, values).rowcount == 1
    connection.close()


NO_TEXT = [
    ("CAST(x'7b22ff227d' AS TEXT)", '{"\\xff"}'),  # {"?"}
    ("""CAST(x'7b226c6973746e616d65223a22ff227d' AS TEXT)""", '{"listname":"\\xff"}'),
    ("x'7b22ff227d'", '{"\\xff"}'),  # octets, not text
    ("CAST(x'fffe00' AS TEXT)", "\\xff\\xfe\0"),
    ("17", "17"),
]


@pytest.mark.parametrize(("value", "shown"), NO_TEXT)
def test_fault_12_metadata_that_is_no_text_is_set_aside_and_the_rest_flows(
    desk: Desk, filled: Filler, value: str, shown: str
) -> None:
    one, two, three = filled("ant", "bee", "ant-owner")
    damage(desk, f"UPDATE entry SET metadata = {value} WHERE id = ?", two)
    with desk.store.read() as connection:
        listed = [each for each, _ in entries(connection)]
    assert [each.id for each in listed] == [one, two, three]
    assert listed[1].metadata == shown
    do(desk.store, rename_list, "bee@example.com", "wasp@example.com")
    assert [held.id for held in take(desk.store)] == [one, three]
    found = seen(desk.store, two)
    assert (found.queue, found.lease_until) == ("shunt", None)
    assert str(found.last_error).startswith("unreadable metadata: ")
    (held,) = take(desk.store, name="shunt")
    assert held.metadata == {"unreadable": shown, "shunted_from": "in"}
    assert held.raw == b"2"


@pytest.mark.parametrize("value", ["CAST(x'616eff65' AS TEXT)", "x'616eff65'"])
@pytest.mark.parametrize("column", ["sender", "peer", "lhlo"])
def test_fault_12_other_text_that_is_none_is_shown_with_escapes(
    desk: Desk, filled: Filler, column: str, value: str
) -> None:
    one, two = filled("ant", "bee")
    damage(
        desk,
        f"UPDATE message SET {column} = {value} WHERE id = ?",
        seen(desk.store, one).message,
    )
    with desk.store.read() as connection:
        assert [each.id for each, _ in entries(connection)] == [one, two]
        assert depths(connection)["in"][0] == 2
    held = take(desk.store)
    assert [each.id for each in held] == [one, two]
    if column == "sender":
        assert held[0].sender == seen(desk.store, one).sender == "an\\xffe"
        assert held[0].content() == b"X-MailFrom: an\\xffe\r\n\r\n1"


def test_a_message_that_was_written_as_text_is_read_as_octets(desk: Desk, filled: Filler) -> None:
    one, _ = filled("ant", "bee")
    damage(desk, "UPDATE message SET raw = 'Hello, ä' WHERE id = ?", seen(desk.store, one).message)
    with desk.store.read() as connection:
        assert [head for _, head in entries(connection, octets=5)] == [b"Hello", b"2"]
        assert raw_of(connection, one) == "Hello, ä".encode()
        assert headers_of(connection, one, 5) == b"Hello"
    assert [held.raw for held in take(desk.store)] == ["Hello, ä".encode(), b"2"]


def test_fault_12_an_entry_whose_message_is_gone_is_set_aside_and_the_rest_flows(
    desk: Desk, filled: Filler
) -> None:
    one, two, three = filled("ant", "bee", "ant-owner")
    damage(desk, "DELETE FROM message WHERE id = ?", seen(desk.store, two).message)
    assert [held.id for held in take(desk.store, limit=3)] == [one, three]
    found = seen(desk.store, two)
    assert (found.queue, found.lease_until, found.size) == ("shunt", None, 0)
    reason = "its message is not in the database: restore a backup, or delete the entry"
    assert found.last_error == reason
    with desk.store.read() as connection:
        assert [each.id for each, _ in entries(connection, "shunt", octets=100)] == [two]
        assert depths(connection)["shunt"][0] == 1
        assert headers_of(connection, two) == b""
        with pytest.raises(QueueError, match=reason):
            raw_of(connection, two)
    with pytest.raises(QueueError, match=reason):
        do(desk.store, requeue, two)
    do(desk.store, remove, two)
    assert [row[0] for row in everything(desk.store)] == [one, three]


def test_a_shunted_entry_that_does_not_say_where_it_was_stays_aside(
    desk: Desk, filled: Filler
) -> None:
    (number,) = filled("ant")
    damage(desk, "UPDATE entry SET queue = 'shunt', metadata = '{}' WHERE id = ?", number)
    with pytest.raises(QueueError, match="its metadata cannot be read"):
        do(desk.store, requeue, number)
    assert seen(desk.store, number).queue == "shunt"


@pytest.mark.parametrize("column", ["list_name", "posting_address", "list_id", "display_name"])
def test_fault_12_a_list_whose_row_is_damaged_does_not_stop_the_mail_of_others(
    desk: Desk, filled: Filler, column: str
) -> None:
    filled("ant", "bee")
    damage(
        desk, f"UPDATE mailing_list SET {column} = CAST(x'ff' AS TEXT) WHERE list_name = ?", "ant"
    )
    both = envelope("ant-join@example.com", "bee-join@example.com")
    answers = desk.deliver(both)
    assert answers in ([[250, 250]], [[550, 250]])
    assert (answers == [[550, 250]]) == (column == "list_name")
    assert "bee@example.com/join" in endpoints(desk.store)
    assert counts(desk.store).entries == (3 if column == "list_name" else 4)
    assert len(take(desk.store)) == 2
