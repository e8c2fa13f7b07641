"""Reasons: enhanced status codes in words, and what they say of a member.

For: letters about members whose mail comes back, and for telling those that cannot be reached from
those whom only this message could not reach. Guarantees: every code has words, the most exact that
there are; what is about us or about the message is never held against a member for good. Pure,
never raises.

A code (RFC 3463, RFC 5248 and IANA's registry) is CLASS.SUBJECT.DETAIL; CLASS is 2, 4 or 5. Not
final, though the server says that it is (5):

- 5.2.2: a full mailbox belongs to somebody, who may empty it. It is counted as what may pass, so
  one that stays full is found all the same
- 5.3.1, 5.3.2: so does a mail server
- 5.1.7, 5.1.8, 5.5.3 and 5.7: our address, our manners or a filter; other mail may be taken
- 5.2.3, 5.3.4 and 5.6: this message, its size or what it is made of

5.7.17 and 5.7.18 are final: the mailbox is somebody else's by now (RFC 7293).
"""

import re
from typing import Final

from postroom.notices.language import Sentence, sentence

_CODE: Final = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})")
_MAY_PASS: Final = frozenset({"1.7", "1.8", "2.2", "2.3", "3.1", "3.2", "3.4", "5.3", "6", "7"})
_NOT_OURS: Final = frozenset({"7.17", "7.18"})

# By subject and detail, then by subject, then by class. What says nothing more than what stands
# below it is left out, as is what is said of mail that arrived.
WORDS: Final = {
    "1": sentence("The address does not work."),
    "1.1": sentence("There is no such mailbox."),
    "1.2": sentence("There is no such domain, or it takes no mail."),
    "1.3": sentence("The address is not written as an address must be."),
    "1.4": sentence("The address fits more than one mailbox."),
    "1.6": sentence("The mailbox has moved, and nobody knows where to."),
    "1.7": sentence("The address of the sender was not accepted."),
    "1.8": sentence("The domain of the sender was not accepted."),
    "1.10": sentence("The domain takes no mail."),
    "2": sentence("There is something wrong with the mailbox."),
    "2.1": sentence("The mailbox is disabled and takes no mail."),
    "2.2": sentence("The mailbox is full."),
    "2.3": sentence("The message is too large for the mailbox."),
    "2.4": sentence("The address is that of a mailing list which does not work."),
    "3": sentence("There is something wrong with the mail server."),
    "3.1": sentence("The mail server is out of space."),
    "3.2": sentence("The mail server takes no mail at present."),
    "3.4": sentence("The message is too large for the mail server."),
    "3.5": sentence("The mail server is not set up well."),
    "4": sentence("The mail server could not be reached."),
    "4.1": sentence("The mail server does not answer."),
    "4.2": sentence("The connection to the mail server broke."),
    "4.3": sentence("The mail server could not be found."),
    "4.4": sentence("There is no way to the mail server."),
    "4.5": sentence("The mail server has too much to do."),
    "4.6": sentence("The mail went round in a circle."),
    "4.7": sentence("The mail could not be delivered for too long."),
    "5": sentence("The mail servers did not understand each other."),
    "5.3": sentence("The message had too many recipients."),
    "6": sentence("The mail server could not handle this message."),
    "7": sentence("The mail server did not want this message."),
    "7.1": sentence("The mail server did not want this message, or mail from here."),
    "7.2": sentence("The address is that of a mailing list that not everybody may send to."),
    "7.17": sentence("The mailbox belongs to somebody else by now."),
    "7.18": sentence("The domain belongs to somebody else by now."),
    "7.20": sentence("The message bears no signature of its domain (DKIM)."),
    "7.21": sentence("The message bears no signature that the mail server accepts (DKIM)."),
    "7.23": sentence("The mail server found that the mail must not come from here (SPF)."),
    "7.25": sentence("The name of the sending server and its address do not belong together."),
    "7.26": sentence("The mail server could not tell whether the message is genuine (SPF, DKIM)."),
    "7.27": sentence("The domain of the sender takes no mail."),
    "7.28": sentence("The mail server gets more mail from here than it wants."),
}
_PASSES: Final = sentence("The mail could not be delivered for the time being.")
_FAILED: Final = sentence("The mail could not be delivered.")


def in_words(status: str) -> Sentence:
    """What an enhanced status code says; any text will do."""
    match = _CODE.fullmatch(status)
    if match is None:
        return _FAILED
    subject, detail = int(match[2]), int(match[3])
    exact = WORDS.get(f"{subject}.{detail}") or WORDS.get(str(subject))
    return exact or (_PASSES if match[1] == "4" else _FAILED)


def is_final(status: str) -> bool:
    """Whether a code says that mail to this recipient will not be taken later, either. One that
    is none says nothing."""
    match = _CODE.fullmatch(status)
    if match is None or match[1] != "5":
        return False
    subject, detail = int(match[2]), int(match[3])
    exact = f"{subject}.{detail}"
    return exact in _NOT_OURS or not {exact, str(subject)} & _MAY_PASS
