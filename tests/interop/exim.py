"""An Exim that delivers to a server over LMTP: TCP with its smtp transport, a unix socket
with its lmtp transport.

For: letting it talk to us. Guarantees: those of `Box`; it listens on a loopback port that
was free, and what is for anybody but our lists and the mailboxes is discarded.
"""

import re

from postroom.base.places import Tcp
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

_CONFIGURATION = """\
{top}
primary_hostname = mta.example.net
log_file_path = syslog
syslog_timestamp = no
syslog_duplication = no
keep_environment =
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
host_lookup =
rfc1413_query_timeout = 0s
tls_advertise_hosts =
smtputf8_advertise_hosts = *
smtp_accept_max = 100
acl_smtp_rcpt = rcpt
begin acl
rcpt:
  require verify = recipient
  accept
begin retry
* * F,1h,1s
begin routers
{routers}
{boxes}
users:
  driver = accept
  domains = {shared}
  check_local_user
  transport = discard
others:
  driver = accept
  domains = ! {shared}
  transport = discard
begin transports
{transports}
{delivery}
discard:
  driver = appendfile
  file = /dev/null
  user = Debian-exim
"""
_BOXES = """\
boxes:
  driver = accept
  domains = {mailboxes.domain}
  local_parts = {users}
  transport = boxes
no_box:
  driver = redirect
  domains = {mailboxes.domain}
  allow_fail
  data = :fail: no such user
gone:
  driver = redirect
  domains = {mailboxes.gone}
  no_verify
  allow_fail
  data = :fail: no such user any more
"""
_BOX = """\
boxes:
  driver = appendfile
  directory = {mailboxes.directory}/$local_part_data
  maildir_format
  return_path_add
  user = Debian-exim
"""
_TCP_ROUTER = """\
r{number}:
  driver = manualroute
  domains = {domain}
  transport = t{number}
  route_list = {domain} {place.host} byname
  self = send
"""
_TCP_TRANSPORT = """\
t{number}:
  driver = smtp
  protocol = lmtp
  port = {place.port}
  allow_localhost
"""
_UNIX_ROUTER = """\
r{number}:
  driver = accept
  domains = {domain}
  transport = t{number}
"""
_UNIX_TRANSPORT = """\
t{number}:
  driver = lmtp
  socket = {place.path}
  user = Debian-exim
"""


class Exim(Box):
    """Delivers as `routes` and `printed` say, and to `mailboxes`. A context manager."""

    def __init__(
        self,
        routes: Routes = NOWHERE,
        printed: Printed = NOTHING,
        mailboxes: Mailboxes | None = None,
        port: int = 0,
    ) -> None:
        super().__init__("exim", {"Debian-exim": "/var/spool/exim4"})
        self.port = port or free_port()
        top = routers = transports = ""
        if printed.text:
            parts = re.split(r"^# [1234]\. .*$", printed.text, flags=re.MULTILINE)
            _, top, routers, transports, more = parts
            top += more
        for number, (domain, place) in enumerate(routes.items()):
            facts = {"number": number, "domain": domain, "place": place}
            tcp = isinstance(place, Tcp)
            routers += (_TCP_ROUTER if tcp else _UNIX_ROUTER).format(**facts)
            transports += (_TCP_TRANSPORT if tcp else _UNIX_TRANSPORT).format(**facts)
        boxes = delivery = ""
        if mailboxes is not None:
            users = " : ".join(mailboxes.users)
            boxes = _BOXES.format(mailboxes=mailboxes, users=users)
            delivery = _BOX.format(mailboxes=mailboxes)
        self._configuration = _CONFIGURATION.format(
            port=self.port,
            top=top,
            routers=routers,
            transports=transports,
            shared=printed.shared,
            boxes=boxes,
            delivery=delivery,
        )

    def says_sent(self, recipient: str) -> tuple[str, ...]:
        return recipient, STORED

    def says_bounced(self, recipient: str) -> tuple[str, ...]:
        return f"** {recipient} ", NO_MAILBOX

    def push(self) -> None:
        self.run("exim4", "-qff")

    def waiting(self) -> str:
        return self.run("exim4", "-bp")

    def begin(self) -> None:
        self.run("tee", "/etc/exim4/exim4.conf", input=self._configuration.encode())
        self.run("chmod", "u+s", "/usr/sbin/exim4")
        self.run("install", "-d", "-o", "Debian-exim", "/var/spool/exim4", "/var/log/exim4")
        self.run("exim4", "-bd")
        eventually(lambda: listens(self.port), "Exim accepts mail")
