"""An OpenSMTPD that delivers to a server over LMTP: TCP by relaying, a unix socket with its
delivery agent mail.lmtp.

For: letting it talk to us. Guarantees: those of `Box`; it listens on a loopback port that
was free, and what is for anybody but our lists and the mailboxes is discarded.
"""

from collections.abc import Mapping

from postroom.base.places import Tcp, Unix
from tests.integration.processes import eventually, listens
from tests.interop.box import Box
from tests.interop.mail import (
    NO_MAILBOX,
    NOTHING,
    NOWHERE,
    STORED,
    Printed,
    Routes,
    free_port,
)
from tests.interop.mailboxes import Mailboxes

_USERS = {"opensmtpd": "/var/lib/opensmtpd/empty", "opensmtpq": "/var/lib/opensmtpd/empty"}
_CONFIGURATION = """\
listen on 127.0.0.1 port {port} hostname mta.example.net
# To be as quick as others.
mta limit conn-delay-route 0 reconn-delay-route 0 conn-delay-relay 0
table somebody {{ "@" = nobody }}
{actions}
action users mda "cat >/dev/null"
match from any for domain "{shared}" action users
{boxes}action discard mda "cat >/dev/null" virtual <somebody>
match from any for any action discard
"""
_BOXES = """\
table users {{ {users} }}
action boxes maildir "{mailboxes.directory}/%{{dest.user}}" virtual <somebody>
match from any for domain "{mailboxes.domain}" rcpt-to <users> action boxes
match from any for domain "{mailboxes.domain}" reject
action gone mda "exit 67" virtual <somebody>
match from any for domain "{mailboxes.gone}" action gone
"""


def _action(number: int, domain: str, place: Tcp | Unix) -> str:
    if isinstance(place, Tcp):
        how = f"relay host lmtp://{place.host}:{place.port}"
    else:
        how = f'lmtp "{place.path}" rcpt-to virtual <somebody>'
    return f'action a{number} {how}\nmatch from any for domain "{domain}" action a{number}\n'


class OpenSMTPD(Box):
    """Delivers as `routes` and `printed` say, and to `mailboxes`. A context manager."""

    def __init__(
        self,
        routes: Routes = NOWHERE,
        printed: Printed = NOTHING,
        mailboxes: Mailboxes | None = None,
        port: int = 0,
    ) -> None:
        super().__init__("opensmtpd", _USERS)
        self.port = port or free_port()
        actions = "".join(_action(n, *route) for n, route in enumerate(routes.items()))
        self._tables = printed.tables
        self._relayed = {domain for domain, place in routes.items() if isinstance(place, Tcp)}
        boxes = ""
        if mailboxes is not None:
            users = ", ".join(f'"{each}@{mailboxes.domain}"' for each in mailboxes.users)
            boxes = _BOXES.format(mailboxes=mailboxes, users=users)
        self._configuration = _CONFIGURATION.format(
            port=self.port, actions=actions + printed.text, shared=printed.shared, boxes=boxes
        )

    def says_sent(self, recipient: str) -> tuple[str, ...]:
        # Its delivery agent keeps our words to itself.
        domain = recipient.rpartition("@")[2]
        said = f'result="Ok" stat="{STORED}"' if domain in self._relayed else "result=Ok"
        return f" to=<{recipient}> ", said

    def says_bounced(self, recipient: str) -> tuple[str, ...]:
        return f" to=<{recipient}> ", 'result="PermFail"', NO_MAILBOX

    def push(self) -> None:
        self.run("smtpctl", "schedule", "all")

    def waiting(self) -> str:
        return self.run("smtpctl", "show", "queue")

    def learn(self, tables: Mapping[str, str]) -> None:
        """Replace the files that its configuration names."""
        for name, content in tables.items():
            self.run("tee", f"/etc/postroom/{name}", input=content.encode())
            self.run("smtpctl", "update", "table", f"postroom_{name}")

    def begin(self) -> None:
        self.run("tee", "/etc/smtpd.conf", input=self._configuration.encode())
        self.run("chgrp", "opensmtpq", "/usr/sbin/smtpctl")
        self.run("chmod", "g+s", "/usr/sbin/smtpctl")
        self.run("install", "-d", "-m", "711", "/var/lib/opensmtpd/empty", "/var/spool/smtpd")
        self.run("mkdir", "-p", "/etc/postroom")
        for name, content in self._tables.items():
            self.run("tee", f"/etc/postroom/{name}", input=content.encode())
        self.start("smtpd", "-d")
        eventually(lambda: listens(self.port), "OpenSMTPD accepts mail")
