"""Domains and lists: what administrators can and cannot do, on both databases."""

from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import Connection, event

from postroom.lists.registry import (
    Domain,
    ListError,
    add_domain,
    count_lists,
    create_list,
    create_lists,
    delete_list,
    domains,
    find_list,
    lists,
    posting_address,
    remove_domain,
    rename_list,
    shadow_warnings,
)
from postroom.store.engine import Store

Snapshot = tuple[list[Domain], list[tuple[object, ...]]]


def snapshot(connection: Connection) -> Snapshot:
    """Everything the registry holds."""
    return list(domains(connection)), [tuple(each) for each in lists(connection)]


@pytest.fixture
def filled(store: Store) -> Store:
    """example.com with ant and bee, its alias example.org, and example.net with a list cat."""
    with store.begin() as connection:
        for address in ("ant@example.com", "bee@example.com", "cat@example.net"):
            create_list(connection, address)
        add_domain(connection, "example.org", alias_of="example.com")
        add_domain(connection, "empty.example")
    return store


def refused(store: Store, action: Callable[[Connection], object]) -> str:
    """What a refusal says; checks that it is one line and that nothing was changed, even if
    the transaction goes on."""
    with store.begin() as connection:
        before = snapshot(connection)
        with pytest.raises(ListError) as refusal:
            action(connection)
        assert snapshot(connection) == before
    text = str(refusal.value)
    assert text and "\n" not in text
    return text


def test_a_new_list_brings_its_domain_and_is_shown_as_in_the_reference(store: Store) -> None:
    with store.begin() as connection:
        made = create_list(connection, "MyList@Example.com")
    assert made.posting_address == "mylist@example.com"
    assert made.list_id == "mylist.example.com"
    assert made.display_name == "mylist"
    assert repr(made) == f'<mailing list "mylist@example.com" at {id(made):#x}>'
    with store.read() as connection:
        assert list(lists(connection)) == [made]
        assert list(domains(connection)) == [Domain("example.com", None, "")]
        assert count_lists(connection) == 1


def test_a_list_has_the_name_it_is_given(store: Store) -> None:
    with store.begin() as connection:
        assert create_list(connection, "a@example.com", "All about ants").display_name == (
            "All about ants"
        )


def test_lists_and_domains_come_in_order(filled: Store) -> None:
    with filled.begin() as connection:
        create_list(connection, "aaa@example.net")
        assert [each.posting_address for each in lists(connection)] == [
            "ant@example.com",
            "bee@example.com",
            "aaa@example.net",
            "cat@example.net",
        ]
        assert [(each.mail_host, each.alias_of) for each in domains(connection)] == [
            ("empty.example", None),
            ("example.com", None),
            ("example.net", None),
            ("example.org", "example.com"),
        ]


@pytest.mark.parametrize(
    "address", ["ant@example.com", "ANT@Example.COM", "ant@example.org", '"ant"@example.com']
)
def test_a_list_is_found_by_any_form_of_its_address(sqlite_store: Store, address: str) -> None:
    with sqlite_store.begin() as connection:
        made = create_list(connection, "ant@example.com")
        add_domain(connection, "example.org", alias_of="example.com")
        assert find_list(connection, address) == made


def test_what_is_no_list_is_not_found(filled: Store) -> None:
    for address in ("dog@example.com", "ant-join@example.com", "ant@example.net"):
        said = refused(filled, partial(find_list, address=address))
        assert said == f"list {address} does not exist: `postroom list ls` shows those there are"
    assert "no address" in refused(filled, lambda connection: find_list(connection, "<ant>"))
    assert "no domain" in refused(filled, lambda connection: find_list(connection, "ant"))


def test_lists_that_cannot_be_are_refused_and_nothing_changes(filled: Store) -> None:
    cases = {
        "ant@example.com": "list ant@example.com exists already",
        "Ant@EXAMPLE.com": "list ant@example.com exists already",
        "new@example.org": "example.org is an alias of example.com: use that",
        "postmaster@example.com": "site owner's",
        "a b@new.example": "no address",
    }
    for address, reason in cases.items():
        assert reason in refused(filled, partial(create_list, address=address))


def test_many_lists_are_created_all_or_none(filled: Store) -> None:
    def create(*addresses: str) -> Callable[[Connection], None]:
        return partial(create_lists, boxes=[posting_address(address) for address in addresses])

    new = [f"new{number}@new.example" for number in range(2500)]
    assert "exists already" in refused(filled, create(*new, "bee@example.com"))
    assert "is an alias" in refused(filled, create(*new, "x@example.org"))
    assert "is named twice" in refused(filled, create(*new, "new0@new.example"))
    assert "same list-id" in refused(filled, create("a.b@c.example", "a@b.c.example"))
    with filled.begin() as connection:
        create(*new)(connection)
        assert count_lists(connection) == 2503
        create()(connection)
        assert count_lists(connection) == 2503


def test_creating_lists_takes_a_query_per_thousand_and_few_statements(store: Store) -> None:
    def statements(number: int, host: str) -> int:
        seen: list[str] = []
        boxes = [posting_address(f"list{each}@{host}") for each in range(number)]
        with store.begin() as connection:
            event.listen(
                connection, "before_cursor_execute", lambda *arguments: seen.append(arguments[2])
            )
            create_lists(connection, boxes)
        return len(seen)

    assert statements(3000, "many.example") == statements(1, "one.example") + 2


def test_two_lists_never_share_a_list_id(filled: Store) -> None:
    with filled.begin() as connection:
        create_list(connection, "a.b@c.example")
    said = refused(filled, lambda connection: create_list(connection, "a@b.c.example"))
    assert said == "list-id a.b.c.example is already that of list a.b@c.example"


def test_a_renamed_list_keeps_its_list_id_and_its_past_address_cannot_be_reused(
    filled: Store,
) -> None:
    with filled.begin() as connection:
        before = find_list(connection, "ant@example.com")
        renamed = rename_list(connection, "Ant@example.org", "Wasp@New.example")
        assert renamed == before._replace(posting_address="wasp@new.example")
        assert find_list(connection, "wasp@new.example") == renamed
        assert "new.example" in [each.mail_host for each in domains(connection)]
    said = refused(filled, lambda connection: create_list(connection, "ant@example.com"))
    assert said == "list-id ant.example.com is already that of list wasp@new.example"
    with filled.begin() as connection:
        assert rename_list(connection, "wasp@new.example", "ant@example.com") == before


def test_a_renamed_list_may_take_the_past_address_of_another(filled: Store) -> None:
    with filled.begin() as connection:
        rename_list(connection, "ant@example.com", "wasp@example.com")
        renamed = rename_list(connection, "bee@example.com", "ant@example.com")
        assert renamed.list_id == "bee.example.com"
        assert find_list(connection, "wasp@example.com").list_id == "ant.example.com"


def test_renaming_a_list_to_its_own_address_changes_nothing(filled: Store) -> None:
    with filled.begin() as connection:
        before = snapshot(connection)
        rename_list(connection, "ant@example.com", "ANT@example.com")
        assert snapshot(connection) == before


def test_renames_that_cannot_be_are_refused_and_nothing_changes(filled: Store) -> None:
    cases = {
        ("dog@example.com", "new@example.com"): "list dog@example.com does not exist",
        ("ant@example.com", "bee@example.com"): "list bee@example.com exists already",
        ("ant@example.com", "CAT@example.net"): "list cat@example.net exists already",
        ("ant@example.com", "new@example.org"): "is an alias of example.com",
        ("ant@example.com", "postmaster@example.com"): "site owner's",
        ("ant@example.com", "x" * 65 + "@example.com"): "at most 64",
        ("ant@example.com", "new"): "no domain",
        ("ant", "new@example.com"): "no domain",
    }
    for (old, new), reason in cases.items():
        assert reason in refused(filled, partial(rename_list, old=old, new=new))


def test_a_removed_list_is_gone_and_can_be_made_again(filled: Store) -> None:
    with filled.begin() as connection:
        gone = find_list(connection, "ant@example.com")
        delete_list(connection, gone.key)
    assert "does not exist" in refused(filled, lambda c: find_list(c, "ant@example.com"))
    with filled.begin() as connection:
        assert create_list(connection, "ant@example.com").list_id == gone.list_id


def test_domains_that_cannot_be_added_are_refused(filled: Store) -> None:
    cases: dict[tuple[str, str | None], str] = {
        ("Example.COM", None): "domain example.com exists already",
        ("example.org", None): "domain example.org exists already",
        ("new.example", "absent.example"): "domain absent.example does not exist: add it first",
        ("new.example", "example.org"): "itself an alias: use --alias-of example.com",
        ("new.example", "new.example"): "domain new.example does not exist",
        ("exa_mple.com", None): "'exa_mple.com' cannot be a mail domain",
        ("a@example.com", None): "cannot be a mail domain",
        ("", None): "cannot be a mail domain",
        ("localhost", None): "cannot be a mail domain",
        ("x" * 64 + ".example", None): "cannot be a mail domain",
    }
    for (host, alias_of), reason in cases.items():
        assert reason in refused(filled, partial(add_domain, host=host, alias_of=alias_of))


def test_a_domain_is_folded_and_its_two_forms_are_one(store: Store) -> None:
    with store.begin() as connection:
        assert add_domain(connection, " B\u00dcCHER.example ").mail_host == "b\u00fccher.example"
        added = add_domain(connection, "Alias.Example", "XN--bcher-kva.example")
        assert added == Domain("alias.example", "b\u00fccher.example", "")
    assert "exists already" in refused(store, lambda c: add_domain(c, "xn--bcher-kva.example"))
    with store.begin() as connection:
        remove_domain(connection, "alias.example")
        remove_domain(connection, "xn--bcher-kva.example")
        assert list(domains(connection)) == []


def test_a_domain_in_use_is_not_removed(filled: Store) -> None:
    def remove(host: str) -> Callable[[Connection], None]:
        return partial(remove_domain, host=host)

    assert refused(filled, remove("example.com")) == (
        "domain example.com has 2 lists: remove or rename them first"
    )
    assert refused(filled, remove("new.example")) == "domain new.example does not exist"
    with filled.begin() as connection:
        for address in ("ant@example.com", "bee@example.com"):
            delete_list(connection, find_list(connection, address).key)
    assert refused(filled, remove("Example.COM")) == (
        "domain example.com has aliases (example.org): remove them first"
    )
    with filled.begin() as connection:
        for host in ("example.org", "EXAMPLE.com", "empty.example"):
            remove_domain(connection, host)
        assert [each.mail_host for each in domains(connection)] == ["example.net"]


def warned(connection: Connection, *addresses: str) -> list[str]:
    """What is said of lists that were made at these addresses."""
    return shadow_warnings(connection, [posting_address(address) for address in addresses])


def test_a_list_that_takes_the_place_of_an_endpoint_is_told(filled: Store) -> None:
    with filled.begin() as connection:
        for suffix in ("-join", "-subscribe", "-join+x", "-confirm+a-b+c"):
            assert warned(connection, f"ant{suffix}@example.com") == [
                f"ant{suffix}@example.com was the {suffix} address of ant@example.com; "
                "mail to it now posts to the new list"
            ]
        for harmless in ("dog-join", "ant", "ant+x", "ant-x+join", "ant-joiner"):
            assert warned(connection, f"{harmless}@example.com") == []
        assert warned(connection, "ant-join@example.net") == []
        some = ["ant-join@example.com", "x@example.com", "bee-owner@example.com"]
        assert [each.split()[0] for each in warned(connection, *some)] == [
            "ant-join@example.com",
            "bee-owner@example.com",
        ]


def test_a_list_whose_endpoints_other_lists_have_taken_is_told(filled: Store) -> None:
    with filled.begin() as connection:
        for name in ("test-join", "test-owner+x", "test-joiner", "test-x", "fun-leave"):
            create_list(connection, f"{name}@example.com")
        create_list(connection, "test@example.com")
        assert warned(connection, "test@example.com") == [
            "test-join@example.com is a list, so test@example.com has no -join address",
            "test-owner+x@example.com is a list, so test@example.com has no -owner+x address",
        ]
        create_list(connection, "test@example.net")
        assert warned(connection, "test@example.net") == []


def test_of_lists_that_are_made_together_each_clash_is_told_once(filled: Store) -> None:
    with filled.begin() as connection:
        names = ("new", "new-join", "new-join-leave", "new-join+b", "new-join+b-leave")
        addresses = [f"{name}@example.com" for name in names]
        for address in addresses:
            create_list(connection, address)
        assert [line.partition("; ")[0] for line in warned(connection, *addresses)] == [
            "new-join@example.com was the -join address of new@example.com",
            "new-join-leave@example.com was the -leave address of new-join@example.com",
            "new-join+b@example.com was the -join+b address of new@example.com",
            "new-join+b-leave@example.com was the -leave address of new-join+b@example.com",
        ]
