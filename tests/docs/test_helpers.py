"""What documentation stands on: the sink, and taking out what was delivered."""

import smtplib
from collections.abc import Iterator
from email.message import EmailMessage

import pytest

from postroom.mail.message import parse
from postroom.testing import helpers, site
from postroom.testing.documentation import create_list, postroom, show, transaction
from postroom.testing.sink import Kept, Sink

RAW = b"From: ann@example.org\r\nTo: ants@example.com\r\nSubject: Hi\r\n\r\nHello.\r\n..\r\n"


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


@pytest.fixture
def master() -> Iterator[helpers.TestableMaster]:
    made = helpers.TestableMaster()
    yield made
    made.stop()


def test_the_sink_keeps_each_copy_as_it_was_sent(sink: Sink) -> None:
    with smtplib.SMTP("127.0.0.1", sink.port) as client:
        client.sendmail("ann@example.org", ["b@example.net", "c@example.net"], RAW)
        client.sendmail("", ["d@example.net"], RAW)
    assert sink.look() == [
        Kept("ann@example.org", "b@example.net", RAW),
        Kept("ann@example.org", "c@example.net", RAW),
        Kept("", "d@example.net", RAW),
    ]
    sink.empty()
    assert sink.look() == []


def test_the_sink_makes_the_sender_of_each_recipient_where_it_is_asked_to(sink: Sink) -> None:
    with smtplib.SMTP("127.0.0.1", sink.port) as client:
        client.ehlo()
        assert client.has_extn("xverp")
        client.sendmail("ants-bounces@example.com", ["b@example.net"], RAW, ["XVERP=+="])
    assert [each.sender for each in sink.look()] == ["ants-bounces+b=example.net@example.com"]


def test_a_client_that_leaves_in_the_middle_has_sent_nothing(sink: Sink) -> None:
    client = smtplib.SMTP("127.0.0.1", sink.port)
    for command in "EHLO x", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>", "DATA":
        client.docmd(command)
    client.send("Subject: Hi\r\n")
    client.close()
    with smtplib.SMTP("127.0.0.1", sink.port) as other:
        assert other.noop()[0] == 250
    assert sink.look() == []


def test_what_was_delivered_stays_there_if_it_is_not_what_was_expected(
    master: helpers.TestableMaster, capsys: pytest.CaptureFixture[str]
) -> None:
    master.start()
    create_list("ants@example.com")
    with pytest.raises(AssertionError, match="commit"):
        helpers.get_delivered()
    transaction.commit()
    postroom("member", "add", "ants@example.com", "ann@example.org", "bart@example.net")
    assert capsys.readouterr().out == "added 2 members to ants@example.com\n"
    with helpers.get_lmtp_client(quiet=True) as lmtp:
        lmtp.sendmail("ann@example.org", ["ants@example.com"], RAW)
    with pytest.raises(AssertionError, match="3 messages were expected, 2 are there"):
        helpers.get_delivered(expected_count=3)
    found = helpers.get_delivered(expected_count=2)
    assert [each.recipient for each in found] == ["ann@example.org", "bart@example.net"]
    assert helpers.get_delivered() == []


def test_without_runners_nothing_is_delivered_and_that_is_said(
    master: helpers.TestableMaster,
) -> None:
    master.start("lmtp")
    with pytest.raises(AssertionError, match="start the server with 'runners'"):
        helpers.get_delivered()


def test_days_that_pass_bring_what_upkeep_does(
    master: helpers.TestableMaster, capsys: pytest.CaptureFixture[str]
) -> None:
    master.start()
    create_list("ants@example.com")
    with pytest.raises(AssertionError, match="commit"):
        helpers.let_pass(1)
    transaction.commit()
    postroom("member", "add", "ants@example.com", "ann@example.org")
    field = "X-Failed-Recipients: ann@example.org\r\nSubject: {}"
    reports = [RAW.replace(b"Subject: Hi", field.format(n).encode()) for n in range(10)]
    with helpers.get_lmtp_client(quiet=True) as lmtp:
        for report in reports[:8]:
            lmtp.sendmail("", ["ants-bounces@example.com"], report)
            helpers.let_pass(1)
        assert helpers.get_delivered() == []
        postroom("bounce", "ls", "ants@example.com", "--json")
        assert '"score":4.0' in capsys.readouterr().out.replace(" ", "")
        for report in reports[8:]:
            lmtp.sendmail("", ["ants-bounces@example.com"], report)
            helpers.let_pass(1)
    [probe] = helpers.get_delivered(expected_count=1)
    assert probe.recipient == "ann@example.org"
    helpers.let_pass(6)
    capsys.readouterr()
    postroom("bounce", "ls")
    assert capsys.readouterr().out == "No mail has come back lately.\n"


def test_without_runners_no_days_pass(master: helpers.TestableMaster) -> None:
    master.start("lmtp")
    with pytest.raises(AssertionError, match="start the server with 'runners'"):
        helpers.let_pass(1)


def test_a_site_that_names_a_mail_server_has_no_sink() -> None:
    with site.Site(SMTP__HOST="127.0.0.1:1") as made:
        made.start(roles=("lmtp", "runners"))
        assert made.sink is None
        assert made.environment["POSTROOM_SMTP__HOST"] == "127.0.0.1:1"


def test_a_mail_is_shown_as_its_reader_sees_it(capsys: pytest.CaptureFixture[str]) -> None:
    msg = EmailMessage()
    msg["From"] = "J\u00fcrgen <ann@example.org>"
    msg["To"] = "bart@example.net"
    msg["Subject"] = "\u00c4rger " + "mit langen Betreffzeilen " * 4
    msg.set_content("Gr\u00fc\u00dfe = alles\n\nzwei\n\n\n", cte="quoted-printable")
    msg.add_attachment("Subject: x\n", subtype="rfc822-headers")
    msg.add_attachment("not this\n")
    show(helpers.Delivery("", "bart@example.net", parse(msg.as_bytes())))
    assert capsys.readouterr().out == (
        "From: J\u00fcrgen <ann@example.org>\n"
        "To: bart@example.net\n"
        "Subject: \u00c4rger mit langen Betreffzeilen mit langen Betreffzeilen "
        "mit langen Betreffzeilen mit langen Betreffzeilen\n"
        "\n"
        "Gr\u00fc\u00dfe = alles\n\nzwei\n"
    )


def test_a_mail_without_text_is_shown_with_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    raw = b"From: a@example.org\nReply-To: b@example.org\nContent-Type: text/html\n\n<p>\n"
    show(helpers.Delivery("", "c@example.net", parse(raw)))
    assert capsys.readouterr().out == "From: a@example.org\nReply-To: b@example.org\n\n\n"
