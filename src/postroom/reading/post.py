"""A message, be it a post or a command, read once from its bytes.

For: the one value that rules, headers, notices and commands ask about a message. Guarantees:
any bytes can be read and nothing is ever raised; the work is linear in what is looked at, and
that is bounded: the first MiB of the header (`header_cut` says that there is more), the first
64 KiB of the body, the first kilobytes of a field that people read. No recursion, whatever is
nested. Addresses are folded as those of lists and members are. What a sender writes is data: no
field is trusted here.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from postroom.lists.keys import plain_token
from postroom.lists.roster import same_address
from postroom.mail.address import fold, is_person
from postroom.mail.fields import Field, Parts, decoded
from postroom.mail.loops import LOOP
from postroom.mail.message import message_id
from postroom.reading.mime import kind_of
from postroom.reading.text import HEADER as HEADER
from postroom.reading.text import opened, part_of, printable, text_of

SHOWN = 2_000  # octets of a field that are read as text
SAME = 20  # fields of one name that are read as text
TRACES = 1_000  # the same of those that tell a loop
ADDRESSES = 2_000  # of one field that are read; the others are counted
AUTHORS = 10  # addresses in From that are looked up
LINES = 10  # of the body that are kept, blank ones not counted
LINE = 400  # characters of each
TEXT = 4_096  # octets of the first text part that become lines
APPROVAL = ("approved", "approve", "x-approved", "x-approve")  # fields for a moderator's token

_AUTOMATIC = ("x-autoreply", "x-autorespond", "x-autoresponder", "x-auto-reply")  # in use
_APPROVAL_LINE = re.compile(r"approved?\s*:\s*(\S.*)", re.IGNORECASE)
_TOKEN = re.compile(r'\\.|[\\"()<>,;:]|[^\\"()<>,;:]+', re.DOTALL)
_SEPARATORS = re.compile(r'[\s<>,;:"()]+')
_ID = re.compile(r"<([^<>]*)>")


class Author(NamedTuple):
    """An address with the name that stands beside it ("" if there is none)."""

    name: str
    address: str


class Post(NamedTuple):
    """A message that was sent to one of the addresses of a list.

    `sender` is the envelope sender as it came, "" for the null sender. `authors` are the
    addresses in From; `senders` are those who may be known to the list: the authors, then the
    envelope sender. `to` and `cc` hold the Resent- fields too; `recipients` counts what stands
    in both, readable or not. `size` is in octets. `list_ids` and `loops` are folded.
    `auto_submitted` and `precedence` are their first words, folded. `approval` is what is
    offered as moderator token: the first that has the form of one. `first_lines` are of the
    first text part, without blank ones. `report` is a delivery status or disposition
    notification. What is `automatic` must never be answered (RFC 3834 2).
    """

    sender: str
    authors: tuple[str, ...]
    senders: tuple[str, ...]
    author_name: str
    to: tuple[str, ...]
    cc: tuple[str, ...]
    recipients: int
    message_id: str
    subject: str
    size: int
    header_cut: bool
    list_ids: tuple[str, ...]
    received: int
    auto_submitted: str
    precedence: str
    loops: tuple[str, ...]
    approval: str
    first_lines: tuple[str, ...]
    is_reply: bool
    report: bool
    automatic: bool
    fields: tuple[Field, ...]

    def texts(self, name: str) -> list[str]:
        """The first values of the fields with this name (lower case), as people read them."""
        return [shown(each) for each in _first(self.fields, (name,))]


def read(raw: bytes, sender: str) -> Post:
    """Read a message that came with this envelope sender ("" is the null sender)."""
    message, header_cut = opened(raw)
    fields = message.fields
    lines = _first_lines(message)

    named = _mailboxes(fields, ("from",))[0][:AUTHORS]
    authors = _unique(each.address for each in named)
    envelope = folded(sender) or fold(sender)
    to, in_to = _mailboxes(fields, ("to", "resent-to"))
    cc, in_cc = _mailboxes(fields, ("cc", "resent-cc"))
    auto_submitted = _first_word(fields, "auto-submitted")
    precedence = _first_word(fields, "precedence")
    kind = kind_of(message)
    report = kind is not None and kind.type == "multipart/report"
    return Post(
        sender=sender,
        authors=authors,
        senders=_unique((*authors, envelope) if envelope else authors),
        author_name=named[0].name if named else "",
        to=_unique(each.address for each in to),
        cc=_unique(each.address for each in cc),
        recipients=in_to + in_cc,
        message_id=message_id(b"".join(each.raw for each in fields)),
        subject=next((shown(each) for each in _first(fields, ("subject",))), ""),
        size=len(raw),
        header_cut=header_cut,
        list_ids=tuple(_list_id(each) for each in _first(fields, ("list-id",), TRACES)),
        received=sum(each.name == "received" for each in fields),
        auto_submitted=auto_submitted,
        precedence=precedence,
        loops=tuple(fold(shown(each)) for each in _first(fields, (LOOP.lower(),), TRACES)),
        approval=_approval(fields, lines),
        first_lines=lines,
        is_reply=any(each.name in ("in-reply-to", "references") for each in fields),
        report=report,
        automatic=(
            not sender
            or report
            or auto_submitted not in ("", "no")
            or precedence in ("bulk", "list", "junk", "auto_reply", "auto-reply")
            or any(each.name.startswith("list-") for each in fields)
            or any(each.name in _AUTOMATIC for each in fields)
            or _suppresses_answers(fields)
            or not all(is_person(each.rpartition("@")[0]) for each in (*authors, envelope))
        ),
        fields=fields,
    )


def folded(address: str) -> str:
    """One text per mailbox however it was written; "" if it is none."""
    found = same_address(address) if "@" in address else ""
    return "" if found.endswith('"') else found  # a local part alone


def shown(field: Field) -> str:
    """A field as people read it: on one line, nothing in it that cannot be printed."""
    _, _, value = field.raw[:SHOWN].partition(b":")
    return printable(decoded(b" ".join(value.split())))


def mailboxes(text: str) -> tuple[list[Author], int]:
    """The addresses in the value of From, To and the like, and how many stand there, counting
    those that cannot be read. RFC 5322 3.4; comments may be nested (they are counted, not
    followed), groups are their members. Where quotes or comments never end, every word that
    looks like an address is taken for one."""
    found: list[Author] = []
    count = 0
    for outer, comment, inner in _elements(text):
        name = outer if inner is not None else comment
        count += 1
        if len(found) >= ADDRESSES:
            continue
        address = _bare(outer) if inner is None else folded(inner.strip()) or _squeezed(inner)
        if address:
            found.append(Author(_name(name or comment), address))
    if found or "@" not in text:
        return found, count
    words = [folded(word) for word in _SEPARATORS.split(text) if "@" in word]
    found = [Author("", word) for word in words if word]
    return found, max(count, len(found))


def _elements(text: str) -> Iterator[tuple[str, str, str | None]]:
    """The elements between commas: what stands outside of <>, in comments, and inside <>."""
    outer: list[str] = []
    comment: list[str] = []
    inner: list[str] | None = None
    quoted = angle = False
    depth = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if depth:
            depth += (token == "(") - (token == ")")
            comment.append(token if depth else " ")
        elif quoted or token == '"':
            quoted ^= token == '"'
            (inner if angle and inner is not None else outer).append(token)
        elif token == "(":
            depth = 1
        elif token == "<":
            inner, angle = [], True
        elif token == ">":
            angle = False
        elif angle and inner is not None:
            inner.append(token)
        elif token == ":":  # what stood there names a group
            outer, comment = [], []
        elif token in (",", ";"):
            if inner is not None or "".join(outer).strip():
                yield "".join(outer), "".join(comment), None if inner is None else "".join(inner)
            outer, comment, inner = [], [], None
        else:
            outer.append(token)
    if inner is not None or "".join(outer).strip():
        yield "".join(outer), "".join(comment), None if inner is None else "".join(inner)


def _squeezed(text: str) -> str:
    """An address that blanks stand in, as they may (RFC 5322 4.4)."""
    return folded("".join(text.split()))


def _bare(text: str) -> str:
    """An address without <>."""
    text = text.strip()
    return folded(text) or next(
        (address for word in reversed(text.split()) if (address := folded(word))), ""
    )


def _name(text: str) -> str:
    """A name without its quotes, as people read it."""
    text = " ".join(text[:SHOWN].split())
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    return printable(decoded(text.encode("utf-8", "replace")))[:LINE]


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _first(fields: Sequence[Field], names: Sequence[str], most: int = SAME) -> list[Field]:
    """The first fields that have one of these names."""
    found = []
    for each in fields:
        if each.name in names:
            found.append(each)
            if len(found) == most:
                break
    return found


def _mailboxes(fields: Sequence[Field], names: Sequence[str]) -> tuple[list[Author], int]:
    """What `mailboxes` finds in all fields with these names."""
    found: list[Author] = []
    count = 0
    for each in fields:
        if each.name in names:
            some, number = mailboxes(each.raw.partition(b":")[2].decode("utf-8", "replace"))
            found += some
            count += number
    return found, count


def _list_id(field: Field) -> str:
    """RFC 2919 3: what stands in <>; without them, all there is."""
    text = shown(field)
    ids = _ID.findall(text)
    return fold((ids[-1] if ids else text).strip())


def _first_word(fields: Sequence[Field], name: str) -> str:
    """The first word of the first field with this name, folded."""
    for each in _first(fields, (name,), most=1):
        return fold(shown(each).replace(";", " ").replace(",", " ").strip().partition(" ")[0])
    return ""


def _suppresses_answers(fields: Sequence[Field]) -> bool:
    """Whether automatic answers are not wanted; of receipts the same field speaks, too
    (MS-OXCMAIL 2.1.3.2.20)."""
    words = [
        word.strip()
        for each in _first(fields, ("x-auto-response-suppress",))
        for word in fold(shown(each)).split(",")
    ]
    return any(word in ("all", "oof", "autoreply") for word in words)


def _approval(fields: Sequence[Field], lines: Sequence[str]) -> str:
    offers = [shown(each) for each in _first(fields, APPROVAL)]
    match = _APPROVAL_LINE.fullmatch(lines[0]) if lines else None
    offers += [match[1]] if match else []
    return next((each for each in offers if plain_token(each)), "")


def _first_lines(message: Parts) -> tuple[str, ...]:
    """The first lines of the first text part of a message, whose body may be cut off."""
    found = part_of(message, "text/plain")
    if found is None:
        return ()
    lines = (line.strip()[:LINE] for line in text_of(*found, most=TEXT).splitlines())
    return tuple([printable(line) for line in lines if line][:LINES])
