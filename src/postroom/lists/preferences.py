"""Preferences: reading, checking and changing what a list has decided for itself.

For: whoever needs a list's settings, and the commands that change them. Guarantees: only
settings that can be used are stored; all changes of a call are made or none; two who change
different settings at once do not undo each other; what can be said of a setting (its meaning,
its default, what it may be) is read from `lists.settings` alone. Patterns are checked here by
`lists.patterns`, which is what guards the runners that use them. Fails with `ListError`, one
sentence that names the setting and what is allowed.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from string import Template
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import Connection, bindparam, select, update

from postroom.lists.patterns import PatternError, compiled, suspicion
from postroom.lists.registry import ListError
from postroom.lists.roster import person
from postroom.lists.settings import ListSettings
from postroom.store.schema import mailing_list

MAX_ITEMS: Final = 1000  # of a setting that is a list
MAX_PREFIX: Final = 80  # characters
MAX_FOOTER: Final = 2000  # characters
MAX_WELCOME: Final = 2000  # characters
MAX_URL: Final = 500  # characters
FOOTER_NAMES: Final = ("list", "address", "list_id", "unsubscribe")
SWITCHES: Final = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}

Value = str | bool | int | float | tuple[str, ...]


class Setting(NamedTuple):
    """A setting as a person sees it; `key` is GROUP.NAME."""

    key: str
    value: Value
    default: Value
    meaning: str


class _Kind(NamedTuple):
    """What a setting may be: its type, the same with its bounds, and its meaning."""

    plain: Any
    bounded: Any
    meaning: str


def _kinds() -> Iterator[tuple[str, _Kind]]:
    for group, struct in get_type_hints(ListSettings).items():
        for name, hint in get_type_hints(struct, include_extras=True).items():
            plain, *bounds = get_args(hint)
            meaning = next(each.description for each in bounds if each.description)
            yield f"{group}.{name}", _Kind(plain, hint, meaning)


KINDS: Final = dict(_kinds())


_FOUND: Final = select(mailing_list.c.settings, mailing_list.c.posting_address).where(
    mailing_list.c.id == bindparam("key")
)
_LOCKED: Final = _FOUND.with_for_update()


def preferences(connection: Connection, list_key: int) -> ListSettings:
    """The settings of a list. Raises `ListError`."""
    return _read(connection, list_key, locked=False)


def set_preferences(
    connection: Connection,
    list_key: int,
    changes: Mapping[str, str] | Iterable[tuple[str, str]],
) -> ListSettings:
    """Change settings, see `changed`; returns all as they are now. Raises `ListError`."""
    settings = changed(_read(connection, list_key, locked=True), changes)
    text = msgspec.json.encode(settings).decode()
    this = update(mailing_list).where(mailing_list.c.id == list_key)
    connection.execute(this.values(settings=text))
    return settings


def changed(
    settings: ListSettings, changes: Mapping[str, str] | Iterable[tuple[str, str]]
) -> ListSettings:
    """Settings with some changed: GROUP.NAME and what a person would write for it. Pure.

    A list is written with commas or line breaks between; with "+" or "-" after its name what
    is written, commas and all, is put to it or taken from it. Raises `ListError`.
    """
    for key, text in changes.items() if isinstance(changes, Mapping) else changes:
        settings = _with(settings, key, text)
    check(settings)
    return settings


def describe(settings: ListSettings) -> Iterator[Setting]:
    """Every setting, with its value, its default and its meaning."""
    defaults = ListSettings()
    for key, kind in KINDS.items():
        yield Setting(key, _get(settings, key), _get(defaults, key), kind.meaning)


def in_words(value: Value) -> str:
    """A value as a person would write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _read(connection: Connection, list_key: int, locked: bool) -> ListSettings:
    row = connection.execute(_LOCKED if locked else _FOUND, {"key": list_key}).first()
    if row is None:
        raise ListError("this list was removed meanwhile")
    try:
        return msgspec.json.decode(row.settings, type=ListSettings)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ListError(
            f"the settings of list {row.posting_address} cannot be read ({error}): restore them "
            f"from a backup, or drop them all with this statement on the database: UPDATE "
            f"mailing_list SET settings = '{{}}' WHERE id = {list_key}"
        ) from error


def _get(settings: ListSettings, key: str) -> Any:
    group, _, name = key.partition(".")
    return getattr(getattr(settings, group), name)


def _with(settings: ListSettings, given: str, text: str) -> ListSettings:
    """Settings with one changed, its type checked."""
    key = given[:-1] if given.endswith(("+", "-")) else given
    kind = KINDS.get(key)
    if kind is None:
        raise ListError(_unknown(key))
    is_list = get_origin(kind.plain) is tuple
    if not all(line.isprintable() for line in text.split("\n")):
        raise ListError(f"{key}: {_short(text)} holds what cannot be printed")
    if given == key:
        value = _listed(text) if is_list else _converted(key, kind, text)
    elif is_list:
        value = _altered(key, _get(settings, key), text.strip(), given[len(key) :])
    else:
        raise ListError(f"{key} is not a list: use {key}=VALUE")
    group, _, name = key.partition(".")
    structs = msgspec.structs
    renewed = structs.replace(getattr(settings, group), **{name: value})
    return structs.replace(settings, **{group: renewed})


def _listed(text: str) -> tuple[str, ...]:
    parts = (part.strip() for part in re.split(r"[,\n]", text))
    return tuple(dict.fromkeys(part for part in parts if part))


def _altered(key: str, before: tuple[str, ...], item: str, how: str) -> tuple[str, ...]:
    if how == "+" and item:
        return (*(each for each in before if each != item), item)
    if how == "-" and item in before:
        return tuple(each for each in before if each != item)
    if how == "-":
        raise ListError(
            f"{key} does not hold {_short(item)}: `postroom list show LIST` shows what is"
        )
    raise ListError(f"{key}: use {key}=VALUE, {key}+=VALUE or {key}-=VALUE")


def _converted(key: str, kind: _Kind, text: str) -> Any:
    if get_origin(kind.plain) is Literal:
        if text in get_args(kind.plain):
            return text
        raise ListError(
            f"{key}: {_short(text)} is not allowed: use {_either(get_args(kind.plain))}"
        )
    if kind.plain is str:
        return text
    if kind.plain is bool:
        if text.strip().lower() in SWITCHES:
            return SWITCHES[text.strip().lower()]
        raise ListError(f"{key}: {_short(text)} is not allowed: use yes or no")
    try:
        return msgspec.convert(text.strip(), kind.bounded, strict=False)
    except msgspec.ValidationError as error:
        what = "a whole number" if kind.plain is int else "a number"
        bound = str(error).rpartition("` ")[2].replace("`", "")
        limit = f" {bound}" if bound[:1] in ("<", ">") else ""
        raise ListError(f"{key}: {_short(text)} is not allowed: use {what}{limit}") from None


def _short(text: str) -> str:
    """Text from outside, quoted, its first part if it is long."""
    return repr(text if len(text) <= 100 else f"{text[:100]}...")


def _either(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}"


def _unknown(key: str) -> str:
    near = difflib.get_close_matches(key[:100], KINDS, 1, 0.75)
    if near:
        return f"there is no setting {_short(key)}: did you mean {near[0]}?"
    group = key.partition(".")[0]
    those = [each for each in KINDS if each.startswith(f"{group}.")]
    if those:
        return f"there is no setting {_short(key)}; {group} has {', '.join(those)}"
    groups = dict.fromkeys(each.partition(".")[0] for each in KINDS)
    return f"there is no setting {_short(key)}: use GROUP.NAME; groups are {', '.join(groups)}"


def check(settings: ListSettings) -> None:
    """Refuse what types cannot tell to be wrong. Raises `ListError`. Pure."""
    posting, headers = settings.posting, settings.headers
    _each("posting.banned", posting.banned, _address, _domain, _pattern)
    _each("posting.also_known_as", posting.also_known_as, _address, _pattern)
    _each("posting.suspicious", posting.suspicious, suspicion)
    _each("dmarc.exempt", settings.dmarc.exempt, _address, _domain)
    if len(headers.subject_prefix) > MAX_PREFIX or not headers.subject_prefix.isprintable():
        raise ListError(f"headers.subject_prefix: use at most {MAX_PREFIX} characters, on one line")
    if headers.reply_to_address:
        _each("headers.reply_to_address", [headers.reply_to_address], _address)
    elif headers.reply_to == "address":
        raise ListError("headers.reply_to is address: set headers.reply_to_address, too")
    if headers.archive_url:
        _check_url("headers.archive_url", headers.archive_url)
    _check_footer("headers.footer", headers.footer)
    if len(settings.subscriptions.welcome_text) > MAX_WELCOME:
        raise ListError(f"subscriptions.welcome_text: use at most {MAX_WELCOME} characters")


Reader = Callable[[str], object]


def _each(key: str, items: Iterable[str], *readers: Reader) -> None:
    every = list(items)
    if len(every) > MAX_ITEMS:
        raise ListError(f"{key}: {len(every)} are too many: use at most {MAX_ITEMS}")
    for item in every:
        reader = readers[0]
        for mark, marked in ("@", _domain), ("^", _pattern):
            if item.startswith(mark) and marked in readers:
                reader = marked
        try:
            reader(item)
        except (PatternError, ListError) as error:
            why = str(error) if isinstance(error, PatternError) else "is no address"
            raise ListError(f"{key}: {_short(item)} {why}") from None


def _address(item: str) -> None:
    _, name = person(item)
    if name or item.endswith(">"):
        raise ListError("a name is of no use here")


def _domain(item: str) -> None:
    person(f"name{item}")


def _pattern(item: str) -> None:
    compiled(item)


def _check_url(key: str, text: str) -> None:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    plain = text.isascii() and text.isprintable() and not re.search(r'[\s<>"]', text)
    if not (usable and plain and len(text) <= MAX_URL):
        raise ListError(
            f"{key}: use an address like https://example.org/archive, in ASCII, of at most "
            f"{MAX_URL} characters"
        )


def _check_footer(key: str, text: str) -> None:
    if len(text) > MAX_FOOTER:
        raise ListError(f"{key}: use at most {MAX_FOOTER} characters")
    names = ", ".join(f"${name}" for name in FOOTER_NAMES)
    template = Template(text)
    if not template.is_valid():
        raise ListError(f"{key}: a $ stands alone: use $$ for a dollar, or one of {names}")
    unknown = [name for name in template.get_identifiers() if name not in FOOTER_NAMES]
    if unknown:
        raise ListError(f"{key}: ${unknown[0]} is not known: use {names}")
