"""A sendmail that delivers to a server over LMTP, TCP or a unix socket.

For: letting it talk to us. Guarantees: those of `Box`; it listens on a loopback port that
was free, and what is for anybody but our lists and the mailboxes is discarded.
"""

from postroom.base.places import Tcp
from tests.integration.processes import eventually, listens
from tests.interop.box import Box
from tests.interop.mail import NO_MAILBOX, NOTHING, NOWHERE, Printed, Routes, free_port
from tests.interop.mailboxes import Mailboxes

_USERS = {"smmta": "/var/lib/sendmail", "smmsp": "/var/lib/sendmail"}
_CONFIGURATION = """\
include(`/usr/share/sendmail/cf/m4/cf.m4')dnl
OSTYPE(`debian')dnl
undefine(`confHOST_STATUS_DIRECTORY')dnl
define(`confDOMAIN_NAME', `mta.example.net')dnl
define(`confSERVICE_SWITCH_FILE', `/etc/mail/service.switch-nodns')dnl
define(`confDONT_PROBE_INTERFACES', `True')dnl
define(`confDONT_BLAME_SENDMAIL', `TrustStickyBit')dnl
define(`confTO_IDENT', `0')dnl
define(`confBAD_RCPT_THROTTLE', `0')dnl
define(`confDELIVERY_MODE', `background')dnl
define(`confMIN_QUEUE_AGE', `0')dnl
define(`confQUEUE_LA', `1000')dnl
define(`confREFUSE_LA', `1000')dnl
define(`confPRIVACY_FLAGS', `')dnl
define(`confPID_FILE', `/run/sendmail.pid')dnl
undefine(`ALIAS_FILE')dnl
FEATURE(`no_default_msa')dnl
FEATURE(`nocanonify')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`promiscuous_relay')dnl
LOCAL_DOMAIN(`{shared}')dnl
DAEMON_OPTIONS(`Name=MTA, Family=inet, Addr=127.0.0.1, Port={port}')dnl
MAILER(`local')dnl
MAILER(`smtp')dnl
{printed}
MAILER_DEFINITIONS
{mailers}
Mdiscard, P=/etc/mail/discard, F=lsDFMnqm, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP,
	T=DNS/RFC822/X-Unix, A=discard $u
{delivery}
LOCAL_CONFIG
{classes}
LOCAL_RULE_0
{rules}
{boxes}
R$* < @ $=w . > $*\t$@ $1 < @ $2 . > $3
R$* < @ $* > $*\t$#discard $@ nobody $: $1
"""
_BOXES = """\
R$={{Boxes}} < @ {mailboxes.domain} . > $*\t$#boxes $@ here $: $1
R$={{Boxes}} < @ {mailboxes.domain} > $*\t$#boxes $@ here $: $1
R$* < @ {mailboxes.domain} $* > $*\t$#error $@ 5.1.1 $: "550 no such user"
R$* < @ {mailboxes.gone} $* > $*\t$#gone $@ here $: $1
"""
_MAILERS = """\
Mboxes, P=/etc/mail/box, F=lsDFMPnq, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP,
	T=DNS/RFC822/X-Unix, A=box {mailboxes.directory} $u
Mgone, P=/etc/mail/gone, F=lsDFMnqm, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP,
	T=DNS/RFC822/X-Unix, A=gone $u
"""
_SCRIPTS = {
    "discard": b"#!/bin/sh\nexec cat >/dev/null\n",
    "gone": b"#!/bin/sh\nexit 67\n",
    "box": b"""#!/bin/sh
box=$1/${2%@*}
mkdir -p "$box/new"
cat >"$box/$$" && mv "$box/$$" "$box/new"
""",
}


class Sendmail(Box):
    """Delivers as `routes` and `printed` say, and to `mailboxes`. A context manager."""

    def __init__(
        self,
        routes: Routes = NOWHERE,
        printed: Printed = NOTHING,
        mailboxes: Mailboxes | None = None,
        port: int = 0,
    ) -> None:
        super().__init__("sendmail", _USERS)
        self.port = port or free_port()
        mailers = rules = ""
        for number, (domain, place) in enumerate(routes.items()):
            where = f"TCP $h {place.port}" if isinstance(place, Tcp) else f"FILE {place.path}"
            host = place.host if isinstance(place, Tcp) else "localhost"
            mailers += (
                f"Mlists{number}, P=[IPC], F=lsDFMnqXzmA, S=EnvFromSMTP/HdrFromSMTP, "
                f"R=EnvToSMTP, E=\\r\\n, L=990, T=DNS/RFC822/SMTP, A={where}\n"
            )
            rules += (
                f"R$* < @ {domain} . > $*\t$#lists{number} $@ [{host}] $: $1 < @ {domain} . > $2\n"
                f"R$* < @ {domain} > $*\t$#lists{number} $@ [{host}] $: $1 < @ {domain} > $2\n"
            )
        classes = boxes = delivery = ""
        if mailboxes is not None:
            classes = f"C{{Boxes}} {' '.join(mailboxes.users)}"
            boxes = _BOXES.format(mailboxes=mailboxes)
            delivery = _MAILERS.format(mailboxes=mailboxes)
        self._configuration = _CONFIGURATION.format(
            port=self.port,
            classes=classes,
            boxes=boxes,
            delivery=delivery,
            mailers=mailers,
            rules=rules,
            printed=printed.text,
            shared=printed.shared,
        )

    def says_sent(self, recipient: str) -> tuple[str, ...]:
        return f"<{recipient}>,", ", stat=Sent"

    def says_bounced(self, recipient: str) -> tuple[str, ...]:
        return f" to=<{recipient}>,", f" dsn=5.1.1, reply={NO_MAILBOX}"

    def push(self) -> None:
        self.run("/usr/libexec/sendmail/sendmail", "-q")

    def waiting(self) -> str:
        listed = self.run("/usr/libexec/sendmail/sendmail", "-bp")
        return "" if "is empty" in listed else listed

    def begin(self) -> None:
        self.run("tee", "/etc/mail/sendmail.mc", input=self._configuration.encode())
        for name, script in _SCRIPTS.items():
            self.run("tee", f"/etc/mail/{name}", input=script)
            self.run("chmod", "755", f"/etc/mail/{name}")
        self.run("sh", "-c", "m4 /etc/mail/sendmail.mc >/etc/mail/sendmail.cf")
        self.run("install", "-d", "-m", "700", "/var/lib/sendmail", "/var/spool/mqueue")
        self.run("/usr/libexec/sendmail/sendmail", "-bd", "-q1s")
        eventually(lambda: listens(self.port), "sendmail accepts mail")
