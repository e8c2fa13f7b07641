"""The client: its replies and commands, and whole messages to the real server."""

import copy
import pickle
import smtplib
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postroom.lmtp.client import LMTPClient, LMTPReply
from postroom.lmtp.protocol import Limits
from postroom.mail import reply
from tests.lmtp.servers import Script, connect, recipients_of, scripted, serving
from tests.wire.dialogue import Dialogue
from tests.wire.harness import PATIENCE, Desk

UNAVAILABLE = (550, "Requested action not taken: mailbox unavailable")
TEXT = "Subject: hello\n\nThis is a message.\n"
RAW = b"Subject: hello\r\n\r\nThis is a message.\r\n"
ANNE, A, B, X = "anne@example.org", "a@example.com", "b@example.com", "x@example.com"


@pytest.fixture
def desk() -> Desk:
    """What the real server delivers to."""
    return Desk()


@pytest.fixture
def client(desk: Desk) -> Iterator[LMTPClient]:
    """A client of the real server."""
    with serving(desk) as port, LMTPClient("127.0.0.1", port, timeout=PATIENCE) as connected:
        yield connected


@pytest.fixture
def strict_client(desk: Desk) -> Iterator[LMTPClient]:
    """A client of a server that refuses at RCPT."""
    allowed = Limits(refuse_at_rcpt=True)
    with (
        serving(desk, limits=allowed) as port,
        LMTPClient("127.0.0.1", port, timeout=PATIENCE) as connected,
    ):
        yield connected


# Replies


def test_a_reply_is_the_tuple_of_code_and_text_with_the_enhanced_code_apart() -> None:
    one = LMTPReply(550, UNAVAILABLE[1], "5.1.1")
    assert one == UNAVAILABLE and repr(one) == repr(UNAVAILABLE)
    assert (one.code, one.text, one.enhanced_code) == (*UNAVAILABLE, "5.1.1")
    assert hash(one) == hash(UNAVAILABLE)
    for twin in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert twin == one and twin.enhanced_code == "5.1.1"


@pytest.mark.parametrize(
    ("wire", "expected", "enhanced_code"),
    [
        (b"250 2.0.0 Ok\r\n", (250, "Ok"), "2.0.0"),
        (b"250 Ok\r\n", (250, "Ok"), ""),
        (b"250\r\n", (250, ""), ""),
        (b"250 2.0.0\r\n", (250, ""), "2.0.0"),
        (
            b"550-5.1.1 one\r\n550-5.1.1 two\r\n550 5.1.1 three\r\n",
            (550, "one\ntwo\nthree"),
            "5.1.1",
        ),
        (b"250-one\r\n250 2.1.5 two\r\n", (250, "one\ntwo"), "2.1.5"),
        (b"250 4.0.0 is no success\r\n", (250, "4.0.0 is no success"), ""),
        (b"250 2.0.0.1 is an address\r\n", (250, "2.0.0.1 is an address"), ""),
        (b"250 \xff\n", (250, "\ufffd"), ""),
    ],
)
def test_replies_are_read_whole(wire: bytes, expected: tuple[int, str], enhanced_code: str) -> None:
    def script(server: Script) -> None:
        server.say("220 scripted").hear("NOOP").raw(wire)
        server.hear("QUIT").say("221 bye")

    with scripted(script) as port, connect(port) as client:
        answer = client.noop()
        assert answer == expected
        assert answer.enhanced_code == enhanced_code


@pytest.mark.parametrize(
    "wire",
    [b"hello\r\n", b"\r\n", b"25 x\r\n", b"250_x\r\n", b"150 x\r\n", b"250-x\r\n", b"250 x" * 3000],
)
def test_what_is_no_reply_ends_the_connection(wire: bytes) -> None:
    def script(server: Script) -> None:
        server.say("220 scripted").hear("NOOP").raw(wire)

    with scripted(script) as port, connect(port) as client:
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.noop()
        with pytest.raises(smtplib.SMTPServerDisconnected, match="connect"):
            client.noop()


# Commands


def test_each_command_returns_its_reply(client: LMTPClient) -> None:
    assert client.greeting == (220, "lists.example.com Python LMTP queue runner 1.0")
    code, text = client.lhlo("remote.example.org")
    assert (code, text.split("\n")[:2]) == (250, ["lists.example.com", "PIPELINING"])
    assert client.esmtp_features["size"] == "26214400"
    assert client.has_extn("SMTPUTF8") and not client.has_extn("DSN")
    assert client.noop() == (250, "Ok")
    assert client.help().code == 214
    assert client.vrfy(A).code == 252
    assert client.mail(ANNE) == (250, "Sender ok")
    assert client.rcpt(A) == (250, "Recipient ok")
    assert client.rset() == (250, "Ok")
    answer = client.docmd("EXPN", "staff")
    assert (answer, answer.enhanced_code) == ((502, "Command not implemented"), "5.5.1")
    assert client.quit() == (221, "Bye")
    assert client.sock is None and client.esmtp_features == {}


def test_data_gives_a_reply_per_accepted_recipient(client: LMTPClient, desk: Desk) -> None:
    client.lhlo()
    client.mail(ANNE)
    for recipient in (A, X, "<>", B):
        client.rcpt(recipient)
    accepted = (250, "Message accepted and stored")
    assert client.data(TEXT) == [accepted, UNAVAILABLE, accepted]
    assert client.noop() == (250, "Ok")
    assert [each.body for each in desk.queued] == [RAW]
    client.mail(ANNE)
    with pytest.raises(smtplib.SMTPDataError) as refused:
        client.data(TEXT)
    assert refused.value.smtp_code == 503


def test_a_command_cannot_bring_another(client: LMTPClient) -> None:
    for name in ("x\r\nMAIL FROM:<>", "x\ny", "x\ry"):
        with pytest.raises(ValueError, match="line end"):
            client.lhlo(name)
        with pytest.raises(ValueError, match="line end"):
            client.docmd(f"RCPT TO:<{name}>")


def test_the_context_says_quit_even_to_a_server_that_is_gone() -> None:
    heard = []

    def polite(server: Script) -> None:
        server.say("220 scripted").hear("QUIT").say("221 bye").hear_end()
        heard.append("end")

    with scripted(polite) as port, connect(port):
        pass
    assert heard == ["end"]
    with scripted(lambda server: server.say("220 scripted")) as port, connect(port) as client:
        pass
    assert client.sock is None


def test_without_a_host_it_connects_when_told() -> None:
    client = LMTPClient("")
    with pytest.raises(smtplib.SMTPServerDisconnected, match="connect"):
        client.sendmail(ANNE, A, TEXT)
    with scripted(lambda server: server.say("220-one", "220 two")) as port:
        assert client.connect("127.0.0.1", port) == (220, "one\ntwo") == client.greeting
        client.close()


def test_a_host_that_begins_with_a_slash_is_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "lmtp.sock")
    with pytest.raises(FileNotFoundError):
        LMTPClient(path)

    def script(server: Script) -> None:
        server.say("220 here").hear("QUIT").say("221 bye")

    with scripted(script, path), LMTPClient(path, timeout=PATIENCE) as client:
        assert client.greeting == (220, "here")


def test_a_server_that_does_not_greet_is_no_server() -> None:
    with (
        scripted(lambda server: server.say("421 4.3.2 Too many")) as port,
        pytest.raises(smtplib.SMTPConnectError) as refused,
    ):
        connect(port)
    assert (refused.value.smtp_code, refused.value.smtp_error) == (421, "Too many")
    assert vars(refused.value)["enhanced_code"] == "4.3.2"
    with scripted(lambda server: None) as port, pytest.raises(smtplib.SMTPServerDisconnected):
        connect(port)
    with pytest.raises(ConnectionRefusedError):
        connect(port)


# Whole messages, to the real server


def test_sendmail_to_valid_recipients_returns_nothing_refused(
    client: LMTPClient, desk: Desk
) -> None:
    assert client.sendmail(ANNE, [A, B], TEXT) == {}
    assert client.sendmail(ANNE, A, TEXT) == {}
    assert [each.recipients for each in desk.queued] == [(A, B), (A,)]
    assert {each.body for each in desk.queued} == {RAW}


def test_who_is_refused_after_the_data_is_returned(client: LMTPClient, desk: Desk) -> None:
    refused = client.sendmail(ANNE, [X, A, "y@example.com", B], TEXT)
    assert refused == {X: UNAVAILABLE, "y@example.com": UNAVAILABLE}
    assert refused[X].enhanced_code == "5.1.1"
    assert [each.recipients for each in desk.queued] == [(A, B)]
    assert client.noop() == (250, "Ok")


def test_when_all_are_refused_after_the_data_it_is_a_data_error(client: LMTPClient) -> None:
    for recipients in ([X], [X, "y@example.com"]):
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail(ANNE, recipients, TEXT)
        assert str(refused.value) == str(UNAVAILABLE)
        assert type(refused.value) is smtplib.SMTPDataError
        assert vars(refused.value)["enhanced_code"] == "5.1.1"
        assert vars(refused.value)["recipients"] == dict.fromkeys(recipients, UNAVAILABLE)
    assert client.sendmail(ANNE, A, TEXT) == {}


def test_when_all_are_refused_at_rcpt_they_are_listed(
    strict_client: LMTPClient, desk: Desk
) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        strict_client.sendmail(ANNE, [X, "y@example.com"], TEXT)
    assert recipients_of(refused.value) == {X: UNAVAILABLE, "y@example.com": UNAVAILABLE}
    assert desk.queued == []
    assert strict_client.sendmail(ANNE, [A, X], TEXT) == {X: UNAVAILABLE}


def test_no_recipient_at_all_is_refused_without_a_word(client: LMTPClient) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        client.sendmail(ANNE, [], TEXT)
    assert recipients_of(refused.value) == {}
    assert client.noop() == (250, "Ok")


def test_a_recipient_named_twice_gets_two_replies(client: LMTPClient, desk: Desk) -> None:
    assert client.sendmail(ANNE, [A, X, A, X], TEXT) == {X: UNAVAILABLE}
    assert [each.recipients for each in desk.queued] == [(A, A)]
    assert client.noop() == (250, "Ok")


def test_more_recipients_than_one_write_takes(strict_client: LMTPClient, desk: Desk) -> None:
    refused = strict_client.sendmail(ANNE, [X, *[A] * 700, "y@example.com"], TEXT)
    assert list(refused) == [X, "y@example.com"]
    assert [len(each.recipients) for each in desk.queued] == [700]


def test_after_any_refusal_the_session_can_be_used(client: LMTPClient, desk: Desk) -> None:
    with pytest.raises(smtplib.SMTPSenderRefused) as sender:
        client.sendmail("<no one>", A, TEXT)
    assert (sender.value.smtp_code, sender.value.sender) == (501, "<no one>")
    assert vars(sender.value)["enhanced_code"] == "5.1.7"
    with pytest.raises(smtplib.SMTPSenderRefused) as size:
        client.sendmail(ANNE, A, TEXT, ["SIZE=99999999999"])
    assert size.value.smtp_code == 552
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        client.sendmail(ANNE, A, TEXT, rcpt_options=["NOTIFY=NEVER"])
    with pytest.raises(UnicodeEncodeError):
        client.sendmail(ANNE, A, "ä")
    assert client.sendmail(ANNE, A, TEXT) == {}
    assert len(desk.queued) == 1


def test_trouble_of_the_server_is_temporary() -> None:
    trouble = Desk(Dialogue("trouble", deliver=reply.LOCAL_ERROR))
    with serving(trouble) as port, connect(port) as client:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail(ANNE, [A, B], TEXT)
        assert refused.value.smtp_code == 451
        assert vars(refused.value)["recipients"] == dict.fromkeys(
            [A, B], (451, "Local trouble, try again later")
        )


def test_an_unknown_outcome_is_a_lost_connection() -> None:
    unknown = Desk(Dialogue("unknown", outcome_unknown=True))
    with serving(unknown) as port, connect(port) as client:
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.sendmail(ANNE, [A, B], TEXT)
        assert client.sock is None


def test_size_8bitmime_and_smtputf8_are_declared_where_they_are_needed(
    client: LMTPClient, desk: Desk
) -> None:
    assert client.sendmail("änne@example.org", [A], b"Subject: \xff\n\n\x80") == {}
    assert desk.queued[0].sender == "änne@example.org"
    assert desk.queued[0].body == b"Subject: \xff\r\n\r\n\x80\r\n"
    with pytest.raises(smtplib.SMTPDataError):
        client.sendmail(ANNE, ["ä@example.com"], TEXT, ["smtputf8", "size=1"])


@pytest.mark.parametrize(
    ("msg", "body"),
    [
        ("", b""),
        ("no end", b"no end\r\n"),
        ("a\nb\rc\r\nd\r\r\ne\n\r", b"a\r\nb\r\nc\r\nd\r\n\r\ne\r\n\r\n"),
        (".\n..\n.x\r.\n", b".\r\n..\r\n.x\r\n.\r\n"),
        (b".\r\n.\n", b".\r\n.\r\n"),
        (b"a\n.\r\n", b"a\r\n.\r\n"),
    ],
)
def test_lines_end_with_crlf_and_dots_come_through(
    client: LMTPClient, desk: Desk, msg: str | bytes, body: bytes
) -> None:
    assert client.sendmail(ANNE, A, msg) == {}
    assert desk.queued[0].body == body


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([b"\r\n", b".", b"a", b"\0", b"\xff"])).map(b"".join))
def test_what_has_crlf_line_ends_comes_through_as_it_is(
    client: LMTPClient, desk: Desk, msg: bytes
) -> None:
    assert client.sendmail(ANNE, A, msg) == {}
    end = b"" if not msg or msg.endswith(b"\r\n") else b"\r\n"
    assert desk.queued[-1].body == msg + end


def test_send_message_reads_the_addresses_and_leaves_bcc_out(
    client: LMTPClient, desk: Desk
) -> None:
    msg = EmailMessage()
    msg["From"], msg["To"], msg["Bcc"] = f"Anne <{ANNE}>", f"A <{A}>, {X}", B
    msg["Subject"] = "hello"
    msg.set_content("From here\n.\n")
    assert client.send_message(msg) == {X: UNAVAILABLE}
    (queued,) = desk.queued
    assert (queued.sender, queued.recipients) == (ANNE, (A, B))
    assert b"Bcc" not in queued.body and b"\r\n\r\nFrom here\r\n.\r\n" in queued.body
    assert msg["Bcc"] == B


def test_send_message_prefers_what_it_is_given_then_sender_and_resent(
    client: LMTPClient, desk: Desk
) -> None:
    msg = EmailMessage()
    msg["From"], msg["To"], msg["Sender"] = ANNE, A, "sender@example.org"
    client.send_message(msg)
    client.send_message(msg, "given@example.org", [B])
    msg["Resent-Date"], msg["Resent-From"] = "Thu, 19 Nov 2026 10:00:00 +0000", "re@example.org"
    msg["Resent-Cc"] = B
    client.send_message(msg)
    assert [(each.sender, each.recipients) for each in desk.queued] == [
        ("sender@example.org", (A,)),
        ("given@example.org", (B,)),
        ("re@example.org", (B,)),
    ]
    msg["Resent-Date"] = "Thu, 19 Nov 2026 11:00:00 +0000"
    with pytest.raises(ValueError, match="Resent-"):
        client.send_message(msg)


def test_send_message_with_addresses_in_utf8(client: LMTPClient, desk: Desk) -> None:
    msg = EmailMessage()
    msg["From"], msg["To"], msg["Subject"] = "änne@example.org", A, "grüße"
    assert client.send_message(msg) == {}
    assert desk.queued[0].sender == "änne@example.org"
    assert "Subject: grüße\r\n".encode() in desk.queued[0].body
