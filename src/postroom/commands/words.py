"""Words: what the texts of commands are made of.

For: `grammar`, which makes commands of them. Pure, linear time; any text will do and nothing is
raised. Guarantees: what is cleaned is printable and stands on one line; a token is lower case
base32 of one of the two lengths there are; of a subject no command is stripped off.
"""

import re
from typing import Final

from postroom.notices.language import Sentence, sentence

LONGEST: Final = 400  # characters of a line that can be a command, and of a reason
SHOWN: Final = 100  # characters of what people wrote that are put into a sentence

# A word of a command as people may write it -> the command.
VERBS: Final = {
    "join": "join",
    "subscribe": "join",
    "leave": "leave",
    "unsubscribe": "leave",
    "signoff": "leave",
    "confirm": "confirm",
    "cancel": "cancel",
    "accept": "accept",
    "approve": "accept",
    "reject": "reject",
    "discard": "discard",
    "set": "set",
    "help": "help",
    "info": "info",
    "who": "who",
    "status": "status",
    "end": "end",
    "stop": "end",
    "quit": "end",
}
# What somebody begins with who answers a question of ours. Words that ask for a subscription or
# its end are not among them: whether they mean yes depends on the question.
_YES: Final = """
    yes y yeah ok okay confirm confirmed ja jo jawohl bestätigen oui sí si sì sim tak ano igen
    evet da да ναι kyllä jah taip כן نعم はい 是 好 예 네
"""
_NO: Final = """
    no n nope never cancel stop nein abbrechen non annuler nee annuleren nej nei avbryt cancelar
    não nao annulla nie anuluj ne nem hayır hayir iptal нет отмена ні όχι ei peruuta לא لا いいえ
    否 不 取消 아니요 아니오
"""
YES: Final = frozenset(_YES.split())
NO: Final = frozenset(_NO.split())
_NOT: Final = frozenset(
    ("not", "never", "nicht", "kein", "keine", "pas", "jamais", "non", "nunca", "não", "niet")
)

_AROUND: Final = " <>()\"'`“”„‘’«»"  # may stand around a word
_AFTER: Final = ".!:,;。！：，"
_TOKEN: Final = re.compile(r"[a-z2-7]{26}(?:[a-z2-7]{13})?")
_TOKENS: Final = re.compile(rf"\b{_TOKEN.pattern}\b", re.IGNORECASE)
_WORD: Final = r'[^\s:：\[\]()【】^<>@="]{1,12}+'
_COUNT: Final = r"(?: ?\[\d{1,4}\]| ?\(\d{1,4}\)|\^\d{1,4})?"
# "Re:" in any language, as "AW: ", "Re[2]: ", "Trả lời: "; or a list's "[ants] ".
_BEFORE: Final = re.compile(
    rf"(?:[\[【][^\[\]【】]{{1,80}}+[\]】]|(?P<words>{_WORD}(?: {_WORD})?){_COUNT} ?[:：]) ?"
)
_EQUALS: Final = re.compile(r" ?= ?")

_ON: Final = frozenset(("yes", "on"))
_OFF: Final = frozenset(("no", "off"))
DIGEST: Final = {"yes": True, "on": True, "mime": True, "plain": True, "no": False, "off": False}
# As people write it -> the roster's name, and its values for on and off.
_SETTINGS: Final = {
    "delivery": ("delivery", "on", "user"),
    "digest": ("mode", "digest", "regular"),
    "own": ("own_posts", "yes", "no"),
    "duplicates": ("duplicates", "yes", "no"),
    "ack": ("ack", "yes", "no"),
}


def clean(text: str) -> str:
    """The text on one line, without what cannot be seen, and with single blanks."""
    if not text.isprintable():
        text = "".join(each for each in text if each.isprintable() or each.isspace())
    return " ".join(text.split())


def shown(text: str, most: int = SHOWN) -> str:
    """The text fit to be put into a sentence: cleaned, of at most so many characters."""
    text = clean(text)
    return text if len(text) <= most else text[: most - 3] + "..."


def plain(word: str) -> str:
    """A word in lower case, without quotes, brackets and punctuation around it."""
    return word.lower().strip(_AROUND + _AFTER)


def token_of(word: str) -> str:
    """The token that this is, in lower case; "" if it is none."""
    found = plain(word)
    return found if _TOKEN.fullmatch(found) else ""


def without_tokens(text: str) -> str:
    """The text fit to be kept where others read it."""
    return _TOKENS.sub("TOKEN", text)


def verb_and_rest(text: str) -> tuple[str, str]:
    """The first word of a cleaned text, plain, and what follows; a "please" is passed over."""
    first, _, rest = text.partition(" ")
    if plain(first) == "please":
        first, _, rest = rest.partition(" ")
    return plain(first), rest


def denies(text: str) -> bool:
    """Whether there is a "not" in a text, be it only "don't"."""
    words = [plain(word).replace("’", "'") for word in text[:LONGEST].split()]
    return any(word in _NOT or word in NO or word.endswith("n't") for word in words)


def arguments(text: str) -> list[str]:
    """The arguments in a cleaned text, each without quotes and punctuation around it."""
    words = (word.strip(_AROUND + _AFTER) for word in _EQUALS.sub("=", text).split())
    return [word for word in words if word]


def address_of(text: str) -> str:
    """What may be an address, without brackets; "" if it cannot be one. Whoever uses it judges."""
    found = text.strip(_AROUND)
    local, _, domain = found.partition("@")
    return found if local and domain and "@" not in domain else ""


def subject_of(subject: str) -> str:
    """A subject cleaned, without what replies and lists put before it."""
    text, at = clean(subject), 0
    while match := _BEFORE.match(text, at):
        words = (match["words"] or "").split()
        # Two ASCII words are a phrase of the author's, as in "Holiday plan: leave".
        phrase = len(words) > 1 and all(map(str.isascii, words))
        if phrase or any(plain(word) in VERBS for word in words):
            break
        at = match.end()
    return text[at:]


def setting(name: str, value: str) -> tuple[str, str] | Sentence:
    """What a setting is called in the roster, and its value there; else what is wrong with it."""
    found = _SETTINGS.get(name.lower())
    if found is None:
        return sentence(
            'There is no setting "{name}". There are: {names}.',
            name=shown(name),
            names=", ".join(_SETTINGS),
        )
    name, value = name.lower(), plain(value)
    ours, on, off = found
    known = {**dict.fromkeys(_ON, True), **dict.fromkeys(_OFF, False)}
    switch = (DIGEST if name == "digest" else known).get(value)
    if switch is None:
        yes, no = ("on", "off") if name == "delivery" else ("yes", "no")
        return sentence(
            '"{name}" cannot be "{value}". Write "{name}={yes}" or "{name}={no}".',
            name=name,
            value=shown(value),
            yes=yes,
            no=no,
        )
    return ours, on if switch else off
