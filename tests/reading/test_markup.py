"""HTML as people read it, and that nothing in it can do harm."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.reading.markup import lines_of
from postroom.reading.text import own_lines
from tests.reading.test_post import work


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("join", ["join"]),
        ("<p>one</p><p>two</p>", ["one", "two"]),
        ("one<br>two<br/>three<BR />", ["one", "two", "three"]),
        ("<div>one</div><div><br></div><div>two</div>", ["one", "", "two"]),
        ("<div>one<br></div>two", ["one", "two"]),
        ("<ul><li>one<li>two</ul>three", ["one", "two", "three"]),
        ("<table><tr><td>a<td>b<tr><th>c</th><th>d</th></table>e", ["a b", "c d", "e"]),
        ("<b>jo</b><i>in</i>\r\n  now ", ["join now"]),
        ("<pre>one\r\ntwo\n</pre>three\nfour", ["one", "two", "three four"]),
        ("</pre>one\ntwo", ["one two"]),
        ("</pre><pre>one\ntwo", ["one", "two"]),
        ("a &lt;b&gt; &amp; c&nbsp;&#100;&#x65;", ["a <b> & c\u00a0de"]),
        ("&#" + "9" * 5000 + ";&#x" + "f" * 5000 + "; & &#xd800;", ["\ufffd\ufffd & \ufffd"]),
        ("&bogus; &", ["&bogus; &"]),
        ("<title>x</title><style>p {}</style>a<script>'</p>' <b></script >b", ["ab"]),
        ("a<script>x</scripts>y</script>b", ["ab"]),
        ("a<script>b", ["a"]),
        ("a<styles>b", ["ab"]),
        ("a<!-- <p> -- > -->b<!doctype html>c<?xml?>d</>e", ["abcde"]),
        ("a<!-- b", ["a"]),
        ("<a href='x>y' title=\"<p>\">a</a>", ["a"]),
        ("<p it's>a<p class=\"x>b", ["a"]),
        ("1 < 2 <3", ["1 < 2 <3"]),
        ("a<b", ["a"]),
        ("<o:p>a</o:p>", ["a"]),
        ("<blockquote>a<blockquote>b</blockquote>c</blockquote>d", ["d"]),
        ("a<blockquote>b", ["a"]),
        ("a<blockquote>b<style></blockquote></style>c</blockquote>d", ["a", "d"]),
        ('a<div class="gmail_quote x"><div>On</div>b</div><div>c</div>', ["a", "c"]),
        ('<a href="gmail_quote">a</a>', ["a"]),
        ('a<div class="moz-cite-prefix">Anne:<br></div><blockquote>b</blockquote>c', ["a", "c"]),
        ('a<div id="appendonsend"></div><hr><div id="divRplyFwdMsg">b', ["a"]),
        ("", []),
    ],
)  # fmt: skip
def test_html_is_read_as_it_is_shown(markup: str, expected: list[str]) -> None:
    assert lines_of(markup) == expected


HTML_PIECES = [
    "<", ">", "</", "<!--", "-->", "<!", "<?", "<p>", "<br>", "<div>", "</div>", "<pre>", "</pre>",
    "<blockquote>", "</blockquote>", '<div class="gmail_quote">', "<script>", "</script>", "<style",
    "=", "'", '"', "&", "&lt;", "&#", "&#x", "9", ";", "\n", " ", "a", "\u00a0", "\x00", "\ud800",
]  # fmt: skip
markups = st.one_of(st.text(), st.lists(st.sampled_from(HTML_PIECES), max_size=40).map("".join))


@given(markups)
def test_d26_any_html_is_read(markup: str) -> None:
    assert not any("\n" in each for each in lines_of(markup))
    raw = f"Content-Type: text/html\r\n\r\n{markup}".encode("utf-8", "replace")
    assert all(each.isprintable() for each in own_lines(raw))


@given(markups)
def test_what_stands_in_a_blockquote_is_never_read(within: str) -> None:
    within = within.replace("blockquote", "i")
    assert lines_of(f"<p>x</p><blockquote>{within}secret") == ["x"]


SHAPES: dict[str, Callable[[int], str]] = {
    "tags": lambda n: "<p>" * n,
    "open tags": lambda n: "<p " * n,
    "open quotes": lambda n: '<p a="' * n,
    "equals": lambda n: "<p a=" + "= " * n,
    "comments": lambda n: "<!--" * n,
    "closed": lambda n: "</" * n,
    "less": lambda n: "<" * n,
    "scripts": lambda n: "<script></script" * n,
    "open scripts": lambda n: "<script>" * n,
    "quotes": lambda n: "<blockquote>" * n,
    "entities": lambda n: "&amp" * n,
    "no entities": lambda n: "&" + "x" * n,
    "numbers": lambda n: "&#9" * n + "9" * n,
    "pre": lambda n: "<pre>" + "\n" * n,
    "blanks": lambda n: " " * n + "x" + "\u00a0" * n,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_d25_twice_as_much_html_is_no_more_than_twice_the_work(shape: str) -> None:
    make = SHAPES[shape]
    once, twice = (work(lambda n=n: lines_of(make(n))) for n in (400, 800))  # type: ignore[misc]
    assert twice < 2.1 * once + 20
    lines_of(make(100_000))  # anything but linear work would not end
