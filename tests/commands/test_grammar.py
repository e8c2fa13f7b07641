"""The grammar of commands: what is understood, what is complained of, and that any text will do."""

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postroom.commands.grammar import (
    Answer,
    Command,
    Help,
    Info,
    Join,
    Leave,
    Line,
    Script,
    Set,
    Status,
    Who,
    read_line,
    read_script,
)
from postroom.commands.words import LONGEST, NO, SHOWN, VERBS, YES, clean, subject_of
from postroom.notices.language import Sentence, say

TOKEN = "abcdefghijklmnopqrstuvwxyz"
OTHER = "234567ghijklmnopqrstuvwxyz"
HELD = TOKEN + "234567abcdefg"
ENDPOINTS = ("request", "confirm", "join", "leave", "owner", "")


def kinds(commands: Sequence[Command | None]) -> list[object]:
    """Fit to be compared: empty commands equal each other."""
    return [(type(command), command) for command in commands]


def commands(script: Script) -> list[Command]:
    """What a script does."""
    return [line.command for line in script.lines if line.command is not None]


def complaints(script: Script) -> list[str]:
    """What a script complains of."""
    return [say(line.complaint) for line in script.lines if line.complaint is not None]


def request(subject: str, *lines: str, most: int = 10) -> Script:
    """A mail to -request."""
    return read_script("request", "", subject, lines, most)


def confirm(detail: str, *lines: str, subject: str = "", most: int = 10) -> Script:
    """A mail to -confirm."""
    return read_script("confirm", detail, subject, lines, most)


def expect(script: Script, *wanted: Command) -> None:
    """These commands, and not a word of complaint."""
    assert kinds(commands(script)) == kinds(wanted)
    assert complaints(script) == []


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("join", Join("", None)),
        ("SUBSCRIBE", Join("", None)),
        ("  Please,  join. ", Join("", None)),
        ("please subscribe!", Join("", None)),
        ('"join"', Join("", None)),
        ("\ufeffjo\u200bin\xa0digest=yes\0", Join("", True)),
        ("join digest=no", Join("", False)),
        ("join , digest=no !", Join("", False)),
        ("join digest=MIME", Join("", True)),
        ("join digest=plain", Join("", True)),
        ("join digest = off", Join("", False)),
        ("join Anne@Example.org", Join("Anne@Example.org", None)),
        ("join <anne@example.org>.", Join("anne@example.org", None)),
        ("Join ADDRESS=<anne@example.org>, digest=yes", Join("anne@example.org", True)),
        ("join address=a=b@example.org", Join("a=b@example.org", None)),
        ("join digest=yes anne@example.org", Join("anne@example.org", True)),
        ("leave", Leave("")),
        ("Unsubscribe.", Leave("")),
        ("signoff", Leave("")),
        ("leave anne@example.org", Leave("anne@example.org")),
        ("unsubscribe address=anne@example.org", Leave("anne@example.org")),
        ("help", Help()),
        ("please HELP!", Help()),
        ("info", Info()),
        ("who", Who()),
        ("status", Status()),
        (f"confirm {TOKEN}", Answer(TOKEN, "yes", "")),
        (f"Confirm <{TOKEN.upper()}>.", Answer(TOKEN, "yes", "")),
        (f'confirm "{TOKEN}"', Answer(TOKEN, "yes", "")),
        (f"confirm: {TOKEN}", Answer(TOKEN, "yes", "")),
        (f"cancel {TOKEN}", Answer(TOKEN, "no", "")),
        (f"accept {HELD}", Answer(HELD, "accept", "")),
        (f"approve {HELD}", Answer(HELD, "accept", "")),
        (f"discard {HELD} it is spam", Answer(HELD, "discard", "it is spam")),
        (f"reject {HELD}", Answer(HELD, "reject", "")),
        (f"reject {HELD} -- off topic", Answer(HELD, "reject", "off topic")),
        (f"reject {HELD}: off topic.", Answer(HELD, "reject", "off topic.")),
        (f"reject {HELD} because a = b!", Answer(HELD, "reject", "because a = b!")),
        ("set delivery=on", Set((("delivery", "on"),))),
        ("set delivery off", Set((("delivery", "user"),))),
        ("set delivery no", Set((("delivery", "user"),))),
        ("SET Digest=Yes", Set((("mode", "digest"),))),
        ("set digest=plain", Set((("mode", "digest"),))),
        ("set digest off", Set((("mode", "regular"),))),
        ("set own no", Set((("own_posts", "no"),))),
        ("set own=on.", Set((("own_posts", "yes"),))),
        ("set duplicates = off", Set((("duplicates", "no"),))),
        ("set ack yes", Set((("ack", "yes"),))),
        (
            "set digest=yes, own no ack=on",
            Set((("mode", "digest"), ("own_posts", "no"), ("ack", "yes"))),
        ),
    ],
)
def test_a_line_is_a_command(text: str, command: Command) -> None:
    line = read_line(text)
    assert kinds([line.command]) == kinds([command])
    assert line == Line(clean(text), command, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("remove", 'There is no command "remove". "help" lists those there are.'),
        ("please", 'There is no command "please". "help" lists those there are.'),
        ("Stop sending me mail", 'There is no command "Stop". "help" lists those there are.'),
        ("x" * 200, f'There is no command "{"x" * 97}...". "help" lists those there are.'),
        ("{word} {0}", 'There is no command "{word}". "help" lists those there are.'),
        ("help join", 'Nothing may follow "help": write that word alone.'),
        (
            "join digset=yes",
            '"digset=yes" was not understood. Write "join" alone, or with "digest=yes", '
            '"digest=no" or "address=" and an address.',
        ),
        (
            "leave ants",
            '"ants" was not understood. Write "leave" alone, or with "address=" and an address.',
        ),
        (
            "leave digest=yes",
            '"digest=yes" was not understood. Write "leave" alone, or with "address=" and an '
            "address.",
        ),
        ("set", '"set" needs a setting and its value, as in "set digest=yes".'),
        (
            "set digset=yes",
            'There is no setting "digset". There are: delivery, digest, own, duplicates, ack.',
        ),
        ("set own=mime", '"own" cannot be "mime". Write "own=yes" or "own=no".'),
        ("set ack=yes own", '"own" cannot be "". Write "own=yes" or "own=no".'),
        ("set delivery=", '"delivery" cannot be "". Write "delivery=on" or "delivery=off".'),
        ("set own=yes own=no", '"own" stands there twice. Write it once.'),
        ("confirm", '"confirm" needs the token of the letter that you got: "confirm TOKEN".'),
        (
            "confirm 123",
            '"123" is no token; reply to the letter that you got, or copy the token from it.',
        ),
        (f"confirm {TOKEN} {OTHER}", 'Nothing may follow the token: write "confirm TOKEN" alone.'),
        (
            f"set {'x' * 200}=no",
            f'There is no setting "{"x" * 97}...". There are: delivery, digest, own, duplicates, '
            "ack.",
        ),
        (f"set own={'x' * 200}", f'"own" cannot be "{"x" * 97}...". Write "own=yes" or "own=no".'),
        ("join " + "x" * 400, "This line is too long for a command: write at most 400 characters."),
        ("y" * 401, "This line is too long for a command: write at most 400 characters."),
    ],
)
def test_a_line_that_is_no_command_is_complained_of(text: str, said: str) -> None:
    line = read_line(text)
    assert line.command is None and line.complaint is not None
    assert say(line.complaint) == said


@pytest.mark.parametrize(
    "text",
    [
        "join digest",
        "join digest=",
        "join digest=yes digest=no",
        "join anne@example.org ben@example.org",
        "join address=anne",
        "join address=@example.org",
        "join a@b@c",
        "join address=",
        "leave me alone",
        "join\nleave",
        f"accept {TOKEN[:-1]}",
        f"accept {TOKEN}1",
        f"accept {TOKEN[:-1]}0",
        f"reject {HELD}a",
        f"accept {TOKEN}{TOKEN}",
        "discard",
        "status of it",
    ],
)
def test_a_line_is_done_as_a_whole_or_not_at_all(text: str) -> None:
    line = read_line(text)
    assert line.command is None and line.complaint is not None


@pytest.mark.parametrize("subject", ["Holiday plan: leave", "A question: join", "cancel: help"])
def test_a_phrase_before_a_colon_makes_no_command(subject: str) -> None:
    assert commands(read_script("request", "", subject, (), 5)) == []


def test_a_reason_may_be_a_paragraph_and_is_cut() -> None:
    line = read_line(f"reject {HELD} " + "why " * 5000)
    assert isinstance(line.command, Answer)
    assert line.command.reason.startswith("why why ")
    assert 300 < len(line.command.reason) < len(line.text) <= LONGEST


@pytest.mark.parametrize(
    "before",
    [
        *("Re: ", "RE : ", "re:", "AW: ", "Antw: ", "SV: ", "Vs: ", "Rép. : ", "TR: ", "R: "),
        *("RIF: ", "Odp: ", "Отв: ", "На: ", "Απ: ", "Σχετ: ", "YNT: ", "Vá: ", "Trả lời: "),
        *(
            "回复：",
            "答复: ",
            "返信: ",
            "回覆：",
            "답장: ",
            "ตอบกลับ: ",
            "רד: ",
            "השב: ",
            "رد: ",
            "जवाब: ",
        ),
        *("Re[2]: ", "Re(3): ", "Re^4: ", "Re [5]: ", "Fwd: Re: AW: ", "Re:Re:Re:"),
        *(
            "[ants] ",
            "Re: [ants] ",
            "[ants] Re: ",
            "[Ants & Bees]Re: [ants] AW: ",
            "【ants】回复：",
        ),
        "Re:\r\n\t ",
        "Re: " * 500,
    ],
)
def test_what_replies_and_lists_put_before_a_subject_is_taken_away(before: str) -> None:
    assert subject_of(before + "join digest=yes") == "join digest=yes"
    expect(request(before + "join digest=yes"), Join("", True))
    expect(confirm("", subject=f"{before}confirm {TOKEN}"), Answer(TOKEN, "yes", ""))


@pytest.mark.parametrize(
    "subject",
    [f"cancel: {TOKEN}", f"please cancel: {TOKEN}", f"Cancel : {TOKEN}", f"reject {TOKEN} as: so"],
)
def test_a_command_is_not_taken_for_a_reply_prefix(subject: str) -> None:
    assert subject_of(subject) == subject
    for command in commands(confirm("", subject=subject)):
        assert isinstance(command, Answer) and command.verb in ("no", "reject")


@pytest.mark.parametrize(
    "subject", ["My question of today: join", "Subscriptions: join", "me@b.org: help"]
)
def test_a_sentence_before_a_colon_is_no_reply_prefix(subject: str) -> None:
    assert subject_of(subject) == subject


def test_a_subject_that_is_a_command_does_without_the_body() -> None:
    expect(request("help"), Help())
    expect(request("Re: help", "", "Dear all,", "join"), Help())
    expect(request("help", "Leave me alone", "leave"), Help())
    expect(request("join", "end", "leave"), Join("", None))


def test_a_body_that_begins_with_a_command_is_read_beside_the_subject() -> None:
    expect(request("help", "", "who", "", "status"), Help(), Who(), Status())
    expect(request("join", "subscribe", "set own=no"), Join("", None), Set((("own_posts", "no"),)))
    expect(request("join", "join digest=yes"), Join("", None), Join("", True))


def test_what_equals_the_subject_is_not_done_twice_but_what_only_looks_alike_is() -> None:
    """Commands without arguments are equal as tuples."""
    expect(request("help", "who", "help", "info"), Help(), Who(), Info())
    expect(request("leave a@b.org", "join"), Leave("a@b.org"), Join("", None))
    expect(request("", "who", "who"), Who(), Who())


def test_a_subject_that_is_no_command_counts_only_where_nothing_else_was_understood() -> None:
    expect(request("My subscription", "join"), Join("", None))
    expect(request("join digset=yes", "help"), Help())
    expect(request("stop", "help"), Help())
    nothing = request("Hello", "Dear all,")
    assert [line.text for line in nothing.lines] == ["Hello", "Dear all,"]
    assert len(complaints(nothing)) == 2
    assert complaints(request("stop", "", " ")) == [
        'There is no command "stop". "help" lists those there are.'
    ]
    assert complaints(request("Re: [ants] ")) == []


def test_no_command_at_all_is_no_line_at_all() -> None:
    assert request("") == request("", "", " \u200b") == request("", "end", "x") == Script((), 0)


@pytest.mark.parametrize("word", ["end", "Stop", "QUIT.", "please stop"])
def test_what_stands_after_the_end_is_not_read(word: str) -> None:
    expect(request("", "who", word, "leave"), Who())


def test_prose_is_not_read_to_its_end() -> None:
    script = request("", "help", "one", "two", "", "three", "who", "four")
    assert kinds(commands(script)) == kinds([Help()])
    assert [line.text for line in script.lines] == ["help", "one", "two", "three"]
    script = request("", "one", "two", "help", "three", "four", "who")
    assert kinds(commands(script)) == kinds([Help(), Who()])
    assert len(complaints(script)) == 4


def test_what_was_done_already_does_not_make_prose_go_on() -> None:
    script = request("help", "help", "x", "help", "x", "help", "x", "who")
    assert kinds(commands(script)) == kinds([Help()])
    assert len(complaints(script)) == 3


def test_no_more_than_so_many_commands_are_read() -> None:
    lines = [f"leave a{number}@example.org" for number in range(1000)]
    script = request("", *lines, most=10)
    assert commands(script) == [Leave(f"a{number}@example.org") for number in range(10)]
    assert script.left_out == 990
    script = request("help", *lines, most=10)
    assert len(commands(script)) == 10 and script.left_out == 991
    assert request("help", "who", most=0) == Script((), 2)
    assert request("", "help", most=1).left_out == 0


def test_a_complaint_after_the_last_command_is_kept_but_not_after_one_left_out() -> None:
    assert len(complaints(request("", "help", "x", most=1))) == 1
    assert complaints(request("", "help", "who", "x", most=1)) == []


@pytest.mark.parametrize(
    ("detail", "subject", "lines", "command"),
    [
        ("", "", (), Join("", None)),
        ("digest", "", (), Join("", True)),
        ("Digest", "", (), Join("", True)),
        ("digest", "digest=no", (), Join("", False)),
        ("x", "Dear all", ("Hello",), Join("", None)),
        ("", "Re: join digest=yes", (), Join("", True)),
        ("", "Re: digest=yes", (), Join("", True)),
        ("", "subscribe Address=a@b.org", ("join digest=yes",), Join("a@b.org", None)),
        ("", "subscribe a@b.org", (), Join("a@b.org", None)),
        ("", "join", ("", "address=a@b.org digest=no"), Join("a@b.org", False)),
        ("digest", "", ("address=a@b.org",), Join("a@b.org", True)),
        ("", "", ("Hello", "digest=yes"), Join("", None)),
        ("", "a@b.org", ("a@b.org",), Join("", None)),
        ("", "join digset=yes", ("leave a@b.org",), Join("", None)),
        ("", "digest=yes please", (), Join("", None)),
        ("", "leave address=a@b.org", (), Join("", None)),
        ("", f"join {'a' * 400}@b.org", (), Join("", None)),
    ],
)
def test_the_address_for_joining_is_the_command(
    detail: str, subject: str, lines: Sequence[str], command: Join
) -> None:
    expect(read_script("join", detail, subject, lines, 1), command)


@pytest.mark.parametrize(
    ("subject", "lines", "command"),
    [
        ("", (), Leave("")),
        ("join digest=yes", ("digest=yes",), Leave("")),
        ("leave digest=yes a@b.org", (), Leave("")),
        ("unsubscribe a@b.org", (), Leave("a@b.org")),
        ("", ("Address=a@b.org",), Leave("a@b.org")),
        ("", ("leave a@b.org c@d.org",), Leave("")),
    ],
)
def test_the_address_for_leaving_is_the_command(
    subject: str, lines: Sequence[str], command: Leave
) -> None:
    expect(read_script("leave", "digest", subject, lines, 1), command)


@pytest.mark.parametrize(
    ("lines", "verb", "reason"),
    [
        ((), "yes", ""),
        (("", " "), "yes", ""),
        (("I wonder.",), "unclear", ""),
        (("What is this?",), "unclear", ""),
        (("go away",), "unclear", ""),
        (("Yes", "but what is it?", "I did not ask"), "unclear", ""),
        (("Confirm nothing, I did not ask for this",), "unclear", ""),
        (("OK, I have got your mail and shall answer it soon",), "unclear", ""),
        (("Yes, please!",), "yes", ""),
        (("confirm",), "yes", ""),
        ((f"Confirm {TOKEN.upper()}",), "yes", ""),
        (("No, I did not ask for this",), "no", ""),
        (("Hello,", "", "nein danke"), "no", ""),
        (("Hello", "you", "there", "no"), "unclear", ""),
        ((f"cancel {TOKEN}",), "no", ""),
        (("はい。",), "yes", ""),
        (("stop",), "no", ""),
        (("accept",), "accept", ""),
        (("Approve.", "Thanks"), "accept", ""),
        (("accept - " + "fine " * 500,), "accept", "fine " * 79 + "fi..."),
        (("accept? no", "discard"), "discard", ""),
        (("discard", "no"), "discard", ""),
        (("reject",), "reject", ""),
        (("Reject: it is off topic.", "", "Please ask", "elsewhere"), "reject", None),
        ((f"reject {TOKEN} off topic",), "reject", "off topic"),
        (("unsubscribe",), "leave", ""),
        (("Join.",), "join", ""),
        (("I did not ask for this.",), "unclear", ""),
        (("Dear customer,", *["your ticket has got number 1."] * 6), "unclear", ""),
        (("Yes", *["and this is why."] * 6), "unclear", ""),
        (("Yes", *["and this is why."] * 5), "yes", ""),
        (("Hello,", "das war ich nicht!"), "unclear", ""),
        (("Please don’t",), "unclear", ""),
        ((f"reject {OTHER} off topic",), "unclear", ""),
        ((f"confirm {OTHER}", "no"), "no", ""),
    ],
)
def test_a_reply_says_something_in_its_first_lines(
    lines: Sequence[str], verb: str, reason: str | None
) -> None:
    if reason is None:
        reason = "it is off topic. Please ask elsewhere"
    script = confirm(TOKEN.upper(), *lines, subject="Re: no", most=1)
    assert commands(script) == [Answer(TOKEN, verb, reason)]  # type: ignore[arg-type]
    assert complaints(script) == []


def test_a_long_reason_of_many_lines_is_cut() -> None:
    (answer,) = commands(confirm(HELD, "reject", *["because"] * 5000))
    assert isinstance(answer, Answer)
    assert len(answer.reason) == LONGEST and answer.reason.endswith("...")


def test_a_detail_that_is_no_token_is_complained_of() -> None:
    script = confirm("123", f"confirm {TOKEN}")
    assert commands(script) == []
    assert complaints(script) == [
        '"123" is no token; reply to the letter that you got, or copy the token from it.'
    ]


def test_without_a_detail_the_answers_stand_in_the_mail() -> None:
    expect(confirm("", subject=f"Re: confirm {TOKEN}"), Answer(TOKEN, "yes", ""))
    expect(confirm("", "", f"<{HELD.upper()}>"), Answer(HELD, "yes", ""))
    expect(
        confirm("", f"accept {HELD}", f"reject {TOKEN} no", subject="Hello"),
        Answer(HELD, "accept", ""),
        Answer(TOKEN, "reject", "no"),
    )
    expect(confirm("", f"cancel {TOKEN}", "end", f"confirm {OTHER}"), Answer(TOKEN, "no", ""))
    script = confirm("", f"confirm {TOKEN}", f"cancel {OTHER}", most=1)
    assert len(commands(script)) == 1 and script.left_out == 1


def test_without_a_detail_no_other_commands_are_read() -> None:
    script = confirm("", "join", f"confirm {TOKEN}", "who")
    assert commands(script) == [Answer(TOKEN, "yes", "")]
    assert len(complaints(script)) == 2
    assert commands(confirm("", subject="help")) == []


@pytest.mark.parametrize("lines", [(), ("Hello,", "who", "am", "I"), ("end",)])
def test_one_complaint_is_enough_where_there_is_no_answer(lines: Sequence[str]) -> None:
    script = confirm("", *lines, subject="Hi")
    assert len(script.lines) == 1 and commands(script) == []
    assert complaints(script)[0].startswith("There is no answer in this: ")


def test_the_one_complaint_is_about_the_token_if_there_was_one() -> None:
    assert complaints(confirm("", "Hello,", "confirm 123", "x", subject="Hi")) == [
        '"123" is no token; reply to the letter that you got, or copy the token from it.'
    ]


def test_words_are_known_in_one_form_and_say_one_thing() -> None:
    assert not YES & NO
    assert all(word == word.lower() for word in (*VERBS, *YES, *NO))
    assert not {"join", "leave", "subscribe", "unsubscribe", "accept", "reject"} & (YES | NO)


def test_endless_input_is_read_and_what_comes_out_is_small() -> None:
    """A pattern that looked at anything twice would not come to an end here."""
    for piece in ("Re: ", "[", "[a] ", "join ", "a=", "= ", "@", "<", "please ", "\0", "é", "x"):
        text = piece * (100_000 // len(piece))
        for endpoint in ENDPOINTS:
            for detail in ("", TOKEN, text):
                check(read_script(endpoint, detail, text, (text, "help", text), 3), 3)


def check(script: Script, most: int) -> None:
    """What every script holds."""
    assert len(commands(script)) <= max(most, 1)
    assert len(script.lines) <= 3 * max(most, 1) + 4
    assert script.left_out >= 0
    for line in script.lines:
        assert (line.command is None) != (line.complaint is None)
        bounded(line.text, LONGEST)
        if line.complaint is not None:
            assert isinstance(line.complaint, Sentence)
            bounded(say(line.complaint), 3 * SHOWN + 100)
            assert len(line.text) <= SHOWN
            assert all(len(str(value)) <= SHOWN for value in line.complaint.values.values())
        for value in line.command or ():
            bounded(str(value), LONGEST)


def bounded(text: str, most: int) -> None:
    """Printable, on one line, and not long."""
    assert text.isprintable() and len(text) <= most
    text.encode()


_pieces = st.sampled_from(
    [
        *VERBS,
        *("please", "digest=yes", "DIGEST=No", "own", "ack=on", "delivery off", "x", "because"),
        *("anne@example.org", "address=Anne@Example.org", "address=<a@b>", TOKEN, HELD, OTHER),
        *(" ", " ", " ", "\n", "\r\n", "\0", "=", ":", "：", "<", ">", '"', "Re:", "[2]", "[ants]"),
        *(".", "!", "\u200b", "\ud800", "\u2028", "ﷺ", "İ", "K", "{", "}", "{0}", "yes", "no"),
    ]
)
_likely = st.lists(_pieces, max_size=12).map(" ".join)
_tight = st.lists(_pieces, max_size=12).map("".join)
texts = st.one_of(_likely, _tight, st.text(), st.text(st.characters(), max_size=20))


@given(
    st.sampled_from(ENDPOINTS),
    texts,
    texts,
    st.lists(texts, max_size=12),
    st.integers(0, 5),
)
@example("confirm", TOKEN, "", ["reject " + "x" * 500, "\0"], 1)
def test_any_text_gives_a_script_of_bounded_size(
    subaddress: str, detail: str, subject: str, lines: list[str], most: int
) -> None:
    check(read_script(subaddress, detail, subject, lines, most), most)


@given(texts)
def test_the_text_of_a_line_is_the_same_command_again(text: str) -> None:
    for subaddress in ("request", "join", "leave"):
        for line in read_script(subaddress, "", "", [text], 3).lines:
            if line.command is not None:
                again = read_script("request", "", "", [line.text], 3)
                assert again == Script((line,), 0)
                assert kinds([again.lines[0].command]) == kinds([line.command])


@given(_likely.filter(str.isascii))
def test_the_case_of_letters_does_not_matter(text: str) -> None:
    seen = []
    for spelled in (text.lower(), text.upper()):
        line = read_line(spelled)
        seen.append((type(line.command), str(line.command).lower(), line.complaint is None))
    assert seen[0] == seen[1]


@given(texts)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    assert clean(clean(text)) == clean(text)
    assert clean(subject_of(text)) == subject_of(text)
