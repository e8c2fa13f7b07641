"""Where addresses lead, on both databases."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from postroom.lists.endpoint import SUBADDRESSES, Endpoint, readings
from postroom.lists.registry import add_domain, create_list, delete_list, find_list, rename_list
from postroom.lists.routing import route
from postroom.mail.address import Mailbox, fold, parse_mailbox
from postroom.store.engine import Store
from tests.contract.desk import make_lists

POSTMASTER = Endpoint(None, "", "", "", "")


class Counted:
    """Executes statements and keeps what it executed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.statements: list[tuple[str, tuple[Any, ...]]] = []

    def __call__(self, statement: str, parameters: tuple[Any, ...]) -> Iterable[Any]:
        self.statements.append((statement, parameters))
        with self._store.read() as connection:
            return connection.exec_driver_sql(statement, parameters).all()


def boxes(*addresses: str) -> list[Mailbox]:
    return [parse_mailbox(address)[0] for address in addresses]


def lead(store: Store, *addresses: str) -> list[Endpoint | None]:
    wanted = boxes(*addresses)
    found = route(Counted(store), store.is_sqlite, wanted)
    return [found[box] for box in wanted]


def shown(store: Store, *addresses: str) -> list[str | None]:
    """Endpoints as text: `listname/subaddress+detail`."""
    return [
        None if each is None else f"{each.listname}/{each.subaddress}+{each.detail}"
        for each in lead(store, *addresses)
    ]


@pytest.fixture
def lists(store: Store) -> Iterator[Store]:
    make_lists(store, "mylist@example.com", "my-list@example.com", "other@example.net")
    with store.begin() as connection:
        add_domain(connection, "example.org", alias_of="example.com")
    yield store


@pytest.mark.parametrize("detail", ["", "+T0k-en+x", "+anne=example.org"])
def test_each_sub_address_leads_to_its_endpoint(lists: Store, detail: str) -> None:
    addresses = [f"mylist-{suffix}{detail}@example.com" for suffix in SUBADDRESSES]
    expected = [f"mylist@example.com/{sub}+{detail[1:]}" for sub in SUBADDRESSES.values()]
    assert shown(lists, *addresses) == expected


def test_an_endpoint_tells_the_list_by_row_id_list_id_and_address(lists: Store) -> None:
    with lists.read() as connection:
        found = find_list(connection, "mylist@example.com")
    assert lead(lists, "mylist-join+x@example.com") == [
        Endpoint(found.key, "mylist.example.com", "mylist@example.com", "join", "x")
    ]


SAME = (
    "mylist@example.com",
    "MyList@Example.COM",
    '"mylist"@example.com',
    r'"my\list"@example.com',
    "@relay.example,@mx.example:mylist@example.com",
    "mylist@example.org",
    "MYLIST@EXAMPLE.ORG",
)


def test_case_quoting_route_and_alias_make_no_difference(lists: Store) -> None:
    assert shown(lists, *SAME) == ["mylist@example.com/+"] * len(SAME)


STRANGERS = (
    "unknown@example.com",
    "mylist-bogus@example.com",
    "mylist+detail@example.com",
    "mylist-@example.com",
    "-join@example.com",
    "join@example.com",
    "-@example.com",
    "mylist",
    "mylist@other.example",
    "mylist@example.net",
    "mylist@mylist",
    "other@example.com",
    "other@example.org",
    "mylist@sub.example.com",
    "mylist@com",
    "mylist\u00a0@example.com",
    "my\u200blist@example.com",
    "mylist\u200b@example.com",
    "my\u00adlist@example.com",
    "m\u0443list@example.com",  # Cyrillic
    "mylist@ex\u0430mple.com",
    "mylist@example.com\u200b",
    "mylist-jo\u0131n@example.com",  # dotless i
    "ｍylist@example.com",
    "mylist@[192.0.2.1]",
    '"mylist@example.com"@example.com',
    '"mylist "@example.com',
    "mylist%@example.com",
    "%@example.com",
    "_ylist@example.com",
    "*@example.com",
    "'@example.com",
    "../mylist@example.com",
    "mylist'--@example.com",
)


def test_what_names_no_list_leads_nowhere(lists: Store) -> None:
    assert [each for each in shown(lists, *STRANGERS) if each] == []
    assert len(boxes(*STRANGERS)) == len(STRANGERS)


def test_a_kelvin_sign_is_no_k(store: Store) -> None:
    make_lists(store, "kelvin@kelvin.example")
    assert shown(
        store,
        "Kelvin@kelvin.example",
        "\u212aelvin@kelvin.example",
        "kelvin@\u212aelvin.example",
        "kelvin-\u212aoin@kelvin.example",
    ) == ["kelvin@kelvin.example/+", None, None, None]


def test_a_list_named_like_a_sub_address_wins_over_it(store: Store) -> None:
    make_lists(store, "test@example.com")
    assert shown(store, "test-join@example.com", "test-join-join@example.com") == [
        "test@example.com/join+",
        None,
    ]
    make_lists(store, "test-join@example.com")
    assert shown(
        store, "test@example.com", "test-join@example.com", "Test-Join-Join+x@example.com"
    ) == ["test@example.com/+", "test-join@example.com/+", "test-join@example.com/join+x"]


def test_lists_may_be_called_like_sub_addresses(store: Store) -> None:
    make_lists(store, "join@example.com", "-join@example.com", "join-join@example.com")
    assert shown(
        store,
        "join@example.com",
        "-join@example.com",
        "join-join@example.com",
        "-join-join@example.com",
        "join-join-join@example.com",
        "join-leave@example.com",
    ) == [
        "join@example.com/+",
        "-join@example.com/+",
        "join-join@example.com/+",
        "-join@example.com/join+",
        "join-join@example.com/join+",
        "join@example.com/leave+",
    ]


def test_names_may_hold_dashes_and_pluses_and_the_longest_wins(store: Store) -> None:
    names = "c++", "a-b", "a", "a-join+b", "a-confirm+x"
    make_lists(store, *(f"{name}@example.com" for name in names))
    assert shown(
        store,
        "c++-join@example.com",
        "c++@example.com",
        "a-b-leave@example.com",
        "a-join+b-leave@example.com",
        "a-join+c-leave@example.com",
        "a-confirm+x@example.com",
        "a-confirm+X@example.com",
        "a-confirm+xy@example.com",
        "a-join+b-leave+c-owner@example.com",
    ) == [
        "c++@example.com/join+",
        "c++@example.com/+",
        "a-b@example.com/leave+",
        "a-join+b@example.com/leave+",
        "a@example.com/join+c-leave",
        "a-confirm+x@example.com/+",
        "a-confirm+x@example.com/+",
        "a@example.com/confirm+xy",
        "a-join+b@example.com/leave+c-owner",
    ]


def test_names_that_are_no_ascii_or_look_like_numbers_or_sql_are_names(store: Store) -> None:
    names = "café", "42", "0", "1e3", "null", "true", "o'brien", "x%y", "{json}", "a/b"
    make_lists(store, *(f"{name}@example.com" for name in names))
    assert shown(store, *(f"{name}@example.com" for name in names)) == [
        f"{name}@example.com/+" for name in names
    ]
    assert shown(store, "CAFÉ@example.com", "042@example.com", "xzy@example.com") == 3 * [None]


def test_a_domain_is_found_in_unicode_and_as_a_label(store: Store) -> None:
    make_lists(store, "a@bücher.example", "b@xn--strae-oqa.example")
    assert shown(
        store,
        "a@xn--bcher-kva.example",
        "A@XN--BCHER-KVA.EXAMPLE",
        "a@bücher.example",
        "b@straße.example",
        "b@xn--strae-oqa.example",
        "b@strasse.example",
        "postmaster@xn--bcher-kva.example",
    ) == [*3 * ["a@bücher.example/+"], *2 * ["b@straße.example/+"], None, "/+"]


def test_postmaster_is_the_site_owner(lists: Store) -> None:
    with lists.begin() as connection:
        add_domain(connection, "empty.example")
    addresses = (
        "postmaster",
        "PostMaster",
        '"postmaster"',
        "postmaster@example.com",
        "POSTMASTER@EXAMPLE.NET",
        '"Postmaster"@example.com',
        "postmaster@example.org",
        "Postmaster@empty.example",
    )
    assert lead(lists, *addresses) == [POSTMASTER] * len(addresses)


def test_what_is_no_postmaster_of_ours_leads_nowhere(lists: Store) -> None:
    addresses = (
        "postmaster@elsewhere.example",
        "postmaster@sub.example.com",
        "postmaster-join@example.com",
        "postmaster+x@example.com",
        "post\u200bmaster@example.com",
    )
    assert lead(lists, *addresses) == [None] * len(addresses)


def test_without_any_list_only_the_bare_postmaster_is_valid(store: Store) -> None:
    assert lead(store, "postmaster", "postmaster@example.com", "a@example.com") == [
        POSTMASTER,
        None,
        None,
    ]


def test_nothing_is_cached(store: Store) -> None:
    assert shown(store, "ant@example.com", "ant-join@example.com") == [None, None]
    with store.begin() as connection:
        create_list(connection, "ant@example.com")
    assert shown(store, "ant@example.com") == ["ant@example.com/+"]
    with store.begin() as connection:
        rename_list(connection, "ant@example.com", "bee@example.com")
    assert shown(store, "ant@example.com", "bee@example.com") == [None, "bee@example.com/+"]
    with store.begin() as connection:
        delete_list(connection, find_list(connection, "bee@example.com").key)
    assert shown(store, "ant@example.com", "bee@example.com") == [None, None]
    with store.begin() as connection:
        add_domain(connection, "alias.example", alias_of="example.com")
        create_list(connection, "ant@example.com")
    assert shown(store, "ant@alias.example") == ["ant@example.com/+"]


def test_no_recipients_lead_nowhere(store: Store) -> None:
    assert route(Counted(store), store.is_sqlite, []) == {}


def test_d12_a_thousand_recipients_and_thousands_of_lists_take_one_statement(
    store: Store,
) -> None:
    make_lists(store, *(f"list{number}@example.com" for number in range(3000)))
    addresses = [f"list{number}-confirm+{number}@example.com" for number in range(0, 3000, 6)]
    addresses += [f"nolist{number}-join@example.com" for number in range(500)]
    query = Counted(store)
    found = route(query, store.is_sqlite, boxes(*addresses))
    assert len(query.statements) == 1
    assert [box.local for box in boxes(*addresses) if found[box] is None] == [
        address.partition("@")[0] for address in addresses[500:]
    ]


SITES = {
    "many lists": [f"list{number}@example.com" for number in range(3000)],
    "many domains": [f"list@host{number}.example" for number in range(3000)],
    "both": [f"list{number % 50}@host{number // 50}.example" for number in range(3000)],
    "one list": ["list7@example.com"],
    "no list": [],
}


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("analyzed", [True, False])
def test_d12_the_look_up_of_a_list_is_by_index(store: Store, site: str, analyzed: bool) -> None:
    """Also where the statistics of ANALYZE are those of a site that was very small."""
    make_lists(store, *SITES[site])
    if not store.is_sqlite and (not analyzed or len(SITES[site]) < 2):
        return  # PostgreSQL analyzes by itself, and reads what fits a page as a whole
    query = Counted(store)
    route(query, store.is_sqlite, boxes("list7-join@example.com", "unknown@host7.example"))
    (statement, parameters), *others = query.statements
    assert not others
    explain = "EXPLAIN QUERY PLAN" if store.is_sqlite else "EXPLAIN"
    with store.begin() as connection:
        if analyzed:
            connection.execute(text("ANALYZE"))
    store.engine.dispose()  # SQLite: what it found out holds for new connections
    with store.read() as connection:
        plan = connection.exec_driver_sql(f"{explain} {statement}", parameters).all()
    lines = [str(row[-1]).strip() for row in plan]
    if store.is_sqlite:
        first, second, third = lines
        assert first.startswith("SCAN json_each")
        assert "SEARCH d USING" in second and "(mail_host=?)" in second
        assert "SEARCH l USING" in third and "(mail_host=? AND list_name=?)" in third
    else:
        (used,) = (line for line in lines if "mailing_list l" in line)
        assert "Index Scan using uq_mailing_list_mail_host_list_name" in used


names = st.lists(
    st.sampled_from(["a", "B", "-", "+", "join", "-leave", "-Owner", "é"]), min_size=1, max_size=5
).map("".join)
REAL_HOSTS = ("example.com", "example.net")
HOSTS = {"example.com": "example.com", "alias.example": "example.com", "example.net": "example.net"}


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sets(
        st.tuples(names.map(fold), st.sampled_from(["example.com", "example.net"])), max_size=8
    ),
    st.lists(st.tuples(names, st.sampled_from([*HOSTS, "EXAMPLE.com", "other.example", ""]))),
)
def test_the_one_statement_finds_what_a_search_of_all_lists_finds(
    store: Store, existing: set[tuple[str, str]], wanted: list[tuple[str, str]]
) -> None:
    with store.begin() as connection:
        for table in ("mailing_list", "domain"):
            connection.execute(text(f"DELETE FROM {table}"))
        for host in REAL_HOSTS:
            add_domain(connection, host)
        add_domain(connection, "alias.example", "example.com")
        for key, (name, host) in enumerate(sorted(existing), 1):
            connection.execute(
                text(
                    "INSERT INTO mailing_list (id, list_id, list_name, mail_host, posting_address,"
                    " created_at) VALUES (:id, :name, :local, :host, :name, 0)"
                ),
                {"id": key, "name": f"{name}@{host}", "local": name, "host": host},
            )
    recipients = [Mailbox(local, host) for local, host in wanted]
    found = route(Counted(store), store.is_sqlite, recipients)
    assert set(found) == set(recipients)
    for box in recipients:
        host = HOSTS.get(fold(box.domain), "")
        expected = None
        for reading in readings(box.local, fold(box.local)):
            if (reading.list_name, host) in existing:
                expected = f"{reading.list_name}@{host}", reading.subaddress, reading.detail
                break
        endpoint = found[box]
        assert (endpoint and endpoint[2:]) == expected
