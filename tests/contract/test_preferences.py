"""Settings of a list in the database, on both kinds."""

import pytest
from sqlalchemy import Connection, select, update

from postroom.lists.preferences import preferences, set_preferences
from postroom.lists.registry import ListError, find_list
from postroom.lists.settings import ListSettings, Posting
from postroom.store.engine import Store
from postroom.store.schema import mailing_list
from tests.contract.threads import overlap


def key_of(connection: Connection, name: str = "ant") -> int:
    """The key of a list at example.com."""
    return find_list(connection, f"{name}@example.com").key


def stored(store: Store, name: str = "ant") -> str:
    """The settings as they stand in the database."""
    this = mailing_list.c.list_name == name
    with store.read() as connection:
        return str(connection.scalar(select(mailing_list.c.settings).where(this)))


def test_a_new_list_has_the_defaults(spool: Store) -> None:
    with spool.read() as connection:
        assert preferences(connection, key_of(connection)) == ListSettings()


def test_what_is_set_is_there_for_this_list_alone_and_only_that_is_stored(spool: Store) -> None:
    with spool.begin() as connection:
        changes = {"posting.members": "hold", "posting.banned": "bo@example.org"}
        now = set_preferences(connection, key_of(connection), changes)
        assert now == ListSettings(posting=Posting(members="hold", banned=("bo@example.org",)))
    with spool.read() as connection:
        assert preferences(connection, key_of(connection)) == now
        assert preferences(connection, key_of(connection, "bee")) == ListSettings()
    assert stored(spool) == '{"posting":{"members":"hold","banned":["bo@example.org"]}}'
    with spool.begin() as connection:
        back = [("posting.members", "accept"), ("posting.banned-", "bo@example.org")]
        assert set_preferences(connection, key_of(connection), back) == ListSettings()
    assert stored(spool) == '{"posting":{}}'


def test_one_bad_change_and_nothing_is_set(spool: Store) -> None:
    with spool.begin() as connection, pytest.raises(ListError, match=r"posting\.max_size"):
        changes = {"posting.members": "hold", "posting.max_size": "big"}
        set_preferences(connection, key_of(connection), changes)
    assert stored(spool) == "{}"


def test_two_who_change_different_settings_at_once_both_succeed(spool: Store) -> None:
    def change(connection: Connection, key: str, value: str) -> ListSettings:
        return set_preferences(connection, key_of(connection), {key: value})

    now = overlap(
        spool,
        lambda connection: change(connection, "posting.members", "hold"),
        lambda connection: change(connection, "posting.nonmembers", "reject"),
    ).result()
    assert now == ListSettings(posting=Posting(members="hold", nonmembers="reject"))


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[]", '{"posting": {"members": "perhaps"}}', '{"posting": {"later": 1}}'],
)
def test_settings_that_cannot_be_read_are_one_line_that_says_what_to_do(
    spool: Store, text: str
) -> None:
    with spool.begin() as connection:
        key = key_of(connection)
        connection.execute(
            update(mailing_list).where(mailing_list.c.id == key).values(settings=text)
        )
    for change in (False, True):
        with pytest.raises(ListError) as refusal, spool.begin() as connection:
            if change:
                set_preferences(connection, key, {"posting.members": "hold"})
            else:
                preferences(connection, key)
        said = str(refusal.value)
        assert said.startswith("the settings of list ant@example.com cannot be read (")
        assert "\n" not in said
        assert stored(spool) == text
    with spool.begin() as connection:  # what it says helps
        connection.exec_driver_sql(said.partition("database: ")[2])
        assert preferences(connection, key) == ListSettings()


def test_a_list_that_is_gone_is_said(spool: Store) -> None:
    with spool.begin() as connection:
        with pytest.raises(ListError, match="was removed"):
            preferences(connection, 999)
        with pytest.raises(ListError, match="was removed"):
            set_preferences(connection, 999, {"posting.members": "hold"})
