"""A transaction without I/O: what is written, and what every reply means for every recipient."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.delivery.transaction import (
    GROUP,
    Exchange,
    Fate,
    Features,
    Outcome,
    Stage,
    Transaction,
    Verdict,
    prepare,
)
from postroom.lmtp.body import Body
from postroom.lmtp.codec import Answer, ReplyReader

ALL = Features(pipelining=True, size=0, eightbit=True, smtputf8=True, xverp=True)
PLAIN = Features(pipelining=True)
SLOW = Features()
SENDER = "list-bounces@lists.example.com"
RAW = b"Subject: hello\r\n\r\nHello.\r\n"
CONTENT = prepare(RAW)
OK, GO, TAKEN = "250 ok", "354 go", "250 2.0.0 taken"
PEOPLE = [f"p{number}@example.net" for number in range(10)]
ACCEPTED, DEFERRED, REFUSED, PENDING = Fate.ACCEPTED, Fate.DEFERRED, Fate.REFUSED, Fate.PENDING


def answers(*lines: str) -> list[Answer]:
    """Replies as they are read."""
    return ReplyReader().feed("".join(f"{line}\r\n" for line in lines).encode())


def begin(
    recipients: Sequence[str], features: Features = PLAIN, sender: str = SENDER, verp: bool = False
) -> tuple[Exchange, bytes]:
    """An exchange, and what it writes first."""
    exchange = Exchange(Transaction(sender, recipients, CONTENT, verp), features)
    return exchange, exchange.start()


def play(recipients: Sequence[str], *lines: str, features: Features = PLAIN) -> Outcome:
    """The outcome of a transaction with all of these replies, one by one; the message is
    written at once when it may be."""
    exchange, _ = begin(recipients, features)
    for line in lines:
        assert exchange.outcome is None, f"what is {line} said to?"
        exchange.receive(answers(line))
        exchange.sent()
    assert exchange.outcome is not None
    return exchange.outcome


def fates(outcome: Outcome) -> list[Fate]:
    return [verdict.fate for verdict in outcome.verdicts]


# What is written


def test_commands_go_in_one_write_and_the_message_in_the_next() -> None:
    exchange, first = begin(PEOPLE[:2])
    assert first == (
        b"MAIL FROM:<list-bounces@lists.example.com>\r\n"
        b"RCPT TO:<p0@example.net>\r\nRCPT TO:<p1@example.net>\r\nDATA\r\n"
    )
    assert exchange.receive(answers(OK, OK)) == b""
    assert exchange.receive(answers(OK)) == b""
    assert exchange.receive(answers(GO)) == CONTENT.wire
    stages = [exchange.stage]
    exchange.sent()
    stages.append(exchange.stage)
    assert stages == [Stage.CONTENT, Stage.END]
    exchange.receive(answers(TAKEN))
    assert exchange.outcome == Outcome(
        (Verdict(ACCEPTED, Stage.END, Answer(250, "2.0.0", "taken")),) * 2,
        Stage.END,
        Answer(250, "2.0.0", "taken"),
    )


def test_without_pipelining_each_command_waits_for_the_reply_before() -> None:
    exchange, out = begin(PEOPLE[:2], SLOW)
    written = [exchange.receive(answers(line)) for line in (OK, OK, OK, GO)]
    assert [out, *written] == [
        b"MAIL FROM:<list-bounces@lists.example.com>\r\n",
        b"RCPT TO:<p0@example.net>\r\n",
        b"RCPT TO:<p1@example.net>\r\n",
        b"DATA\r\n",
        CONTENT.wire,
    ]


def test_groups_are_bounded_and_every_recipient_is_in_one() -> None:
    people = [f"p{number}@example.net" for number in range(2 * GROUP + 5)]
    exchange, out = begin(people)
    written = b""
    while exchange.stage is not Stage.CONTENT:
        commands = out.count(b"\r\n")
        assert 0 < commands <= GROUP
        written += out
        replies = [OK] * commands
        if out.endswith(b"DATA\r\n"):
            replies[-1] = GO
        out = exchange.receive(answers(*replies))
    assert [each.decode() for each in re.findall(rb"RCPT TO:<(.*)>", written)] == people
    assert written.count(b"MAIL") == written.count(b"DATA") == 1


def test_what_is_offered_and_needed_is_declared() -> None:
    raw = b"Subject: \xe4\n\n.\n"
    content = prepare(raw)
    exchange = Exchange(Transaction("ä@example.org", ["a@b.c"], content, True), ALL)
    declared = f"MAIL FROM:<ä@example.org> SIZE={content.size} BODY=8BITMIME SMTPUTF8 XVERP=+=\r\n"
    assert exchange.start().startswith(declared.encode())
    # The dot that is stuffed does not count (RFC 1870 5), the line ends do.
    assert content.size == len(raw) + 3
    _, nothing = begin(["a@b.c"], ALL)
    assert nothing.startswith(b"MAIL FROM:<list-bounces@lists.example.com> SIZE=26\r\n")
    _, null = begin(["a@b.c"], PLAIN, sender="", verp=True)
    assert null.startswith(b"MAIL FROM:<>\r\n")


def test_eight_bit_content_goes_to_a_server_without_8bitmime_as_it_is() -> None:
    exchange = Exchange(Transaction("", ["a@b.c"], prepare(b"\xe4\r\n"), False), PLAIN)
    assert exchange.start().startswith(b"MAIL FROM:<>\r\n")
    assert exchange.receive(answers(OK, OK, GO)) == b"\xe4\r\n.\r\n"


def test_what_a_server_offers_is_read_in_any_case() -> None:
    offered = "mta\npipelining\nSIZE 5000\n8BitMIME\nSMTPUTF8\nXVERP\nSTARTTLS\nAUTH plain LOGIN"
    assert Features.offered(Answer(250, "", offered)) == Features(
        True, 5000, True, True, True, True, frozenset({"PLAIN", "LOGIN"})
    )
    assert Features.offered(Answer(250, "", "PIPELINING")) == Features()
    assert Features.offered(Answer(250, "", "mta\nSIZE\nAUTH=PLAIN")).size == 0
    assert Features.offered(Answer(250, "", "mta\nSIZE many")).size == 0
    assert Features.offered(Answer(250, "", "mta\nAUTH=PLAIN")).auth == {"PLAIN"}


# The message


@given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"..", b"a", b"\xe4", b"\0"])))
def test_whatever_the_message_is_it_ends_once_and_arrives_with_proper_line_ends(
    pieces: list[bytes],
) -> None:
    raw = b"".join(pieces)
    content = prepare(raw)
    body = Body()
    assert body.feed(content.wire + b"NOOP\r\n") == b"NOOP\r\n"
    arrived = body.content()
    assert re.sub(rb"\r\n|\r|\n", b"\n", raw).rstrip(b"\n") == (
        arrived.replace(b"\r\n", b"\n").rstrip(b"\n")
    )
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", content.wire)
    assert len(arrived) == content.size
    assert content.eightbit == (b"\xe4" in raw)


def test_a_message_that_is_as_it_should_be_is_not_copied_about() -> None:
    assert prepare(RAW).wire == RAW + b".\r\n"
    assert prepare(b".\r\n..\r\na.\r\n").wire == b"..\r\n...\r\na.\r\n.\r\n"
    assert prepare(b"").wire == b".\r\n"


# Who gets what


def test_those_refused_by_name_keep_their_own_replies_by_position() -> None:
    same = "twice@example.net"
    outcome = play(
        ["a@b.c", same, "c@b.c", same, "e@b.c"],
        OK, OK, "550 5.1.1 no", "452 4.2.2 full", OK, "251 elsewhere", GO, TAKEN,
    )  # fmt: skip
    assert fates(outcome) == [ACCEPTED, REFUSED, DEFERRED, ACCEPTED, ACCEPTED]
    assert outcome.verdicts[1] == Verdict(REFUSED, Stage.RCPT, Answer(550, "5.1.1", "no"))
    assert outcome.verdicts[2].answer == Answer(452, "4.2.2", "full")
    assert outcome.reusable and not outcome.reset


@pytest.mark.parametrize(("code", "fate"), [("451", DEFERRED), ("550", REFUSED)])
def test_a_refused_sender_is_everybodys_verdict(code: str, fate: Fate) -> None:
    outcome = play(PEOPLE[:2], f"{code} no", "503 what", "503 what", "503 what")
    assert outcome.verdicts == (Verdict(fate, Stage.MAIL, Answer(int(code), "", "no")),) * 2
    assert outcome.reusable and outcome.reset
    again = play(PEOPLE[:2], f"{code} no", features=SLOW)
    assert again.verdicts == outcome.verdicts


def test_when_all_are_refused_nothing_is_sent() -> None:
    outcome = play(PEOPLE[:2], OK, "550 no", "450 later", "554 5.5.1 nobody")
    assert fates(outcome) == [REFUSED, DEFERRED]
    assert outcome.stage is Stage.RCPT and outcome.reusable and outcome.reset
    assert play(PEOPLE[:2], OK, "550 no", "450 later", features=SLOW) == outcome


@pytest.mark.parametrize("first", [OK, "550 no sender"])
def test_354_with_nobody_to_send_to_is_ended_by_a_lone_dot(first: str) -> None:
    exchange, _ = begin(PEOPLE[:1])
    assert exchange.receive(answers(first, "550 no", GO)) == b".\r\n"
    assert exchange.outcome is None
    exchange.receive(answers("250 thanks for nothing"))
    assert exchange.outcome is not None and exchange.outcome.reusable
    assert fates(exchange.outcome) == [REFUSED]


@pytest.mark.parametrize("reply", [None, "421 bye"])
def test_a_lone_dot_that_is_not_answered_changes_no_verdict(reply: str | None) -> None:
    exchange, _ = begin(PEOPLE[:1])
    exchange.receive(answers(OK, "550 no", GO))
    if reply:
        exchange.receive(answers(reply))
    else:
        exchange.lost("gone")
    assert exchange.outcome is not None and not exchange.outcome.reusable
    assert fates(exchange.outcome) == [REFUSED]


def test_354_after_the_sender_was_refused_and_a_recipient_not_posts_nothing() -> None:
    exchange, _ = begin(PEOPLE[:2])
    assert exchange.receive(answers("451 no", OK, OK, GO)) == b""
    assert exchange.outcome is not None and not exchange.outcome.reusable
    assert fates(exchange.outcome) == [DEFERRED] * 2


@pytest.mark.parametrize(("code", "fate"), [("451", DEFERRED), ("554", REFUSED)])
def test_without_354_those_who_were_accepted_share_that_verdict(code: str, fate: Fate) -> None:
    outcome = play(PEOPLE[:2], OK, "550 no", OK, f"{code} not now")
    assert fates(outcome) == [REFUSED, fate]
    assert outcome.verdicts[1].stage is Stage.DATA
    assert outcome.reusable and outcome.reset


@pytest.mark.parametrize(("code", "fate"), [("451", DEFERRED), ("554", REFUSED)])
def test_a_message_refused_after_the_dot_is_refused_for_all(code: str, fate: Fate) -> None:
    outcome = play(PEOPLE[:2], OK, OK, "550 no", GO, f"{code} 5.6.0 spam")
    assert fates(outcome) == [fate, REFUSED]
    assert outcome.verdicts[0].stage is Stage.END
    assert outcome.reusable


# 421 and lost connections


def test_d2_421_at_recipient_5_of_10_leaves_all_pending() -> None:
    for features in PLAIN, SLOW:
        outcome = play(PEOPLE, OK, OK, OK, OK, OK, "421 4.3.2 bye", features=features)
        assert fates(outcome) == [PENDING] * 10
        assert not outcome.reusable
        assert outcome.answer == Answer(421, "4.3.2", "bye")


def test_d2_all_replies_in_one_piece_with_421_among_them_leave_all_pending() -> None:
    exchange, _ = begin(PEOPLE)
    assert exchange.receive(answers(OK, OK, OK, OK, OK, "421 bye")) == b""
    assert exchange.outcome is not None
    assert fates(exchange.outcome) == [PENDING] * 10
    assert exchange.outcome.stage is Stage.RCPT


def test_d2_who_was_refused_before_421_stays_refused_so_that_the_next_attempt_gets_further() -> (
    None
):
    """Postfix says 421 after twenty errors: with the same recipients it would every time."""
    outcome = play(PEOPLE[:4], OK, OK, "550 5.1.1 no", "421 4.7.0 too many errors")
    assert fates(outcome) == [PENDING, REFUSED, PENDING, PENDING]


REPLIES = [OK, OK, OK, GO, TAKEN]
STAGES = [Stage.MAIL, Stage.RCPT, Stage.RCPT, Stage.DATA, Stage.END]


@pytest.mark.parametrize("features", [PLAIN, SLOW])
@pytest.mark.parametrize("said", range(5))
@pytest.mark.parametrize("end", ["421 4.3.2 bye", ""])
def test_d2_a_connection_that_ends_at_any_point_leaves_all_pending(
    said: int, end: str, features: Features
) -> None:
    exchange, _ = begin(PEOPLE[:2], features)
    for line in REPLIES[:said]:
        exchange.receive(answers(line))
        exchange.sent()
    if end:
        exchange.receive(answers(end))
    else:
        exchange.lost("the connection is gone")
    outcome = exchange.outcome
    assert outcome is not None
    assert fates(outcome) == [PENDING] * 2
    assert outcome.stage is STAGES[said]
    assert not outcome.reusable
    assert outcome.answer == (
        answers(end)[0] if end else Answer(421, "4.4.2", "the connection is gone")
    )


def test_what_was_accepted_stays_accepted_when_the_connection_is_lost_afterwards() -> None:
    exchange, _ = begin(PEOPLE[:1])
    for line in OK, OK, GO, TAKEN:
        exchange.receive(answers(line))
        exchange.sent()
    exchange.lost("gone")
    assert exchange.outcome is not None and not exchange.outcome.reusable
    assert fates(exchange.outcome) == [ACCEPTED]


def test_a_server_that_hangs_up_after_refusing_the_sender_has_refused_the_sender() -> None:
    exchange, _ = begin(PEOPLE[:1])
    exchange.receive(answers("550 5.7.1 go away"))
    exchange.lost("gone")
    assert exchange.outcome is not None and not exchange.outcome.reusable
    assert exchange.outcome.stage is Stage.MAIL and fates(exchange.outcome) == [REFUSED]


# Nonsense


@pytest.mark.parametrize(
    "lines",
    [
        ["354 go"],
        [OK, "354 go"],
        [OK, OK, "334 go on"],
        [OK, OK, OK, "250 not 354"],
        [OK, OK, OK, "250 not 354", GO],
        [OK, OK, OK, GO, TAKEN],  # before the message can have come
        [OK, OK, OK, GO, "334 what"],
    ],
)
def test_a_reply_that_makes_no_sense_is_no_success(lines: list[str]) -> None:
    for step in False, True:
        exchange, _ = begin(PEOPLE[:2])
        for group in [[line] for line in lines] if step else [lines]:
            exchange.receive(answers(*group))
        assert exchange.outcome is not None
        assert fates(exchange.outcome) == [PENDING] * 2
        assert not exchange.outcome.reusable


def test_a_reply_too_many_to_a_command_that_is_not_sent_yet_ends_the_transaction() -> None:
    exchange, _ = begin(PEOPLE[:2], SLOW)
    assert exchange.receive(answers(OK, OK)) == b""
    assert exchange.outcome is not None and not exchange.outcome.reusable
    assert fates(exchange.outcome) == [PENDING] * 2


@pytest.mark.parametrize("together", [True, False])
def test_a_reply_too_many_at_the_end_changes_nothing_but_the_connection(together: bool) -> None:
    exchange, _ = begin(PEOPLE[:1])
    exchange.receive(answers(OK, OK, GO))
    exchange.sent()
    for group in [[TAKEN, "250 more"]] if together else [[TAKEN], ["250 more"]]:
        exchange.receive(answers(*group))
    assert exchange.outcome is not None and not exchange.outcome.reusable
    assert fates(exchange.outcome) == [ACCEPTED]


def test_a_refusal_before_the_message_was_written_counts_and_ends_the_connection() -> None:
    exchange, _ = begin(PEOPLE[:1])
    exchange.receive(answers(OK, OK, GO))
    exchange.receive(answers("552 5.3.4 too large"))
    assert exchange.outcome is not None and not exchange.outcome.reusable
    assert fates(exchange.outcome) == [REFUSED]
    exchange, _ = begin(PEOPLE[:1])
    exchange.receive(answers(OK, OK, GO, "421 4.3.2 bye"))
    assert exchange.outcome is not None and fates(exchange.outcome) == [PENDING]


# Limits of servers


@pytest.mark.parametrize(
    "line",
    [
        "452 4.5.3 Error: too many recipients",
        "552 5.5.3 too many",
        "550 5.5.3 too many",
        "452 Too many recipients received this hour",
        "552 too many recipients",
    ],
)
def test_recipients_beyond_what_the_server_takes_are_pending_and_the_limit_is_learnt(
    line: str,
) -> None:
    outcome = play(PEOPLE[:5], OK, OK, OK, "550 5.1.1 no", line, line, GO, TAKEN)
    assert fates(outcome) == [ACCEPTED, ACCEPTED, REFUSED, PENDING, PENDING]
    assert outcome.limit == 2
    assert outcome.reusable


def test_a_full_mailbox_is_not_a_limit() -> None:
    outcome = play(PEOPLE[:2], OK, OK, "452 4.2.2 full", GO, TAKEN)
    assert fates(outcome) == [ACCEPTED, DEFERRED] and outcome.limit is None
    outcome = play(PEOPLE[:2], OK, OK, "452 insufficient storage", GO, TAKEN)
    assert fates(outcome) == [ACCEPTED, DEFERRED] and outcome.limit is None


def test_too_many_before_anybody_was_accepted_is_a_refusal_for_now() -> None:
    """Else they would be tried again at once, for ever."""
    line = "452 4.5.3 too many"
    outcome = play(PEOPLE[:2], OK, line, line, "503 no")
    assert fates(outcome) == [DEFERRED] * 2 and outcome.limit is None


def test_a_message_larger_than_the_server_takes_is_refused_without_a_word() -> None:
    exchange, out = begin(PEOPLE[:2], Features(pipelining=True, size=len(RAW) - 1))
    assert out == b"" and exchange.outcome is not None
    assert fates(exchange.outcome) == [REFUSED] * 2
    assert exchange.outcome.answer[:2] == (552, "5.3.4") and exchange.outcome.reusable
    _, out = begin(PEOPLE[:2], Features(pipelining=True, size=len(RAW)))
    assert f"SIZE={len(RAW)}\r\n".encode() in out


# Addresses


HOSTILE = [
    "a@b.c>\r\nRCPT TO:<evil@example.com",
    "a@b.c\nDATA",
    "a@b.c\r",
    "a@b.c> NOTIFY=NEVER",
    "<a@b.c>",
    "a b@c.d",
    "a@b c",
    "a@b.c\0",
    "",
    "a",
    "@b.c",
    "a@",
    "@relay.example:a@b.c",
    "a@b.c\udc80",
    '"unclosed@b.c',
    "x" * 2000 + "@b.c",
    "a@" + "b" * 2000,
]


@pytest.mark.parametrize("address", HOSTILE)
def test_a_hostile_recipient_is_refused_here_and_brings_no_command(address: str) -> None:
    exchange, out = begin(["a@b.c", address, "c@b.c"], ALL)
    assert out.split(b"\r\n")[1:] == [b"RCPT TO:<a@b.c>", b"RCPT TO:<c@b.c>", b"DATA", b""]
    exchange.receive(answers(OK, OK, OK, GO))
    exchange.sent()
    exchange.receive(answers(TAKEN))
    assert exchange.outcome is not None
    assert fates(exchange.outcome) == [ACCEPTED, REFUSED, ACCEPTED]
    assert exchange.outcome.verdicts[1].answer.enhanced == "5.1.3"


@pytest.mark.parametrize("address", HOSTILE[:8])
def test_a_hostile_sender_is_refused_here(address: str) -> None:
    exchange, out = begin(["a@b.c"], ALL, sender=address)
    assert out == b"" and exchange.outcome is not None
    assert exchange.outcome.answer.enhanced == "5.1.7"


@given(st.lists(st.text(max_size=12), min_size=1, max_size=5))
def test_no_text_at_all_brings_more_commands_than_recipients(texts: list[str]) -> None:
    texts = [f"{text}@b.c" for text in texts]
    exchange, out = begin(texts, ALL)
    refused = exchange.outcome.verdicts if exchange.outcome else ()
    lines = out.split(b"\r\n")
    assert len(lines) <= len(texts) + 3
    assert all(line.startswith(b"RCPT TO:<") and line.endswith(b">") for line in lines[1:-2])
    assert bool(out) != bool(refused)


def test_odd_addresses_that_are_valid_are_sent_as_they_are() -> None:
    odd = ['"a b"@c.d', "o'neil+tag@x.y", "a@[192.0.2.1]", "ä@b.c", '"a>b"@c.d', "a@b_c.d"]
    exchange, out = begin(odd, ALL)
    assert out.decode().split("\r\n")[1:-2] == [f"RCPT TO:<{each}>" for each in odd]
    assert exchange.outcome is None


def test_without_smtputf8_only_those_who_need_it_are_refused() -> None:
    exchange, out = begin(["ä@b.c", "a@b.c"], PLAIN)
    assert out.split(b"\r\n")[1:] == [b"RCPT TO:<a@b.c>", b"DATA", b""]
    exchange.receive(answers(OK, OK, GO))
    exchange.sent()
    exchange.receive(answers(TAKEN))
    assert exchange.outcome is not None
    assert fates(exchange.outcome) == [REFUSED, ACCEPTED]
    assert exchange.outcome.verdicts[0].answer.enhanced == "5.6.7"


def test_when_nobody_is_left_nothing_is_said() -> None:
    exchange, out = begin(["<>", "ä@b.c"], PLAIN)
    assert out == b"" and exchange.outcome is not None
    assert [verdict.answer.enhanced for verdict in exchange.outcome.verdicts] == ["5.1.3", "5.6.7"]
    assert exchange.outcome.reusable and not exchange.outcome.reset
    exchange, out = begin([], PLAIN)
    assert out == b"" and exchange.outcome is not None
    assert exchange.outcome.verdicts == ()


# Whatever a server says


LINES = [OK, "251 x", GO, "334 x", "421 x", "450 x", "452 4.5.3 x", "550 5.1.1 x", "552 x", TAKEN]


@given(
    st.lists(st.lists(st.sampled_from(LINES), min_size=1, max_size=6), max_size=8),
    st.booleans(),
    st.booleans(),
)
def test_whatever_is_said_everybody_has_a_verdict_and_nobody_is_served_without_cause(
    script: list[list[str]], pipelining: bool, prompt: bool
) -> None:
    exchange, _ = begin(PEOPLE[:3], Features(pipelining=pipelining))
    wire = CONTENT.wire
    written = said = 0
    for group in script:
        if exchange.outcome is None:
            said += exchange.stage is Stage.END
        written += exchange.receive(answers(*group)) == wire
        if prompt:
            exchange.sent()
    exchange.lost("gone")
    outcome = exchange.outcome
    assert outcome is not None and len(outcome.verdicts) == 3 and not outcome.reusable
    assert written <= 1
    if Fate.ACCEPTED in fates(outcome):
        assert written == 1 and said >= 1
        assert outcome.stage is Stage.END and outcome.answer.code < 300
