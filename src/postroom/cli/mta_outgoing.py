"""What `postroom mta` prints of the way out: posts that go through the same mail server.

For: what a mail server must allow besides its defaults, and what has to be right already. Pure.
Guarantees: only settings that differ from the mail server's defaults are printed; nothing lets
anybody relay who may not relay already.
"""

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

from postroom.base.places import Tcp
from postroom.cli.mta_texts import fill

GROWTH = 1_048_576  # octets that a post may gain in a list: header fields, footer, wrapping
_POSTFIX_RECIPIENTS, _POSTFIX_SIZE = 1000, 10_240_000  # its defaults
_OPENSMTPD_RECIPIENTS, _OPENSMTPD_SIZE = 1000, 36_700_160
_EXIM_SIZE = 52_428_800


class Outgoing(NamedTuple):
    """`servers` are those that posts are handed to, at most `recipients` in one transaction;
    `largest` is the largest message that comes in, in octets."""

    servers: Sequence[Tcp]
    recipients: int
    largest: int

    @property
    def size(self) -> int:
        """The largest message that goes out, in octets."""
        return self.largest + GROWTH


_POSTFIX = """
# Posts go out by SMTP, too: postroom hands them to @SERVERS@ (smtp.host in
# postroom.toml). Postfix has to let it relay: mynetworks must hold @WHO@.
# With this line one copy serves many members, and the bounce of each still names the member:
smtpd_authorized_verp_clients = $mynetworks
"""
_POSTFIX_MANY = """\
# postroom names this many members with one copy (smtp.recipients):
smtpd_recipient_limit = @RECIPIENTS@
"""
_POSTFIX_LARGE = """\
# A post goes out a little longer than it came in, and Postfix has one limit for both. So keep
# lmtp.max_message_size (now @LARGEST@) below it, or raise it; unset it is 10240000:
# message_size_limit = @SIZE@
"""
_EXIM = """
# 4. At the top of the configuration, below part 1. Posts go out by SMTP, too: postroom hands
# them to @SERVERS@ (smtp.host in postroom.toml). Exim has to let it relay:
# relay_from_hosts must hold @WHO@.
# Without this line Exim delivers ten messages of a connection at once, the others hours later.
smtp_accept_queue_per_connection = 0
"""
_EXIM_LARGE = """\
# A post goes out a little longer than it came in. Exim takes 50M unless you have set this.
message_size_limit = @SIZE@
"""
_OPENSMTPD = """
# Posts go out by SMTP, too: postroom hands them to @SERVERS@ (smtp.host in
# postroom.toml). OpenSMTPD has to let it relay, as its own example lets this machine:
#   match from local for any action "relay"
"""
_OPENSMTPD_ELSEWHERE = """
# Posts go out by SMTP, too: postroom hands them to @SERVERS@ (smtp.host in
# postroom.toml). OpenSMTPD has to let it relay:
#   match from src ADDRESS for any action "relay"
# where ADDRESS is @WHO@.
"""
_OPENSMTPD_MANY = """\
# postroom names this many members with one copy (smtp.recipients):
smtp limit max-rcpt @RECIPIENTS@
"""
_OPENSMTPD_LARGE = """\
# A post goes out a little longer than it came in. OpenSMTPD takes 35M unless you set this.
smtp max-message-size @SIZE@
"""
_SENDMAIL = """\
dnl
dnl Posts go out by SMTP, too: postroom hands them to @SERVERS@ (smtp.host in
dnl postroom.toml). sendmail has to let it relay, as it lets this machine; another one would
dnl need a line in the access map: Connect:ADDRESS RELAY
"""


def postfix(out: Outgoing) -> str:
    """Lines for main.cf."""
    text = _POSTFIX
    if out.recipients > _POSTFIX_RECIPIENTS:
        text += _POSTFIX_MANY
    if out.size > _POSTFIX_SIZE:
        text += _POSTFIX_LARGE
    return _filled(text, out)


def exim(out: Outgoing) -> str:
    """A part of its configuration, the fourth."""
    return _filled(_EXIM + (_EXIM_LARGE if out.size > _EXIM_SIZE else ""), out)


def opensmtpd(out: Outgoing) -> str:
    """Lines for smtpd.conf."""
    text = _OPENSMTPD if _is_here(out) else _OPENSMTPD_ELSEWHERE
    if out.recipients > _OPENSMTPD_RECIPIENTS:
        text += _OPENSMTPD_MANY
    if out.size > _OPENSMTPD_SIZE:
        text += _OPENSMTPD_LARGE
    return _filled(text, out)


def sendmail(out: Outgoing) -> str:
    """A comment for sendmail.mc."""
    return _filled(_SENDMAIL, out)


def _filled(text: str, out: Outgoing) -> str:
    return fill(
        text,
        servers=" or ".join(map(str, out.servers)),
        who="127.0.0.1" if _is_here(out) else "the address of this machine",
        recipients=out.recipients,
        largest=out.largest,
        size=out.size,
    )


def _is_here(out: Outgoing) -> bool:
    return all(map(_is_loopback, out.servers))


def _is_loopback(place: Tcp) -> bool:
    try:
        return ipaddress.ip_address(place.host).is_loopback
    except ValueError:
        return place.host == "localhost"
