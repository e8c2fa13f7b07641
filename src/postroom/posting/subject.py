"""The subject prefix: put before the subject, once, after any "Re:".

For: cooking. Guarantees: the author's bytes stay as they are, the prefix is spliced between
them; only a subject whose "Re:" stands inside an encoded word (RFC 2047) is spelled anew, and
then says the same. A prefix that is there already, anywhere and in whatever encoding, is not
put twice. Pure; any bytes will do. Linear time.
"""

import re

from postroom.mail.fields import MOST, WIDTH, Field, encoded, field, unstructured

# "Re:" as clients of many languages write it, repeated or counted: "Re[2]:", "AW: Re:".
_WORDS = "re|aw|antw|sv|vs|fwd?|wg|tr|rv|rif|odp|ynt|atb|enc|res"
_COUNT = r"(?:\[\d{1,4}\]|\(\d{1,4}\)|\^\d{1,4})?"
_ANSWER = re.compile(rf"\s*+(?:(?:{_WORDS}|回复|答复|转发){_COUNT}\s*+[:：]\s*+)++", re.IGNORECASE)
_ANSWER_BYTES = re.compile(
    rf"\s*+(?:(?:{_WORDS}){_COUNT}\s*+:\s*+)++".encode("ascii"), re.IGNORECASE
)
_SPACE = re.compile(rb"[ \t\r\n]*+")
NO_SUBJECT = "(no subject)"


def prefixed(subject: Field | None, prefix: str) -> Field | None:
    """The subject with the prefix; None if it stays as it is."""
    prefix = " ".join(prefix.split())
    if not prefix:
        return None
    if subject is None or not subject.value:
        return field("Subject", unstructured(f"{prefix} {NO_SUBJECT}"))
    text = subject.text
    if _same(prefix) in _same(text):
        return None
    answer = _ANSWER.match(text)
    spelled = _ANSWER_BYTES.match(_after_colon(subject))
    whole = len(subject.raw) <= MOST and "\ufffd" not in text
    if answer and not spelled and whole:
        shown = f"{text[: answer.end()].strip()} {prefix} {text[answer.end() :]}"
        return field("Subject", unstructured(shown))
    return _spliced(subject, prefix, spelled)


def _same(text: str) -> str:
    return " ".join(text.casefold().split())


def _after_colon(subject: Field) -> bytes:
    """The value as it stands, without the white space and line end after it."""
    return subject.raw.partition(b":")[2].rstrip(b" \t\r\n")


def _spliced(subject: Field, prefix: str, answer: re.Match[bytes] | None) -> Field:
    """The prefix between the author's bytes: after "Re:", else at the front."""
    value = _after_colon(subject)
    start = subject.raw.index(b":") + 1
    match = answer or _SPACE.match(value)
    cut = start + (match.end() if match else 0)
    before, after = subject.raw[:cut], subject.raw[cut:]
    if not before.endswith((b" ", b"\t")):
        before += b" "
    ours = unstructured(prefix)
    between = b" "
    if after.startswith(b"=?") and ours.startswith("=?"):
        # White space between two encoded words is not shown, so it must be inside of one.
        ours = encoded(prefix + " ")
    if ours.startswith("=?"):
        ours = ours.replace(" ", "\r\n ")
    line = before.rpartition(b"\n")[2] + ours.encode() + re.split(rb"[\r\n]", after, maxsplit=1)[0]
    if not after.strip():
        between = b""
    elif len(line) >= WIDTH:
        between = b"\r\n "
    return Field("subject", before + ours.encode() + between + after)
