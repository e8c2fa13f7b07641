"""The commands of an LMTP session: what each means, and the state that they change.

For: one half of `session.Session`, which knows how octets become lines; here a line becomes
replies. Guarantees: what is not legal in a state is 503 and changes nothing; a command that
is refused changes nothing; replies stand in the order of the commands. Never fails: any
line gets a reply or ends the session.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final

from postroom.lmtp.body import Body, Chunks
from postroom.lmtp.conduct import Conduct, is_error
from postroom.lmtp.grammar import Refused, parse_chunk, parse_mail, parse_recipient
from postroom.lmtp.protocol import (
    FOREIGN,
    LEGAL,
    REFUSED,
    Close,
    Event,
    Limits,
    StartTls,
    State,
    capabilities,
    greeting,
)
from postroom.lmtp.transfer import Transfer
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Peer
from postroom.mail.reply import Reply


@lru_cache(maxsize=8)
def _lhlo(hostname: str, max_message_size: int, tls: bool) -> bytes:
    return capabilities(hostname, max_message_size, tls).wire


class Commands:
    """The state of a session, and the commands that change it."""

    def __init__(
        self,
        hostname: str,
        ident: str,
        limits: Limits,
        peer: str,
        admit: Callable[[int], Reply | None],
        tls: bool,
    ) -> None:
        self._hostname = hostname
        self._limits = limits
        self._peer = Peer(peer)
        self._admit = admit
        self._tls_offered, self._tls_active = tls, False
        self._out: list[bytes] = [greeting(hostname, ident).wire]
        self._conduct = Conduct(limits)
        self.state = State.GREETED
        self.messages = 0  # begun so far, and chunks that belong to none
        self._clear()

    def _clear(self) -> None:
        self._sender = ""
        self._declared: int | None = None
        self._smtputf8 = self._binary = False
        self._recipients: list[Mailbox] = []
        self._unverified: list[Mailbox | Reply] = []
        self._mail_refused = False  # so RCPT and DATA that were sent with it are no errors
        self._message: Transfer | None = None
        # Where input goes that is no command: the message, or a chunk that is only skipped.
        self._reading: Transfer | None = None

    def abandon(self, punish: bool = False) -> Event:
        """Close with no further reply."""
        self.state = State.CLOSED
        self._clear()
        return Close(punish)

    def _command(self, line: bytes) -> Event | None:
        """Obey one line, which ends with CRLF."""
        verb, _, argument = line.rstrip(b"\r\n \t").partition(b" ")
        verb = verb.upper()
        after = LEGAL.get(verb)
        if after is None:
            if verb in FOREIGN and self.state is State.GREETED:
                self._say(reply.NOT_LMTP)
                return self.abandon(punish=True)
            self._refuse(REFUSED.get(verb, reply.BAD_COMMAND), error=True)
            return None
        if self._conduct.command(verb):
            self._say(reply.TOO_MANY_ERRORS)
            return None
        if self.state not in after and verb != b"BDAT":
            self._refuse(reply.BAD_ORDER, error=not self._foreseen(verb))
            return None
        try:
            return _HANDLERS[verb](self, argument.lstrip(b" "), after.get(self.state, self.state))
        except Refused as refused:
            self._mail_refused = verb == b"MAIL"
            self._refuse(refused.reply, error=is_error(refused.reply))
            return None

    def _foreseen(self, verb: bytes) -> bool:
        """Whether a client that pipelines may have sent this before it knew what is refused:
        the sender, or all recipients (RFC 2033 4.2)."""
        if self._mail_refused:
            return verb in (b"RCPT", b"DATA")
        return verb == b"DATA" and self.state is State.MAIL

    def _refuse(self, answer: Reply, error: bool) -> None:
        """Say no; the error that is one too many gets another answer, the last one."""
        self._say(reply.TOO_MANY_ERRORS if error and self._conduct.error() else answer)

    def _say(self, answer: Reply) -> None:
        if self._unverified:
            self._unverified.append(answer)
        else:
            self._out.append(answer.wire)

    def _handle_lhlo(self, argument: bytes, after: State) -> None:
        if not argument:
            raise Refused(reply.NEED_NAME)
        self._clear()  # RFC 5321 4.1.4: as if by RSET
        text = argument[:255].decode("utf-8", "replace")
        name = "".join(char if char.isprintable() else "?" for char in text)
        self._peer = Peer(self._peer.address, name)
        size, tls = self._limits.max_message_size, self._tls_offered and not self._tls_active
        self._out.append(_lhlo(self._hostname, size, tls))
        self.state = after

    def _handle_starttls(self, argument: bytes, after: State) -> Event | None:
        if argument:
            raise Refused(reply.NO_ARGUMENT)
        if self._tls_active:
            raise Refused(reply.BAD_ORDER)
        if not self._tls_offered:
            raise Refused(reply.NO_TLS)
        self._out.append(reply.START_TLS.wire)
        self.state = after
        return StartTls()

    def _handle_mail(self, argument: bytes, after: State) -> None:
        mail = parse_mail(argument)
        size = mail.size or 0
        if size > self._limits.max_message_size:
            raise Refused(reply.TOO_BIG)  # RFC 1870 6.1
        if (refusal := self._admit(size)) is not None:
            raise Refused(refusal)
        self._sender, self._declared, self._smtputf8, self._binary = mail
        self._mail_refused = False
        self._conduct.mail()
        self.state = after
        self._out.append(reply.SENDER_OK.wire)

    def _handle_rcpt(self, argument: bytes, after: State) -> None:
        mailbox = parse_recipient(argument, self._smtputf8)
        if len(self._recipients) >= self._limits.max_recipients:
            raise Refused(reply.TOO_MANY_RECIPIENTS)  # RFC 5321 4.5.3.1.10
        if self._limits.refuse_at_rcpt:
            self._unverified.append(mailbox)
            return
        self._recipients.append(mailbox)
        self.state = after
        self._out.append(reply.RECIPIENT_OK.wire)

    def _handle_data(self, argument: bytes, after: State) -> None:
        if argument:
            raise Refused(reply.NO_ARGUMENT)
        if self._binary:
            raise Refused(reply.BAD_ORDER)  # RFC 3030 3: only BDAT can carry it
        self._message = self._reading = Transfer(
            Body(), self._limits.max_message_size, self._declared
        )
        self.messages += 1
        self.state = after
        self._out.append(reply.GO_AHEAD.wire)

    def _handle_bdat(self, argument: bytes, after: State) -> Event | None:
        """RFC 3030 2: whatever else is wrong, the octets that were announced are skipped."""
        try:
            chunk = parse_chunk(argument)
        except Refused as refused:
            self._say(refused.reply)
            return self.abandon()  # where the next command begins cannot be known
        limit = self._limits.max_message_size
        if after is not State.CHUNKS:
            transfer = Transfer(Chunks(), limit)
            transfer.refuse(reply.BAD_ORDER if chunk.sound else reply.BAD_CHUNK)
            self.messages += 1
        elif self._message is None:
            transfer = self._message = Transfer(Chunks(), limit, self._declared)
            self.messages += 1
            self.state = after
        else:
            transfer = self._message
        transfer.begin(chunk)
        self._reading = transfer
        self._conduct.chunk(chunk.octets)
        return None

    def _handle_rset(self, argument: bytes, after: State) -> None:
        if argument:
            raise Refused(reply.NO_ARGUMENT)
        self._clear()
        self.state = after
        self._out.append(reply.DONE.wire)

    def _handle_noop(self, argument: bytes, after: State) -> None:
        self._out.append(reply.DONE.wire)

    def _handle_help(self, argument: bytes, after: State) -> None:
        self._out.append(reply.HELP.wire)

    def _handle_vrfy(self, argument: bytes, after: State) -> None:
        # RFC 5321 3.5.3: never 250 on syntax alone.
        self._out.append((reply.CANNOT_VERIFY if argument else reply.NEED_ARGUMENT).wire)

    def _handle_quit(self, argument: bytes, after: State) -> None:
        if argument:
            raise Refused(reply.NO_ARGUMENT)
        self.state = after
        self._out.append(reply.BYE.wire)


_HANDLERS: Final[Mapping[bytes, Callable[[Commands, bytes, State], Event | None]]] = {
    b"LHLO": Commands._handle_lhlo,
    b"MAIL": Commands._handle_mail,
    b"RCPT": Commands._handle_rcpt,
    b"DATA": Commands._handle_data,
    b"BDAT": Commands._handle_bdat,
    b"STARTTLS": Commands._handle_starttls,
    b"RSET": Commands._handle_rset,
    b"NOOP": Commands._handle_noop,
    b"HELP": Commands._handle_help,
    b"VRFY": Commands._handle_vrfy,
    b"QUIT": Commands._handle_quit,
}
