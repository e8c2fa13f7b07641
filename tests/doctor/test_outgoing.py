"""Whether posts can go out: what mail servers say, and what we say of it."""

import contextlib
import socketserver
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest

from postroom.base.settings import DEFAULT_OWNER, Settings
from postroom.delivery.transaction import Fate, Stage, Verdict
from postroom.doctor import outgoing
from postroom.doctor.findings import FAILURE, OK, WARNING, Finding
from postroom.doctor.outgoing import Server, Way, ask, posts, way
from postroom.lists import registry, roster
from postroom.lmtp.codec import Answer
from postroom.store.engine import Store
from postroom.testing.sink import Sink
from tests.interop.postfix import Postfix

ANTS = "ants-bounces@lists.example.com"
ANN = "ann@example.org"
ALONG = Way(ANTS, ANN)


def settings(*hosts: str, **more: Any) -> Settings:
    return msgspec.convert({"smtp": {"host": hosts, **more}}, Settings)


class _Session(socketserver.StreamRequestHandler):
    """Answers each command as it was told to, 250 where it was not."""

    server: "_Server"

    def handle(self) -> None:
        replies = self.server.replies
        with contextlib.suppress(OSError):
            self.wfile.write(replies.get("", "220 mta.example.net\r\n").encode())
            while line := self.rfile.readline().decode().strip():
                self.server.heard.append(line)
                verb = line.partition(" ")[0].upper()
                self.wfile.write(replies.get(verb, "250 2.0.0 Ok\r\n").encode())


class _Server(socketserver.ThreadingTCPServer):
    def __init__(self, replies: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.replies = replies
        self.heard: list[str] = []
        self.place = f"127.0.0.1:{self.server_address[1]}"

    @property
    def verbs(self) -> list[str]:
        """The commands so far."""
        return [each.partition(" ")[0].upper() for each in self.heard]


@contextlib.contextmanager
def saying(**replies: str) -> Iterator[_Server]:
    """A server that answers so; `greeting` is what it says first."""
    told = {("" if name == "greeting" else name): f"{text}\r\n" for name, text in replies.items()}
    with _Server(told) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_server_is_asked_for_a_list_and_a_member_and_sent_nothing() -> None:
    offers = "250-mta.example.net\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-DSN\r\n250 XVERP"
    with saying(EHLO=offers) as server:
        [found] = ask(settings(server.place, hello="lists.example.com"), ALONG)
    assert found.place == server.place and found.trouble == ""
    assert (found.offers, found.size) == (("PIPELINING", "XVERP", "SIZE 1000"), 1000)
    assert found.verdict is not None and found.verdict.fate is Fate.ACCEPTED
    assert server.verbs == ["EHLO", "MAIL", "RCPT", "RSET", "QUIT"]
    assert server.heard[0].endswith(" lists.example.com")
    assert ANTS in server.heard[1] and ANN in server.heard[2]


def test_where_there_is_no_list_nobody_is_asked_for() -> None:
    with saying() as server:
        [found] = ask(settings(server.place), Way())
    assert found == Server(server.place)
    assert server.verbs == ["EHLO", "QUIT"]


@pytest.mark.parametrize(
    ("replies", "trouble"),
    [
        ({"greeting": "554 5.7.1 Not you"}, "it says 554 5.7.1 Not you"),
        ({"greeting": "+OK POP3"}, "it says -1 "),
        ({"EHLO": "421 4.3.2 Busy", "HELO": "421 4.3.2 Busy"}, "it says 421 4.3.2 Busy"),
    ],
)
def test_a_server_that_does_not_let_us_in_is_a_trouble(
    replies: dict[str, str], trouble: str
) -> None:
    with saying(**replies) as server:
        [found] = ask(settings(server.place), ALONG)
    assert found.trouble.startswith(trouble)


def test_a_server_that_is_not_there_or_says_nothing_is_a_trouble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink = Sink()
    sink.close()
    [found] = ask(settings(f"127.0.0.1:{sink.port}"), ALONG)
    assert found.trouble == "Connection refused"
    monkeypatch.setattr(outgoing, "PATIENCE", 0.05)
    with saying(greeting="220-never") as server:
        [found] = ask(settings(server.place), ALONG)
        assert "timed out" in found.trouble


def test_tls_and_a_password_are_used_as_they_are_in_delivery() -> None:
    with saying() as server:
        [found] = ask(settings(server.place, starttls="always"), ALONG)
    assert "STARTTLS" in found.trouble
    with saying(EHLO="250-x\r\n250 AUTH PLAIN", AUTH="535 5.7.8 Wrong") as server:
        [found] = ask(settings(server.place, user="us", password="hidden"), ALONG)
    assert found.trouble == "it says 535 5.7.8 Wrong"


def judged(*facts: Server) -> list[Finding]:
    return list(posts(facts, ALONG, Settings()))


def said(stage: Stage, code: int, enhanced: str, text: str) -> Server:
    fate = {2: Fate.ACCEPTED, 4: Fate.DEFERRED, 5: Fate.REFUSED}[code // 100]
    verdict = Verdict(fate, stage, Answer(code, enhanced, text))
    return Server("127.0.0.1:25", verdict=verdict)


@pytest.mark.parametrize(
    ("facts", "level", "told"),
    [
        (said(Stage.RCPT, 250, "2.1.5", "Ok"), OK, f"lets {ANTS} send to {ANN}"),
        (Server("127.0.0.1:25", offers=("XVERP",)), OK, "127.0.0.1:25 answers; it offers XVERP"),
        (Server("127.0.0.1:25"), OK, "it offers no extension that matters"),
        (Server("127.0.0.1:25", "Connection refused"), FAILURE, "cannot be used (Connection"),
        (
            said(Stage.RCPT, 554, "5.7.1", "Relay access denied"),
            FAILURE,
            f"does not let {ANTS} send to {ANN} (554 5.7.1 Relay access denied)",
        ),
        (said(Stage.RCPT, 550, "", "relay not permitted"), FAILURE, "(550 relay not permitted)"),
        (said(Stage.MAIL, 550, "5.7.1", "Not you"), FAILURE, f"does not let {ANTS} send (550 "),
        # This is what becomes of a member who is gone, and no reason to stop.
        (said(Stage.RCPT, 550, "5.1.1", "No such user"), WARNING, "(550 5.1.1 No such user)"),
        (said(Stage.RCPT, 451, "4.3.0", "Later"), WARNING, "(451 4.3.0 Later)"),
    ],
)
def test_what_a_mail_server_says_is_judged(facts: Server, level: str, told: str) -> None:
    [found] = judged(facts)
    assert (found.check, found.level) == ("smtp", level)
    assert told in found.text
    assert (found.to_do == "") is (level == OK)


@pytest.mark.parametrize(("size", "warned"), [(0, False), (26_214_400, False), (26_214_399, True)])
def test_a_server_that_takes_less_than_we_do_is_a_warning(size: int, warned: bool) -> None:
    found = judged(Server("127.0.0.1:25", size=size))
    assert [each.level for each in found] == [OK, WARNING][: 1 + warned]
    assert not warned or "lmtp.max_message_size" in found[1].to_do


def test_the_way_is_from_a_list_to_a_member_elsewhere(store: Store) -> None:
    url = store.engine.url.render_as_string(hide_password=False)
    assert way(url, "root@example.org") == Way("", "root@example.org")
    with store.begin() as connection:
        ants = registry.create_list(connection, "ants@lists.example.com")
    assert way(url, "root@example.org") == Way(ANTS, "root@example.org")
    assert way(url, DEFAULT_OWNER) == Way(ANTS, "")
    with store.begin() as connection:
        people = [roster.person("bees@lists.example.com"), roster.person("änne@example.org")]
        roster.add_members(connection, ants.key, people, "member")
    assert way(url, "root@example.org") == Way(ANTS, "root@example.org")
    with store.begin() as connection:
        roster.add_members(connection, ants.key, [roster.person(ANN)], "member")
    assert way(url, "root@example.org") == ALONG


@pytest.mark.parametrize("owner", ["postmaster@lists.example.com", "Ants-Owner@Lists.Example.com"])
def test_an_owner_who_is_an_address_of_the_site_is_seen(store: Store, owner: str) -> None:
    url = store.engine.url.render_as_string(hide_password=False)
    with store.begin() as connection:
        registry.create_list(connection, "ants@lists.example.com")
    assert way(url, owner) == Way(ANTS, "", circular=True)


def test_a_database_that_cannot_be_read_leaves_the_servers_to_be_greeted() -> None:
    assert way("sqlite:////nowhere/at/all.db", "root@example.org") == Way()


@pytest.mark.parametrize(
    ("restrictions", "level", "told"),
    [
        ("permit_mynetworks, reject", OK, f"lets {ANTS} send to {ANN}"),
        ("reject_unauth_destination", FAILURE, "Relay access denied)"),
    ],
)
def test_postfix_says_what_it_offers_and_whether_it_lets_us_relay(
    restrictions: str, level: str, told: str
) -> None:
    postfix = Postfix()
    file = postfix.configuration / "main.cf"
    more = f"smtpd_relay_restrictions = {restrictions}\nsmtpd_authorized_verp_clients = $mynetworks"
    file.write_text(f"{file.read_text()}{more}\n")
    with postfix:
        [answer] = ask(settings(f"127.0.0.1:{postfix.port}"), ALONG)
    assert answer.offers == ("PIPELINING", "XVERP", "SIZE 50000000")
    [found] = judged(answer)
    assert found.level == level
    assert told in found.text
