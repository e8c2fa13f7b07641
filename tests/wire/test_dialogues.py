"""Every golden dialogue, played in every way that its octets can be cut."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.wire.dialogue import Dialogue, DialogueError, Expect, introduction, load, load_all
from tests.wire.player import check, in_step, reply_lines, whole

FOLDER = Path(__file__).parent
DIALOGUES = list(load_all(FOLDER))
# What of the checklist is shown here or by a test named for it; 58 belongs to the spool.
ITEMS = {*range(1, 58)}
_NAMED = re.compile(r"def test_\w*?items?((?:_\d+)+)")
# Code, mark, enhanced code of the same class, printable text.
_REPLY = re.compile(r"([245])\d\d[ -]\1\.\d{1,3}\.\d{1,3} [\x20-\x7e]+")


def plays() -> Iterable[object]:
    """Each dialogue in each of its modes."""
    return [
        pytest.param(each, mode, id=f"{each.name}-{'at-rcpt' if mode else 'after-data'}")
        for each in DIALOGUES
        for mode in each.modes
    ]


every_play = pytest.mark.parametrize(("dialogue", "refuse_at_rcpt"), plays())


@every_play
def test_dialogue_played_whole(dialogue: Dialogue, refuse_at_rcpt: bool) -> None:
    check(dialogue, whole(dialogue, refuse_at_rcpt))


@every_play
def test_dialogue_played_in_step_and_octet_by_octet_is_identical(
    dialogue: Dialogue, refuse_at_rcpt: bool
) -> None:
    """Item 47: the same octets in one segment or one by one, byte-identical replies."""
    at_once = whole(dialogue, refuse_at_rcpt)
    assert in_step(dialogue, refuse_at_rcpt, octet_by_octet=False) == at_once
    assert in_step(dialogue, refuse_at_rcpt, octet_by_octet=True) == at_once


@every_play
def test_dialogue_played_with_trailing_data_is_identical(
    dialogue: Dialogue, refuse_at_rcpt: bool
) -> None:
    """After a close nothing is looked at; before one an unfinished line does nothing."""
    trailing = b"NOOP\r\nMAIL FROM:<>\r\n.\r\nQUIT\r\n" if dialogue.closes else b"NOO"
    assert whole(dialogue, refuse_at_rcpt, trailing) == whole(dialogue, refuse_at_rcpt)


@every_play
def test_item_52_every_reply_is_printable_and_has_an_enhanced_code_of_its_class(
    dialogue: Dialogue, refuse_at_rcpt: bool
) -> None:
    # RFC 2034 3 exempts the greeting and LHLO's reply; 354 has no class to give.
    exempt = {
        *(step.line for step in introduction(dialogue.limits) if isinstance(step, Expect)),
        "354 End data with <CR><LF>.<CR><LF>",
    }
    lines = reply_lines(whole(dialogue, refuse_at_rcpt).output)
    assert lines[0] in exempt
    for line in lines:
        assert line in exempt or _REPLY.fullmatch(line), line
        assert len(line) <= 510


def test_every_checklist_item_has_a_dialogue_or_a_test_of_its_name() -> None:
    named = {
        int(number)
        for path in FOLDER.parent.rglob("test_*.py")
        for numbers in _NAMED.findall(path.read_text(encoding="utf-8"))
        for number in re.findall(r"\d+", numbers)
    }
    shown = {item for dialogue in DIALOGUES for item in dialogue.items}
    assert ITEMS - shown - named == set()


def test_every_item_with_dialogues_is_shown_in_both_modes_of_refusal() -> None:
    modes = {(item, mode) for one in DIALOGUES for item in one.items for mode in one.modes}
    assert modes == {(item, mode) for item, _ in modes for mode in (False, True)}


def test_every_dialogue_names_its_item_and_is_named_after_one() -> None:
    for dialogue in DIALOGUES:
        match = re.match(r"item-(\d\d)-", dialogue.name)
        assert match and int(match[1]) in dialogue.items, dialogue.name


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("C NOOP", "not a line of a dialogue"),
        ("S: 550 5.1.1 *", "'*' may only stand for host and ident"),
        ("@ max_recipient 3", "unknown setting"),
        ("@ verdict deliver 999", "999"),
        ("Q: a@example.org", "must be Q: sender"),
        ('Q: a@example.org -> b@example.com : "x', "a body is pieces"),
    ],
)
def test_a_file_that_is_no_dialogue_is_refused_by_name_and_line(
    tmp_path: Path, line: str, complaint: str
) -> None:
    path = tmp_path / "bad.dlg"
    path.write_text(f"# item 1\n{line}\n", encoding="utf-8")
    with pytest.raises(DialogueError, match=r"bad\.dlg") as refused:
        load(path)
    assert complaint in str(refused.value)


def test_the_player_notices_what_differs(tmp_path: Path) -> None:
    """A player that is always content would hold nothing."""
    right = "S: 220 * *\nC: QUIT\nS: 221 2.0.0 Bye\nS! closed\n"
    changes = [
        ("2.0.0 Bye", "2.0.0 bye"),
        ("S: 221 2.0.0 Bye\n", ""),
        ("S! closed\n", ""),
        ("S! closed", 'S! closed\nQ: <> -> a@example.com : ""'),
        ("C: QUIT\nS: 221 2.0.0 Bye", "S: 221 2.0.0 Bye\nC: QUIT"),
    ]
    path = tmp_path / "one.dlg"
    path.write_text(right, encoding="utf-8")
    check(load(path), in_step(load(path), False, octet_by_octet=True))
    for before, after in changes:
        path.write_text(right.replace(before, after), encoding="utf-8")
        with pytest.raises(AssertionError):
            check(load(path), in_step(load(path), False, octet_by_octet=True))
