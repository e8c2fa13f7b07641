"""Whose name a post bears, and where replies go.

For: cooking. A list changes posts, which breaks the author's DKIM signature; where the author's
domain publishes DMARC quarantine or reject (RFC 7489), members would not get them. "munge" puts
the list into From and keeps the author reachable; "wrap" puts the post, as it came, into a
message from the list; an anonymous list hides the author. Guarantees: an author who is not
hidden can be replied to; fields are moved or spliced, never spelled anew; signatures stay, for
they say what the message was. On anonymous lists nothing goes out but what stands in `KEPT`.
Pure; any From will do, also none, several, a group; never raises.

What is not known about a domain (None: DNS did not answer) is taken for a strict policy: to
munge needlessly does no harm, not to munge may lose the post.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from postroom.lists.settings import Dmarc, Headers
from postroom.mail.address import AddressError, Mailbox, ascii_name, fold, parse_mailbox
from postroom.mail.fields import MOST, Field, Parts, field, phrase
from postroom.mail.loops import LOOP
from postroom.posting.own import date
from postroom.reading.post import Author, mailboxes

Policy = Literal["none", "quarantine", "reject"]
Mitigation = Literal["munge", "wrap", "none"]
MOST_AUTHORS: Final = 10  # that are named in a field of ours
LONGEST_NAME: Final = 100
# Of an anonymous post: what tells of the text, not of who wrote it. A program's name, a time
# zone, another recipient, a signature: each may tell.
KEPT: Final = (
    "subject",
    "mime-version",
    "in-reply-to",
    "references",
    "auto-submitted",
    LOOP.lower(),
)
# What a message from the list says for the post that is wrapped in it.
_COPIED: Final = (
    "subject",
    "date",
    "message-id",
    "to",
    "cc",
    "reply-to",
    "in-reply-to",
    "references",
    "auto-submitted",
)
_TRACES: Final = ("received", LOOP.lower())  # of which there may be many; they end loops


class Poster(NamedTuple):
    """Who a post is from, and the list it goes to: `box` is the list's address as it stands in
    fields, `name` how people call it."""

    authors: tuple[Author, ...]
    box: Mailbox
    name: str


def authors_of(fields: Iterable[Field]) -> tuple[Author, ...]:
    """The authors as they stand in From, each once."""
    found = [
        author
        for each in fields
        if each.name == "from"
        for author in mailboxes(each.value.decode("utf-8", "replace"))[0]
    ]
    return tuple({author.address: author for author in reversed(found)}.values())[::-1]


def mitigation(
    dmarc: Dmarc, policy: Policy | None, authors: Sequence[Author], fields: int
) -> tuple[Mitigation, str]:
    """What is to be done, and why. `policy` is the strictest of the authors' domains, None if
    it could not be found out; `fields` is how many From fields there are."""
    if dmarc.mitigation == "none":
        return "none", ""
    if authors and all(is_exempt(dmarc.exempt, each.address) for each in authors):
        return "none", "From is left alone: the author is exempt"
    if dmarc.always:
        return dmarc.mitigation, "the list does so for every post"
    if fields > 1:
        return dmarc.mitigation, "there are several From fields, which receivers refuse"
    if policy is None and authors:
        return dmarc.mitigation, "the DMARC policy of the author's domain could not be found out"
    if policy in ("quarantine", "reject"):
        return dmarc.mitigation, f"the author's domain publishes DMARC {policy}"
    return "none", ""


def is_exempt(exempt: Iterable[str], address: str) -> bool:
    """Whether nothing is done for an author: by the whole address, or by exactly this domain;
    its subdomains are named on their own, for each may have a policy of its own."""
    whole = fold(address)
    names = {whole, "@" + whole.rpartition("@")[2]}
    return any(fold(each.strip()) in names for each in exempt)


def from_list(poster: Poster) -> Field:
    """From: "Ann Lee via List" <list@example.com>."""
    name = ""
    if poster.authors:
        first = poster.authors[0]
        name = first.name or first.address.rpartition("@")[0]
        name = name[:LONGEST_NAME] + (" and others" if len(poster.authors) > 1 else "")
    shown = f"{name} via {poster.name}" if name else poster.name
    return field("From", f"{phrase(shown)} <{poster.box}>", utf8=True)


def munged(parts: Parts, poster: Poster) -> Parts:
    """The post from the list; what stood in From stands in X-Original-From."""
    kept = parts.without(["x-original-from"])
    old = tuple(
        Field("x-original-from", b"X-Original-From" + each.raw[each.raw.index(b":") :])
        for each in kept.all("from")
    )
    return kept.without(["from"]).with_last([from_list(poster)]).with_last(old)


def wrapped(parts: Parts, poster: Poster) -> Parts:
    """A message from the list that holds the post, octet for octet."""
    inner = parts.joined()
    seen: set[str] = set()
    outer = []
    for each in parts.fields:
        if each.name in _TRACES or (each.name in _COPIED and each.name not in seen):
            seen.add(each.name)
            outer.append(each)
    ours = [
        from_list(poster),
        field("MIME-Version", "1.0"),
        field("Content-Type", "message/rfc822"),
        field("Content-Transfer-Encoding", "7bit" if inner.isascii() else "8bit"),
        field("Content-Disposition", "inline"),
    ]
    return Parts(tuple(outer), b"\r\n" + inner).with_last(ours)


def anonymised(parts: Parts, poster: Poster, message_id: str, now: float) -> Parts:
    """The post as the list's own."""
    kept = tuple(
        each for each in parts.fields if each.name in KEPT or each.name.startswith("content-")
    )
    ours = [
        field("From", f"{phrase(poster.name)} <{poster.box}>", utf8=True),
        field("To", f"{phrase(poster.name)} <{poster.box}>", utf8=True),
        field("Date", date(now)),
        field("Message-ID", message_id),
    ]
    return Parts(kept, parts.rest).with_last(ours)


def with_replies(parts: Parts, headers: Headers, poster: Poster, moved: bool) -> tuple[Parts, str]:
    """The post with replies going where the list wants them, and a sentence if that changes
    something. `moved` says that the author does not stand in From any more: then they are named
    in Reply-To, or in Cc where that belongs to others. Where the author asked for replies
    somewhere, that is what counts as the author."""
    theirs = next((each for each in parts.all("reply-to") if each.value), None)
    ours = f"{phrase(poster.name)} <{poster.box}>"
    authors = _spelled(poster.authors)
    if headers.reply_to == "author":
        if not moved or theirs or not authors:
            return parts, ""
        return _with(parts, "Reply-To", ", ".join(authors)), "Reply-To: the author"
    if headers.reply_to == "both" and not headers.anonymous:
        said = "Reply-To: the author and the list"
        if theirs is None:
            return _with(parts, "Reply-To", ", ".join([*authors, ours])), said
        one = tuple(each for each in parts.fields if each.name != "reply-to" or each is theirs)
        return _ahead(parts._replace(fields=one), theirs, ours), said
    address = headers.reply_to_address.strip() if headers.reply_to == "address" else ""
    said = f"Reply-To: {address or 'the list'}"
    parts = _with(parts, "Reply-To", _address(address) or ours)
    return (_with_cc(parts, poster.authors), said) if moved else (parts, said)


def _with(parts: Parts, name: str, value: str) -> Parts:
    return parts.without([name.lower()]).with_last([field(name, value, utf8=True)])


def _ahead(parts: Parts, old: Field, added: str) -> Parts:
    """With something before what stands in this field."""
    name, _, value = old.raw.partition(b":")
    start = field(name.decode(), added, utf8=True).raw.rstrip()
    new = Field(old.name, start + b",\r\n " + value.lstrip())
    return parts._replace(fields=tuple(new if each is old else each for each in parts.fields))


def _with_cc(parts: Parts, authors: Iterable[Author]) -> Parts:
    there = {
        author.address
        for each in parts.fields
        if each.name in ("to", "cc")
        for author in mailboxes(each.raw[:MOST].decode("utf-8", "replace").partition(":")[2])[0]
    }
    missing = _spelled(each for each in authors if each.address not in there)
    if not missing:
        return parts
    old = next((each for each in parts.all("cc") if each.value), None)
    return _ahead(parts, old, ", ".join(missing)) if old else _with(parts, "Cc", ", ".join(missing))


def _spelled(authors: Iterable[Author]) -> list[str]:
    """As they stand in an address field; those whose address cannot stand there are left out."""
    found = []
    for each in authors:
        address = _address(each.address)
        if address:
            name = phrase(each.name[:LONGEST_NAME])
            found.append(f"{name} <{address}>" if name else address)
    return found[:MOST_AUTHORS]


def _address(text: str) -> str:
    """An address as it stands in a field; "" if it is none."""
    try:
        box, _ = parse_mailbox(text)
    except AddressError:
        return ""
    if not (box.domain and text.isprintable()):
        return ""
    return str(Mailbox(box.local, ascii_name(box.domain)))
