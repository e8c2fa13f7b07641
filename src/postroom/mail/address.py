"""Mailboxes as they stand in SMTP paths.

For: turning the text between `<` and `>` of MAIL and RCPT into values, giving one key per
mailbox however it was written, and writing it so that most servers take it. Guarantees: linear
time, no Unicode folding (a look-alike never matches), source routes dropped (RFC 5321 4.1.1.3,
appendix C). Fails with `AddressError`, whose text is fit to be shown to a mail administrator.
"""

import re
from typing import NamedTuple

# RFC 5321 4.5.3.1 asks for 64 octets of local part and 256 of path, as least sizes;
# confirmation tokens and VERP need more, so we only bound them.
MAX_PATH = 1024

_ATEXT = r"[^\x00-\x20\x7f\"<>()\[\]\\,;:@]+"
_QUOTED = r'"(?:[^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*"'
_DOMAIN = r"[^\x00-\x20\x7f\"<>()\[\]\\,;:@]+|\[[^\x00-\x20\x7f\"<>()\[\]\\@]+\]"
_MAILBOX = re.compile(
    rf"(?:@(?:{_DOMAIN})(?:,@(?:{_DOMAIN}))*:)?"
    rf"(?P<box>(?P<local>{_ATEXT}|{_QUOTED})(?:@(?P<domain>{_DOMAIN}))?)"
)
_QUOTED_PAIR = re.compile(r"\\(.)")
_NEEDS_QUOTES = re.compile(r"[\x00-\x20\x7f\"<>()\[\]\\,;:@]")
# Only A-Z fold. str.lower() would map U+212A KELVIN SIGN to "k": a silent match.
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
# RFC 3834 2, RFC 5230 4.6, and what is in use.
_NO_PERSON = re.compile(
    r"mailer-daemon|mail-daemon|postmaster|owner-.*|.*-(?:owner|request|bounces?)"
    r"|.*-bounces?[+=].*|(?:no|do[-_.]?not)[-_.]?reply.*|.*[-_.]no-?reply|bounces?[+-].*|listserv"
    r"|majordomo|autoresponder|nobody",
    re.DOTALL,
)


class AddressError(ValueError):
    """The text is no mailbox; `str()` says why."""


class Mailbox(NamedTuple):
    """A mailbox: the local part without quoting, case kept, and the domain ("" if none)."""

    local: str
    domain: str

    def __str__(self) -> str:
        local = self.local
        if not local or _NEEDS_QUOTES.search(local):
            local = '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'
        return f"{local}@{self.domain}" if self.domain else local


def fold(text: str) -> str:
    """Lower-case the ASCII letters of `text` and nothing else."""
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)


def is_person(local: str) -> bool:
    """Whether somebody may read what is sent to this local part; if not, nothing that comes from
    there must be answered."""
    return _NO_PERSON.fullmatch(fold(local)) is None


def ascii_name(domain: str) -> str:
    """A domain name, or a list-id, in A-labels (RFC 5890 2.3.2.1), which need no SMTPUTF8."""
    if domain.isascii():
        return domain
    return ".".join(
        label if label.isascii() else "xn--" + label.encode("punycode").decode()
        for label in domain.split(".")
    )


def ascii_domain(address: str) -> str:
    """An address with its domain in A-labels; what is none is left as it is."""
    if address.isascii():
        return address
    local, at, domain = address.rpartition("@")
    return f"{local}{at}{ascii_name(domain)}" if at else address


def parse_mailbox(text: str) -> tuple[Mailbox, str]:
    """Parse the inside of an SMTP path (no angle brackets).

    Returns the mailbox and its exact text without the source route. Raises
    `AddressError`. RFC 5321 4.1.2; non-ASCII as in RFC 6531 3.3.
    """
    if len(text) > MAX_PATH:
        raise AddressError("address too long")
    match = _MAILBOX.fullmatch(text)
    if match is None:
        raise AddressError("bad address syntax")
    local, domain = match["local"], match["domain"] or ""
    if local.startswith('"'):
        local = _QUOTED_PAIR.sub(r"\1", local[1:-1])
        if not local:
            raise AddressError("empty local part")
    return Mailbox(local, domain), match["box"]
