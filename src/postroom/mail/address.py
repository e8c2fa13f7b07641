"""Mailboxes as they stand in SMTP paths.

For: turning the text between `<` and `>` of MAIL and RCPT into values, and giving one
key per mailbox however it was written. Guarantees: linear time, no Unicode folding (a
look-alike never matches), source routes dropped (RFC 5321 4.1.1.3, appendix C).
Fails with `AddressError`, whose text is fit to be shown to a mail administrator.
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
