"""What a message to the bounce address is, if it is no report of delivery."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.bounces.dsn import REASON
from postroom.bounces.recognise import LOOKED_AT, recognise
from postroom.bounces.values import Failure, Report
from postroom.lists.roster import same_address
from tests.bounces import reports
from tests.bounces.reports import ANN, COMPLAINT


def message(*lines: str, body: str = "Hello.") -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode() + f"\r\n{body}\r\n".encode()


def kind(*lines: str, body: str = "Hello.") -> str:
    found = recognise(message(*lines, body=body), "")
    assert not found.failures
    return found.kind


def test_a_complaint_names_who_complains() -> None:
    assert recognise(COMPLAINT, "fbl@example.net") == Report(
        "complaint", (Failure(ANN, True, "", "abuse"),), "arf", "<post@example.com>"
    )


def test_where_the_address_is_blackened_nobody_is_named() -> None:
    raw = COMPLAINT.replace(b"<ann@example.org>", b"redacted")
    assert recognise(raw, "")[:3] == ("complaint", (), "arf")
    removal = COMPLAINT.replace(b"Original-Rcpt-To: <", b"Removal-Recipient: <")
    assert [each.email for each in recognise(removal, "").failures] == [ANN]


@pytest.mark.parametrize("said", ["fraud", "Opt-Out", ""])
def test_what_readers_complain_of(said: str) -> None:
    assert recognise(COMPLAINT.replace(b"abuse", said.encode()), "").kind == "complaint"


@pytest.mark.parametrize("said", ["not-spam", "auth-failure", "virus", "other"])
def test_what_filters_report_is_no_complaint(said: str) -> None:
    assert recognise(COMPLAINT.replace(b"abuse", said.encode()), "")[:3] == ("other", (), "arf")


def test_a_complaint_whose_part_is_called_something_else_is_one() -> None:
    raw = COMPLAINT.replace(b"message/feedback-report", b"text/plain")
    assert recognise(raw, "").failures[0].email == ANN
    raw = COMPLAINT.replace(b"multipart/report; report-type=feedback-report", b"multipart/mixed")
    assert recognise(raw, "").failures[0].email == ANN


@pytest.mark.parametrize(
    "lines",
    [
        ("Auto-Submitted: auto-replied", f"From: {ANN}"),
        ("Auto-Submitted: auto-replied; owner-email=x", "From: noreply@example.org"),
        ("Precedence: auto_reply",),
        ("X-Autoreply: yes",),
        ("Subject: Out of Office: ants",),
        ("Subject: Re: Automatische Antwort: ants",),
        ("Subject: =?utf-8?q?R=C3=A9ponse_automatique?=",),
        ("Subject: [Auto-Reply] ants",),
        ("Subject: 自動返信: ants",),
    ],
)
def test_answers_of_programs(lines: tuple[str, ...]) -> None:
    assert kind(*lines) == "answer"


@pytest.mark.parametrize("raw", [reports.AWAY, reports.RECEIPT])
def test_answers_and_receipts_are_no_bounces(raw: bytes) -> None:
    assert recognise(raw, "")[:2] == ("answer", ())


@pytest.mark.parametrize(
    "lines",
    [
        ("X-AskVersion: 2.4",),
        ("From: Ann <x@mail.spamarrest.com>",),
        ("Message-ID: <1.2-tmda-confirm@example.org>", "X-Delivery-Agent: TMDA/1.1"),
        ("Subject: Please confirm your message",),
    ],
)
def test_who_wants_to_be_asked_first(lines: tuple[str, ...]) -> None:
    assert kind(*lines) == "challenge"


@pytest.mark.parametrize(
    "lines",
    [
        (),
        ("Subject: ants",),
        ("Auto-Submitted: auto-generated",),
        ("Subject: Automatic doors",),
        ("From: x@notspamarrest.com",),
        ("Auto-Submitted: no", "Subject: Re: out of this world"),
    ],
)
def test_anything_else(lines: tuple[str, ...]) -> None:
    assert kind(*lines) == "other"


def test_a_bounce_that_calls_itself_an_answer_is_a_bounce() -> None:
    body = "Sorry.\r\n\r\n  ann@example.org\r\n    host mx said: 550 5.1.1 nobody\r\n"
    raw = message(f"X-Failed-Recipients: {ANN}", "Auto-Submitted: auto-replied", body=body)
    assert recognise(raw, "").failures == (
        Failure(ANN, True, "5.1.1", "ann@example.org host mx said: 550 5.1.1 nobody"),
    )
    named = raw.replace(b"Auto-", b"From: Help <help@example.net>\r\nAuto-")
    assert recognise(named, "").kind == "bounce"
    from_server = reports.QMAIL.replace(b"Subject:", b"Auto-Submitted: auto-replied\r\nSubject:")
    assert recognise(from_server, "").kind == "bounce"


def test_a_bounce_that_cannot_be_read_is_no_answer() -> None:
    """Though it is one by its header: its address may still tell who it is about."""
    cut = reports.POSTFIX[: reports.POSTFIX.index(b"Final-Recipient")]
    assert recognise(cut, "").kind == "other"
    server = "From: MAILER-DAEMON@mx.example.net"
    assert kind(server, "Auto-Submitted: auto-replied", body="Nobody knows these words.") == "other"
    assert kind("Auto-Submitted: auto-replied") == "other"


def test_formats_of_single_servers_are_read() -> None:
    reason = (
        "192.0.2.1 does not like recipient. Remote host said: 550 5.1.1 nobody here"
        " Giving up on 192.0.2.1."
    )
    found = recognise(reports.QMAIL, "")
    assert found == Report(
        "bounce", (Failure(ANN, True, "5.1.1", reason),), "wild", "<post@example.com>"
    )


@pytest.mark.parametrize(
    ("words", "final", "status"),
    [
        ("550 5.7.1 spam", False, "5.7.1"),
        ("Quota exceeded.", False, "5.2.2"),
        ("450 later", False, "4.0.0"),
        ("who knows", True, ""),
    ],
)
def test_what_a_server_says_with_the_address_is_believed(
    words: str, final: bool, status: str
) -> None:
    raw = reports.QMAIL.replace(b"Remote host said: 550 5.1.1 nobody here", words.encode())
    found = recognise(raw, "").failures[0]
    assert (found.final, found.status) == (final, status)


def test_what_follows_after_the_message_is_another_bounce() -> None:
    """What stands with another address, further below, is not said of this one."""
    other = b"<bart@example.org>:\r\nRemote host said: 550 5.7.1 spam\r\n\r\n--- Below"
    raw = reports.QMAIL.replace(b"Remote host said: 550 5.1.1 nobody here", b"No.").replace(
        b"--- Below", other
    )
    found = {each.email: each.status for each in recognise(raw, "").failures}
    assert found == {ANN: "", "bart@example.org": "5.7.1"}


@pytest.mark.parametrize(
    "raw",
    [
        b"From: " + b"(" * 9_000 + b"\r\n\r\nx",
        b"X-Failed-Recipients: " + b"(a" * 9_000 + b"\r\n\r\nx",
        b"\r\nno author",
        b"Content-Type: message/delivery-status\r\n\r\nAction: failed\r\nFinal-Recipient: rfc822;"
        + b'("' * 9_000,
        b"Content-Type: multipart/mixed; boundary=b0\r\n\r\n"
        + b"".join(
            b"--b%d\nContent-Type: multipart/mixed; boundary=b%d\n\n" % (each, each + 1)
            for each in range(3_000)
        ),
    ],
    ids=["author", "exim", "nobody", "report", "nested"],
)
def test_what_the_package_fails_on_is_not_told_the_log(
    raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        recognise(raw, "")
    assert not caplog.records


def test_whatever_else_it_fails_on_is_not_told_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise IndexError

    monkeypatch.setattr("flufl.bounce._detectors.yale.Yale.process", fail)
    assert recognise(reports.QMAIL, "").kind == "other"
    assert not caplog.records


def test_no_more_is_read_than_is_said() -> None:
    tail = b"x" * LOOKED_AT
    assert recognise(b"Subject: ants\r\n\r\n" + tail + reports.POSTFIX, "").kind == "other"
    assert recognise(reports.POSTFIX + tail * 4, "").kind == "bounce"


def check(raw: bytes, sender: str) -> None:
    """What holds for any message."""
    found = recognise(raw, sender)
    assert found.kind in ("bounce", "complaint", "answer", "challenge", "success", "other")
    assert not found.failures or found.kind in ("bounce", "complaint")
    assert found.message_id.isprintable() and len(found.message_id) <= 250
    assert len({each.email for each in found.failures}) == len(found.failures) <= 1_000
    for each in found.failures:
        assert same_address(each.email) == each.email
        assert each.reason.isprintable() and len(each.reason) <= REASON


_LINES = st.sampled_from([line for raw in reports.ALL for line in raw.splitlines(keepends=True)])


@given(st.binary())
def test_any_bytes_will_do(raw: bytes) -> None:
    check(raw, "")


@given(st.lists(_LINES | st.binary(max_size=8)))
def test_any_lines_will_do(lines: list[bytes]) -> None:
    check(b"".join(lines), ANN)


@given(st.sampled_from(reports.ALL), st.data())
def test_any_part_of_a_report_will_do(raw: bytes, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(raw)))
    check(raw[first : data.draw(st.integers(first, len(raw)))], "")
