"""Who we are to the mail servers, and how long we wait for them.

For: connections, and `doctor`, which tries the same. A password is shown nowhere.
"""

import ssl
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from postroom.base.settings import Settings


class Deadlines(NamedTuple):
    """Seconds for each step, as RFC 5321 4.5.3.2 has them; `connect` holds for TLS, too."""

    connect: float = 30.0
    greeting: float = 300.0
    command: float = 300.0
    data: float = 120.0  # for the reply to DATA
    block: float = 180.0  # for a part of the message to be taken
    final: float = 600.0  # for the reply after the dot


PATIENT = Deadlines()


@dataclass(frozen=True, slots=True)
class Access:
    """Who we are to the servers. With `starttls` "auto" TLS is used where it works, whatever
    the certificate says; with "always" it must work, and the certificate is verified."""

    hello: str
    starttls: Literal["auto", "always", "never"] = "auto"
    user: str = ""
    password: str = field(default="", repr=False)
    recipients: int = 500  # of one transaction
    tls: ssl.SSLContext | None = field(default=None, repr=False)  # None: made when needed


def access_of(settings: Settings) -> Access:
    """What the settings say of it."""
    smtp = settings.smtp
    return Access(
        hello=smtp.hello or settings.site.hostname,
        starttls=smtp.starttls,
        user=smtp.user,
        password=smtp.password,
        recipients=smtp.recipients,
        tls=context_of(smtp.starttls == "always"),
    )


def context_of(verified: bool) -> ssl.SSLContext:
    """For TLS, with or without looking at the certificate."""
    if verified:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
