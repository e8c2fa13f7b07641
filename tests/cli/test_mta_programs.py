"""`postroom mta`: other mail servers with what it prints. (Postfix: tests/interop.)"""

import re
import smtplib
from collections.abc import Iterator

import pytest

from postroom.testing.site import Site
from tests.contract.sabotage import run as execute
from tests.integration.mail import LIST, create_lists, new_message, postroom
from tests.integration.sites import Sites
from tests.interop.exim import Exim
from tests.interop.mail import MailServer, arrived, free_port, hand_in
from tests.interop.opensmtpd import OpenSMTPD
from tests.interop.sendmail import Sendmail

OK, LATER, NEVER = 250, 451, 550
UNKNOWN = "no-such@example.com"

_EXIM = """\
primary_hostname = mta.example.net
log_file_path = syslog
keep_environment =
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
host_lookup =
rfc1413_query_timeout = 0s
{main}
domainlist relay_to_domains = {relay_to}
domainlist local_domains = {local}
acl_smtp_rcpt = check_rcpt
begin acl
check_rcpt:
{acl}
  require domains = +relay_to_domains : +local_domains
  require verify = recipient
  accept
begin routers
{routers}
users:
  driver = accept
  domains = +local_domains
  local_parts = root : postmaster
  transport = discard
begin transports
{transports}
discard:
  driver = appendfile
  file = /dev/null
  user = Debian-exim
"""


def printed(site: Site, program: str, *options: str) -> str:
    return postroom(site, "mta", program, *options).stdout.decode()


class OurExim(Exim):
    """As Debian's: mail for relay_to_domains and local_domains is taken from everybody."""

    def __init__(self, site: Site, *options: str) -> None:
        super().__init__({})
        part = re.split(r"^# (?=\d\w?\. )", printed(site, "exim", *options), flags=re.M)
        found = {each.partition(".")[0]: f"# {each}" for each in part}
        here, nowhere = "+postroom_domains", ""
        self._configuration = _EXIM.format(
            port=self.port,
            main=found["1"],
            acl=found.get("1a", ""),
            routers=found["2"],
            transports=found["3"],
            relay_to=nowhere if options else here,
            local=here if options else nowhere,
        )


class OurSendmail(Sendmail):
    """Relays for nobody but what our lines say."""

    def __init__(self, site: Site, *options: str) -> None:
        super().__init__({})
        own = self._configuration.partition("MAILER_DEFINITIONS")[0]
        own = own.replace("FEATURE(`promiscuous_relay')dnl\n", "")
        local = "LOCAL_CONFIG\nCwexample.com\n" if options else ""
        self._configuration = own + local + printed(site, "sendmail", *options)


class OurOpenSMTPD(OpenSMTPD):
    """Has tables of what there was when `renew` was last called."""

    def __init__(self, site: Site, *options: str) -> None:
        super().__init__({})
        own, _, _ = self._configuration.partition("table")
        users = 'action "users" mda "cat >/dev/null" virtual { root = nobody }\n'
        users += (
            'match from any for domain "example.com" rcpt-to "root@example.com" action "users"\n'
        )
        self._configuration = own + printed(site, "opensmtpd", *options) + users
        self._site = site

    def renew(self) -> None:
        """As its comments say."""
        for table in "domains", "recipients":
            content = printed(self._site, "opensmtpd", "--table", table)
            self.run("tee", f"/etc/postroom/{table}", input=content.encode())

    def begin(self) -> None:
        self.run("mkdir", "-p", "/etc/postroom")
        self.renew()
        super().begin()


Ours = OurExim | OurSendmail | OurOpenSMTPD
LIVE = [OurExim, OurSendmail]
ALL = [*LIVE, OurOpenSMTPD]


def rcpt(server: MailServer, *recipients: str) -> list[int]:
    """The code of the reply to each, in one session."""
    with smtplib.SMTP("127.0.0.1", server.port, timeout=30) as client:
        client.ehlo()
        client.mail("anne@example.org")
        return [client.docmd("RCPT", f"TO:<{each}>")[0] for each in recipients]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A running server with look-ups, over TCP."""
    with Sites() as made:
        yield made.start(LIST, MAPS__LISTEN=f"127.0.0.1:{free_port()}")


@pytest.fixture(scope="module")
def over_unix() -> Iterator[Site]:
    """A running server with everything on unix sockets."""
    with Sites() as made:
        home = made.make().directory
        home.chmod(0o755)  # mail servers are other users
        places = {f"{name}__LISTEN": f"unix:{home}/{name.lower()}" for name in ("LMTP", "MAPS")}
        yield made.start(LIST, LMTP__SOCKET_MODE="0666", **places)


@pytest.fixture(scope="module")
def without_look_ups() -> Iterator[Site]:
    """A running server that refuses at RCPT and is not asked otherwise."""
    with Sites() as made:
        yield made.start(LIST, LMTP__REFUSE_UNKNOWN="at-rcpt")


@pytest.mark.parametrize("kind", ALL)
def test_domains_that_have_lists_and_nothing_else(site: Site, kind: type[Ours]) -> None:
    new = f"{kind.__name__}@example.com"
    with kind(site) as server:
        asked = [LIST, "MyList-Owner@EXAMPLE.com", "mylist-bounces+a=b@example.com"]
        assert rcpt(server, *asked, UNKNOWN, "root@example.com", new) == [OK] * 3 + [NEVER] * 3
        create_lists(site.store, new)
        if isinstance(server, OurOpenSMTPD):
            server.renew()
            server.run("smtpctl", "update", "table", "postroom_recipients")
        assert rcpt(server, new, UNKNOWN) == [OK, NEVER]
        raw = new_message()
        hand_in(server, ["mylist-confirm+AbC@example.com"], raw)
        [entry] = arrived(site, server, raw.split()[1])
        assert entry.where == (LIST, "confirm", "AbC")
        if not isinstance(server, OurOpenSMTPD):
            trouble_is_for_later(site, server)


def trouble_is_for_later(site: Site, server: MailServer) -> None:
    """Nobody is told that an address does not exist when that is not known."""
    execute(site.store, "ALTER TABLE domain RENAME TO elsewhere")
    assert rcpt(server, LIST, UNKNOWN) == [LATER, LATER]
    execute(site.store, "ALTER TABLE elsewhere RENAME TO domain")
    assert rcpt(server, LIST, UNKNOWN) == [OK, NEVER]
    site.stop()
    assert rcpt(server, LIST, UNKNOWN) == [LATER, LATER]
    site.start()
    assert rcpt(server, LIST, UNKNOWN) == [OK, NEVER]


@pytest.mark.parametrize("kind", ALL)
def test_a_shared_domain_over_unix_sockets(over_unix: Site, kind: type[Ours]) -> None:
    with kind(over_unix, "--shared") as server:
        assert rcpt(server, LIST, "root@example.com", UNKNOWN) == [OK, OK, NEVER]
        raw = new_message()
        hand_in(server, ["mylist-join@example.com"], raw)
        [entry] = arrived(over_unix, server, raw.split()[1])
        assert entry.where == (LIST, "join", "")


# sendmail cannot ask by LMTP, so it learns only after the message.
@pytest.mark.parametrize(("kind", "answers"), [(OurExim, [OK, NEVER]), (OurSendmail, [OK, OK])])
def test_without_look_ups(without_look_ups: Site, kind: type[Ours], answers: list[int]) -> None:
    new = f"{kind.__name__}@example.com"
    with kind(without_look_ups) as server:
        assert rcpt(server, LIST, UNKNOWN) == answers
        create_lists(without_look_ups.store, new)
        raw = new_message()
        hand_in(server, [new], raw)
        arrived(without_look_ups, server, raw.split()[1])
