"""One SMTP transaction as the client sees it (RFC 5321, 2920), without I/O.

For: what to write and what the replies mean, from MAIL to the reply after the dot.
Guarantees: every recipient has a verdict, by position; what was refused by name is refused
whatever comes after, so that trying the rest again gets on; of the others nobody counts as
served unless the reply after the dot was 2xx; no address brings a command of its own; only
CRLF.CRLF ends a message, and only once. Never fails: whatever a server says, or a connection
that is lost, is an outcome.

Content with octets above 127 goes to a server without 8BITMIME as it is: to convert it would
break its signatures, and the servers that cannot take it are gone.
"""

import re
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from postroom.lmtp.codec import Answer
from postroom.mail.address import AddressError, parse_mailbox

GROUP = 1000  # commands in one write
_NO_MORE = re.compile(r"too many", re.IGNORECASE)
_LINE_END = re.compile(rb"\r\n|\r|\n")
# Nearly every address; the others are looked at closely.
_plain = re.compile(r"[\w!#$%&'*+/=?^`{|}~.-]{1,250}@[A-Za-z0-9.-]{1,250}", re.ASCII).fullmatch

BAD_SENDER = Answer(501, "5.1.7", "Not sent: the sender is no address")
BAD_RECIPIENT = Answer(501, "5.1.3", "Not sent: the recipient is no address")
NEEDS_SMTPUTF8 = Answer(553, "5.6.7", "Not sent: the address needs SMTPUTF8, not offered")
NOBODY = Answer(250, "2.0.0", "Not sent: there is no recipient")


class Stage(Enum):
    """How far a transaction came: what was answered, or waited for, last."""

    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"  # the message is on its way, its dot is not
    END = "end"  # the dot is: what becomes of the message is the server's to say


class Fate(Enum):
    """What became of a recipient. PENDING: nothing that counts, it is to be tried again."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    REFUSED = "refused"
    PENDING = "pending"


class Verdict(NamedTuple):
    """What became of a recipient, at which stage, and what the server said."""

    fate: Fate
    stage: Stage
    answer: Answer


class Outcome(NamedTuple):
    """`verdicts` by position of the recipients; `stage` and `answer` are those of the whole
    transaction. The connection can be used again if `reusable`, after RSET if `reset`. `limit`
    is how many recipients the server takes, if it has let us know."""

    verdicts: tuple[Verdict, ...]
    stage: Stage
    answer: Answer
    reusable: bool = True
    reset: bool = False
    limit: int | None = None


class Features(NamedTuple):
    """What a server offers. `size` in octets, 0 for no fixed limit, None without SIZE."""

    pipelining: bool = False
    size: int | None = None
    eightbit: bool = False
    smtputf8: bool = False
    xverp: bool = False
    starttls: bool = False
    auth: frozenset[str] = frozenset()

    @staticmethod
    def offered(answer: Answer) -> "Features":
        """Read the reply to EHLO. RFC 5321 4.1.1.1."""
        words: dict[str, str] = {}
        for line in answer.text.split("\n")[1:]:
            # "AUTH=" is how some wrote it before RFC 2554.
            keyword, _, rest = line.strip().replace("=", " ", 1).partition(" ")
            words[keyword.upper()] = f"{words.get(keyword.upper(), '')} {rest}".strip()
        size = words.get("SIZE")
        octets = int(size) if size and size.isascii() and size.isdigit() and len(size) <= 20 else 0
        return Features(
            pipelining="PIPELINING" in words,
            size=None if size is None else octets,
            eightbit="8BITMIME" in words,
            smtputf8="SMTPUTF8" in words,
            xverp="XVERP" in words,
            starttls="STARTTLS" in words,
            auth=frozenset(words.get("AUTH", "").upper().split()),
        )


class Prepared(NamedTuple):
    """A message as it goes over the wire, with its end. `size` in octets as RFC 1870 counts."""

    wire: bytes
    size: int
    eightbit: bool


def prepare(raw: bytes) -> Prepared:
    """Make a message ready to be sent, any number of times.

    Lines end with CRLF afterwards, whatever they ended with (RFC 5321 2.3.8): a bare CR or
    LF that one server takes for the end of a line and the next does not lets a message
    smuggle in another.
    """
    whole = raw.count(b"\r\n")
    if raw.count(b"\n") != whole or raw.count(b"\r") != whole:
        raw = _LINE_END.sub(b"\r\n", raw)
    if raw and not raw.endswith(b"\r\n"):
        raw += b"\r\n"
    wire = raw.replace(b"\r\n.", b"\r\n..") + b".\r\n"  # RFC 5321 4.5.2
    if raw.startswith(b"."):
        wire = b"." + wire
    return Prepared(wire, len(raw), not raw.isascii())


class Transaction(NamedTuple):
    """One message for some recipients. With `verp` the server is asked to put each one into
    the sender's address (Postfix's XVERP), if it offers that."""

    sender: str
    recipients: Sequence[str]
    content: Prepared
    verp: bool = False


class Exchange:
    """A transaction with one server. Write what `start` and `receive` return; once that is
    the content (`stage` is CONTENT) and all written, say `sent`. Until there is an `outcome`
    give it the replies that come, or say `lost`.

    Commands are written in groups, each when the one before is answered. A driver that reads
    while it writes cannot get stuck with a server that does not (RFC 2920 3.1).
    """

    def __init__(self, transaction: Transaction, features: Features) -> None:
        self.stage = Stage.MAIL
        self.outcome: Outcome | None = None
        self._transaction, self._features = transaction, features
        self._verdicts: list[Verdict | None] = [None] * len(transaction.recipients)
        self._places: Sequence[int] = range(len(transaction.recipients))
        self._to: Sequence[str] = transaction.recipients  # those that can be sent
        self._asked = 0  # commands
        self._answers: list[Answer] = []  # to MAIL, each RCPT, and DATA
        self._known: Outcome | None = None  # while a lone dot is not answered

    def start(self) -> bytes:
        """What to write first; nothing if there is an outcome already."""
        sender, _, content, _ = self._transaction
        most = self._features.size
        if sender and (refusal := self._unfit(sender, BAD_SENDER)):
            self._conclude(Stage.MAIL, refusal)
        elif most and content.size > most:
            why = f"Not sent: the mail server takes {most} octets at most"
            self._conclude(Stage.MAIL, Answer(552, "5.3.4", why))
        else:
            if not all(map(_plain, self._to)):
                self._sort_out()
            if self._to:
                return self._ask()
            self._conclude(Stage.RCPT, next((v.answer for v in self._verdicts if v), NOBODY))
        return b""

    def receive(self, answers: Sequence[Answer]) -> bytes:
        """The next replies; returns what to write."""
        if not answers:
            return b""
        if self.outcome is not None:
            self.outcome = self.outcome._replace(reusable=False)  # a reply too many
            return b""
        if self._asked_all():
            self._end(answers)
            return b""
        room = self._asked - len(self._answers)
        fault = self._take(answers[:room])
        self._note_stage()
        if fault is not None:
            self._break(fault)
            return b""
        out = b"" if len(self._answers) < self._asked else self._go_on()
        if surplus := answers[room:]:
            if self.outcome is None and not self._asked_all():
                self._break(_confused(surplus[0]))  # to a command that was not sent yet
            else:
                self.receive(surplus)
        return out if self.outcome is None else b""

    def sent(self) -> None:
        """The content was written, its dot included."""
        if self.stage is Stage.CONTENT:
            self.stage = Stage.END

    def lost(self, why: str) -> None:
        """No reply will come any more."""
        self._break(Answer(421, "4.4.2", why))

    # What is asked

    def _asked_all(self) -> bool:
        """Whether only the reply after the dot is still to come."""
        return self.stage in (Stage.CONTENT, Stage.END)

    def _sort_out(self) -> None:
        """Refuse what cannot be sent."""
        places, to = [], []
        for place, recipient in enumerate(self._transaction.recipients):
            if refusal := self._unfit(recipient, BAD_RECIPIENT):
                self._verdicts[place] = Verdict(Fate.REFUSED, Stage.RCPT, refusal)
            else:
                places.append(place)
                to.append(recipient)
        self._places, self._to = places, to

    def _unfit(self, address: str, refusal: Answer) -> Answer | None:
        """Why an address cannot be sent to this server."""
        try:
            mailbox, exact = parse_mailbox(address)
            address.encode()
        except (AddressError, UnicodeEncodeError):
            return refusal
        if exact != address or not mailbox.domain:
            return refusal
        return None if address.isascii() or self._features.smtputf8 else NEEDS_SMTPUTF8

    def _ask(self) -> bytes:
        """The next group of commands. RFC 2920 3.1: DATA may only be the last of one."""
        first, everything = self._asked, len(self._to) + 2
        step = GROUP if self._features.pipelining else 1
        last = self._asked = min(first + step, everything)
        commands = [] if first else [self._mail()]
        if names := self._to[max(first - 1, 0) : last - 1]:
            commands.append("RCPT TO:<" + ">\r\nRCPT TO:<".join(names) + ">\r\n")
        if last == everything:
            commands.append("DATA\r\n")
        return "".join(commands).encode()

    def _mail(self) -> str:
        sender, _, content, verp = self._transaction
        features = self._features
        command = [f"MAIL FROM:<{sender}>"]
        if features.size is not None:
            command.append(f"SIZE={content.size}")  # RFC 1870 5
        if features.eightbit and content.eightbit:
            command.append("BODY=8BITMIME")  # RFC 6152
        if not (sender.isascii() and "".join(self._to).isascii()):
            command.append("SMTPUTF8")  # RFC 6531 3.4
        if features.xverp and verp:
            command.append("XVERP=+=")
        return " ".join(command) + "\r\n"

    # What is answered

    def _take(self, answers: Sequence[Answer]) -> Answer | None:
        """Note replies to commands; returns what ends all."""
        previous = None
        for answer in answers:
            # Hundreds of recipients may have one reply, the same object.
            if answer is not previous:
                if answer.code == 421:
                    return answer
                if 300 <= answer.code < 400 and len(self._answers) <= len(self._to):
                    return _confused(answer)
                previous = answer
            self._answers.append(answer)
        if len(self._answers) == len(self._to) + 2 and self._answers[-1].code < 300:
            return _confused(self._answers[-1])
        return None

    def _note_stage(self) -> None:
        answered = len(self._answers)
        if answered > len(self._to):
            self.stage = Stage.DATA
        elif answered:
            self.stage = Stage.RCPT

    def _go_on(self) -> bytes:
        """All that was asked is answered."""
        answers = self._answers
        mail = answers[0]
        wanted = any(answer.code < 300 for answer in answers[1 : len(self._to) + 1])
        if len(answers) < len(self._to) + 2:
            if mail.code >= 400:
                self._conclude(Stage.MAIL, mail, reset=True)
            elif len(answers) > len(self._to) and not wanted:
                self._conclude(Stage.RCPT, answers[-1], reset=True)
            else:
                return self._ask()
            return b""
        go = answers[-1]
        if mail.code < 400 and wanted and go.code == 354:
            self.stage = Stage.CONTENT
            return self._transaction.content.wire
        if mail.code >= 400:
            self._conclude(Stage.MAIL, mail, reset=True)
        elif wanted:
            self._conclude(Stage.DATA, go, reset=True)
        else:
            self._conclude(Stage.RCPT, answers[-2], reset=True)
        return self._no_data(wanted) if go.code == 354 else b""

    def _no_data(self, wanted: bool) -> bytes:
        """The server wants data that must not come."""
        assert self.outcome is not None
        if wanted:  # any end of this data would post an empty message
            self.outcome = self.outcome._replace(reusable=False)
            return b""
        self._known, self.outcome = self.outcome, None  # RFC 2920 3.1: a lone dot
        self.stage = Stage.END
        return b".\r\n"

    def _end(self, answers: Sequence[Answer]) -> None:
        """The reply after the dot, or before it."""
        answer, surplus = answers[0], len(answers) > 1
        early = self.stage is Stage.CONTENT
        if self._known is not None:
            self.outcome = self._known._replace(reusable=answer.code != 421 and not surplus)
        elif answer.code == 421:
            self._break(answer)
        elif answer.code < 400 and (early or answer.code >= 300):
            self._break(_confused(answer))
        else:
            self._conclude(Stage.END, answer, reusable=not (surplus or early))

    # The outcome

    def _break(self, answer: Answer) -> None:
        """The connection is at its end, before the transaction is."""
        if self._known is not None:
            self.outcome = self._known._replace(reusable=False)
        elif self.outcome is not None:
            self.outcome = self.outcome._replace(reusable=False)
        elif self._answers and self._answers[0].code >= 400:
            self._conclude(Stage.MAIL, self._answers[0], reusable=False)
        else:
            self._note(Verdict(Fate.PENDING, self.stage, answer), self.stage, reusable=False)

    def _conclude(
        self, stage: Stage, answer: Answer, *, reusable: bool = True, reset: bool = False
    ) -> None:
        """The transaction ended with this reply."""
        common = Verdict(_fate(answer), stage, answer)
        self._note(common, stage, reusable=reusable, reset=reset)

    def _note(self, common: Verdict, stage: Stage, *, reusable: bool, reset: bool = False) -> None:
        """`common` is the verdict on whoever has none of their own."""
        verdicts, limit, accepted = self._verdicts, None, 0
        answers = [] if stage is Stage.MAIL else self._answers[1 : len(self._to) + 1]
        last, verdict = None, common
        for place, answer in zip(self._places, answers, strict=False):
            if answer is not last:
                last, verdict = answer, common
                if answer.code >= 400:
                    fate = _fate(answer)
                    if accepted and _no_more(answer):
                        # RFC 5321 4.5.3.1.10: the rest go in another transaction.
                        fate, limit = Fate.PENDING, limit or accepted
                    verdict = Verdict(fate, Stage.RCPT, answer)
            accepted += verdict is common
            verdicts[place] = verdict
        settled = tuple(common if each is None else each for each in verdicts)
        self.stage = stage
        self.outcome = Outcome(settled, stage, common.answer, reusable, reset, limit)


def _fate(answer: Answer) -> Fate:
    if answer.code < 300:
        return Fate.ACCEPTED
    return Fate.DEFERRED if answer.code < 500 else Fate.REFUSED


def _no_more(answer: Answer) -> bool:
    """Whether a recipient was refused because there were too many before it."""
    if answer.enhanced:
        return answer.enhanced.endswith(".5.3")
    return answer.code in (452, 552) and _NO_MORE.search(answer.text) is not None


def _confused(answer: Answer) -> Answer:
    return Answer(
        421, "4.5.0", f"Given up: the mail server said {answer} where that makes no sense"
    )
