"""Settings of a list: what can be set, and what is said of it; no database is needed."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.lists.preferences import KINDS, changed, describe, in_words
from postroom.lists.registry import ListError
from postroom.lists.settings import Headers, ListSettings, Notices, Posting

DEFAULTS = ListSettings()


def after(*changes: tuple[str, str]) -> ListSettings:
    """The defaults with these changes."""
    return changed(DEFAULTS, changes)


def refused(*changes: tuple[str, str]) -> str:
    """What is said to changes that are refused: one short line."""
    with pytest.raises(ListError) as refusal:
        after(*changes)
    said = str(refusal.value)
    assert "\n" not in said
    assert len(said) < 500
    return said


def stored(settings: ListSettings) -> object:
    """What would be written to the database."""
    return json.loads(msgspec.json.encode(settings))


def test_every_setting_is_described_once_with_value_default_and_meaning() -> None:
    described = list(describe(after(("posting.members", "hold"))))
    assert [each.key for each in described] == list(KINDS)
    assert {each.key.partition(".")[0] for each in described} == set(DEFAULTS.__struct_fields__)
    first, second, *_ = described
    assert first[:3] == ("posting.members", "hold", "accept")
    assert second[:3] == ("posting.nonmembers", "hold", "hold")
    for each in described:
        assert each.meaning.endswith(".")
        assert each.meaning.isprintable()
        assert (each.value == each.default) == (each.key != "posting.members")


def test_the_defaults_can_be_set() -> None:
    assert after() == DEFAULTS
    words = {each.key: in_words(each.default) for each in describe(DEFAULTS)}
    assert changed(DEFAULTS, words) == DEFAULTS
    assert stored(DEFAULTS) == {}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("posting.nonmembers", "reject", {"posting": {"nonmembers": "reject"}}),
        ("posting.emergency", "yes", {"posting": {"emergency": True}}),
        ("posting.require_named", " OFF ", {"posting": {"require_named": False}}),
        ("posting.max_size", "0", {"posting": {"max_size": 0}}),
        ("posting.max_recipients", " 50 ", {"posting": {"max_recipients": 50}}),
        ("notices.owners_every", "0.5", {"notices": {"owners_every": 0.5}}),
        ("headers.subject_prefix", "[ants] ", {"headers": {"subject_prefix": "[ants] "}}),
        ("headers.reply_to", "list", {"headers": {"reply_to": "list"}}),
        (
            "headers.archive_url",
            "https://example.org:8443/a?b=c",
            {"headers": {"archive_url": "https://example.org:8443/a?b=c"}},
        ),
        (
            "headers.footer",
            "-- \n$list <$address> ${list_id} costs $$5: $unsubscribe",
            {"headers": {"footer": "-- \n$list <$address> ${list_id} costs $$5: $unsubscribe"}},
        ),
        (
            "posting.banned",
            "ann@example.org, @example.net,,\n ^bo.*@ ,ann@example.org",
            {"posting": {"banned": ["ann@example.org", "@example.net", "^bo.*@"]}},
        ),
        (
            "subscriptions.join",
            "confirm-then-moderate",
            {"subscriptions": {"join": "confirm-then-moderate"}},
        ),
        ("subscriptions.leave", "open", {"subscriptions": {"leave": "open"}}),
        ("subscriptions.expire_after", " 0.5 ", {"subscriptions": {"expire_after": 0.5}}),
        (
            "subscriptions.welcome_text",
            "Write {plain} text.\n\nIt costs $5.",
            {"subscriptions": {"welcome_text": "Write {plain} text.\n\nIt costs $5."}},
        ),
        ("bounces.count", "no", {"bounces": {"count": False}}),
        ("bounces.threshold", "1", {"bounces": {"threshold": 1.0}}),
        ("bounces.temporary", "0", {"bounces": {"temporary": 0.0}}),
        ("bounces.unsigned", " 1 ", {"bounces": {"unsigned": 1.0}}),
        ("bounces.forget_after", "14.5", {"bounces": {"forget_after": 14.5}}),
        ("bounces.warnings", "0", {"bounces": {"warnings": 0}}),
        ("bounces.complaints", "stop", {"bounces": {"complaints": "stop"}}),
        ("notices.language", "de", {"notices": {"language": "de"}}),
        ("posting.banned", "", {"posting": {}}),
        ("posting.banned+", "^x{2,3}@", {"posting": {"banned": ["^x{2,3}@"]}}),
        ("posting.also_known_as", "^ants?@", {"posting": {"also_known_as": ["^ants?@"]}}),
        ("dmarc.exempt", "@example.net", {"dmarc": {"exempt": ["@example.net"]}}),
        (
            "posting.suspicious",
            "discard X-Spam-Flag: yes\nhold Subject: casino|lottery",
            {
                "posting": {
                    "suspicious": ["discard X-Spam-Flag: yes", "hold Subject: casino|lottery"]
                }
            },
        ),
    ],
)
def test_text_becomes_the_value_and_only_what_differs_is_stored(
    key: str, text: str, value: object
) -> None:
    settings = after((key, text))
    assert stored(settings) == value
    assert msgspec.json.decode(msgspec.json.encode(settings), type=ListSettings) == settings


def test_an_item_is_put_to_a_list_once_and_taken_from_it() -> None:
    settings = after(("posting.banned", "a@b.org"), ("posting.banned+", "^x{1,2}"))
    assert settings.posting.banned == ("a@b.org", "^x{1,2}")
    settings = changed(settings, [("posting.banned+", "a@b.org"), ("posting.banned-", "^x{1,2}")])
    assert settings.posting.banned == ("a@b.org",)


def test_changes_may_need_each_other_in_any_order() -> None:
    first, then = ("headers.reply_to", "address"), ("headers.reply_to_address", "bo@example.org")
    assert after(first, then) == after(then, first)
    assert "set headers.reply_to_address" in refused(first)


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("posting.members", "maybe", "'maybe' is not allowed: use accept, hold, reject or discard"),
        ("posting.members", "", "use accept, hold, reject or discard"),
        ("dmarc.mitigation", "Munge", "use munge, wrap or none"),
        ("posting.emergency", "perhaps", "use yes or no"),
        ("posting.max_size", "big", "'big' is not allowed: use a whole number"),
        ("posting.max_size", "-1", "use a whole number >= 0"),
        ("posting.max_size", "9" * 30, "use a whole number <= "),
        ("posting.max_size", "", "use a whole number"),
        ("posting.max_size", "1" * 100_000, "use a whole number"),
        ("notices.owners_every", "nan", "use a number >= 0.0"),
        ("notices.owners_every", "inf", "use a number <= 168.0"),
        ("posting.banned", "ann", "'ann' is no address"),
        ("posting.banned", "@", "'@' is no address"),
        ("posting.banned", "@exa mple.org", "is no address"),
        ("posting.banned", "Ann <ann@example.org>", "is no address"),
        ("posting.banned", "^(", "'^(' is no regular expression"),
        ("posting.banned", "^" + "x" * 300, "is longer than 200 characters"),
        ("posting.banned", "^(a+)+$", "repeats what itself repeats"),
        ("posting.banned", ",".join(f"a{each}@b.org" for each in range(1001)), "1001 are too many"),
        ("posting.banned+", "", "use posting.banned=VALUE, posting.banned+=VALUE or"),
        ("posting.banned-", "a@b.org", "does not hold 'a@b.org'"),
        ("posting.emergency+", "yes", "posting.emergency is not a list"),
        ("posting.also_known_as", "@example.org", "is no address"),
        ("dmarc.exempt", "^x", "is no address"),
        ("posting.suspicious", "Subject: x", 'is not "ACTION Field: PATTERN"'),
        ("posting.suspicious", "drop Subject: x", 'is not "ACTION Field: PATTERN"'),
        ("posting.suspicious", "hold Sub ject: x", 'is not "ACTION Field: PATTERN"'),
        ("posting.suspicious", "hold Subject:", 'is not "ACTION Field: PATTERN"'),
        ("posting.suspicious", "hold Subject: [", "is no regular expression"),
        ("headers.subject_prefix", "x" * 81, "at most 80 characters"),
        ("headers.subject_prefix", "[ants]\nBcc: x", "on one line"),
        ("headers.subject_prefix", "[\x1b[2J]", "cannot be printed"),
        ("headers.subject_prefix", "\udc80", "cannot be printed"),
        ("headers.reply_to_address", "nobody", "'nobody' is no address"),
        ("headers.reply_to_address", "a@b.org, c@d.org", "is no address"),
        ("headers.archive_url", "ftp://example.org/", "use an address like https://"),
        ("headers.archive_url", "https:///archive", "use an address like https://"),
        ("headers.archive_url", "http://[example.org", "use an address like https://"),
        ("headers.archive_url", "https://example.org:99999/", "use an address like https://"),
        ("headers.archive_url", "https://example.org/>\nBcc: x", "use an address like https://"),
        ("headers.archive_url", "https://example.org/a b", "use an address like https://"),
        ("headers.archive_url", "https://b\u00fccher.example/", "in ASCII"),
        ("headers.archive_url", "https://example.org/" + "x" * 500, "at most 500"),
        ("headers.footer", "costs $5", "a $ stands alone"),
        ("headers.footer", "$password", "$password is not known: use $list,"),
        ("headers.footer", "x" * 2001, "at most 2000"),
        ("headers.footer", "a\rb", "cannot be printed"),
        (
            "subscriptions.join",
            "invite",
            "use open, confirm, moderate, confirm-then-moderate, invite-only or closed",
        ),
        ("subscriptions.leave", "invite-only", "use open, confirm, moderate, confirm-then-"),
        ("subscriptions.changes", "moderate", "use open or confirm"),
        ("subscriptions.expire_after", "0", "use a number > 0.0"),
        ("subscriptions.expire_after", "366", "use a number <= 365.0"),
        ("subscriptions.who", "everybody", "use nobody, owners or members"),
        ("subscriptions.welcome_text", "x" * 2001, "at most 2000 characters"),
        ("subscriptions.welcome_text", "Hello\x1b[2J", "cannot be printed"),
        ("bounces.threshold", "0.9", "use a number >= 1.0"),
        ("bounces.threshold", "1001", "use a number <= 1000.0"),
        ("bounces.threshold", "nan", "use a number >= 1.0"),
        ("bounces.temporary", "-0.1", "use a number >= 0.0"),
        ("bounces.temporary", "1.1", "use a number <= 1.0"),
        ("bounces.unsigned", "2", "use a number <= 1.0"),
        ("bounces.forget_after", "0", "use a number > 0.0"),
        ("bounces.probe_days", "31", "use a number <= 30.0"),
        ("bounces.warnings", "-1", "use a whole number >= 0"),
        ("bounces.warnings", "101", "use a whole number <= 100"),
        ("bounces.warnings", "1.5", "use a whole number"),
        ("bounces.warn_every", "0", "use a number > 0.0"),
        ("bounces.remove", "perhaps", "use yes or no"),
        ("bounces.complaints", "remove", "use leave, stop or ignore"),
        ("notices.language", "fr", "use en or de"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(key: str, text: str, said: str) -> None:
    refusal = refused((key, text))
    assert refusal.startswith(key.rstrip("+-"))
    assert said in refusal


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("posting.nonmember", "did you mean posting.nonmembers?"),
        ("header.subject_prefix", "did you mean headers.subject_prefix?"),
        ("posting.colour", "posting has posting.members, posting.nonmembers,"),
        ("colour", "groups are posting, headers, dmarc, sending, subscriptions, bounces, notices"),
        ("", "use GROUP.NAME"),
        ("posting.banned++", "there is no setting 'posting.banned+'"),
        ("posting.__class__", "there is no setting"),
        ("x" * 100_000, "there is no setting"),
        ("\x1b", "there is no setting '\\x1b'"),
    ],
)
def test_a_setting_that_is_not_there_is_refused_with_what_is(key: str, said: str) -> None:
    assert said in refused((key, "yes"))


@given(st.sampled_from(list(KINDS)), st.sampled_from(["", "+", "-"]), st.text(max_size=40))
def test_whatever_is_set_is_refused_or_can_be_stored_and_read(
    key: str, mark: str, text: str
) -> None:
    try:
        settings = after((f"{key}{mark}", text))
    except ListError as error:
        assert "\n" not in str(error)
        return
    assert msgspec.json.decode(msgspec.json.encode(settings), type=ListSettings) == settings


def test_words_for_values() -> None:
    settings = ListSettings(
        posting=Posting(banned=("a@b.org", "@c.org"), emergency=True),
        headers=Headers(footer="one\ntwo"),
        notices=Notices(owners_every=0.5),
    )
    words = {each.key: in_words(each.value) for each in describe(settings)}
    assert words["posting.banned"] == "a@b.org, @c.org"
    assert (words["posting.emergency"], words["posting.administrivia"]) == ("yes", "yes")
    assert words["headers.anonymous"] == "no"
    assert words["headers.footer"] == "one\ntwo"
    assert (words["notices.owners_every"], words["posting.max_size"]) == ("0.5", "2097152")
