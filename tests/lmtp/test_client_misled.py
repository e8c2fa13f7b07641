"""The client against servers that misbehave, and those that offer little."""

import smtplib

import pytest

from postroom.lmtp.client import LMTPReply
from tests.lmtp.servers import Script, connect, recipients_of, scripted
from tests.wire.harness import PATIENCE

RAW = b"Subject: hello\r\n\r\nThis is a message.\r\n"
ANNE, A, B, X = "anne@example.org", "a@example.com", "b@example.com", "x@example.com"


def send(port: int, *recipients: str, timeout: float = PATIENCE) -> dict[str, LMTPReply]:
    """One message on one connection."""
    with connect(port, timeout) as client:
        return client.sendmail(ANNE, recipients, RAW)


def test_with_pipelining_mail_rcpts_and_data_come_before_any_reply() -> None:
    def script(server: Script) -> None:
        server.introduce("PIPELINING", "SIZE 1000")
        server.hear(f"MAIL FROM:<{ANNE}> SIZE={len(RAW)}\r\n")
        server.hear(f"RCPT TO:<{A}>\r\n", f"RCPT TO:<{B}>\r\n", "DATA\r\n")
        server.say("250 ok", "250 ok", "550 5.1.1 no", "354 go")
        assert server.hear_data() == RAW
        server.say("250 2.0.0 ok").hear("QUIT").say("221 bye")

    with scripted(script) as port:
        assert send(port, A, B) == {B: (550, "no")}


def test_without_pipelining_each_command_waits_for_the_reply_to_the_last() -> None:
    def script(server: Script) -> None:
        server.introduce("8BITMIME")
        # A client that went on would be heard to say RCPT here.
        server.hear(f"MAIL FROM:<{ANNE}>\r\n").say("451 4.3.0 later").hear("RSET").say("250 ok")
        server.hear("MAIL").say("250 ok").hear("RCPT").say("550 no").hear("RCPT").say("551 no")
        server.hear("RSET").say("250 ok")
        server.hear("MAIL").say("250 ok").hear("RCPT").say("250 ok").hear("RCPT").say("550 no")
        server.hear("DATA").say("354 go").hear_data()
        server.say("250 ok").hear("QUIT").say("221 bye")

    with scripted(script) as port, connect(port) as client:
        with pytest.raises(smtplib.SMTPSenderRefused) as sender:
            client.sendmail(ANNE, [A, B], RAW)
        assert vars(sender.value)["enhanced_code"] == "4.3.0"
        with pytest.raises(smtplib.SMTPRecipientsRefused) as recipients:
            client.sendmail(ANNE, [A, B], RAW)
        assert recipients_of(recipients.value) == {A: (550, "no"), B: (551, "no")}
        assert client.sendmail(ANNE, [A, B], RAW) == {B: (550, "no")}


def test_multi_line_replies_after_the_data_count_as_one_each() -> None:
    def script(server: Script) -> None:
        server.introduce("PIPELINING").hear("MAIL", "RCPT", "RCPT", "DATA")
        server.say("250-ok", "250 ok", "250 ok", "250-ok", "250-ok", "250 ok", "354-go", "354 go")
        server.hear_data()
        server.say("250-2.0.0 one", "250 2.0.0 two", "452-4.2.2 full", "452 4.2.2 really")
        server.hear("QUIT").say("221 bye")

    with scripted(script) as port:
        refused = send(port, A, B)
    assert refused == {B: (452, "full\nreally")}
    assert refused[B].enhanced_code == "4.2.2"


def test_some_refused_at_rcpt_and_the_rest_after_the_data() -> None:
    def script(server: Script) -> None:
        server.introduce("PIPELINING").hear("MAIL", "RCPT", "RCPT", "DATA")
        server.say("250 ok", "550 no", "250 ok", "354 go").hear_data()
        server.say("452 4.2.2 full").hear("QUIT").say("221 bye")

    with scripted(script) as port, pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        send(port, A, B)
    assert recipients_of(refused.value) == {A: (550, "no"), B: (452, "full")}


def test_of_several_refusals_after_the_data_a_temporary_one_is_raised() -> None:
    """Who sees only the exception must not give up what may succeed later."""

    def script(server: Script) -> None:
        server.introduce("PIPELINING").hear("MAIL", "RCPT", "RCPT", "DATA")
        server.say("250 ok", "250 ok", "250 ok", "354 go").hear_data()
        server.say("550 5.1.1 no", "451 4.3.0 later").hear("QUIT").say("221 bye")

    with scripted(script) as port, pytest.raises(smtplib.SMTPDataError) as refused:
        send(port, A, B)
    assert (refused.value.smtp_code, vars(refused.value)["enhanced_code"]) == (451, "4.3.0")
    assert vars(refused.value)["recipients"] == {A: (550, "no"), B: (451, "later")}


def test_a_recipient_named_twice_and_refused_once_was_refused() -> None:
    def script(server: Script) -> None:
        server.introduce("PIPELINING").hear("MAIL", "RCPT", "RCPT", "DATA")
        server.say("250 ok", "250 ok", "250 ok", "354 go").hear_data()
        server.say("452 full", "250 ok").hear("QUIT").say("221 bye")

    with scripted(script) as port:
        assert send(port, A, A) == {A: (452, "full")}


def test_one_reply_too_few_is_never_success() -> None:
    """QUIT is not said before all replies are there, so no 221 can pass for one."""

    def script(server: Script) -> None:
        server.introduce("PIPELINING").hear("MAIL", "RCPT", "RCPT", "DATA")
        server.say("250 ok", "250 ok", "250 ok", "354 go").hear_data()
        server.say("250 ok").hear_end()

    with scripted(script) as port, pytest.raises(smtplib.SMTPServerDisconnected):
        send(port, A, B, timeout=1)


@pytest.mark.parametrize("stage", range(4))
def test_a_server_that_closes_midway_is_a_lost_connection(stage: int) -> None:
    def script(server: Script) -> None:
        if stage > 0:
            server.introduce("PIPELINING").hear("MAIL", "RCPT", "RCPT", "DATA")
        else:
            server.say("220 scripted").hear("LHLO")
        if stage > 1:
            server.say("250 ok", "250 ok", "250 ok", "354 go").hear_data()
        if stage > 2:
            server.say("250 ok")

    with scripted(script) as port, pytest.raises(smtplib.SMTPServerDisconnected):
        send(port, A, B)


def test_what_is_offered_is_known_by_its_keyword_in_lower_case() -> None:
    def script(server: Script) -> None:
        server.introduce("Size 5000", "XCLIENT NAME HELO", "").hear("QUIT").say("221 bye")

    with scripted(script) as port, connect(port) as client:
        client.lhlo()
        assert client.esmtp_features == {"size": "5000", "xclient": "NAME HELO"}


def test_lhlo_refused_is_a_helo_error() -> None:
    def script(server: Script) -> None:
        server.say("220 scripted").hear("LHLO").say("550 5.7.1 go away")
        server.hear("QUIT").say("221 bye")

    with scripted(script) as port, pytest.raises(smtplib.SMTPHeloError) as refused:
        send(port, A)
    assert refused.value.smtp_code == 550
    assert vars(refused.value)["enhanced_code"] == "5.7.1"


def test_data_refused_is_a_data_error_and_reset() -> None:
    def script(server: Script) -> None:
        server.introduce("PIPELINING").hear("MAIL", "RCPT", "DATA")
        server.say("250 ok", "250 ok", "451 4.3.0 later").hear("RSET").say("250 ok")
        server.hear("QUIT").say("221 bye")

    with scripted(script) as port, pytest.raises(smtplib.SMTPDataError) as refused:
        send(port, A)
    assert (refused.value.smtp_code, refused.value.smtp_error) == (451, "later")


@pytest.mark.parametrize("reply_to_dot", [[], ["554 5.5.1 no valid recipients"], ["250 ok"]])
@pytest.mark.parametrize("first", ["250 ok", "550 no sender"])
def test_354_with_no_recipient_is_ended_by_a_lone_dot_and_replies_stay_in_step(
    reply_to_dot: list[str], first: str
) -> None:
    """RFC 2033 4.2 leaves no reply to that dot; some servers give one all the same."""

    def script(server: Script) -> None:
        server.introduce("PIPELINING").hear("MAIL", "RCPT", "DATA")
        server.say(first, "550 no", "354 go")
        assert server.hear_data() == b""
        server.say(*reply_to_dot).hear("LHLO").say("250-scripted", "250 PIPELINING")
        server.hear("MAIL", "RCPT", "DATA").say("250 ok", "250 ok", "354 go").hear_data()
        server.say("451 later").hear("QUIT").say("221 bye")

    error = smtplib.SMTPRecipientsRefused if first == "250 ok" else smtplib.SMTPSenderRefused
    with scripted(script) as port, connect(port) as client:
        with pytest.raises(error):
            client.sendmail(ANNE, [A], RAW)
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail(ANNE, [A], RAW)
        assert refused.value.smtp_code == 451


def test_354_with_no_recipient_and_replies_that_make_no_sense_close_the_connection() -> None:
    def script(server: Script) -> None:
        server.introduce("PIPELINING").hear("MAIL", "RCPT", "DATA")
        server.say("250 ok", "550 no", "354 go").hear_data()
        server.say("250 ok", "250 ok", "250 ok").hear("LHLO").hear_end()

    with scripted(script) as port, connect(port) as client:
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail(ANNE, [A], RAW)
        assert client.sock is None


def test_354_after_the_sender_was_refused_and_a_recipient_not_posts_nothing() -> None:
    def script(server: Script) -> None:
        server.introduce("PIPELINING").hear("MAIL", "RCPT", "DATA")
        server.say("550 no", "250 ok", "354 go").hear_end()

    with scripted(script) as port, pytest.raises(smtplib.SMTPSenderRefused):
        send(port, A)


def test_data_with_no_recipient_leaves_the_session_usable() -> None:
    def script(server: Script) -> None:
        server.introduce("PIPELINING").hear("MAIL").say("250 ok").hear("DATA").say("354 go")
        assert server.hear_data() == b""
        server.say("554 nobody").hear("LHLO").say("250-scripted", "250 PIPELINING")
        server.hear("NOOP").say("250 in step").hear("QUIT").say("221 bye")

    with scripted(script) as port, connect(port) as client:
        client.lhlo()
        client.mail(ANNE)
        assert client.data(RAW) == []
        assert client.noop() == (250, "in step")


def test_a_server_that_is_gone_before_it_has_the_data_is_a_lost_connection() -> None:
    def script(server: Script) -> None:
        server.introduce("PIPELINING").hear("MAIL", "RCPT", "DATA")
        server.say("250 ok", "250 ok", "354 go")

    with scripted(script) as port, connect(port) as client:
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.sendmail(ANNE, A, b"x" * 50_000_000)
        with pytest.raises(smtplib.SMTPServerDisconnected, match="connect"):
            client.getreply()


def test_421_to_mail_closes() -> None:
    def script(server: Script) -> None:
        server.introduce("PIPELINING").hear("MAIL", "RCPT", "DATA")
        server.say("421 4.3.2 shutting down").hear_end()

    with scripted(script) as port, pytest.raises(smtplib.SMTPSenderRefused) as refused:
        send(port, A)
    assert refused.value.smtp_code == 421


@pytest.mark.parametrize("extensions", [["PIPELINING"], ["8BITMIME"]])
def test_421_to_rcpt_means_that_nobody_gets_it(extensions: list[str]) -> None:
    def script(server: Script) -> None:
        server.introduce(*extensions).hear("MAIL").say("250 ok").hear("RCPT").say("250 ok")
        server.hear("RCPT").say("550 no").hear("RCPT").say("421 4.3.2 shutting down")

    gone = (421, "shutting down")
    with scripted(script) as port, connect(port) as client:
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            client.sendmail(ANNE, [A, X, "c@example.com", B], RAW)
        assert recipients_of(refused.value) == {
            A: gone,
            X: (550, "no"),
            "c@example.com": gone,
            B: gone,
        }
        assert client.sock is None


def test_421_to_data_is_a_data_error() -> None:
    def script(server: Script) -> None:
        server.introduce("PIPELINING").hear("MAIL", "RCPT", "DATA")
        server.say("250 ok", "250 ok", "421 4.3.2 shutting down").hear_end()

    with scripted(script) as port, pytest.raises(smtplib.SMTPDataError) as refused:
        send(port, A)
    assert refused.value.smtp_code == 421


def test_421_after_the_data_is_the_answer_to_all_who_had_none() -> None:
    def script(server: Script) -> None:
        server.introduce("PIPELINING").hear("MAIL", "RCPT", "RCPT", "RCPT", "DATA")
        server.say("250 ok", "250 ok", "250 ok", "250 ok", "354 go").hear_data()
        server.say("250 ok", "421 4.3.2 shutting down").hear_end()

    gone = (421, "shutting down")
    with scripted(script) as port:
        assert send(port, A, B, "c@example.com") == {B: gone, "c@example.com": gone}


def test_smtputf8_that_is_needed_and_not_offered() -> None:
    def script(server: Script) -> None:
        server.introduce("PIPELINING").hear("QUIT").say("221 bye")

    with scripted(script) as port, pytest.raises(smtplib.SMTPNotSupportedError):
        send(port, "ä@example.com")


def test_what_is_offered_and_given_is_declared_once() -> None:
    offered = ["SIZE 5000", "8BITMIME", "SMTPUTF8"]

    def script(server: Script) -> None:
        server.introduce(*offered)
        server.hear("MAIL FROM:<ä@b> body=7bit Size=5 SmtpUtf8\r\n").say("550 no")
        server.hear("RSET").say("250 ok")
        # Dots that are stuffed do not count (RFC 1870 5).
        server.hear("MAIL FROM:<a@b> SIZE=7 BODY=8BITMIME\r\n").say("550 no")
        server.hear("RSET").say("250 ok").hear("QUIT").say("221 bye")

    with scripted(script) as port, connect(port) as client:
        for sender, msg, options in (
            ("ä@b", b"\xff", ["body=7bit", "Size=5", "SmtpUtf8"]),
            ("a@b", b".\n.\xff", []),
        ):
            with pytest.raises(smtplib.SMTPSenderRefused):
                client.sendmail(sender, A, msg, options)
