"""Whether posts can go out: what the mail servers that they are handed to say.

For: `postroom doctor`. It greets each of them, and asks whether a list may send to a member, with
MAIL and RCPT and then RSET: nothing is sent. Guarantees: judging is pure; whatever a server does
becomes a fact, within a few seconds a step. Its words hold no password.
"""

import contextlib
import re
import smtplib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from postroom.base.places import Tcp, parse_server
from postroom.base.settings import DEFAULT_OWNER, Settings
from postroom.delivery.access import Access, access_of
from postroom.delivery.policy import subject
from postroom.delivery.transaction import Fate, Stage, Verdict
from postroom.doctor.findings import FAILURE, OK, WARNING, Finding
from postroom.lmtp.codec import Answer
from postroom.notices.courtesy import endpoints_among
from postroom.posting.own import endpoint
from postroom.store.engine import StoreError, open_store
from postroom.store.schema import address, domain, mailing_list, member

PATIENCE = 5.0  # seconds for one answer
FEW = 20  # lists and members that are looked at for a sender and a recipient
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|\Z)")
_EXTENSIONS = ("pipelining", "xverp", "size", "starttls")  # those that matter to us
_START = "posts wait: start it, or set smtp.host to the mail server that they are for"
_ALLOW = "posts wait: `postroom mta` prints what the mail server must allow"


class Way(NamedTuple):
    """From whom to whom posts go, as an example; "" where there is nobody yet. `circular` if the
    site's owner is an address of the site."""

    sender: str = ""
    recipient: str = ""
    circular: bool = False


class Server(NamedTuple):
    """What a mail server says. `trouble` if it cannot be spoken to; `offers` are the extensions
    that matter, in its words; `size` the largest message that it takes, in octets, 0 for any;
    `verdict` what it says of the way, None if it was not asked."""

    place: str
    trouble: str = ""
    offers: tuple[str, ...] = ()
    size: int = 0
    verdict: Verdict | None = None


def way(url: str, owner: str) -> Way:
    """A list, and a member of it who is elsewhere; else the site's owner."""
    with contextlib.suppress(StoreError, DBAPIError):
        store = open_store(url, create=False)
        with contextlib.closing(store), store.read() as connection:
            circular = bool(endpoints_among(connection, [owner]))
            nobody = "" if circular or owner == DEFAULT_OWNER or not owner.isascii() else owner
            sender, recipient = next(_ways(connection), ("", nobody))
            return Way(sender or _any_list(connection), recipient, circular)
    return Way()


def _ways(connection: Connection) -> Iterator[tuple[str, str]]:
    """Lists with members who are not in a domain of lists."""
    ours = select(domain.c.mail_host)
    found = (
        select(mailing_list.c.posting_address, address.c.email)
        .join_from(member, address)
        .join(mailing_list, mailing_list.c.id == member.c.list)
        .where(member.c.role == "member", member.c.delivery == "on", address.c.domain.not_in(ours))
        .limit(FEW)
    )
    for row in connection.execute(found):
        sender = _bounces(row.posting_address)
        if sender and row.email.isascii():
            yield sender, row.email


def _any_list(connection: Connection) -> str:
    some = select(mailing_list.c.posting_address).order_by(mailing_list.c.id).limit(FEW)
    return next(filter(None, map(_bounces, connection.execute(some).scalars())), "")


def _bounces(posting_address: str) -> str:
    """The sender of a list's posts, "" if not every mail server would take it."""
    found = str(endpoint(posting_address, "bounces"))
    return found if found.isascii() else ""


def ask(settings: Settings, along: Way) -> Iterator[Server]:
    """Ask each mail server."""
    access = access_of(settings)
    for text in settings.smtp.host:
        yield _asked(parse_server(text, settings.smtp.port), access, along)


def _asked(place: Tcp, access: Access, along: Way) -> Server:
    try:
        made = smtplib.SMTP(*place, local_hostname=access.hello, timeout=PATIENCE)
        with contextlib.closing(made) as client:
            client.ehlo_or_helo_if_needed()
            offers = dict(client.esmtp_features)
            _enter(client, access)
            offers |= client.esmtp_features  # some are only offered within TLS
            verdict = _tried(client, along)
            client.docmd("QUIT")
    except smtplib.SMTPResponseException as error:
        return Server(str(place), f"it says {_answer(error.smtp_code, error.smtp_error)}")
    except (OSError, ValueError) as error:  # SMTPException is an OSError
        return Server(str(place), getattr(error, "strerror", None) or str(error) or "no answer")
    size = offers.get("size", "")
    said = tuple(f"{each} {offers[each]}".strip().upper() for each in _EXTENSIONS if each in offers)
    return Server(str(place), "", said, int(size) if size.isdecimal() else 0, verdict)


def _enter(client: smtplib.SMTP, access: Access) -> None:
    """TLS and AUTH, as delivery has them."""
    needed = access.starttls == "always"
    if needed or (access.user and access.starttls == "auto" and client.has_extn("starttls")):
        client.starttls(context=access.tls)
        client.ehlo()
    if access.user:
        client.login(access.user, access.password)


def _tried(client: smtplib.SMTP, along: Way) -> Verdict | None:
    """Whether the list may send to the member."""
    if not along.sender:
        return None
    stage, said = Stage.MAIL, _answer(*client.mail(along.sender))
    if said.code < 300 and along.recipient:
        stage, said = Stage.RCPT, _answer(*client.rcpt(along.recipient))
    client.rset()
    fates = {2: Fate.ACCEPTED, 5: Fate.REFUSED}
    return Verdict(fates.get(said.code // 100, Fate.DEFERRED), stage, said)


def _answer(code: int, said: bytes | str) -> Answer:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    match = _ENHANCED.match(text)
    return Answer(code, match[1], text[match.end() :]) if match else Answer(code, "", text)


def posts(facts: Iterable[Server], along: Way, settings: Settings) -> Iterator[Finding]:
    """Findings. Pure."""
    for each in facts:
        yield _judged(each, along)
        if 0 < each.size < (needed := settings.lmtp.max_message_size):
            text = f"{each.place} takes up to {each.size} octets, we take {needed}"
            to_do = "a post in between bounces: raise that limit, or lower lmtp.max_message_size"
            yield Finding("smtp size", WARNING, text, to_do)


def _judged(facts: Server, along: Way) -> Finding:
    place, verdict = facts.place, facts.verdict
    if facts.trouble:
        return Finding("smtp", FAILURE, f"{place} cannot be used ({facts.trouble})", _START)
    if verdict is None or verdict.fate is Fate.ACCEPTED:
        offers = ", ".join(facts.offers) or "no extension that matters"
        let = ""
        if verdict is not None:
            let = f", lets {along.sender} send" + (f" to {along.recipient}" * bool(along.recipient))
        return Finding("smtp", OK, f"{place} answers{let}; it offers {offers}")
    if verdict.stage is Stage.MAIL:
        text = f"{place} does not let {along.sender} send ({verdict.answer})"
    else:
        text = f"{place} does not let {along.sender} send to {along.recipient} ({verdict.answer})"
    if verdict.fate is Fate.REFUSED and subject(verdict) == "us":
        return Finding("smtp", FAILURE, text, _ALLOW)
    return Finding("smtp", WARNING, text, "see what the mail server has against it in its log")
