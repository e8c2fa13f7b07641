"""The targets see broken code, and what `python -m fuzz` says about it is of use."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import __main__ as command
from fuzz.shrink import shrunk
from fuzz.targets import TARGETS
from postroom.lists import endpoint
from postroom.lmtp import body, grammar, session
from postroom.lmtp.session import Session
from postroom.mail import message
from postroom.service import netstring
from tests.fuzz.test_corpus import known

_NEVER = re.compile(rb"(?!)")


def _one_reply_only(finish: Callable[..., None]) -> Callable[..., None]:
    return lambda self, replies: finish(self, replies[:1])


def _one_reply_more(finish: Callable[..., None]) -> Callable[..., None]:
    return lambda self, replies: finish(self, [*replies, replies[0]])


BROKEN = {
    "a bare line end ends the data": ("framing", body, "END", b"\n.\r\n"),
    "a control character passes": ("grammar", grammar, "_CONTROL", re.compile("(?!)")),
    "one reply for all recipients": (
        "session",
        Session,
        "_finish",
        _one_reply_only(Session._finish),
    ),
    "a reply too many": ("session", Session, "_finish", _one_reply_more(Session._finish)),
    "recipients are looked up too late": (
        "session",
        Session,
        "_group_ends",
        lambda self, line: not line,
    ),
    "a message that is refused is kept": ("session", body.Content, "discard", lambda self: None),
    "a chunk is an octet longer": (
        "session",
        body.Chunks,
        "begin",
        lambda self, octets: setattr(self, "_left", octets + 1),
    ),
    "clear text counts after STARTTLS": ("session", session, "StartTls", type("Other", (), {})),
    "a forged header stays": ("message", message, "_MAIL_FROM", _NEVER),
    "a long detail hides the list": ("endpoint", endpoint, "_LONGEST", 3),
    "a length may begin with 0": (
        "socketmap",
        netstring,
        "_HEAD",
        re.compile(rb"([0-9]+):"),
    ),
}


@pytest.mark.parametrize("defect", BROKEN)
def test_a_target_sees_broken_code(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, place, attribute, broken = BROKEN[defect]
    monkeypatch.setattr(place, attribute, broken)
    with pytest.raises(AssertionError):
        for each in known(name):
            TARGETS[name].check(each)


def test_a_finding_is_shown_with_its_traceback_and_what_matters_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(body, "END", b"\n.\r\n")
    finding = tmp_path / "finding"
    finding.write_bytes(b"\0\0" + b"hello\r\n" * 20 + b"some\n.\r\nmore" + b"hello\r\n" * 20)
    assert command.main(["framing", "--replay", str(finding)]) == 1
    told = capsys.readouterr()
    assert "AssertionError" in told.err
    assert f"{finding} breaks a promise" in told.out
    assert r"\n.\r\n" in told.out and "hello" not in told.out


def test_what_breaks_nothing_is_said_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harmless = tmp_path / "input"
    harmless.write_bytes(b"\0\0hello\r\n.\r\n")
    assert command.main(["framing", "--replay", str(harmless)]) == 0
    assert capsys.readouterr().out == f"framing: {harmless} breaks nothing\n"


def test_shrinking_keeps_the_failure() -> None:
    def check(data: bytes) -> None:
        assert data.count(b"a") < 2
        if b"b" in data:
            raise ValueError

    assert shrunk(check, b"xxaxxxbxaxxx") == b"aa"
    assert shrunk(check, b"xxaxxxbxxxx") == b"b"
    assert shrunk(check, b"harmless") == b"harmless"


def test_without_atheris_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert command.main(["all", "--seconds", "1"]) == 2
    assert capsys.readouterr().err.startswith("fuzz: atheris is not installed: `make fuzz`")


@pytest.mark.parametrize(
    "words",
    [[], ["nothing"], ["framing", "--seconds", "0"], ["framing", "--seconds", "x"],
     ["all", "--replay", "file"], ["framing", "--replay", "file", "--keep"]],
)  # fmt: skip
def test_wrong_usage_is_said(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2
    assert "usage: python -m fuzz" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["framing", "--replay", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("fuzz: ")
