"""Dovecot's LMTP proxy in front of a server.

For: letting it talk to us. Guarantees: those of `Box`; it listens on a loopback port that
was free. It has no queue: what the server says is what its own client is told.
"""

from collections.abc import Mapping

from postroom.base.places import Tcp
from tests.integration.processes import eventually, listens
from tests.interop.box import Box
from tests.interop.mail import free_port

_USERS = {"dovecot": "/usr/lib/dovecot", "dovenull": "/nonexistent"}
_CONFIGURATION = """\
protocols = lmtp
log_path = {log}
ssl = no
auth_username_chars =
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
lmtp_proxy = yes
recipient_delimiter =
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}}
{routes}
"""
_ROUTE = """\
passdb {{
  driver = static
  username_filter = *@{domain}
  args = proxy=y host={place.host} port={place.port} nopassword=y
}}
"""


class Dovecot(Box):
    """`routes` says where the mail to each domain goes. A context manager."""

    def __init__(self, routes: Mapping[str, Tcp]) -> None:
        super().__init__("dovecot", _USERS)
        self.port = free_port()
        self._configuration = _CONFIGURATION.format(
            port=self.port,
            log=self.log,
            routes="".join(_ROUTE.format(domain=d, place=p) for d, p in routes.items()),
        )

    def push(self) -> None:
        """It has no queue."""

    def begin(self) -> None:
        self.run("tee", "/etc/dovecot/dovecot.conf", input=self._configuration.encode())
        self.start("dovecot", "-F")
        eventually(lambda: listens(self.port), "Dovecot accepts mail")
