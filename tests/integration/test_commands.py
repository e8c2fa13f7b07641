"""Commands while the server runs, against the same database."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from postroom.testing.site import Site
from tests.integration.mail import (
    ACCEPTED,
    LIST,
    NO_MAILBOX,
    deliver,
    new_message,
    postroom,
    queued,
)
from tests.integration.sites import Sites


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A running server that was started without any list."""
    with Sites() as made:
        site = made.start()
        postroom(site, "list", "create", LIST)
        yield site


def read(site: Site, *arguments: str) -> Any:
    """What a command says with --json."""
    return json.loads(postroom(site, *arguments, "--json").stdout)


def post(site: Site, address: str, raw: bytes) -> str:
    """Deliver a message; the id of its entry as commands show it."""
    with site.client() as client:
        assert deliver(client, [address], raw) == [ACCEPTED]
    return f"{queued(site.store)[-1].id:016x}"


def test_a_list_takes_mail_as_soon_as_its_command_has_ended(site: Site) -> None:
    with site.client() as client:
        assert deliver(client, ["fresh@example.net"], new_message()) == [NO_MAILBOX]
        postroom(site, "list", "create", "fresh@example.net")
        assert deliver(client, ["fresh@example.net"], new_message()) == [ACCEPTED]


def test_a_list_that_was_removed_takes_no_more_mail(site: Site) -> None:
    postroom(site, "list", "create", "brief@example.com")
    with site.client() as client:
        assert deliver(client, ["brief@example.com"], new_message()) == [ACCEPTED]
        refused = postroom(site, "list", "remove", "brief@example.com", status=1)
        assert b"--force" in refused.stderr
        assert deliver(client, ["brief@example.com"], new_message()) == [ACCEPTED]
        postroom(site, "list", "remove", "brief@example.com", "--force")
        assert deliver(client, ["brief@example.com"], new_message()) == [NO_MAILBOX]
    assert [each["metadata"]["listname"] for each in read(site, "queue", "ls", "shunt")] == [
        "brief@example.com"
    ] * 2


def test_a_renamed_list_takes_mail_at_its_new_address_only(site: Site) -> None:
    postroom(site, "list", "create", "before@example.com")
    number = post(site, "before@example.com", new_message())
    postroom(site, "list", "rename", "before@example.com", "after@example.com")
    with site.client() as client:
        assert deliver(client, ["before@example.com"], new_message()) == [NO_MAILBOX]
        assert deliver(client, ["after@example.com"], new_message()) == [ACCEPTED]
    assert read(site, "queue", "show", number)["metadata"]["listname"] == "after@example.com"


def test_an_entry_is_listed_with_what_a_consumer_is_told(site: Site) -> None:
    raw = new_message()
    number = post(site, "mylist-join@example.com", raw)
    [entry] = [each for each in read(site, "queue", "ls", "command") if each["id"] == number]
    received_at = entry.pop("received_at")
    assert received_at.startswith("20")
    assert entry == {
        "id": number,
        "queue": "command",
        "list": LIST,
        "sender": "anne@example.org",
        "size": len(raw),
        "attempts": 0,
        "message_id": raw.split()[1].decode(),
        "metadata": {
            "_parsemsg": False,
            "listname": LIST,
            "original_size": len(raw),
            "subaddress": "join",
            "version": 1,
        },
    }


def test_show_raw_writes_the_message_octet_for_octet(site: Site) -> None:
    raw = new_message() + bytes(range(256)).replace(b"\r", b"").replace(b"\n", b"") + b"\r\n"
    number = post(site, LIST, raw)
    headers, _, body = raw.partition(b"\r\n\r\n")
    shown = postroom(site, "queue", "show", number, "--raw").stdout
    assert shown == headers + b"\r\nX-MailFrom: anne@example.org\r\n\r\n" + body


def test_retry_and_delete_act_on_one_entry(site: Site) -> None:
    first, second = (post(site, LIST, new_message()) for _ in range(2))
    assert first in postroom(site, "queue", "retry", first).stdout.decode()
    postroom(site, "queue", "delete", first)
    assert b"no such entry" in postroom(site, "queue", "delete", first, status=1).stderr
    left = [each["id"] for each in read(site, "queue", "ls")]
    assert first not in left
    assert second in left


def test_a_message_that_was_deleted_is_still_recognised_when_it_comes_again(site: Site) -> None:
    raw = new_message()
    number = post(site, LIST, raw)
    postroom(site, "queue", "delete", number)
    with site.client() as client:
        assert deliver(client, [LIST], raw) == [ACCEPTED]
    assert raw not in [each.raw for each in queued(site.store)]


def test_stats_count_what_is_there(site: Site) -> None:
    post(site, "mylist-bounces@example.com", new_message())
    depths = {each["queue"]: each["depth"] for each in read(site, "queue", "stats")}
    found = [each.queue for each in queued(site.store)]
    assert depths["bounces"] == found.count("bounces") >= 1
    assert depths["in"] == found.count("in")


def test_config_show_names_what_the_server_uses(site: Site) -> None:
    shown = read(site, "config", "show")
    assert shown["lmtp"]["listen"] == [f"127.0.0.1:{site.port}"]
    assert shown["store"]["url"] == site.url
