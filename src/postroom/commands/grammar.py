"""The grammar of commands by mail: what somebody asks, in a subject and in lines of a body.

For: the command processor. Pure, linear time; any text will do and nothing is raised.
Guarantees: a line is understood as a whole or not at all, and then a sentence says what to do;
no more commands come out than were allowed, and few complaints for each; whatever comes out is
bounded and printable. Addresses are not judged here, and tokens by their form alone.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, cast

from postroom.commands.words import (
    DIGEST,
    LONGEST,
    NO,
    VERBS,
    YES,
    address_of,
    arguments,
    clean,
    denies,
    plain,
    setting,
    shown,
    subject_of,
    token_of,
    verb_and_rest,
)
from postroom.notices.language import Sentence, sentence

Verb = Literal["yes", "no", "accept", "reject", "discard", "join", "leave", "unclear"]

STRANGE: Final = 3  # lines in a row that are not understood: then it is prose
BRIEF: Final = 6  # lines of a reply that says yes; one that is longer says something else, too
FEW: Final = 4  # words after a yes
_ANSWERS: Final[dict[str, Verb]] = {
    "confirm": "yes",
    "cancel": "no",
    "accept": "accept",
    "reject": "reject",
    "discard": "discard",
}
_DECISIONS: Final = ("accept", "reject", "discard")


class Join(NamedTuple):
    """`address` "" is the sender's own; `digest` None is as it is usual on the list."""

    address: str
    digest: bool | None


class Leave(NamedTuple):
    """`address` "" is the sender's own."""

    address: str


class Answer(NamedTuple):
    """To a letter that had this token. Yes and no are of those who were asked, as are join and
    leave, whose meaning depends on the question; the others are of the list's owners. Unclear is
    what may be of either, or of a program."""

    token: str
    verb: Verb
    reason: str


class Set(NamedTuple):
    """What changes for a member, in the roster's words."""

    changes: tuple[tuple[str, str], ...]


class Help(NamedTuple):
    """What commands there are."""


class Info(NamedTuple):
    """What list this is."""


class Who(NamedTuple):
    """Who reads the list."""


class Status(NamedTuple):
    """What the sender is on this list."""


# Help() and its like are empty, so false, and equal each other: tell commands by their class.
Command = Join | Leave | Answer | Set | Help | Info | Who | Status


class Line(NamedTuple):
    """A line that was read, cleaned: the command that it is, or what is wrong with it. Only
    while reading: neither, which ends the reading."""

    text: str
    command: Command | None
    complaint: Sentence | None


class Script(NamedTuple):
    """What is to be done, in this order; and how many commands were too many."""

    lines: tuple[Line, ...]
    left_out: int


_ALONE: Final[dict[str, Command]] = {
    "help": Help(),
    "info": Info(),
    "who": Who(),
    "status": Status(),
}
_Reader = Callable[[str], Line]


def read_script(
    subaddress: str, detail: str, subject: str, lines: Sequence[str], most: int
) -> Script:
    """What a mail to this sub-address (canonical) with this detail (after "+") asks for. `lines`
    are the author's own, without quotes and signature; at most `most` commands are read."""
    body = [text for text in map(clean, lines) if text]
    subject = subject_of(subject)
    if subaddress in ("join", "leave"):
        return Script((_bidden(subaddress, detail, (subject, *body[:1])),), 0)
    if subaddress != "confirm":
        return _read(read_line, subject, body, most)
    if detail:
        return Script((_reply(detail, body),), 0)
    found = _read(_answer_line, subject, body, most)
    if any(line.command is not None for line in found.lines):
        return found
    # One complaint is enough: about a token, if there was something like one.
    nothing = Line(shown(subject), None, _no_answer())
    said = (line for line in found.lines if line.complaint != nothing.complaint)
    return Script((next(said, nothing),), 0)


def _read(read: _Reader, subject: str, body: Sequence[str], most: int) -> Script:
    """The subject counts if it is a command, and then the body only if it begins with one too:
    people write commands in either place, and prose in the other."""
    first = read(subject)
    if first.command is None:
        found, left_out = _read_body(read, body, most, None)
        if first.text and all(line.command is None for line in found):
            found.insert(0, first if first.complaint else _unknown(first.text))
        return Script(tuple(found), left_out)
    if not body or read(body[0]).command is None:
        body = ()
    found, left_out = _read_body(read, body, most - 1, first.command)
    if most < 1:
        return Script((), left_out + 1)
    return Script((first, *found), left_out)


def _read_body(
    read: _Reader, body: Sequence[str], most: int, done: Command | None
) -> tuple[list[Line], int]:
    """The lines of a body, and how many commands were too many. `done` is done already."""
    found: list[Line] = []
    commands = left_out = strange = 0
    for text in body:
        line = read(text)
        if line.command is not None:
            if type(line.command) is type(done) and line.command == done:
                continue
            strange = 0
            if commands >= most:
                left_out += 1
                continue
            commands += 1
        elif line.complaint is None:
            break
        else:
            strange += 1
        if not left_out:
            found.append(line)
        if strange == STRANGE:
            break
    return found, left_out


def read_line(text: str) -> Line:
    """One line, as it may stand in a mail to -request."""
    text = clean(text)
    word, rest = verb_and_rest(text)
    verb = VERBS.get(word, "")
    if len(text) > LONGEST:
        if verb not in _DECISIONS:
            return Line(shown(text), None, _too_long())
        # A reason may be a paragraph, which many clients write in one line.
        text = text[:LONGEST].rstrip()
        _, rest = verb_and_rest(text)
    if not verb or (verb == "end" and rest):
        return _unknown(text)
    if verb == "end":
        return Line(text, None, None)
    found = _command(verb, rest)
    if isinstance(found, Sentence):
        return Line(shown(text), None, found)
    return Line(text, found, None)


def _command(verb: str, rest: str) -> Command | Sentence:
    """The command of this verb with what follows it, or what is wrong."""
    if verb in _ANSWERS:
        return _answer(verb, rest)
    words = arguments(rest)
    if verb == "join":
        return _join(words)
    if verb == "leave":
        return _leave(words)
    if verb == "set":
        return _set(words)
    if words:
        return sentence('Nothing may follow "{verb}": write that word alone.', verb=verb)
    return _ALONE[verb]


def _join(words: Sequence[str]) -> Join | Sentence:
    given = _given(words, ("address", "digest"))
    if isinstance(given, str):
        return sentence(
            '"{word}" was not understood. Write "join" alone, or with "digest=yes", "digest=no" '
            'or "address=" and an address.',
            word=given,
        )
    return Join(given.get("address", ""), DIGEST.get(given.get("digest", "")))


def _leave(words: Sequence[str]) -> Leave | Sentence:
    given = _given(words, ("address",))
    if isinstance(given, str):
        return sentence(
            '"{word}" was not understood. Write "leave" alone, or with "address=" and an address.',
            word=given,
        )
    return Leave(given.get("address", ""))


def _given(words: Sequence[str], names: Sequence[str]) -> dict[str, str] | str:
    """The arguments of join and leave by their names; or the one that is none, or is one too
    many. An address needs no name."""
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            name, value = "address", word
        name = name.lower()
        value = address_of(value) if name == "address" else plain(value)
        right = bool(value) if name == "address" else value in DIGEST
        if name not in names or name in given or not right:
            return shown(word)
        given[name] = value
    return given


def _set(words: Sequence[str]) -> Set | Sentence:
    changes: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        found = setting(name, value if equals else next(rest, ""))
        if isinstance(found, Sentence):
            return found
        if found[0] in changes:
            return sentence('"{name}" stands there twice. Write it once.', name=shown(name))
        changes[found[0]] = found[1]
    if not changes:
        return sentence('"set" needs a setting and its value, as in "set digest=yes".')
    return Set(tuple(changes.items()))


def _answer(verb: str, rest: str) -> Answer | Sentence:
    word, _, more = rest.partition(" ")
    token = token_of(word)
    if not word:
        return sentence(
            '"{verb}" needs the token of the letter that you got: "{verb} TOKEN".', verb=verb
        )
    if not token:
        return _no_token(word)
    if verb in _DECISIONS:
        return Answer(token, _ANSWERS[verb], _reason(more))
    if arguments(more):
        return sentence('Nothing may follow the token: write "{verb} TOKEN" alone.', verb=verb)
    return Answer(token, _ANSWERS[verb], "")


def _reason(text: str) -> str:
    return shown(text.lstrip(" :;,.-–—"), LONGEST)


def _answer_line(text: str) -> Line:
    """One line, as it may stand in a mail to -confirm: an answer, or a token alone."""
    text = clean(text)
    if token := token_of(text):
        return Line(text, Answer(token, "yes", ""), None)
    line = read_line(text)
    verb = VERBS.get(verb_and_rest(text)[0], "")
    if verb in _ANSWERS or (line.command is None and line.complaint is None):
        return line
    return Line(shown(text), None, _no_answer())


def _reply(detail: str, body: Sequence[str]) -> Line:
    """A reply to a letter, whose token the address holds: one that says nothing is a yes, and so
    is one that begins with a yes and says little else. Consent is nothing to be guessed."""
    token = token_of(detail)
    if not token:
        return Line(shown(detail), None, _no_token(detail))
    if not body:
        return Line("", Answer(token, "yes", ""), None)
    for number, text in enumerate(body[:STRANGE]):
        verb, reason = _verdict(text, token)
        if verb == "reject":
            reason = " ".join((reason, *body[number + 1 :]))
        if verb == "yes" and (len(body) > BRIEF or any(map(denies, body))):
            break
        if verb:
            return Line(shown(text), Answer(token, verb, _reason(reason)), None)
    return Line(shown(body[0]), Answer(token, "unclear", ""), None)


def _verdict(text: str, token: str) -> tuple[Verb | None, str]:
    """What a line of a reply says, by its first word, and what follows; None if it says nothing,
    or says it to another token."""
    word, rest = verb_and_rest(text)
    first, _, more = rest.partition(" ")
    if other := token_of(first):
        if other != token:
            return None, ""
        rest = more
    verb = VERBS.get(word, "")
    if verb in _DECISIONS:
        return _ANSWERS[verb], rest
    if word in NO:
        return "no", ""
    if len(rest.split()) > FEW:
        return None, ""
    if verb in ("join", "leave"):
        return cast(Verb, verb), ""
    return ("yes" if word in YES else None), ""


def _bidden(subaddress: str, detail: str, texts: Sequence[str]) -> Line:
    """What the sub-address says. The first of these texts that gives arguments gives them; all
    else in them is ignored."""
    given: dict[str, str] = {}
    for text in texts:
        if len(text) > LONGEST or given:
            continue
        verb, rest = verb_and_rest(text)
        # Without the command's word an address might be part of a sentence.
        words = arguments(rest if VERBS.get(verb) == subaddress else text)
        if VERBS.get(verb) != subaddress and not all("=" in word for word in words):
            continue
        found = _given(words, ("address", "digest") if subaddress == "join" else ("address",))
        given = {} if isinstance(found, str) else found
    address = given.get("address", "")
    said = f"{subaddress} address={address}" if address else subaddress
    if subaddress == "leave":
        return Line(said, Leave(address), None)
    usual = True if plain(detail) == "digest" else None
    digest = DIGEST.get(given.get("digest", ""), usual)
    if digest is not None:
        said += " digest=yes" if digest else " digest=no"
    return Line(said, Join(address, digest), None)


def _unknown(text: str) -> Line:
    word = shown(text.partition(" ")[0])
    complaint = sentence('There is no command "{word}". "help" lists those there are.', word=word)
    return Line(shown(text), None, complaint)


def _too_long() -> Sentence:
    return sentence(
        "This line is too long for a command: write at most {most} characters.", most=LONGEST
    )


def _no_token(word: str) -> Sentence:
    return sentence(
        '"{word}" is no token; reply to the letter that you got, or copy the token from it.',
        word=shown(word),
    )


def _no_answer() -> Sentence:
    return sentence(
        'There is no answer in this: reply to the letter that you got, or write "confirm TOKEN" '
        "with the token from it."
    )
