"""Faults: what settings of the right types may still not say.

For: loading. Pure. Guarantees: the first fault is named by its key, with what is allowed.
"""

import ipaddress
import re

from postroom.base.places import Tcp, parse_listen, parse_server
from postroom.base.settings import WORKING_COPIES, Arc, Delivery, Dns, Lmtp, Settings, Smtp
from postroom.mail.address import AddressError, parse_mailbox

# A path is put behind it, so there is no query and no fragment.
_WEB = re.compile(r"https://[a-z0-9\[][a-z0-9.:\]-]*(?:/[\w.~!$&'()*+,;=:@%/-]*)?", re.A | re.I)


def fault_of(settings: Settings) -> tuple[str, str] | None:
    """What types cannot say: the key that is wrong, and what is allowed."""
    return (
        _lmtp_fault(settings.lmtp)
        or _listen_fault(settings)
        or _site_fault(settings)
        or _smtp_fault(settings.smtp)
        or _delivery_fault(settings.delivery)
        or _dns_fault(settings.dns)
        or _arc_fault(settings.arc)
    )


def _lmtp_fault(lmtp: Lmtp) -> tuple[str, str] | None:
    if not lmtp.listen:
        return "lmtp.listen", "needs at least one HOST:PORT or unix:/PATH"
    for network in lmtp.allow:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            return "lmtp.allow", f"must hold networks, as in 192.0.2.0/24 ({error})"
    if not re.fullmatch(r"0?[0-7]{3}", lmtp.socket_mode):
        return "lmtp.socket_mode", 'must be an octal mode, as in "0660"'
    if lmtp.tls_key and not lmtp.tls_certificate:
        return "lmtp.tls_key", "needs lmtp.tls_certificate beside it"
    times = WORKING_COPIES + 1
    if lmtp.memory_budget < (least := times * lmtp.max_message_size):
        why = f"must be at least {times} times lmtp.max_message_size, {least}"
        return "lmtp.memory_budget", why
    return None


def _listen_fault(settings: Settings) -> tuple[str, str] | None:
    listens = [("lmtp.listen", address) for address in settings.lmtp.listen]
    listens += [
        (key, address)
        for key, address in (
            ("maps.listen", settings.maps.listen),
            ("metrics.listen", settings.metrics.listen),
        )
        if address
    ]
    for key, address in listens:
        try:
            parse_listen(address)
        except ValueError as error:
            return key, f"{address!r}: {error}"
    return None


def _site_fault(settings: Settings) -> tuple[str, str] | None:
    site, ident = settings.site, settings.lmtp.ident
    # Together they are one line of at most 510 octets (RFC 5321 4.5.3.1.5).
    for key, text, most in ("site.hostname", site.hostname, 253), ("lmtp.ident", ident, 250):
        if not (text.isascii() and text.isprintable() and 0 < len(text) <= most):
            return key, f"must be 1 to {most} printable ASCII characters"
    if site.web_url and not (len(site.web_url) <= 200 and _WEB.fullmatch(site.web_url)):
        return (
            "site.web_url",
            "must be an https URL, as in https://lists.example.com (RFC 8058 3.1)",
        )
    if " " in site.hostname:
        return "site.hostname", "must be a host name"
    try:
        owner, _ = parse_mailbox(site.owner)
    except AddressError as error:
        return "site.owner", f"must be an address, as in postmaster@example.com ({error})"
    if not owner.domain:
        return "site.owner", "must be an address, as in postmaster@example.com"
    return None


def _smtp_fault(smtp: Smtp) -> tuple[str, str] | None:
    if not smtp.host:
        return "smtp.host", "needs at least one HOST or HOST:PORT"
    places = []
    for text in smtp.host:
        try:
            places.append(parse_server(text, smtp.port))
        except ValueError as error:
            return "smtp.host", f"{text!r}: {error}"
    hello = smtp.hello
    if not (hello.isascii() and hello.isprintable() and len(hello) <= 253) or " " in hello:
        return "smtp.hello", "must be a host name"
    if bool(smtp.user) != bool(smtp.password):
        missing = "password" if smtp.user else "user"
        return f"smtp.{missing}", "smtp.user and smtp.password go together: set both or neither"
    if "\0" in smtp.user + smtp.password:
        return "smtp.password", "neither smtp.user nor smtp.password can hold NUL (RFC 4616)"
    if smtp.user and smtp.starttls != "always" and not all(map(_is_local, places)):
        why = 'must be "always": a password goes to another machine only over verified TLS'
        return "smtp.starttls", why
    return None


def _is_local(place: Tcp) -> bool:
    try:
        return ipaddress.ip_address(place.host).is_loopback
    except ValueError:
        return place.host == "localhost"


def _delivery_fault(delivery: Delivery) -> tuple[str, str] | None:
    if delivery.retry_most < delivery.retry_first:
        return "delivery.retry_most", "must not be less than delivery.retry_first"
    for domain in delivery.destinations:
        if not re.fullmatch(r"[^\s@.]+(\.[^\s@.]+)*", domain):
            why = 'holds domains, as in [delivery.destinations."example.net"]'
            return "delivery.destinations", f"{domain!r}: {why}"
    return None


def _dns_fault(dns: Dns) -> tuple[str, str] | None:
    for text in dns.servers:
        try:
            ipaddress.ip_address(parse_server(text, 53).host)
        except ValueError:
            return "dns.servers", f"{text!r}: must be an address, as in 192.0.2.53 or [::1]:53"
    return None


def _arc_fault(arc: Arc) -> tuple[str, str] | None:
    for key, text in ("domain", arc.domain), ("selector", arc.selector):
        if not re.fullmatch(r"[A-Za-z0-9._-]{0,253}", text):
            return f"arc.{key}", "must be a name of DNS"
        if arc.key and not text:
            return f"arc.{key}", f"arc.key needs arc.{key} beside it"
    if not re.fullmatch(r"[!-:<-~]{0,253}", arc.authserv_id):
        return "arc.authserv_id", "must be a name as it stands in Authentication-Results"
    return None
