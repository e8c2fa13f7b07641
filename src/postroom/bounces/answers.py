"""Answers of programs: out of office, receipts, and those who want to be asked first.

For: what comes to the bounce address and is no bounce, so that it costs nobody anything.
Guarantees: known by what these programs write of themselves, before anything else; by how the
subject begins only where nothing says that it is a bounce; nothing is raised; linear. Pure.
"""

import re
from typing import Final, Literal

from postroom.bounces.parts import Taken
from postroom.mail.address import is_person
from postroom.mail.fields import Parts
from postroom.reading.post import mailboxes, shown

Answer = Literal["answer", "challenge"]

# Fields of programs that ask the sender to confirm; few are in use today.
_CHALLENGES: Final = (
    "x-askversion",
    "x-boxtrapper",
    "x-bluebottle-request",
    "x-choicemail-registration-request",
    "x-spamazoid-md",
    "spamlion",
)
_ASKERS: Final = ("spamarrest.com", "boxbe.com")  # and their subdomains
_TMDA: Final = re.compile(r"-tmda-confirm>?\Z|\btmda/\d", re.IGNORECASE)
_ASKS: Final = re.compile(r"please confirm your message\b|unverified email to ", re.IGNORECASE)
_AUTO_REPLY: Final = ("auto_reply", "auto-reply")  # in Precedence
_SERVERS: Final = ("", "mailer-daemon", "postmaster")  # who write bounces, in whatever form
_ANSWERED: Final = (
    "x-autoreply",
    "x-autorespond",
    "x-autoresponder",
    "x-auto-reply",
    "x-autoreply-from",
    "x-mail-autoreply",
    "x-vacation",
)
_ANSWERS: Final = re.compile(
    r"(?:(?:re|aw|sv|antw?|rif)\s*:\s*)?+\W{0,3}(?:"
    r"auto\w*[ -]?(?:reply|response|responder|answer|antwort|antwoord|svar|vastaus)\b"
    r"|out[ -]of[ -](?:the[ -])?office|(?:i am|i'm) (?:currently )?(?:out|away|on)\b"
    r"|(?:away|absent) from (?:my|the) (?:mail|office)|(?:on )?vacation|on (?:holiday|annual leave)"
    r"|abwesenheit|ich bin (?:nicht|bis|vom)|nicht im (?:büro|haus)|urlaub"
    r"|réponse automatique|absen(?:ce|t) du bureau|je suis (?:absent|en (?:congé|vacances))"
    r"|respuesta automática|fuera de (?:la )?oficina|resposta automática|fora do escritório"
    r"|risposta automatica|fuori (?:sede|ufficio)|afwezig|niet aanwezig|ikke på kontoret"
    r"|frånvaro|fravær|poissa|odpowiedź automatyczna|autoodpowiedź|nieobecność"
    r"|automatická odpověď|automatikus válasz|otomatik yanıt"
    r"|автоответ|автоматический ответ|自动(?:回复|答复)|自動(?:回覆|返信|応答)|자동 ?(?:회신|응답)"
    r")",
    re.IGNORECASE,
)


def surely(message: Parts, taken: Taken) -> Answer | None:
    """What this is, if its header says so; None if that says nothing."""
    names = {each.name for each in message.fields}
    author = author_of(message)
    known = " ".join(_said(message, each) for each in ("message-id", "x-delivery-agent"))
    if (
        names.intersection(_CHALLENGES)
        or f".{author.rpartition('@')[2]}".endswith(tuple(f".{each}" for each in _ASKERS))
        or any(_TMDA.search(each) for each in known.split())
    ):
        return "challenge"
    if "x-failed-recipients" in names:  # Exim calls what it writes an automatic answer
        return None
    if names.intersection(_ANSWERED) or _first(message, "precedence") in _AUTO_REPLY:
        return "answer"
    if (
        _is_reply(message)
        and author
        and is_person(author.rpartition("@")[0])
        and not _is_mdn(taken)
    ):
        return "answer"
    return None


def probably(message: Parts, taken: Taken) -> Answer | None:
    """What this is, if it is no bounce; None if it looks like nothing known."""
    subject = _said(message, "subject")
    if _ASKS.match(subject):
        return "challenge"
    if taken.report == "delivery-status":  # one that cannot be read
        return None
    author = author_of(message)
    generated = _first(message, "auto-submitted") not in ("", "no")  # as Exchange says it
    answered = (
        (_is_reply(message) and author.partition("@")[0] not in _SERVERS)
        or (generated and bool(author) and is_person(author.rpartition("@")[0]))
        or _is_mdn(taken)
        or _ANSWERS.match(subject) is not None
    )
    return "answer" if answered else None


def _is_reply(message: Parts) -> bool:
    """RFC 3834 5. Reports of delivery say so, too."""
    return _first(message, "auto-submitted") in ("auto-replied", "auto-notified")


def _is_mdn(taken: Taken) -> bool:
    """A receipt (RFC 8098). Some servers write one to say that a mailbox is full."""
    return taken.report == "disposition-notification"


def author_of(message: Parts) -> str:
    """The first address in From, folded; "" if there is none."""
    found, _ = mailboxes(_said(message, "from"))
    return found[0].address if found else ""


def _said(message: Parts, name: str) -> str:
    field = message.first(name)
    return shown(field) if field else ""


def _first(message: Parts, name: str) -> str:
    """The first word of a field, in lower case."""
    words = _said(message, name).replace(";", " ").split()
    return words[0].lower() if words else ""
