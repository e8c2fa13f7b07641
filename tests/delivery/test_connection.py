"""The connection: real sockets, servers that behave and servers that do not."""

import asyncio
import base64
import contextlib
import socket
import ssl
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from postroom.base.places import Tcp
from postroom.base.settings import Settings, Site, Smtp
from postroom.delivery import connection as connection_module
from postroom.delivery.access import PATIENT, Access, Deadlines, access_of
from postroom.delivery.connection import ConnectError, Connection, connect
from postroom.delivery.transaction import Fate, Features, Outcome, Stage, Transaction, prepare
from tests.delivery.servers import (
    DROP,
    GO_AND_DEAF,
    HOLD,
    OFFERS,
    SILENT,
    TAKE_AND_DROP,
    Action,
    Hook,
    MailServer,
    at,
    at_most,
    at_recipient,
    refusing,
    times,
    verbatim,
)
from tests.wire.harness import both_loops, run
from tests.wire.tunnel import server_context

SHORT = Deadlines(*[0.2] * 6)  # for servers that never answer
ACCESS = Access("lists.example.com", "never")
SENDER = "list-bounces@lists.example.com"
PEOPLE = [f"p{number}@example.net" for number in range(10)]
RAW = b"Subject: hello\r\n\r\n.Hello.\r\n"
CONTENT = prepare(RAW)


def to(recipients: Iterable[str] = PEOPLE, raw: bytes = RAW) -> Transaction:
    return Transaction(SENDER, list(recipients), prepare(raw))


async def reach(
    server: MailServer, access: Access = ACCESS, deadlines: Deadlines = PATIENT
) -> Connection:
    return await connect(Tcp("127.0.0.1", server.port), access, deadlines)


def fates(outcome: Outcome) -> list[Fate]:
    return [verdict.fate for verdict in outcome.verdicts]


PENDING = [Fate.PENDING] * len(PEOPLE)
ACCEPTED = [Fate.ACCEPTED] * len(PEOPLE)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context, and one of a client that trusts it."""
    folder: Path = tmp_path_factory.mktemp("tls")
    server = server_context(folder)
    client = ssl.create_default_context(cafile=str(folder / "certificate.pem"))
    client.check_hostname = False  # it is made for a name, and we connect to an address
    return server, client


# Transactions


@both_loops
@pytest.mark.parametrize("offers", [OFFERS, ()])
def test_mail_arrives_once_per_transaction_over_one_connection(
    loop: str, offers: tuple[str, ...]
) -> None:
    async def test() -> None:
        with MailServer(offers=offers) as server:
            connection = await reach(server)
            assert connection.features.pipelining == bool(offers)
            for _ in range(3):
                assert fates(await connection.send(to())) == ACCEPTED
            assert connection.usable
            await connection.quit()
            assert [(each.recipients, each.content) for each in server.taken] == [
                (tuple(PEOPLE), RAW)
            ] * 3
            assert server.connections == 1 and len(server.heard("QUIT")) == 1
            assert server.heard("EHLO")[0].line == "EHLO lists.example.com"

    run(loop, test)


@both_loops
def test_a_message_larger_than_all_buffers_arrives_whole(loop: str) -> None:
    raw = b"Subject: large\r\n\r\n" + b".\r\n" * 2_000_000

    async def test() -> None:
        with MailServer() as server:
            connection = await reach(server)
            assert (await connection.send(to(raw=raw))).answer.code == 250
            await connection.quit()
            assert server.taken[0].content == raw

    run(loop, test)


@both_loops
def test_thousands_of_recipients_do_not_block_either_side(loop: str) -> None:
    people = [f"somebody-with-a-name-{number}@example.net" for number in range(5000)]

    async def test() -> None:
        with MailServer() as server:
            connection = await reach(server)
            outcome = await connection.send(to(people))
            assert {verdict.fate for verdict in outcome.verdicts} == {Fate.ACCEPTED}
            await connection.quit()
            assert server.taken[0].recipients == tuple(people)

    run(loop, test)


@both_loops
def test_d2_421_at_recipient_5_of_10_leaves_all_pending_and_nothing_was_sent(loop: str) -> None:
    async def test() -> None:
        with MailServer(at_recipient(5, "421 4.3.2 Bye")) as server:
            connection = await reach(server)
            outcome = await connection.send(to())
            assert fates(outcome) == PENDING
            assert str(outcome.answer) == "421 4.3.2 Bye"
            assert not connection.usable
            assert server.taken == []
            later = await connection.send(to())
            assert fates(later) == PENDING and "closed" in later.answer.text

    run(loop, test)


def test_after_a_refusal_the_next_transaction_begins_with_rset() -> None:
    hooks = (
        refusing({PEOPLE[3]: "550 5.1.1 no"}),
        times(1, at("MAIL", "451 4.3.0 later")),
        times(2, at("DATA", "451 4.3.0 later")),  # it comes with MAIL, too
        times(1, at("END", "451 4.3.0 later")),
    )
    others = [*[Fate.DEFERRED] * 3, Fate.REFUSED, *[Fate.DEFERRED] * 6]

    async def test() -> None:
        with MailServer(*hooks) as server:
            connection = await reach(server)
            assert fates(await connection.send(to())) == [Fate.DEFERRED] * 10
            assert fates(await connection.send(to())) == others
            assert fates(await connection.send(to())) == others
            assert fates(await connection.send(to(PEOPLE[3:4]))) == [Fate.REFUSED]
            assert fates(await connection.send(to(PEOPLE[4:5]))) == [Fate.ACCEPTED]
            await connection.quit()
            # After the dot the transaction is over anyway.
            assert [said.verb for said in server.said if said.verb in ("MAIL", "RSET")] == [
                "MAIL", "RSET", "MAIL", "RSET", "MAIL", "MAIL", "RSET", "MAIL",
            ]  # fmt: skip
            assert [each.recipients for each in server.taken] == [(PEOPLE[4],)]

    run("uvloop", test)


def test_the_limit_of_a_server_is_learnt() -> None:
    async def test() -> None:
        with MailServer(at_most(4)) as server:
            connection = await reach(server)
            assert connection.recipients == 500
            outcome = await connection.send(to())
            assert fates(outcome) == [Fate.ACCEPTED] * 4 + [Fate.PENDING] * 6
            assert connection.recipients == 4 and connection.usable
            assert fates(await connection.send(to(PEOPLE[4:8]))) == [Fate.ACCEPTED] * 4
            await connection.quit()

    run("uvloop", test)


def test_a_connection_is_not_used_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "MOST_TRANSACTIONS", 2)

    async def test() -> None:
        with MailServer() as server:
            connection = await reach(server)
            await connection.send(to())
            assert connection.usable
            await connection.send(to())
            assert connection.alive and not connection.usable
            await connection.quit()

    run("uvloop", test)


# Connections that end


@both_loops
@pytest.mark.parametrize(
    ("verb", "stage"),
    [
        ("MAIL", Stage.MAIL),
        ("RCPT", Stage.RCPT),
        ("DATA", Stage.DATA),
        ("END", Stage.END),
    ],
)
def test_d2_a_server_that_drops_the_connection_leaves_all_pending(
    loop: str, verb: str, stage: Stage
) -> None:
    async def test() -> None:
        with MailServer(at(verb, DROP)) as server:
            connection = await reach(server)
            outcome = await connection.send(to())
            assert fates(outcome) == PENDING
            assert outcome.answer[:2] == (421, "4.4.2")
            # With a reset, replies that were on their way may be lost with the connection.
            assert list(Stage).index(outcome.stage) <= list(Stage).index(stage)
            assert (outcome.stage is Stage.END) == (stage is Stage.END)
            assert not connection.usable and server.taken == []

    run(loop, test)


def test_a_server_that_takes_the_message_and_does_not_say_so_leaves_all_pending_at_the_end() -> (
    None
):
    async def test() -> None:
        with MailServer(at("END", TAKE_AND_DROP)) as server:
            connection = await reach(server)
            outcome = await connection.send(to())
            assert fates(outcome) == PENDING and outcome.stage is Stage.END
            assert len(server.taken) == 1

    run("uvloop", test)


@both_loops
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "END"])
def test_d5_a_server_that_falls_silent_is_given_up_at_a_deadline(loop: str, verb: str) -> None:
    async def test() -> None:
        with MailServer(at(verb, SILENT), offers=()) as server:
            connection = await reach(server, deadlines=SHORT)
            outcome = await connection.send(to())
            assert fates(outcome) == PENDING
            assert "did not answer for 0.2 seconds" in outcome.answer.text
            assert not connection.usable

    run(loop, test)


@pytest.mark.parametrize(
    ("verb", "name"),
    [("MAIL", "command"), ("RCPT", "command"), ("DATA", "data"), ("END", "final")],
)
def test_d5_each_step_has_a_deadline_of_its_own(verb: str, name: str) -> None:
    deadlines = Deadlines()._replace(**{name: 0.125})

    async def test() -> None:
        with MailServer(at(verb, SILENT), offers=()) as server:
            connection = await reach(server, deadlines=deadlines)
            outcome = await connection.send(to())
            assert "for 0.125 seconds" in outcome.answer.text

    run("uvloop", test)


@both_loops
def test_d5_a_server_that_does_not_read_the_message_is_given_up(loop: str) -> None:
    raw = b"x" * 40_000_000  # more than any socket holds

    async def test() -> None:
        with MailServer(at("DATA", GO_AND_DEAF)) as server:
            connection = await reach(server, deadlines=Deadlines()._replace(block=0.2))
            outcome = await connection.send(to(raw=raw))
            assert fates(outcome) == PENDING and outcome.stage is Stage.CONTENT
            assert "did not read for 0.2 seconds" in outcome.answer.text

    run(loop, test)


@both_loops
def test_a_server_that_is_slow_is_waited_for(loop: str) -> None:
    async def test() -> None:
        with MailServer(at("END", HOLD)) as server:
            connection = await reach(server)
            sending = asyncio.ensure_future(connection.send(to()))
            await asyncio.to_thread(server.wait_until, lambda: server.heard("END"))
            assert not sending.done()
            server.release()
            assert fates(await sending) == ACCEPTED
            await connection.quit()

    run(loop, test)


@both_loops
def test_a_transaction_that_is_cancelled_ends_the_connection(loop: str) -> None:
    async def test() -> None:
        with MailServer(at("END", HOLD)) as server:
            connection = await reach(server)
            sending = asyncio.ensure_future(connection.send(to()))
            await asyncio.to_thread(server.wait_until, lambda: server.heard("END"))
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert not connection.usable

    run(loop, test)


# Servers that speak out of turn


@both_loops
@pytest.mark.parametrize(
    "rubbish", [b"250 2.0.0 Taken\r\n250 surplus\r\n", b"250 2.0.0 Taken\r\n250 sur"]
)
def test_a_reply_too_many_ends_the_connection_but_not_the_success(
    loop: str, rubbish: bytes
) -> None:
    async def test() -> None:
        with MailServer(at("END", verbatim(rubbish))) as server:
            connection = await reach(server)
            assert fates(await connection.send(to())) == ACCEPTED
            assert not connection.usable

    run(loop, test)


@both_loops
def test_a_connection_on_which_the_server_speaks_unasked_is_not_used_again(loop: str) -> None:
    async def test() -> None:
        with MailServer() as server:
            connection = await reach(server)
            server.hooks.append(at("MAIL", verbatim(b"250 ok\r\n250 ok\r\n250 2.0.0 Taken\r\n")))
            outcome = await connection.send(to(PEOPLE[:1]))
            assert fates(outcome) == [Fate.PENDING]
            assert not connection.usable and server.taken == []

    run(loop, test)


@pytest.mark.parametrize(
    "garbage", [b"hello\r\n", b"\x16\x03\x01\x02", b"250-" + b"x" * 9000, b"250 Ok\n250\x00\n"]
)
def test_garbage_is_no_success(garbage: bytes) -> None:
    async def test() -> None:
        with MailServer(at("MAIL", verbatim(garbage))) as server:
            connection = await reach(server, deadlines=SHORT)
            outcome = await connection.send(to(PEOPLE[:1]))
            assert fates(outcome) == [Fate.PENDING]
            assert not connection.usable

    run("uvloop", test)


# The beginning


@both_loops
@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (at("CONNECT", "421 4.3.2 Busy"), "it greets with 421 4.3.2 Busy"),
        (at("CONNECT", "554 5.7.1 Not you"), "it greets with 554 5.7.1 Not you"),
        (at("CONNECT", "220 a\r\n220 b"), "220 b, which was not asked for"),
        (at("CONNECT", DROP), "it closed the connection"),
        (at("CONNECT", SILENT), "it did not answer for 0.2 seconds"),
        (at("CONNECT", verbatim(b"SSH-2.0-OpenSSH_9.2\r\n")), "not a reply: 'SSH-2.0"),
        (at("EHLO", "421 4.3.2 Bye"), "it answers EHLO with 421"),
        (at("EHLO", "450 4.3.2 later"), "it answers EHLO with 450"),
        (at("EHLO", DROP), "it closed the connection"),
        (at("EHLO", SILENT), "it did not answer"),
    ],
)
def test_a_server_that_cannot_be_used_is_said_in_one_sentence(
    loop: str, hook: Hook, said: str
) -> None:
    async def test() -> None:
        with MailServer(hook) as server:
            with pytest.raises(ConnectError) as refused:
                await reach(server, deadlines=SHORT)
            assert str(refused.value).startswith(f"127.0.0.1:{server.port}: ")
            assert said in str(refused.value) and "\n" not in str(refused.value)
            await asyncio.to_thread(server.wait_until, lambda: server.open == 0)

    run(loop, test)


@both_loops
def test_nobody_there_is_said_too(loop: str) -> None:
    with MailServer() as server:
        pass

    async def test() -> None:
        with pytest.raises(ConnectError, match=r"^127\.0\.0\.1:\d+: .*refused"):
            await reach(server)
        with pytest.raises(ConnectError, match=r"^nowhere\.invalid:25: "):
            await connect(Tcp("nowhere.invalid", 25), ACCESS)

    run(loop, test)


@both_loops
def test_of_several_addresses_each_is_tried(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not answer, one that refuses, and the server's."""

    async def test() -> None:
        with contextlib.ExitStack() as sockets, MailServer() as server:
            full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            place = full.getsockname()
            # What fills the backlog of a socket that nobody serves has the next one wait.
            for _ in range(2):
                waiting = sockets.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(place)
            places = [place, ("127.0.0.1", 1), ("127.0.0.1", server.port)]
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
            monkeypatch.setattr(
                asyncio.get_running_loop().__class__,
                "getaddrinfo",
                lambda *_, **__: asyncio.sleep(0, found),
            )
            connection = await reach(server, deadlines=SHORT)
            assert fates(await connection.send(to())) == ACCEPTED
            await connection.quit()

    run(loop, test)


def test_a_server_that_does_not_know_ehlo_is_greeted_with_helo() -> None:
    async def test() -> None:
        with MailServer(at("EHLO", "502 5.5.1 What?"), offers=()) as server:
            connection = await reach(server)
            assert connection.features == Features()
            assert fates(await connection.send(to())) == ACCEPTED
            await connection.quit()

    run("uvloop", test)


# TLS


@both_loops
@pytest.mark.parametrize("verified", [True, False])
def test_with_starttls_the_mail_goes_over_tls(
    loop: str, verified: bool, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    access = replace(ACCESS, starttls="always", tls=tls[1]) if verified else Access("me", "auto")

    async def test() -> None:
        with MailServer(tls=tls[0]) as server:
            connection = await reach(server, access)
            assert connection.secure
            assert fates(await connection.send(to())) == ACCEPTED
            await connection.quit()
            assert [said.verb for said in server.said[:4]] == [
                "CONNECT", "EHLO", "STARTTLS", "EHLO",
            ]  # fmt: skip

    run(loop, test)


@both_loops
def test_always_does_not_send_to_a_server_whose_certificate_is_not_valid(
    loop: str, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async def test() -> None:
        with MailServer(tls=tls[0]) as server:
            with pytest.raises(ConnectError, match=r"no TLS: .*certificate verify failed"):
                await reach(server, Access("me", "always"))
            assert server.heard("MAIL") == [] and server.connections == 1

    run(loop, test)


@pytest.mark.parametrize(
    ("offered", "said"), [(False, "does not offer STARTTLS"), (True, "answers STARTTLS with 454")]
)
def test_always_does_not_send_without_tls(
    offered: bool, said: str, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async def test() -> None:
        refuse = at("STARTTLS", "454 4.7.0 Not now")
        with MailServer(refuse, tls=tls[0] if offered else None) as server:
            with pytest.raises(ConnectError, match=f"no TLS: it {said}"):
                await reach(server, Access("me", "always"))
            assert server.heard("MAIL") == []

    run("uvloop", test)


@both_loops
@pytest.mark.parametrize(
    "reply",
    ["454 4.7.0 Not now", verbatim(b"220 go\r\n")],  # and then no TLS
)
def test_auto_goes_on_in_clear_where_tls_does_not_work(
    loop: str, reply: str | Action, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async def test() -> None:
        with MailServer(at("STARTTLS", reply), tls=tls[0]) as server:
            connection = await reach(server, Access("me", "auto"), SHORT)
            assert not connection.secure
            assert fates(await connection.send(to())) == ACCEPTED
            await connection.quit()

    run(loop, test)


@both_loops
@pytest.mark.parametrize("injected", [b"250-mta\r\n250 AUTH PLAIN\r\n", b"250-m"])
def test_what_comes_in_clear_after_starttls_is_not_taken_for_what_comes_within(
    loop: str, injected: bytes, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async def test() -> None:
        with (
            MailServer(at("STARTTLS", verbatim(b"220 go\r\n" + injected)), tls=tls[0]) as server,
            pytest.raises(ConnectError),
        ):
            await reach(server, replace(ACCESS, starttls="always", tls=tls[1]))

    run(loop, test)


# AUTH


USER = replace(ACCESS, user="postroom", password="sesame")


@pytest.mark.parametrize(
    ("offer", "given"),
    [
        ("AUTH PLAIN LOGIN", "PLAIN " + base64.b64encode(b"\0postroom\0sesame").decode()),
        ("AUTH LOGIN", "LOGIN cG9zdHJvb20= c2VzYW1l"),
    ],
)
def test_a_user_logs_in(offer: str, given: str) -> None:
    async def test() -> None:
        with MailServer(offers=(*OFFERS, offer), login="postroom:sesame") as server:
            connection = await reach(server, USER)
            assert server.heard("AUTH")[0].line == given
            assert fates(await connection.send(to())) == ACCEPTED
            await connection.quit()

    run("uvloop", test)


def test_a_password_that_is_refused_is_our_trouble_and_is_not_told() -> None:
    refusal = "535 5.7.8 Bad credentials"

    async def test() -> None:
        with MailServer(at("AUTH", refusal), login="postroom:other") as server:
            with pytest.raises(ConnectError, match=r"does not let smtp\.user in: 535") as refused:
                await reach(server, USER)
            assert server.heard("MAIL") == []
            error: BaseException | None = refused.value
            while error is not None:
                assert "sesame" not in repr(error) and "c2VzYW1l" not in repr(error)
                error = error.__cause__ or error.__context__

    run("uvloop", test)
    assert "sesame" not in repr(USER)


def test_where_no_auth_is_offered_it_says_so() -> None:
    async def test() -> None:
        with (
            MailServer() as server,
            pytest.raises(ConnectError, match="neither AUTH PLAIN nor LOGIN"),
        ):
            await reach(server, USER)

    run("uvloop", test)


def test_a_password_never_goes_in_clear_to_another_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Connection, "_is_local", lambda self: False)

    async def test() -> None:
        with MailServer(login="postroom:sesame") as server:
            with pytest.raises(ConnectError, match="password must not go in clear"):
                await reach(server, USER)
            assert server.heard("AUTH") == []

    run("uvloop", test)


# Settings


def test_access_is_what_the_settings_say() -> None:
    site = Site(hostname="lists.example.com")
    assert access_of(Settings(site=site)).hello == "lists.example.com"
    smtp = Smtp(hello="out.example.com", starttls="always", user="u", password="p", recipients=7)
    access = access_of(Settings(site=site, smtp=smtp))
    assert access.tls is not None and access.tls.verify_mode is ssl.CERT_REQUIRED
    assert replace(access, tls=None) == Access("out.example.com", "always", "u", "p", 7)


def test_the_deadlines_are_those_of_the_rfc() -> None:
    """RFC 5321 4.5.3.2."""
    assert Deadlines()._asdict() == {
        "connect": 30, "greeting": 300, "command": 300, "data": 120, "block": 180, "final": 600,
    }  # fmt: skip
