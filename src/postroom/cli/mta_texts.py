"""What `postroom mta` prints: configuration for four mail servers.

For: filling in an installation's addresses and domains. Pure. Guarantees: what is printed
is complete, its comments say where each part goes; domains are named only where a mail
server cannot ask for them.
"""

from collections.abc import Sequence
from textwrap import indent
from typing import NamedTuple

from postroom.base.places import Tcp, Unix
from postroom.service.maps import POSTFIX_QUEUE, next_hop

Place = Tcp | Unix
_POSTFIX_BATCH = 50  # recipients: its default


class Installation(NamedTuple):
    """What a mail server has to know. `maps` is None where look-ups are off; `domains` are
    in all their spellings; `command` is how one calls postroom here."""

    lmtp: Place
    maps: Place | None
    at_rcpt: bool
    max_recipients: int
    domains: tuple[str, ...]
    command: str


def fill(text: str, **facts: object) -> str:
    """Replace @NAME@. Not `format`: braces and dollars mean something to mail servers."""
    for name, value in facts.items():
        text = text.replace(f"@{name.upper()}@", str(value))
    return text


# Postfix

_POSTFIX = """\
# Postfix, for domains that have lists and nothing else. Where other people get mail in the
# same domain, what you need is: @COMMAND@ mta postfix --shared
#
# Put these lines into /etc/postfix/main.cf and run `postfix reload`. Neither is needed again
# for a new list or a new domain. Where a setting is there already, write our value after
# yours, with a comma between. The domains must not be in mydestination,
# virtual_alias_domains or virtual_mailbox_domains.

# Mail to domains that have lists is taken from everybody and handed to postroom.
relay_domains = @MAP@:domains
transport_maps = @MAP@:domains

# Any other address in them is refused at RCPT. That goes for all your relay_domains: if
# there are others, their recipients have to be named here, too.
relay_recipient_maps = @MAP@:recipients
"""
_POSTFIX_APART = """
# So Postfix asks whose each domain is. While postroom does not answer, Postfix puts off mail
# to all other places, too, and to the same addresses for some minutes more. With the domains
# written down it asks for addresses in them and nothing else; then each new domain needs a
# change here. If you prefer that, in place of the first two:
@WRITTEN_DOWN@
"""
_POSTFIX_SHARED = """\
# Postfix, for domains in which other people get mail, too. (Domains that have lists and
# nothing else: @COMMAND@ mta postfix)
#
# Put these lines into /etc/postfix/main.cf and run `postfix reload`. Neither is needed again
# for a new list. Where a setting is there already, write our value after yours, with a comma
# between. The domain stays where it is, in mydestination.

# Mail to the addresses of lists is handed to postroom; a list goes before a user of the same
# name. Only postmaster is left to you.
transport_maps = @MAP@:transport

# What is neither a user, nor an alias, nor an address of a list is refused at RCPT. If the
# domain is in virtual_mailbox_domains, write the last word after your virtual_mailbox_maps
# instead. (In virtual_alias_domains it cannot be shared.)
local_recipient_maps = proxy:unix:passwd.byname, $alias_maps, @MAP@:recipients

# So Postfix asks whose each address is. While postroom does not answer, Postfix puts off mail
# to all other places, too, and to the same addresses for some minutes more. If you prefer
# that mail to this domain alone is put off, and that users go before lists, use this in place
# of transport_maps (for domains in mydestination):
# fallback_transport = @HOP@
"""
_POSTFIX_WRITTEN_DOWN = """\
relay_domains =
  @DOMAINS@
transport_maps = inline:{
  @ROUTES@ }"""
_POSTFIX_OFF = """\
# Postfix, for domains that have lists and nothing else, without look-ups (maps.listen is
# empty). The lines below go into /etc/postfix/main.cf, then `postfix reload`; again for each
# new domain. Where a setting is there already, write our value after yours, with a comma
# between.
@WRITTEN_DOWN@
"""
_POSTFIX_OFF_SHARED = """\
# Postfix, for domains in which other people get mail, too, without look-ups (maps.listen is
# empty). The lines below go into /etc/postfix/main.cf, then `postfix reload`. Who is no user
# is handed to postroom; so Postfix must not judge recipients by its own tables alone.
fallback_transport = @HOP@
local_recipient_maps =
"""
_POSTFIX_VERIFY = """
# Postfix asks postroom at RCPT, by LMTP, and refuses unknown addresses before the message.
# It remembers what it was told: who is refused before a list exists, for up to a minute.
smtpd_recipient_restrictions = check_recipient_access inline:{
  @VERIFY@ }
unverified_recipient_reject_code = 550
address_verify_negative_refresh_time = 10s
address_verify_negative_expire_time = 60s
"""
_POSTFIX_LATE = """
# Unknown addresses are refused by postroom after the message, and Postfix sends their
# senders a bounce. It can refuse them itself: with look-ups (maps.listen), or with
# lmtp.refuse_unknown = "at-rcpt"; then call this command again.
"""
_POSTFIX_CHROOT = """
# Debian runs lmtp(8) in a chroot, where @PATH@ cannot be seen. Turn that off:
#   postconf -F lmtp/unix/chroot=n
# or move the socket below @QUEUE@ (lmtp.listen). Postfix's group needs access to it:
# lmtp.socket_group = "postfix".
"""
_POSTFIX_BATCHES = """
# postroom takes this many recipients with one message (lmtp.max_recipients).
lmtp_destination_recipient_limit = @MOST@
"""


def postfix(here: Installation, shared: bool) -> str:
    """Lines for main.cf."""
    if here.maps is None:
        text = _POSTFIX_OFF_SHARED if shared else _POSTFIX_OFF
        text += _POSTFIX_VERIFY if here.at_rcpt else _POSTFIX_LATE
    elif shared:
        text = _POSTFIX_SHARED
    else:
        text = _POSTFIX + (_POSTFIX_APART if here.domains else "")
    if isinstance(here.lmtp, Unix) and not here.lmtp.path.startswith(POSTFIX_QUEUE):
        text += _POSTFIX_CHROOT
    if here.max_recipients < _POSTFIX_BATCH:
        text += _POSTFIX_BATCHES
    hop = next_hop(here.lmtp)
    written_down = fill(
        _POSTFIX_WRITTEN_DOWN,
        domains=",\n  ".join(here.domains),
        routes=_inline(here.domains, hop),
    )
    return fill(
        text,
        command=here.command,
        map=_socketmap(here.maps) if here.maps else "",
        hop=hop,
        written_down=indent(written_down, "# ") if here.maps else written_down,
        verify=_inline(here.domains, "reject_unverified_recipient"),
        path=here.lmtp.path if isinstance(here.lmtp, Unix) else "",
        queue=POSTFIX_QUEUE,
        most=here.max_recipients,
    )


def _inline(keys: Sequence[str], value: str) -> str:
    return ",\n  ".join(f"{{ {key} = {value} }}" for key in keys)


def _socketmap(place: Place) -> str:
    if isinstance(place, Tcp):
        return f"socketmap:inet:{place}"
    # Its processes may be in a chroot; proxymap(8) is not, and asks for them.
    return f"proxy:socketmap:unix:{place.path}"


# Exim

_EXIM = r"""
# Exim, for domains that have lists and nothing else. Where other people get mail in the same
# domain, what you need is: @COMMAND@ mta exim --shared
#
# The parts go to different places of the configuration. Then restart Exim; again only for a
# new domain, never for a new list. The domains also belong to relay_to_domains: write
# +postroom_domains there (Debian: their names to dc_relay_domains in
# /etc/exim4/update-exim4.conf.conf). The ACL for RCPT has to say `require verify = recipient`,
# as Exim's own example and Debian's do.
@ASK@
# 2. The first routers, after `begin routers` (Debian: /etc/exim4/conf.d/router/000_postroom).
# An address that is not one of a list is refused. While postroom is stopped, mail waits.
postroom_look_up:
  driver = redirect
  domains = +postroom_domains
  address_data = POSTROOM_ANSWER
  allow_fail
  allow_defer
  data = ${if match{$address_data}{\N^\d+:(OK|NOTFOUND) \N} \
    {${if eq{$1}{OK}{}{:fail: no such address}}} {:defer: postroom does not answer}}

@ROUTER@
  condition = ${if match{$address_data}{\N^\d+:OK \N}}
"""
_EXIM_SHARED = r"""
# Exim, for domains in which other people get mail, too. (Domains that have lists and nothing
# else: @COMMAND@ mta exim)
#
# The parts go to different places of the configuration. Then restart Exim; again only for a
# new domain, never for a new list. The domains stay where they are, in local_domains.
@ASK@
# 2. The first routers, after `begin routers` (Debian: /etc/exim4/conf.d/router/000_postroom).
# A list goes before a user of the same name; postmaster is left to you. While postroom is
# stopped, mail to these domains waits.
postroom_look_up:
  driver = redirect
  domains = +postroom_domains
  local_parts = ! postmaster
  address_data = POSTROOM_ANSWER
  allow_defer
  data = ${if match{$address_data}{\N^\d+:(OK|NOTFOUND) \N}{} {:defer: postroom does not answer}}

@ROUTER@
  local_parts = ! postmaster
  condition = ${if match{$address_data}{\N^\d+:OK \N}}
"""
_EXIM_ASK = r"""
# 1. At the top of the configuration (Debian: /etc/exim4/conf.d/main/00_postroom).
domainlist postroom_domains = @DOMAINS@
POSTROOM_REQUEST = recipients ${quote_local_part:$local_part}@$domain
POSTROOM_ANSWER = ${readsocket{@SOCKET@}{${strlen:POSTROOM_REQUEST}:POSTROOM_REQUEST,}{5s}{}{}}
"""
_EXIM_OFF = r"""
# Exim, without look-ups (maps.listen is empty).
#
# The parts go to different places of the configuration. Then restart Exim; again for each new
# domain. Domains that have lists and nothing else also belong to relay_to_domains: write
# +postroom_domains there (Debian: their names to dc_relay_domains in
# /etc/exim4/update-exim4.conf.conf).

# 1. At the top of the configuration (Debian: /etc/exim4/conf.d/main/00_postroom).
domainlist postroom_domains = @DOMAINS@
@VERIFY@
# 2. A router after `begin routers`: the first one, or the last one where other people get
# mail in the same domain.
@ROUTER@
"""
_EXIM_VERIFY = r"""
# 1a. In the ACL for RCPT, before anything is accepted for these domains: Exim asks postroom by
# LMTP, and refuses unknown addresses before the message.
  deny domains = +postroom_domains
       !verify = recipient/callout=30s,no_cache
"""
_EXIM_LATE = """
# Unknown addresses are refused by postroom after the message, and Exim sends their senders a
# bounce. It can refuse them itself: with look-ups (maps.listen), or with
# lmtp.refuse_unknown = "at-rcpt"; then call this command again.
"""
_EXIM_TCP_ROUTER = """\
postroom:
  driver = manualroute
  domains = +postroom_domains
  transport = postroom
  route_list = * @HOST@ byname
  self = send"""
_EXIM_UNIX_ROUTER = """\
postroom:
  driver = accept
  domains = +postroom_domains
  transport = postroom"""
_EXIM_TCP_TRANSPORT = """
# 3. A transport, after `begin transports` (Debian: /etc/exim4/conf.d/transport/00_postroom).
postroom:
  driver = smtp
  protocol = lmtp
  port = @PORT@
  allow_localhost
"""
_EXIM_UNIX_TRANSPORT = """
# 3. A transport, after `begin transports` (Debian: /etc/exim4/conf.d/transport/00_postroom).
# Its user needs access to the socket: lmtp.socket_group names a group of it.
postroom:
  driver = lmtp
  socket = @PATH@
  batch_max = @BATCH@
  user = Debian-exim
"""
_EXIM_BATCH = 100  # recipients: what Exim's other transports take at once


def exim(here: Installation, shared: bool) -> str:
    """Parts of its configuration."""
    text = _EXIM_OFF if here.maps is None else _EXIM_SHARED if shared else _EXIM
    if isinstance(here.lmtp, Tcp):
        router, transport = _EXIM_TCP_ROUTER, _EXIM_TCP_TRANSPORT
        facts = {"host": here.lmtp.host, "port": here.lmtp.port}
    else:
        router, transport = _EXIM_UNIX_ROUTER, _EXIM_UNIX_TRANSPORT
        facts = {"path": here.lmtp.path}
    if here.max_recipients < _EXIM_BATCH and isinstance(here.lmtp, Tcp):
        transport += f"  max_rcpt = {here.max_recipients}\n"
    return fill(
        text.lstrip() + transport,
        ask=_EXIM_ASK,
        router=router,
        verify=_EXIM_VERIFY if here.at_rcpt else _EXIM_LATE,
        command=here.command,
        domains=" : ".join(here.domains),
        socket=_readsocket(here.maps) if here.maps else "",
        batch=min(_EXIM_BATCH, here.max_recipients),
        **facts,
    )


def _readsocket(place: Place) -> str:
    return f"inet:{place}" if isinstance(place, Tcp) else place.path


# OpenSMTPD

_OPENSMTPD = """\
# OpenSMTPD (6.4 or newer). It cannot ask at RCPT which addresses there are, it reads files.
# Make them now, and again whenever there is a new list or domain:
#   cd /etc/postroom
#   @COMMAND@ mta opensmtpd --table domains > domains.new && mv domains.new domains
#   @COMMAND@ mta opensmtpd --table recipients > recipients.new && mv recipients.new recipients
#   smtpctl update table postroom_domains && smtpctl update table postroom_recipients
# Put the lines below into smtpd.conf, before other `match` lines, and restart smtpd.

table postroom_domains file:/etc/postroom/domains
table postroom_recipients file:/etc/postroom/recipients
action "postroom" @ACTION@
match from any for domain <postroom_domains> rcpt-to <postroom_recipients> action "postroom"
"""
_OPENSMTPD_REST = """
# Nobody else gets mail in these domains. (Where others do, there is: --shared)
match from any for domain <postroom_domains> reject
"""


def opensmtpd(here: Installation, shared: bool) -> str:
    """Lines for smtpd.conf."""
    # Not `relay host "lmtp://..."`: it reads one of several replies, and puts off the others.
    where = here.lmtp if isinstance(here.lmtp, Tcp) else here.lmtp.path
    action = f'lmtp "{where}" rcpt-to virtual {{ "@" = nobody }}'
    text = _OPENSMTPD + ("" if shared else _OPENSMTPD_REST)
    return fill(text, command=here.command, action=action)


# sendmail: what divides the two sides of its rules is a tab.

_SENDMAIL = """\
dnl sendmail, for domains that have lists and nothing else. Where other people get mail in
dnl the same domain, what you need is: @COMMAND@ mta sendmail --shared
dnl
dnl Put these lines at the end of sendmail.mc, build sendmail.cf (Debian: sendmailconfig) and
dnl restart; again only for a new domain, never for a new list. Needs a sendmail with
dnl SOCKETMAP (Debian's is; `sendmail -d0.1 -bv root` says so).
LOCAL_CONFIG
@ASK@CR@DOMAINS@
LOCAL_RULE_0
@LOOK_UP@R<NONE> $*	$#error $@ 5.1.1 $: "550 no such address"
@FOUND@@MAILER@"""
_SENDMAIL_SHARED = """\
dnl sendmail, for domains in which other people get mail, too. (Domains that have lists and
dnl nothing else: @COMMAND@ mta sendmail)
dnl
dnl Put these lines at the end of sendmail.mc, build sendmail.cf (Debian: sendmailconfig) and
dnl restart; again only for a new domain, never for a new list. The domains stay in
dnl local-host-names. A list goes before a user of the same name; postmaster is left to you.
dnl Needs a sendmail with SOCKETMAP (Debian's is; `sendmail -d0.1 -bv root` says so).
LOCAL_CONFIG
@ASK@LOCAL_RULE_0
@LOOK_UP@R<NONE> $*	$: $1
@FOUND@@MAILER@"""
_SENDMAIL_OFF = """\
dnl sendmail, for domains that have lists and nothing else, without look-ups (maps.listen is
dnl empty). Unknown addresses are refused by postroom after the message, and sendmail sends
dnl their senders a bounce.
dnl
dnl Put these lines at the end of sendmail.mc, build sendmail.cf (Debian: sendmailconfig) and
dnl restart; again for each new domain.
LOCAL_CONFIG
C{PostroomDomains}@DOMAINS@
CR@DOMAINS@
LOCAL_RULE_0
R$+ < @ $={PostroomDomains} . > $*	$#postroom $@ @HOST@ $: $1 < @ $2 . > $3
@MAILER@"""
_SENDMAIL_ASK = """\
C{PostroomDomains}@DOMAINS@
K@MAP@ socket -T<TMPF> @SOCKET@
"""
_SENDMAIL_LOOK_UP = """\
R$+ < @ $={PostroomDomains} . > $*	$: <$(@MAP@ $1@$2 $: NONE $)> $1 < @ $2 . > $3
R<$* <TMPF>> $*	$#error $@ 4.3.0 $: "451 postroom does not answer"
"""
_SENDMAIL_FOUND = """\
R<$+> $+ < @ $+ . > $*	$#postroom $@ @HOST@ $: $2 < @ $3 . > $4
"""
_SENDMAIL_MAILER = """\
MAILER_DEFINITIONS
Mpostroom, P=[IPC], F=lDFMnmuXz, S=EnvFromSMTP/HdrFromSMTP, R=EnvToSMTP, E=\\r\\n, L=990,
	T=DNS/RFC822/SMTP, A=@WHERE@
"""


def sendmail(here: Installation, shared: bool) -> str:
    """Lines for sendmail.mc."""
    text = _SENDMAIL_OFF if here.maps is None else _SENDMAIL_SHARED if shared else _SENDMAIL
    lmtp = here.lmtp
    return fill(
        text,
        ask=_SENDMAIL_ASK,
        look_up=_SENDMAIL_LOOK_UP,
        found=_SENDMAIL_FOUND,
        mailer=_SENDMAIL_MAILER,
        command=here.command,
        domains=" ".join(here.domains),
        map="transport" if shared else "recipients",
        socket=_sendmail_socket(here.maps) if here.maps else "",
        host=f"[{lmtp.host}]" if isinstance(lmtp, Tcp) else "[127.0.0.1]",
        where=f"TCP $h {lmtp.port}" if isinstance(lmtp, Tcp) else f"FILE {lmtp.path}",
    )


def _sendmail_socket(place: Place) -> str:
    if isinstance(place, Unix):
        return f"unix:{place.path}"
    family = "inet6" if ":" in place.host else "inet"
    return f"{family}:{place.port}@{place.host}"
