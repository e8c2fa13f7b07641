"""Exim, OpenSMTPD and sendmail with what `postroom mta` prints. Postfix: test_maps_postfix.py."""

import smtplib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import pytest

from postroom.testing.site import Site
from tests.integration.mail import LIST, create_lists, new_message, postroom
from tests.integration.sites import Sites
from tests.interop.exim import Exim
from tests.interop.mail import (
    NOWHERE,
    MailServer,
    Printed,
    Routes,
    arrived,
    free_port,
    hand_in,
    message_id,
    unix_socket,
)
from tests.interop.opensmtpd import OpenSMTPD
from tests.interop.sendmail import Sendmail

PROGRAMS: dict[str, Callable[[Routes, Printed], AbstractContextManager[MailServer]]] = {
    "exim": Exim,
    "opensmtpd": OpenSMTPD,
    "sendmail": Sendmail,
}
UNKNOWN = "no-such@example.com"
USER = "daemon@example.com"  # a user of every machine


@pytest.fixture(scope="module")
def tcp() -> Iterator[Site]:
    """A server that listens on TCP alone."""
    with Sites() as made:
        yield made.start(LIST, MAPS__LISTEN=f"127.0.0.1:{free_port()}")


@pytest.fixture(scope="module")
def unix() -> Iterator[Site]:
    """A server that listens on unix sockets alone, for everybody."""
    with unix_socket() as lmtp, unix_socket() as maps, Sites() as made:
        yield made.start(
            LIST, LMTP__LISTEN=str(lmtp), MAPS__LISTEN=str(maps), LMTP__SOCKET_MODE="0666"
        )


def tables(site: Site) -> dict[str, str]:
    """The files that OpenSMTPD reads."""
    return {
        name: postroom(site, "mta", "opensmtpd", "--table", name).stdout.decode()
        for name in ("domains", "recipients")
    }


def printed(site: Site, program: str, *options: str) -> Printed:
    """What the command says."""
    text = postroom(site, "mta", program, *options).stdout.decode()
    shared = {"shared": "example.com"} if "--shared" in options else {}
    return Printed(text, tables(site) if program == "opensmtpd" else {}, **shared)


def create(site: Site, server: MailServer, address: str) -> None:
    """Create a list, and do what the comments say has to be done then."""
    create_lists(site.store, address)
    if isinstance(server, OpenSMTPD):
        server.learn(tables(site))


def rcpt(server: MailServer, recipients: Sequence[str]) -> list[int]:
    """The codes of the replies to RCPT."""
    with smtplib.SMTP("127.0.0.1", server.port) as client:
        client.ehlo()
        client.mail("anne@example.org")
        return [client.rcpt(each)[0] for each in recipients]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_new_list_gets_mail_and_an_unknown_address_is_refused_at_rcpt(
    tcp: Site, program: str
) -> None:
    with PROGRAMS[program](NOWHERE, printed(tcp, program)) as server:
        new = f"new-{program}@example.com"
        assert rcpt(server, [LIST, new, UNKNOWN, USER]) == [250, 550, 550, 550]
        create(tcp, server, new)
        everybody = [
            new,
            f"new-{program}-join@example.com",
            f"new-{program}-bounces+a=b@example.com",
        ]
        assert rcpt(server, [*everybody, "postmaster@example.com"]) == [250] * 4
        raw = new_message()
        hand_in(server, everybody[:2], raw)
        found = arrived(tcp, server, message_id(raw), 2)
        assert sorted(each.where[:2] for each in found) == [(new, ""), (new, "join")]


@pytest.mark.parametrize("program", PROGRAMS)
def test_in_a_shared_domain_lists_and_users_get_mail_and_nobody_else(
    unix: Site, program: str
) -> None:
    with PROGRAMS[program](NOWHERE, printed(unix, program, "--shared")) as server:
        new = f"new-{program}@example.com"
        assert rcpt(server, [LIST, USER, new, UNKNOWN]) == [250, 250, 550, 550]
        create(unix, server, new)
        raw = new_message()
        hand_in(server, [new], raw)
        [entry] = arrived(unix, server, message_id(raw))
        assert entry.where == (new, "", "")


@pytest.mark.parametrize("program", ["exim", "sendmail"])
def test_while_postroom_is_stopped_nobody_is_told_that_an_address_is_unknown(
    tcp: Site, program: str
) -> None:
    with PROGRAMS[program](NOWHERE, printed(tcp, program)) as server:
        assert rcpt(server, [LIST]) == [250]
        tcp.stop()
        assert [code // 100 for code in rcpt(server, [LIST, UNKNOWN])] == [4, 4]
        tcp.start()
        assert rcpt(server, [LIST, UNKNOWN]) == [250, 550]
