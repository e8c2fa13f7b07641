"""Postfix with what `postroom mta postfix` prints: it asks us at RCPT whose an address is."""

import itertools
import smtplib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from postroom.testing.site import Site
from tests.contract.sabotage import run as execute
from tests.integration.mail import LIST, create_lists, new_message, postroom
from tests.integration.sites import Sites
from tests.interop.mail import ANNE, Since, arrived, free_port, hand_in
from tests.interop.postfix import Postfix, settings_of
from tests.peers import need

UNKNOWN = 550, "5.1.1"
NO_RELAY = 554, "5.7.1"
LATER = 451, "4.3.0"
OK = 250, "2.1.5"

_numbers = itertools.count()


class LookingUp(Postfix):
    """Has the lines that the command prints, and no other idea of what it serves. To it,
    everybody here is a stranger. `more` is what a site has besides."""

    def __init__(self, site: Site, *options: str, **more: str) -> None:
        super().__init__({})
        printed = postroom(site, "mta", "postfix", *options).stdout.decode()
        file = self.configuration / "main.cf"
        settings = settings_of(file.read_text()) | {
            "mynetworks": "192.0.2.0/24",
            "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
            "relay_domains": "",
            "transport_maps": "",
        }
        settings |= settings_of(printed) | more
        file.write_text("".join(f"{name} = {value}\n" for name, value in settings.items()))

    def rcpt(self, *recipients: str) -> list[tuple[int, str]]:
        """Code and enhanced code of the reply to each, all in one session.

        The sender is new, because smtpd(8) remembers whose address it was for each pair.
        """
        found = []
        with smtplib.SMTP("127.0.0.1", self.port, timeout=30) as client:
            client.ehlo()
            client.mail(f"anne{next(_numbers)}@example.org")
            for each in recipients:
                code, text = client.docmd("RCPT", f"TO:<{each}>")
                found.append((code, text.split()[0].decode()))
        return found


@contextmanager
def without_lists(site: Site) -> Iterator[None]:
    """The registry cannot be read."""
    execute(site.store, "ALTER TABLE domain RENAME TO elsewhere")
    try:
        yield
    finally:
        execute(site.store, "ALTER TABLE elsewhere RENAME TO domain")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A running server with look-ups."""
    with Sites() as made:
        yield made.start(LIST, MAPS__LISTEN=f"127.0.0.1:{free_port()}")


@pytest.fixture(scope="module")
def postfix(site: Site) -> Iterator[LookingUp]:
    """A Postfix for domains that have lists and nothing else."""
    with LookingUp(site) as running:
        yield running


@pytest.fixture(scope="module")
def over_unix() -> Iterator[Site]:
    """A running server with everything on unix sockets, for Postfix alone."""
    with Sites() as made:
        home = made.make().directory
        home.chmod(0o755)  # Postfix is another user
        places = {f"{name}__LISTEN": f"unix:{home}/{name.lower()}" for name in ("LMTP", "MAPS")}
        yield made.start(LIST, LMTP__SOCKET_GROUP="postfix", **places)


@pytest.fixture(scope="module")
def shared(over_unix: Site) -> Iterator[LookingUp]:
    """A Postfix that has users in the domain of the lists."""
    more = {"mydestination": "example.com", "alias_maps": "inline:{ postmaster=root }"}
    with LookingUp(over_unix, "--shared", local_transport="discard", **more) as running:
        yield running


def test_a_list_takes_mail_as_soon_as_it_exists_even_in_a_new_domain(
    site: Site, postfix: LookingUp
) -> None:
    new = "new@example.com", "new-owner@example.com", "ants@ants.example"
    assert postfix.rcpt(*new) == [UNKNOWN, UNKNOWN, NO_RELAY]
    create_lists(site.store, "new@example.com", "ants@ants.example")
    assert postfix.rcpt(*new, "bees@ants.example") == [OK, OK, OK, UNKNOWN]
    raw = new_message()
    hand_in(postfix, new, raw)
    found = {each.where for each in arrived(site, postfix, raw.split()[1], 3)}
    assert found == {
        ("new@example.com", "", ""),
        ("new@example.com", "owner", ""),
        ("ants@ants.example", "", ""),
    }


def test_every_form_of_an_address_is_found(site: Site, postfix: LookingUp) -> None:
    postroom(site, "domain", "add", "example.net", "--alias-of", "example.com")
    create_lists(site.store, "ants@bücher.example", "grün@example.com")
    valid = [
        "mylist@example.com",
        "MyList@EXAMPLE.COM",
        '"mylist"@example.com',
        "mylist-bounces+ab23cd45+anne=example.org@example.com",
        "mylist-confirm+0123456789abcdef0123456789abcdef0123456789abcdef0123456789@example.com",
        "postmaster@example.com",
        "mylist-request@example.net",
        "ants-join@xn--bcher-kva.example",
    ]
    assert postfix.rcpt(*valid) == [OK] * len(valid)
    raw = new_message()
    beyond_ascii = ["grün-owner@example.com", "mylist-confirm+straße@example.com"]
    hand_in(postfix, beyond_ascii, raw, options=["SMTPUTF8"])
    found = {each.where for each in arrived(site, postfix, raw.split()[1], 2)}
    assert found == {("grün@example.com", "owner", ""), (LIST, "confirm", "straße")}


def test_an_unknown_address_is_refused_at_rcpt(postfix: LookingUp) -> None:
    unknown = [
        "no-such@example.com",
        "mylist-bogus@example.com",
        "mylist+detail@example.com",
        "root@example.com",
        '"a b"@example.com',
        '"*"@example.com',
        "*@example.com",
    ]
    assert postfix.rcpt(*unknown, LIST) == [UNKNOWN] * len(unknown) + [OK]


def test_nobody_is_let_relay(postfix: LookingUp, shared: LookingUp) -> None:
    elsewhere = ["anne@example.org", "mylist@lists.example.com", "mylist%example.org@example.org"]
    for each in postfix, shared:
        assert each.rcpt(*elsewhere) == [NO_RELAY] * len(elsewhere)


def test_d8_while_the_registry_cannot_be_read_nobody_is_told_never(
    site: Site, postfix: LookingUp, over_unix: Site, shared: LookingUp
) -> None:
    recipients = [LIST, "no-such@example.com", "mylist@ants.example", "anne@example.org"]
    for where, server in (site, postfix), (over_unix, shared):
        with without_lists(where):
            assert server.rcpt(*recipients) == [LATER] * len(recipients)
        assert server.rcpt(LIST, "no-such@example.com") == [OK, UNKNOWN]


def test_with_domains_written_down_other_mail_goes_on(site: Site) -> None:
    printed = postroom(site, "mta", "postfix").stdout.decode()
    other = printed.partition("in place of the first two:\n")[2].partition("\n\n")[0]
    written_down = settings_of(other.replace("# ", ""))
    with LookingUp(site, **written_down) as postfix:
        assert postfix.rcpt(LIST, "no-such@example.com") == [OK, UNKNOWN]
        with without_lists(site):
            found = postfix.rcpt(LIST, "no-such@example.com", "anne@example.org")
            assert found == [LATER, LATER, NO_RELAY]
        assert postfix.rcpt(LIST, "no-such@example.com") == [OK, UNKNOWN]
        raw = new_message()
        hand_in(postfix, [LIST], raw)
        arrived(site, postfix, raw.split()[1])


def test_while_the_server_is_stopped_nobody_is_told_never(site: Site, postfix: LookingUp) -> None:
    assert postfix.rcpt(LIST) == [OK]  # so it has a connection, which breaks
    site.stop()
    assert postfix.rcpt(LIST, "no-such@example.com") == [LATER, LATER]
    site.start()
    assert postfix.rcpt(LIST, "no-such@example.com") == [OK, UNKNOWN]


def test_what_was_not_asked_at_rcpt_is_refused_by_us_and_goes_nowhere_else(
    postfix: LookingUp,
) -> None:
    log = Since(postfix)
    postfix.submit(ANNE, ["no-such@example.com"], new_message())
    log.line(postfix.says_bounced("no-such@example.com"))


def test_in_a_shared_domain_lists_and_users_get_their_own(
    over_unix: Site, shared: LookingUp
) -> None:
    create_lists(over_unix.store, "daemon@example.com")  # a user of the system, too
    everybody = [LIST, "mylist-join@example.com", "root@example.com", "daemon@example.com"]
    assert shared.rcpt(*everybody, "no-such@example.com") == [OK] * 4 + [UNKNOWN]
    raw, log = new_message(), Since(shared)
    hand_in(shared, [*everybody, "postmaster@example.com"], raw)
    assert len(arrived(over_unix, shared, raw.split()[1], 3)) == 3
    for user in "root@example.com", "postmaster@example.com":
        log.line((f"to=<{user}>", "postfix/discard", "status=sent"))


def test_postmap_asks_too(site: Site) -> None:
    place = site.environment["POSTROOM_MAPS__LISTEN"]

    def ask(name: str, key: str, stdin: str = "") -> tuple[int, str]:
        done = subprocess.run(
            [
                str(Path(need("postfix")).with_name("postmap")),
                "-q",
                key,
                f"socketmap:inet:{place}:{name}",
            ],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout

    hop = f"lmtp:inet:127.0.0.1:{site.port}\n"
    assert ask("recipients", LIST) == (0, f"{LIST}\n")
    assert ask("transport", "mylist-join@example.com") == (0, hop)
    assert ask("domains", "example.com") == (0, hop)
    assert ask("domains", "no-such@example.com") == (0, hop)
    for name, key in ("recipients", "no@example.com"), ("transport", LIST[:-1]), ("domains", "x.y"):
        assert ask(name, key) == (1, "")
    keys = [LIST if number % 2 else f"{number}@example.com" for number in range(500)]
    assert ask("recipients", "-", "\n".join(keys)) == (0, f"{LIST}\t{LIST}\n" * 250)
    with without_lists(site):
        status, found = ask("recipients", "-", "\n".join(keys))
        assert (status, found) == (1, "")


def test_without_look_ups_it_verifies_by_lmtp() -> None:
    with Sites() as made:
        other = made.start(LIST, LMTP__REFUSE_UNKNOWN="at-rcpt")
        with LookingUp(other, address_verify_poll_delay="1s") as postfix:
            assert postfix.rcpt(LIST, "no-such@example.com") == [OK, UNKNOWN]
            create_lists(other.store, "new@example.com")
            assert postfix.rcpt("new@example.com", "anne@example.org") == [OK, NO_RELAY]
            raw = new_message()
            hand_in(postfix, [LIST, "new@example.com"], raw)
            arrived(other, postfix, raw.split()[1], 2)
