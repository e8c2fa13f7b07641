"""The text of a message, and what of it the author wrote himself."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.reading import text
from postroom.reading.text import own_lines, without_quotes
from tests.reading.test_post import messages


def part(kind: str, body: str, *fields: str) -> str:
    return "\r\n".join((f"Content-Type: {kind}", *fields, "", body, ""))


def multipart(kind: str, *parts: str, boundary: str = "one") -> str:
    inside = "".join(f"--{boundary}\r\n{each}" for each in parts)
    return part(f"multipart/{kind}; boundary={boundary}", f"{inside}--{boundary}--")


def lines(message: str, most: int = 200) -> tuple[str, ...]:
    return own_lines(message.encode(), most)


PLAIN, HTML = part("text/plain", "plain"), part("text/html", "<p>html</p>")
NOT_TEXT = list(text.UNREADABLE)
ATTACHED = part("text/plain", "attached", "Content-Disposition: attachment; filename=x.txt")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("\r\nhello\r\n", ["hello"]),
        ("Subject: x\r\n\r\n  one \r\n\r\n\ttwo\n", ["one", "", "two"]),
        ("\r\n\r\n\r\none\r\n\r\n", ["one"]),
        (PLAIN, ["plain"]),
        (HTML, ["html"]),
        (multipart("alternative", PLAIN, HTML), ["plain"]),
        (multipart("alternative", HTML, PLAIN), ["plain"]),
        (multipart("alternative", part("text/plain", " \r\n"), HTML), ["html"]),
        (multipart("mixed", ATTACHED, HTML), ["html"]),
        (multipart("mixed", ATTACHED, PLAIN), ["plain"]),
        (multipart("mixed", PLAIN, part("text/plain", "second")), ["plain"]),
        (multipart("mixed", part("image/png", "PNG"), PLAIN), ["plain"]),
        (multipart("mixed", part("message/rfc822", PLAIN), HTML), ["html"]),
        (
            multipart("mixed", part("message/rfc822", multipart("x", PLAIN, boundary="two"))),
            NOT_TEXT,
        ),
        (multipart("mixed", multipart("related", HTML, boundary="two"), PLAIN), ["plain"]),
        (multipart("mixed", multipart("alternative", HTML, PLAIN, boundary="two")), ["plain"]),
        (multipart("mixed", multipart("related", HTML, boundary="two"), ATTACHED), ["html"]),
        (part("multipart/mixed", PLAIN), NOT_TEXT),
        (part("multipart/mixed; boundary=x", f"--y\r\n{PLAIN}"), NOT_TEXT),
        (part("multipart/mixed; boundary=x", f"--x\r\n{PLAIN}"), ["plain"]),
        (part("multipart/mixed; boundary=x", "--x"), []),
        (multipart("mixed", HTML) + "below", ["html"]),
        (multipart("mixed") + PLAIN, NOT_TEXT),
        (part("image/png", "PNG"), NOT_TEXT),
        (part("no type at all", "text"), NOT_TEXT),
        ("", []),
    ],
)
def test_the_first_text_that_is_shown_is_read(message: str, expected: list[str]) -> None:
    assert list(lines(message)) == expected


@pytest.mark.parametrize("kind", ["text/plain", "text/html"])
@pytest.mark.parametrize(
    ("charset", "encoding", "body"),
    [
        ("utf-8", "8bit", "Grüße".encode()),
        ("us-ascii", "7bit", "Grüße".encode()),
        ("iso-8859-1", "8bit", "Grüße".encode("latin-1")),
        ("utf-16", "base64", base64.encodebytes("Grüße".encode("utf-16"))),
        ("no-such", "8bit", "Grüße".encode()),
        ("utf-8", "base64", base64.encodebytes("Grüße".encode())),
        ("utf-8", "base64", b"R3LDvMOfZQ"),
        ("utf-8", "quoted-printable", b"Gr=C3=BC=\r\n=C3=9Fe"),
    ],
)
def test_text_is_decoded(kind: str, charset: str, encoding: str, body: bytes) -> None:
    head = f"Content-Type: {kind}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}"
    assert own_lines(head.encode() + b"\r\n\r\n" + body) == ("Grüße",)


def test_text_that_cannot_be_decoded_is_shown_as_far_as_it_can_be() -> None:
    assert own_lines(b"\r\na\xffb") == ("a\ufffdb",)
    assert own_lines(b"Content-Type: text/plain; charset=utf-7\r\n\r\na+2AA-b") == ("a?b",)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("join\u00a0now", "join now"),
        ("join\u202fnow\u3000please", "join now please"),
        ("\u00a0join\u2003", "join"),
        ("\ufeffjoin", "join"),
        ("jo\u200bin\u00ad", "join"),
        ("\u200fjoin", "join"),
        ("jo\u202ein", "jo?in"),
        ("jo\x00in\x1b[1m", "jo?in?[1m"),
        ("join\tnow", "join now"),
    ],
)
def test_what_cannot_be_seen_is_not_read(said: str, read: str) -> None:
    assert lines("\r\n" + said) == (read,)
    assert lines(part("text/html", said.replace("\x00", "")))[0] == read.replace("jo?in?", "join?")


def test_only_so_much_is_read() -> None:
    assert lines("\r\n" + "a\r\n" * 300) == ("a",) * 200
    assert lines("\r\na\r\nb\r\nc", most=2) == ("a", "b")
    assert lines("\r\n" + "a" * 2000) == ("a" * text.LONGEST,)
    assert lines("\r\n" + "\r\n" * text.BODY + "a") == ()
    assert own_lines(b"X: " + b"x" * text.HEADER + b"\r\n\r\nhello") == text.UNREADABLE


def test_of_parts_within_parts_so_many_are_followed() -> None:
    def nested(depth: int) -> str:
        message = PLAIN
        for n in range(depth):
            message = multipart("mixed", message, boundary=f"b{n}")
        return message

    assert lines(nested(text.DEPTH - 1)) == ("plain",)
    assert lines(nested(text.DEPTH)) == text.UNREADABLE


def split(message: str) -> list[str]:
    return message.strip("\n").split("\n")


GMAIL = """
On Mon, Jan 5, 2026 at 3:04 PM Ants <ants-request@example.com> wrote:

> To confirm, reply to this message.
>
> leave
"""
WRAPPED = """
On Mon, Jan 5, 2026 at 3:04 PM Ants Of The World <
ants-confirm+abcdefghijklmnopqrstuvwxyz@example.com> wrote:

> leave
"""
WRAPPED_TWICE = """
Am Mo., 5. Jan. 2026 um 15:04 Uhr schrieb Ants
Of The World
<ants-confirm+abcdefghijklmnopqrstuvwxyz@example.com>:

> leave
"""
OUTLOOK = """
________________________________
From: Ants <ants-request@example.com>
Sent: Monday, January 5, 2026 3:04 PM
To: Anne Ant <anne@example.org>
Subject: Please confirm

leave
"""
OUTLOOK_OLD = """
-----Original Message-----
From: Ants [mailto:ants-request@example.com]
> join

leave
"""
ATTRIBUTIONS = {
    "gmail": "On Mon, Jan 5, 2026 at 3:04 PM Anne Ant <anne@example.org> wrote:",
    "gmail, german": "Am Mo., 5. Jan. 2026 um 15:04 Uhr schrieb Anne Ant <anne@example.org>:",
    "gmail, french": "Le lun. 5 janv. 2026 à 15:04, Anne Ant <anne@example.org> a écrit :",
    "gmail, spanish": "El lun, 5 ene 2026 a las 15:04, Anne Ant (<anne@example.org>) escribió:",
    "gmail, italian": "Il giorno lun 5 gen 2026 alle ore 15:04 Anne <anne@example.org> ha scritto:",
    "gmail, dutch": "Op ma 5 jan 2026 om 15:04 schreef Anne Ant <anne@example.org>:",
    "gmail, portuguese": "Em seg., 5 de jan. de 2026 às 15:04, Anne <a@example.org> escreveu:",
    "gmail, swedish": "Den mån 5 jan. 2026 kl 15:04 skrev Anne Ant <anne@example.org>:",
    "gmail, polish": "pon., 5 sty 2026 o 15:04 Anne Ant <anne@example.org> napisał(a):",
    "gmail, russian": "пн, 5 янв. 2026 г. в 15:04, Anne Ant <anne@example.org>:",
    "gmail, japanese": "2026年1月5日(月) 15:04 Anne Ant <anne@example.org>:",
    "gmail, chinese": "Anne Ant <anne@example.org> 于2026年1月5日周一 15:04写道：",
    "gmail, old": "2026-01-05 15:04 GMT+01:00 Anne Ant <anne@example.org>:",
    "apple": "On 5 Jan 2026, at 15:04, Anne Ant <anne@example.org> wrote:",
    "apple, german": "Am 05.01.2026 um 15:04 schrieb Anne Ant <anne@example.org>:",
    "apple, french": "Le 5 janv. 2026 à 15:04, Anne Ant <anne@example.org> a écrit :",
    "apple, spanish": "El 5 ene 2026, a las 15:04, Anne Ant <anne@example.org> escribió:",
    "thunderbird": "On 1/5/26 15:04, Anne Ant wrote:",
    "thunderbird, german": "Am 05.01.26 um 15:04 schrieb Anne Ant:",
    "thunderbird, french": "Le 05/01/2026 à 15:04, Anne Ant a écrit :",
    "thunderbird, spanish": "El 5/1/26 a las 15:04, Anne Ant escribió:",
    "without a date": "Anne Ant <anne@example.org> wrote:",
    "gnus": "Anne Ant writes:",
    "original": "-----Original Message-----",
    "original, german": "-----Ursprüngliche Nachricht-----",
    "original, french": "-----Message d'origine-----",
    "original, spanish": "-----Mensaje original-----",
    "forwarded": "---------- Forwarded message ---------",
    "forwarded, apple": "Begin forwarded message:",
    "forwarded, apple, french": "Début du message réexpédié :",
    "proton": "------- Original Message -------",
    "outlook": "From: Anne Ant\nSent: Monday, January 5, 2026 3:04 PM\nTo: ants@example.com",
    "outlook, german": "Von: Anne Ant\nGesendet: Montag, 5. Januar 2026\nAn: ants@example.com",
    "outlook, french": "De : Anne Ant\nEnvoyé : lundi 5 janvier 2026 15:04\nÀ : ants@example.com",
    "outlook, spanish": "De: Anne Ant\nEnviado: lunes, 5 de enero de 2026\nPara: ants@example.com",
    "outlook, bold": "*From:* Anne Ant\n*Sent:* Monday\n*To:* ants@example.com",
    "outlook, rule": "________________________________",
    "signature": "-- \nAnne",
    "signature, bare": "--\nAnne",
    "signature, dash": "—\nAnne",
    "iphone": "Sent from my iPhone",
    "iphone, german": "Von meinem iPhone gesendet",
    "iphone, french": "Envoyé de mon iPhone",
    "iphone, spanish": "Enviado desde mi iPhone",
    "outlook for android": "Get Outlook for Android<https://aka.ms/x>",
    "gmx": "Diese Nachricht wurde von meinem Telefon mit GMX Mail gesendet.",
    "wrapped, gmail": "On Mon, Jan 5, 2026 at 3:04 PM Anne Ant <\nanne@example.org> wrote:",
    "wrapped, german": "Am Mo., 5. Jan. 2026 um 15:04 Uhr schrieb Anne Ant\n<anne@example.org>:",
    "wrapped, french": "Le lun. 5 janv. 2026 à 15:04, Anne Ant <anne@example.org> a\nécrit :",
    "wrapped, spanish": "El lun, 5 ene 2026 a las 15:04, Anne Ant\n(<anne@example.org>) escribió:",
    "wrapped, apple": "On 5 Jan 2026, at\n15:04, Anne Ant <anne@example.org> wrote:",
    "wrapped twice": "On Mon, Jan 5, 2026 at 3:04 PM Anne Ant\nof Ants\n<anne@example.org> wrote:",
    "wrapped, polish": "pon., 5 sty 2026 o 15:04 Anne Ant <\nanne@example.org> napisał(a):",
}  # fmt: skip


@pytest.mark.parametrize("said", ATTRIBUTIONS)
@pytest.mark.parametrize("between", ["\n", "\n\n"])
@pytest.mark.parametrize("quoted", ["leave", "> leave", "\n> leave"])
def test_what_stands_below_an_attribution_is_not_the_authors(
    said: str, between: str, quoted: str
) -> None:
    message = f"accept 2026{between}{ATTRIBUTIONS[said]}\n{quoted}\nleave"
    assert without_quotes([each.strip() for each in split(message)]) == ("accept 2026",)


def test_an_attribution_takes_no_line_of_the_author_with_it() -> None:
    for wrapped in ("On 5 Jan Anne wrote:", "On 5 Jan 2026 Anne <\nanne@example.org> wrote:"):
        own = "reject, 5 reasons"
        assert without_quotes([own, *split(wrapped), "leave"]) == (own,)
    assert without_quotes(["on 5 things", "", "Anne wrote:", "leave"]) == ("on 5 things",)
    assert without_quotes(["on 5 things", "> Anne wrote:", "more"]) == ("on 5 things", "more")


@pytest.mark.parametrize("quoted", [GMAIL, WRAPPED, WRAPPED_TWICE, OUTLOOK, OUTLOOK_OLD])
def test_of_a_reply_that_says_nothing_nothing_is_left(quoted: str) -> None:
    assert without_quotes(split(quoted)) == ()
    assert without_quotes(["", *split(quoted)]) == ()


@pytest.mark.parametrize("quoted", [GMAIL, WRAPPED, WRAPPED_TWICE])
def test_who_writes_below_what_he_quotes_is_read(quoted: str) -> None:
    below = [*split(quoted), "", "accept", "", "-- ", "Anne"]
    assert without_quotes(below) == ("accept",)
    assert without_quotes(["discard", *below]) == ("discard",)


def test_what_is_left_between_quoted_lines_that_were_wrapped_is_nobodys() -> None:
    said = ["Anne wrote:", "> If you want to", "leave", "> say so.", "accept"]
    assert without_quotes(said) == ("accept",)


def test_below_a_message_that_is_quoted_as_it_stands_nothing_is_the_authors() -> None:
    assert without_quotes(["-----Original Message-----", "> join", "leave"]) == ()
    assert without_quotes(["Anne wrote:", "", "leave", "> join", "leave"]) == ()


def test_quoted_lines_are_left_out() -> None:
    assert without_quotes(["> a", "b", ">c", ">", "d", ""]) == ("b", "d")
    assert without_quotes(["> On Monday Anne wrote:", "> > a", "b"]) == ("b",)


@pytest.mark.parametrize(
    "said",
    [
        ["join", "", "leave"],
        ["set digest on"],
        ["confirm abcdefghijklmnopqrstuvwxyz"],
        ["on", "am", "le", "el"],
        ["reject Please wrote it again, on 5 Jan at 3:04."],
        ["From: is a word"],
        ["From: anne@example.org", "please"],
        ["2 addresses:", "one"],
        ["- a", "-- b", "----", "---- c"],
        ["Sentinel"],
        ["join anne@example.org:"],
        ["who", "", "On Monday", "", "I wrote to you"],
    ],
)
def test_what_only_looks_a_little_like_a_quote_stays(said: list[str]) -> None:
    assert list(without_quotes(said)) == said


def test_an_html_reply_is_read_without_what_it_quotes() -> None:
    reply = (
        '<html><head><meta charset="utf-8"></head><body><div dir="ltr">accept</div><br>'
        '<div class="gmail_quote"><div dir="ltr" class="gmail_attr">On Mon, Anne wrote:<br></div>'
        '<blockquote class="gmail_quote">leave</blockquote></div></body></html>'
    )
    assert without_quotes(lines(part("text/html", reply))) == ("accept",)
    reply = (
        '<div class="WordSection1"><p class="MsoNormal">accept<o:p></o:p></p>'
        '<p class="MsoNormal"><o:p>&nbsp;</o:p></p><div style="border:none"><p><b>Von:</b> Anne<br>'
        "<b>Gesendet:</b> Montag<br><b>An:</b> ants@example.com</p></div><p>leave</p></div>"
    )
    assert without_quotes(lines(part("text/html", reply))) == ("accept",)


QUOTE_PIECES = [
    ">", " ", "\n", "On ", "Am ", "5", ":", "wrote:", " schrieb ", "<a@example.org>:", "From: ",
    "Sent: ", "-- ", "----", "_____", "Sent from ", "accept", "pon., ", "写道：", "*",
]  # fmt: skip
quotes = st.lists(st.sampled_from(QUOTE_PIECES), max_size=40).map("".join)


@given(messages)
def test_d26_any_bytes_have_lines_that_can_be_shown(raw: bytes) -> None:
    found = own_lines(raw)
    assert all(each.isprintable() and len(each) <= text.LONGEST for each in found)
    without_quotes(found)


@given(st.one_of(quotes, st.text()))
def test_what_is_the_authors_stands_in_the_message_and_is_not_quoted(said: str) -> None:
    given_lines = [each.strip() for each in said.splitlines()]
    own = without_quotes(given_lines)
    rest = iter(given_lines)
    assert all(each in rest for each in own)  # in the same order
    assert not any(each.startswith(">") for each in own)
    assert not own or (own[0] and own[-1])


LINES = [
    "----",
    "_",
    "1@",
    "wrote ",
    "From: ",
    "on 5 ",
    "5",
    "a. 5 ",
    "@a",
    "von meinem ",
    ":",
    ">",
    "gesendet",
]


@pytest.mark.parametrize("unit", LINES)
@pytest.mark.parametrize("end", ["", ":", "x"])
def test_d25_long_lines_are_looked_at_in_linear_time(unit: str, end: str) -> None:
    line = (unit * 1000)[: text.LONGEST - 1] + end
    without_quotes([line] * (text.BODY // len(line)))


def test_d25_ten_megabytes_are_read_to_a_bound() -> None:
    body = multipart(
        "mixed", *["Content-Type: multipart/mixed; boundary=two\r\n\r\n--two\r\n"] * 200_000
    )
    assert own_lines(body.encode()) == ()
    assert own_lines(part("text/html", "<p>a" * 2_500_000).encode()) == ("a",) * 200


@pytest.mark.parametrize(
    ("lines", "own"),
    [
        (("Ann Lee",), ()),
        (("yes", "", "Best regards,", "Ann", "An Ant Inc."), ("yes",)),
        (("Viele Grüße", "ann lee"), ()),
        (("Thanks!",), ()),
        (("Who is Ann?",), ("Who is Ann?",)),
        (("yes", "Bo"), ("yes", "Bo")),
    ],
)
def test_a_signature_is_known_by_the_name(lines: tuple[str, ...], own: tuple[str, ...]) -> None:
    assert text.without_name(lines, "Ann Lee") == own


def test_without_a_name_only_greetings_are_left_out() -> None:
    assert text.without_name(("", "yes", "Regards"), "") == ("", "yes")
