"""Reports of delivery, in the forms of common mail servers and in broken ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.bounces.dsn import REASON, address_of, exact, reason_of, status_of
from postroom.bounces.recognise import failure_of_reply, recognise
from postroom.bounces.values import Failure
from tests.bounces import reports
from tests.bounces.reports import ANN, report

FORGED = "Final-Recipient: rfc822; bart@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n"
NOBODY = f"550 5.1.1 <{ANN}>: Recipient address rejected: nobody of that name"


def one(raw: bytes) -> Failure:
    """The only failure of a report."""
    found = recognise(raw, "")
    assert (found.kind, found.read_as, len(found.failures)) == ("bounce", "dsn", 1)
    return found.failures[0]


def fields(*lines: str) -> Failure:
    """What a report says that has these fields."""
    return one(report("".join(f"{each}\r\n" for each in lines)))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (reports.POSTFIX, Failure(ANN, True, "5.1.1", NOBODY)),
        (reports.EXIM, Failure(ANN, True, "5.0.0", "550 no such person here")),
        (reports.OPENSMTPD, Failure(ANN, True, "5.0.0", "")),
        (
            reports.SENDMAIL,
            Failure(ANN, True, "5.1.1", "550 5.1.1 <annlee@inner.example.org>... User unknown"),
        ),
        (
            reports.EXCHANGE,
            Failure(ANN, True, "5.1.10", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found"),
        ),
        (
            reports.GMAIL,
            Failure(
                ANN,
                True,
                "5.1.1",
                "550 5.1.1 There is no such account. Look for typing errors or spaces."
                " a1-2b - gsmtp",
            ),
        ),
        (
            reports.UTF8,
            Failure("änn@example.org", True, "5.1.1", "550 5.1.1 kein Postfach für änn"),
        ),
        (
            reports.DELAYED,
            Failure(
                ANN, False, "4.4.1", "connect to mx.example.org[192.0.2.1]:25: timed out", False
            ),
        ),
    ],
    ids=["postfix", "exim", "opensmtpd", "sendmail", "exchange", "gmail", "utf-8", "delayed"],
)
def test_servers_are_understood(raw: bytes, expected: Failure) -> None:
    assert one(raw) == expected
    assert recognise(raw, "").message_id == "<post@example.com>"
    # Line ends are whatever they became on the way.
    assert one(raw.replace(b"\r\n", b"\n")) == expected
    assert one(raw.replace(b"\r\n", b"\n", 30)) == expected


def test_what_arrived_is_no_failure() -> None:
    found = recognise(reports.DELIVERED, "")
    assert (found.kind, found.failures, found.read_as) == ("success", (), "dsn")


def test_of_several_recipients_each_is_told_once() -> None:
    found = recognise(
        report(
            f"Final-Recipient: rfc822;{ANN}\r\nAction: delayed\r\nStatus: 4.0.0\r\n\r\n"
            f"Final-Recipient: rfc822;{ANN}\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n"
            f"Final-Recipient: rfc822;bart@example.org\r\nAction: relayed\r\n\r\n"
            f"Final-Recipient: rfc822;cris@example.org\r\nAction: failed\r\nStatus: 5.7.1\r\n"
        ),
        "",
    )
    assert [(each.email, each.final) for each in found.failures] == [
        (ANN, True),
        ("cris@example.org", False),
    ]


def test_recipients_without_a_blank_line_between_are_told_apart() -> None:
    one_, two = (
        f"Original-Recipient: rfc822;{name}@example.org\r\n"
        f"Final-Recipient: rfc822;{name}@inner.example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n"
        for name in ("ann", "bart")
    )
    found = recognise(report(one_ + two), "").failures
    assert [each.email for each in found] == [ANN, "bart@example.org"]


def test_a_recipient_may_begin_with_the_original_address() -> None:
    """As the grammar has it (RFC 3464 2.3), even where the one before had none."""
    found = recognise(
        report(
            "Final-Recipient: rfc822;ann@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n"
            "Original-Recipient: rfc822;bart@example.org\r\n"
            "Final-Recipient: rfc822;b@inner.example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n"
        ),
        "",
    )
    assert [each.email for each in found.failures] == [ANN, "bart@example.org"]


def test_a_blank_line_within_a_recipient_does_not_end_it() -> None:
    found = fields(f"Final-Recipient: rfc822; {ANN}", "", "Action: failed", "Status: 5.1.1")
    assert (found.email, found.status) == (ANN, "5.1.1")


def test_words_whose_fold_was_lost_go_on() -> None:
    assert one(reports.POSTFIX.replace(b"\r\n    of that", b"\r\nof that")).reason == NOBODY


def test_the_words_for_people_are_not_read() -> None:
    assert one(reports.POSTFIX.replace(b"I could not deliver it.", FORGED.encode())).email == ANN


def test_the_original_address_counts_if_it_is_one() -> None:
    final = "Final-Recipient: rfc822; inner@example.net"
    said = ("Action: failed", "Status: 5.1.1")
    assert fields(f"Original-Recipient: rfc822; {ANN}", final, *said).email == ANN
    assert fields("Original-Recipient: rfc822; unknown", final, *said).email == "inner@example.net"
    xtext = fields("Original-Recipient: rfc822; ann+2Bants+3D1@example.org", final, *said)
    assert xtext.email == "ann+ants=1@example.org"


def test_a_failure_without_an_address_is_told_all_the_same() -> None:
    assert fields("Final-Recipient: x400; /c=xx/", "Action: failed", "Status: 5.1.1") == Failure(
        "", True, "5.1.1", ""
    )


@pytest.mark.parametrize(
    ("lines", "final", "status"),
    [
        (("Action: failed", "Status: 4.4.7"), False, "4.4.7"),  # given up, but who knows
        (("Action: failed (to deliver)", "Status: 5.1.1 (no such)"), True, "5.1.1"),
        (("Action: failed",), True, "5.0.0"),
        (("Action: delayed", "Status: 5.1.1"), False, "5.1.1"),
        (("Status: 5.1.1",), True, "5.1.1"),  # the action was lost
        (("Status: 4.2.2",), False, "4.2.2"),
        (("Action: failed", "Status: 5.2.2"), False, "5.2.2"),  # may be emptied
        (("Action: failed", "Status: 5.7.1"), False, "5.7.1"),  # about us
        (
            ("Action: failed", "Status: 5.0.0", "Diagnostic-Code: smtp; 554 5.7.1 spam"),
            False,
            "5.7.1",
        ),
        (("Action: failed", "Status: 5.0.0", "Diagnostic-Code: smtp; 552 full"), False, "5.2.2"),
        (("Action: failed", "Status: 5.0.0", "Diagnostic-Code: x; over quota"), False, "5.2.2"),
        (("Action: failed", "Status: 5.1.1", "Diagnostic-Code: smtp; 554 5.7.1 x"), True, "5.1.1"),
        (("Action: failed", "Status: 5.0.0", "Diagnostic-Code: smtp; 450 later"), True, "5.0.0"),
    ],
)
def test_what_is_final(lines: tuple[str, ...], final: bool, status: str) -> None:
    found = fields(f"Final-Recipient: rfc822; {ANN}", *lines)
    assert (found.final, found.status) == (final, status)


def test_who_neither_failed_nor_arrived_is_not_told() -> None:
    found = recognise(report(f"Final-Recipient: rfc822; {ANN}\r\n"), "")
    assert (found.kind, found.failures) == ("other", ())


def test_the_comment_of_a_status_stands_in_for_a_reason() -> None:
    found = fields(f"Final-Recipient: rfc822; {ANN}", "Action: failed", "Status: 5.1.1 (moved)")
    assert found.reason == "moved"


BROKEN = {
    "the part is called something else": (b"message/delivery-status", b"text/plain"),
    "the boundary is another one": (b'boundary="b=1/x"', b"boundary=y"),
    "there is no boundary": (b'; boundary="b=1/x"', b""),
    "its boundary lines are lost": (b"--b=1/x\r\n", b""),
    "no blank line after the header of a part": (b"status\r\n\r\nRep", b"status\r\nRep"),
    "no blank line before the recipient": (b"+0000\r\n\r\nFinal", b"+0000\r\nFinal"),
    "the type is mixed": (b"multipart/report; report-type=delivery-status", b"multipart/mixed"),
    "the type is lost": (b"Content-Type: multipart/report", b"X-Lost: y"),
    "a fold is lost": (b"\r\n    of that", b"\r\nof that"),
    "a blank after the name": (b"Final-Recipient:", b"Final-Recipient :"),
    "an address in brackets": (b"rfc822; ann@example.org", b"rfc822; <ann@example.org>"),
    "no type of address": (b"rfc822; ann@example.org", b"ann@example.org"),
    "other bytes": (b"nobody\r\n", b"nob\xff\xfe\0dy\r\n"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_reports_are_read(name: str) -> None:
    before, after = BROKEN[name]
    assert before in reports.POSTFIX
    found = one(reports.POSTFIX.replace(before, after))
    assert (found.email, found.final, found.status) == (ANN, True, "5.1.1")


def test_an_encoded_report_is_read() -> None:
    status = (
        "Final-Recipient: utf-8; =C3=A4nn@example.org\r\nAction: fai=\r\nled\r\nStatus: 5.1.1\r\n"
    )
    kind = "message/global-delivery-status\r\nContent-Transfer-Encoding: quoted-printable"
    assert one(report(status, kind=kind)).email == "änn@example.org"


def test_a_report_within_another_message_is_read() -> None:
    raw = (
        b"From: filter@example.net\r\n"
        b"Content-Type: multipart/mixed; report-type=delivery-status; boundary=o\r\n\r\n"
        b"--o\r\nContent-Type: message/rfc822\r\n\r\n" + reports.POSTFIX + b"\r\n--o--\r\n"
    )
    assert one(raw).email == ANN


@pytest.mark.parametrize("returned", ["message/rfc822", "text/rfc822-headers", "message/global"])
def test_what_came_back_is_not_the_report(returned: str) -> None:
    """Anybody may write a post that looks like a report."""
    part = f"--z\r\nContent-Type: message/delivery-status\r\n\r\n{FORGED}\r\n--z--\r\n"
    head = "Message-ID: <evil@example.com>\r\nContent-Type: multipart/report; boundary=z\r\n"
    post = f"{head}\r\n{part}"
    good = f"Final-Recipient: rfc822; {ANN}\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    raw = report(good, returned=returned, original=post)
    assert one(raw).email == ANN
    assert one(raw.replace(b"--b=1/x\r\n", b"")).email == ANN
    # Not even if there is no other report.
    without = report("", kind="text/plain", returned=returned, original=post)
    assert recognise(without, "").failures == ()
    # Nor below the words of a server that knows no parts.
    plain = b"From: mx@example.net\r\n\r\nSorry.\r\n\r\nReceived: by x\r\n" + post.encode()
    assert recognise(plain, "").failures == ()


def test_a_text_that_quotes_a_report_is_none() -> None:
    raw = b"From: a@b.example\r\nContent-Type: text/plain\r\n\r\n" + reports.POSTFIX
    assert recognise(raw, "").kind == "other"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("550 5.1.1 no", "5.1.1"),
        ("host mx[192.0.2.1] said: 550 no", "5.0.0"),
        ("450 later", "4.0.0"),
        ("552 too much", "5.2.2"),
        ("#5.02.1", "5.2.1"),
        ("from 5.1.1.4 by version 5.5.2653.19", ""),
        ("about 500 messages", ""),
        ("250 ok", "2.0.0"),
        ("", ""),
    ],
)
def test_codes_are_found_in_words(text: str, status: str) -> None:
    assert status_of(text) == status


def test_of_two_codes_that_which_says_more_is_taken() -> None:
    assert exact("5.0.0", "550 5.1.1 x") == "5.1.1"
    assert exact("", "550 5.1.1 x") == "5.1.1"
    assert exact("5.2.1", "550 5.1.1 x") == "5.2.1"
    assert exact("5.0.0", "450 4.1.1 x") == "5.0.0"
    assert exact("2.0.0", "over quota") == "2.0.0"


@pytest.mark.parametrize(
    ("value", "email"),
    [
        ("rfc822; Ann@Example.ORG", ANN),
        ("RFC822;<ann@example.org> (Ann)", ANN),
        ("utf-8; \\x{61}nn@example.org", ANN),
        ("utf-8; \\x{D800}@example.org", ""),
        ("unknown; ann", ""),
        ("", ""),
        ("((((" * 500, ""),
    ],
)
def test_addresses_are_read(value: str, email: str) -> None:
    assert address_of(value) == email


def test_a_reason_is_one_line_of_bounded_length() -> None:
    assert reason_of("smtp; 550 a\r\n\tb\0\u2028c") == "550 a b c"
    assert reason_of(" x-unix; =?utf-8?q?K=C3=A4se?=") == "Käse"
    assert len(reason_of("smtp; " + "x" * 5000)) == REASON


def test_the_reply_to_a_delivery_is_read_alike() -> None:
    assert failure_of_reply("Ann@example.org", "550 5.1.1 nobody") == Failure(
        ANN, True, "5.1.1", "550 5.1.1 nobody"
    )
    late = failure_of_reply(ANN, "Given up after 5.0 days: 450 4.2.1 not now")
    assert (late.final, late.status) == (False, "4.2.1")
    assert not failure_of_reply(ANN, "Given up after 5.0 days: nobody answers").final


@given(st.sampled_from(reports.GOOD), st.data())
def test_however_it_is_cut_off_the_recipient_is_found(raw: bytes, data: st.DataObject) -> None:
    whole = recognise(raw, "").failures[0]
    start = raw.index(b"Status: ") + len(b"Status: 5.1.10\r\n")
    at = data.draw(st.integers(start, len(raw)))
    found = recognise(raw[:at], "").failures[0]
    assert (found.email, found.final) == (whole.email, whole.final)
