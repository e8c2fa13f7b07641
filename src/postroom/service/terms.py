"""The terms on which clients are served: settings, as the LMTP server needs them.

For: the door, at start and at SIGHUP. Guarantees: a certificate and key that cannot be used
are refused here, and never replace ones that can. Fails with `SettingsError`.
"""

import resource
import ssl
from ipaddress import ip_network

from postroom.base.settings import WORKING_COPIES, Lmtp, Settings, SettingsError
from postroom.lmtp.admission import ServerConfig
from postroom.lmtp.protocol import Limits

# Open files of the door that are not connections of LMTP clients: those of look-ups (1,000 at
# most), of clients that are being turned out (200), of metrics, the intake and the log.
RESERVED_FILES = 1300


def server_config(settings: Settings) -> ServerConfig:
    """What of the settings concerns connections. Raises `SettingsError`."""
    lmtp = settings.lmtp
    return ServerConfig(
        hostname=settings.site.hostname,
        ident=lmtp.ident,
        limits=Limits(lmtp.max_message_size, lmtp.max_recipients, lmtp.refuse_unknown == "at-rcpt"),
        memory_budget=lmtp.memory_budget - WORKING_COPIES * lmtp.max_message_size,
        max_connections=min(lmtp.max_connections, most_connections()),
        max_per_client=lmtp.max_connections_per_client,
        allow=tuple(map(ip_network, lmtp.allow)),
        tls=tls_context(lmtp),
        idle_timeout=lmtp.idle_timeout,
        message_timeout=lmtp.message_timeout,
    )


def most_connections() -> int:
    """How many connections this process may have open files for: with fewer than it accepts,
    clients would find the door shut without a word."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(files - RESERVED_FILES, files // 2)


def tls_context(lmtp: Lmtp) -> ssl.SSLContext | None:
    """The server's side of TLS; None without a certificate. Raises `SettingsError`."""
    if not lmtp.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996: older ones must not be used
    certificate, key = lmtp.tls_certificate, lmtp.tls_key or lmtp.tls_certificate
    for setting, path in ("tls_certificate", certificate), ("tls_key", key):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise SettingsError(f"lmtp.{setting}: {path}: {error.strerror}") from error
    try:
        context.load_cert_chain(certificate, key, password=_ask_nobody)
    except _EncryptedError:
        raise SettingsError(
            f"lmtp.tls_key: {key}: the key needs a passphrase, which nobody is there to type: "
            "store it without one, readable by postroom alone"
        ) from None
    except ssl.SSLError as error:
        what = "do not belong together" if "MISMATCH" in str(error) else "are no PEM files"
        raise SettingsError(
            f"lmtp.tls_certificate: {certificate} and the key {key} {what}"
        ) from error
    return context


class _EncryptedError(Exception):
    """A key is encrypted."""


def _ask_nobody() -> str:
    raise _EncryptedError
