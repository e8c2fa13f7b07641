"""HTML as the lines that people read.

For: mail that has no plain text. Guarantees: any text can be read and nothing is raised; linear
time, no recursion, whatever is nested, left open or never ends; what is quoted from another
message in a way that can be seen in the markup is left out. What is not shown (scripts, styles,
comments) is no text; what is hidden by a style is text.
"""

import re
from html import unescape

# Possessive, and each way ends at the end of the text too: nothing is ever looked at twice. A
# quote counts after "=" only, as in a browser.
_TOKEN = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<[!?][^>]*+(?:>|\Z)"
    r"|<(?P<closing>/?)(?P<name>[a-z][a-z0-9:-]*+)"
    r"(?P<rest>(?:[^>=]++|=[ \t\r\n\f]*+(?:\"[^\"]*+(?:\"|\Z)|'[^']*+(?:'|\Z))?+)*+)(?:>|\Z)"
    r"|</[^>]*+(?:>|\Z)"
    r"|(?P<text>[^<]++|<)",
    re.IGNORECASE | re.DOTALL,
)
_BLANKS = re.compile(r"[ \t\r\n\f]+")
_LINE_END = re.compile(r"\r\n|\r|\n")
_LONG_NUMBER = re.compile(r"&#x?[0-9a-f]{9,}+;?", re.IGNORECASE)  # `unescape` may raise on it
_BLOCKS = """
    address article aside blockquote body center dd div dl dt fieldset footer form h1 h2 h3 h4 h5
    h6 head header hr html li main nav ol p pre section table tbody tfoot thead tr ul
"""
_ENDS = frozenset(_BLOCKS.split())  # elements that stand on lines of their own
_CELLS = frozenset(("td", "th"))
_UNSEEN = {
    name: re.compile(rf"</{name}(?![a-z0-9:-])", re.IGNORECASE)
    for name in ("script", "style", "title")
}
# How Gmail, Thunderbird, Yahoo, Proton mark what they quote, and who said it.
_QUOTE = re.compile(r"gmail_quote|gmail_attr|moz-cite-prefix|yahoo_quoted|protonmail_quote")
# Outlook quotes all that follows.
_QUOTES_BEGIN = re.compile(r"\b(?:appendonsend|divrplyfwdmsg)\b", re.IGNORECASE)


class _Lines:
    """The lines so far, and the one that is being written."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._pieces: list[str] = []

    def write(self, text: str) -> None:
        self._pieces.append(text)

    def end(self, always: bool) -> None:
        """The line ends; one that holds nothing counts only with `always`."""
        line = _BLANKS.sub(" ", "".join(self._pieces)).strip(" ")
        self._pieces.clear()
        if line or always:
            self.done.append(line)


def lines_of(markup: str) -> list[str]:
    """The lines of an HTML document or a piece of one, without what it quotes."""
    lines = _Lines()
    quote, depth, preformatted = "", 0, 0  # the element that quotes, open ones of its name
    at = 0
    while at < len(markup) and (match := _TOKEN.match(markup, at)):
        at = match.end()
        name = (match["name"] or "").lower()
        closing = match["closing"] == "/"
        if name in _UNSEEN and not closing:
            ended = _UNSEEN[name].search(markup, at)
            at = ended.start() if ended else len(markup)
        elif quote:
            if name == quote:
                depth += -1 if closing else 1
                quote = quote if depth else ""
        elif match["text"]:
            _write(lines, match["text"], preformatted > 0)
        elif name and not closing and _QUOTES_BEGIN.search(match["rest"]):
            break
        elif not closing and _quotes(name, match["rest"]):
            lines.end(always=False)
            quote, depth = name, 1
        elif name == "br":
            lines.end(always=True)
        elif name in _CELLS:
            lines.write(" ")
        elif name in _ENDS:
            lines.end(always=False)
            if name == "pre":
                preformatted = max(0, preformatted + (-1 if closing else 1))
    lines.end(always=False)
    return lines.done


def _quotes(name: str, attributes: str) -> bool:
    return name == "blockquote" or (name == "div" and _QUOTE.search(attributes) is not None)


def _write(lines: _Lines, text: str, preformatted: bool) -> None:
    text = unescape(_LONG_NUMBER.sub("\ufffd", text))
    if preformatted:
        first, *others = _LINE_END.split(text)
        lines.write(first)
        for each in others:
            lines.end(always=True)
            lines.write(each)
    else:
        lines.write(text)
