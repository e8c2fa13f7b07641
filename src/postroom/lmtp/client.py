"""An LMTP client in the manner of smtplib (RFC 2033), synchronous.

For: handing messages to an LMTP server from Python, with one answer per recipient.
(smtplib.LMTP reads only the first of the N replies to the data.) Guarantees: after the
data it reads exactly as many replies as recipients were accepted, in their order, so
replies and commands never get out of step; where they could, the connection is closed.
Fails with the exceptions of smtplib; those that stand for one reply carry its enhanced
status code as `.enhanced_code`.
"""

import contextlib
import copy
import email.utils
import io
import re
import smtplib
import socket
from collections.abc import Callable, Iterable, Sequence
from email.generator import BytesGenerator
from email.message import Message
from typing import Any, Self

from postroom.lmtp.client_connection import ClientConnection, LMTPReply, error_of
from postroom.lmtp.codec import command_line

__all__ = ["LMTPClient", "LMTPReply"]

DATA = b"DATA\r\n"
GROUP = 256  # commands in one write, so that neither side waits for the other to read

_LINE_END = re.compile(rb"\r\n|\r|\n")
# Its own type says that texts are bytes.
_all_refused: Callable[..., smtplib.SMTPRecipientsRefused] = smtplib.SMTPRecipientsRefused


class LMTPClient(ClientConnection):
    """One connection to an LMTP server. `host` is a name, an address or, if it begins with
    "/", a unix socket; `timeout` is in seconds and holds for each wait.

    Connects at once unless `host` is "". Used as a context manager it says QUIT at the end.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8024,
        local_hostname: str | None = None,
        timeout: float = 60,
    ) -> None:
        super().__init__(host, port, timeout)
        # LMTP does not cross a wide area network (RFC 2033 5): no look-up is worth it.
        self.local_hostname = local_hostname or socket.gethostname()
        self.esmtp_features: dict[str, str] = {}
        self._recipients = 0  # accepted in this transaction
        if host and (reply := self.connect()).code != 220:
            self.close()
            raise error_of(smtplib.SMTPConnectError, reply)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.quit()
        except smtplib.SMTPServerDisconnected:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Close without a word."""
        self.esmtp_features = {}
        self._recipients = 0
        super().close()

    # Commands: each returns the reply, whatever it says

    def lhlo(self, name: str = "") -> LMTPReply:
        """LHLO; what the server offers is in `esmtp_features` afterwards. RFC 2033 4.1."""
        self.local_hostname = name or self.local_hostname
        reply = self.docmd("LHLO", self.local_hostname)
        self._recipients = 0
        self._learn(reply)
        return reply

    def _learn(self, reply: LMTPReply) -> None:
        lines = reply.text.split("\n")[1:] if reply.accepted else []
        words = [line.partition(" ") for line in lines]
        self.esmtp_features = {word.lower(): rest for word, _, rest in words if word}

    def has_extn(self, name: str) -> bool:
        """True if the server offers this extension."""
        return name.lower() in self.esmtp_features

    def mail(self, sender: str, options: Sequence[str] = ()) -> LMTPReply:
        """MAIL FROM. RFC 5321 4.1.1.2."""
        self._recipients = 0
        return self.docmd("MAIL", _path("FROM", sender, options))

    def rcpt(self, recipient: str, options: Sequence[str] = ()) -> LMTPReply:
        """RCPT TO. RFC 5321 4.1.1.3."""
        reply = self.docmd("RCPT", _path("TO", recipient, options))
        self._recipients += reply.accepted
        return reply

    def data(self, msg: str | bytes) -> list[LMTPReply]:
        """DATA and the message; returns a reply per accepted recipient. RFC 2033 4.2.

        Raises `SMTPDataError` if the server does not want the data.
        """
        content = _lines(msg)
        reply = self.docmd("DATA")
        if reply.code != 354:
            raise error_of(smtplib.SMTPDataError, reply)
        if not self._recipients:
            self._lone_dot()
            return []
        return self._give(content, self._recipients)

    def rset(self) -> LMTPReply:
        """RSET: the transaction is given up. RFC 5321 4.1.1.5."""
        self._recipients = 0
        return self.docmd("RSET")

    def noop(self) -> LMTPReply:
        """NOOP. RFC 5321 4.1.1.9."""
        return self.docmd("NOOP")

    def vrfy(self, address: str) -> LMTPReply:
        """VRFY. RFC 5321 4.1.1.6."""
        return self.docmd("VRFY", address)

    def help(self, topic: str = "") -> LMTPReply:
        """HELP. RFC 5321 4.1.1.8."""
        return self.docmd("HELP", topic)

    def quit(self) -> LMTPReply:
        """QUIT, and close. RFC 5321 4.1.1.10."""
        reply = self.docmd("QUIT")
        self.close()
        return reply

    # Whole messages

    def sendmail(
        self,
        from_addr: str,
        to_addrs: str | Sequence[str],
        msg: str | bytes,
        mail_options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
    ) -> dict[str, LMTPReply]:
        """Send a message; returns the recipients that were refused, with their replies.

        A str must be ASCII; line ends become CRLF. Says LHLO if that was not done. Raises
        `SMTPHeloError`, `SMTPSenderRefused`, `SMTPRecipientsRefused` (all were refused, at
        least one of them at RCPT), `SMTPDataError` (all were refused after the data; a
        temporary refusal if there is one, all of them in `.recipients`, or the data was not
        wanted), `SMTPNotSupportedError` (an address needs SMTPUTF8),
        `SMTPServerDisconnected`. After all but the last, and 421, the session can be used.
        """
        content = _lines(msg)
        recipients = [to_addrs] if isinstance(to_addrs, str) else list(to_addrs)
        if not recipients:
            raise smtplib.SMTPRecipientsRefused({})
        if not self.esmtp_features and not (reply := self.lhlo()).accepted:
            raise error_of(smtplib.SMTPHeloError, reply)
        options = self._options(content, [from_addr, *recipients], mail_options)
        commands = [command_line("MAIL", _path("FROM", from_addr, options))]
        commands += [command_line("RCPT", _path("TO", each, rcpt_options)) for each in recipients]
        sender, *answers, go = self._transaction([*commands, DATA])
        refused = _refusals(recipients, answers)
        wanted = [to for to, reply in zip(recipients, answers, strict=True) if reply.accepted]
        if not sender.accepted or not wanted or go.code != 354:
            self._give_up(go, len(wanted))
            if not sender.accepted:
                raise error_of(smtplib.SMTPSenderRefused, sender, from_addr)
            raise error_of(smtplib.SMTPDataError, go) if wanted else _all_refused(refused)
        answers = self._give(content, len(wanted))
        refused_at_rcpt = bool(refused)
        refused |= _refusals(wanted, answers)
        if any(reply.accepted for reply in answers):
            return refused
        if refused_at_rcpt:
            raise _all_refused(refused)
        error = error_of(smtplib.SMTPDataError, min(answers, key=lambda reply: reply.code >= 500))
        vars(error)["recipients"] = refused
        raise error

    def send_message(
        self,
        msg: Message,
        from_addr: str | None = None,
        to_addrs: str | Sequence[str] | None = None,
        mail_options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
    ) -> dict[str, LMTPReply]:
        """Send a message object as `sendmail` does; addresses that are not given are read
        from its header, from the Resent- fields if it has been resent once. Bcc is not sent.
        """
        dates = msg.get_all("Resent-Date", [])
        if len(dates) > 1:
            raise ValueError("message has more than one 'Resent-' header block")
        prefix = "Resent-" if dates else ""
        if from_addr is None:
            field = msg[prefix + "Sender"] or msg[prefix + "From"] or ""
            from_addr = email.utils.getaddresses([str(field)])[0][1]
        if to_addrs is None:
            names = [prefix + name for name in ("To", "Cc", "Bcc")]
            fields = [str(field) for name in names for field in msg.get_all(name, [])]
            to_addrs = [address for _, address in email.utils.getaddresses(fields) if address]
        stripped = copy.copy(msg)
        del stripped["Bcc"], stripped["Resent-Bcc"]
        options: dict[str, Any] = {"linesep": "\r\n"}
        if hasattr(msg.policy, "utf8") and not "".join([from_addr, *to_addrs]).isascii():
            options["utf8"] = True  # RFC 6532
        buffer = io.BytesIO()
        generator = BytesGenerator(buffer, mangle_from_=False, policy=msg.policy.clone(**options))
        generator.flatten(stripped)
        return self.sendmail(from_addr, to_addrs, buffer.getvalue(), mail_options, rcpt_options)

    def _options(self, content: bytes, addresses: Iterable[str], given: Sequence[str]) -> list[str]:
        """The parameters of MAIL: those given, and those that are ours to add."""
        options = list(given)
        keywords = {option.partition("=")[0].upper() for option in options}
        if self.has_extn("size") and "SIZE" not in keywords:
            options.append(f"SIZE={len(content)}")  # RFC 1870 5
        if self.has_extn("8bitmime") and "BODY" not in keywords and not content.isascii():
            options.append("BODY=8BITMIME")  # RFC 6152
        if "SMTPUTF8" not in keywords and not "".join(addresses).isascii():
            if not self.has_extn("smtputf8"):
                raise smtplib.SMTPNotSupportedError("an address needs SMTPUTF8, not offered")
            options.append("SMTPUTF8")  # RFC 6531 3.4
        return options

    def _transaction(self, commands: Sequence[bytes]) -> list[LMTPReply]:
        """MAIL, RCPTs and DATA, in few writes if that is offered (RFC 2920); a reply for each.

        What was not sent because it would only be refused, or not answered because the
        server said 421, gets the reply that says why.
        """
        self._recipients = 0
        step = GROUP if self.has_extn("pipelining") else 1
        replies: list[LMTPReply] = []
        for first in range(0, len(commands), step):
            group = commands[first : first + step]
            if step == 1 and _futile(replies, group[0]):
                break
            self._send(b"".join(group))
            for _ in group:
                replies.append(self.getreply())
                if replies[-1].code == 421:
                    break
            if replies[-1].code == 421:
                self.close()
                if len(replies) < len(commands):  # who was accepted at RCPT gets nothing
                    replies[1:] = [replies[-1] if r.accepted else r for r in replies[1:]]
                break
        return replies + replies[-1:] * (len(commands) - len(replies))

    def _give(self, content: bytes, recipients: int) -> list[LMTPReply]:
        """The message and its end; reads one reply per recipient. RFC 2033 4.2."""
        self._recipients = 0
        if content.startswith(b"."):
            content = b"." + content  # RFC 5321 4.5.2
        self._send(content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        replies: list[LMTPReply] = []
        while len(replies) < recipients:
            replies.append(self.getreply())
            if replies[-1].code == 421:
                self.close()  # nothing follows: the rest of the recipients share its fate
                replies += replies[-1:] * (recipients - len(replies))
        return replies

    def _give_up(self, go: LMTPReply, wanted: int) -> None:
        """Bring the session back to where MAIL may come, if it can be."""
        if self.sock is None:
            return
        with contextlib.suppress(smtplib.SMTPServerDisconnected):
            if go.code != 354:
                self.rset()
            elif wanted:
                self.close()  # any end of this data would post an empty message
            else:
                self._lone_dot()

    def _lone_dot(self) -> None:
        """End data that nobody is to get: RFC 2920 3.1.

        RFC 2033 4.2 leaves no reply to it, but some servers give one. To tell, we say LHLO:
        no other reply lists extensions. It resets the transaction, too.
        """
        self._send(b".\r\n")
        self.lhlo()
        if not self.esmtp_features:
            self._learn(self.getreply())
        if not self.esmtp_features:
            self.close()
            raise smtplib.SMTPServerDisconnected("replies are out of step")


def _path(keyword: str, address: str, options: Sequence[str]) -> str:
    return " ".join([f"{keyword}:{smtplib.quoteaddr(address)}", *options])


def _futile(replies: Sequence[LMTPReply], command: bytes) -> bool:
    """True if the server can only refuse this command."""
    accepted = [reply.accepted for reply in replies]
    return accepted[:1] == [False] or (command == DATA and not any(accepted[1:]))


def _lines(msg: str | bytes) -> bytes:
    """The message as lines that end with CRLF (RFC 5321 2.3.8)."""
    raw = msg.encode("ascii") if isinstance(msg, str) else msg
    raw = _LINE_END.sub(b"\r\n", raw)
    return raw if not raw or raw.endswith(b"\r\n") else raw + b"\r\n"


def _refusals(recipients: Sequence[str], replies: Sequence[LMTPReply]) -> dict[str, LMTPReply]:
    """Who was refused. One that was named twice and refused once was refused."""
    pairs = zip(recipients, replies, strict=True)
    return {recipient: reply for recipient, reply in pairs if not reply.accepted}
