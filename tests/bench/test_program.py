"""The benches of posts and commands as programs: options, parts, tables as markdown.

For: figures that can be trusted. Nothing is measured here.
"""

from pathlib import Path

import pytest

from bench import command, command_parts, post, post_beside
from bench.load import LoadError
from bench.process import Skip
from bench.program import Bench, arguments, run_parts
from bench.report import markdown
from bench.tables import Table
from postroom.lists.endpoint import Endpoint, readings
from postroom.mail.address import fold, parse_mailbox
from postroom.spool.metadata import SERVED, queue_of

BENCHES = pytest.mark.parametrize("bench", [post.BENCH, command.BENCH], ids=["post", "command"])


@BENCHES
@pytest.mark.parametrize("words", [["--rounds", "0"], ["--rounds", "x"], ["--only", "door"]])
def test_wrong_options_are_refused(
    bench: Bench, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        arguments(bench, words)
    assert refused.value.code == 2
    assert words[0] in capsys.readouterr().err


@BENCHES
def test_each_part_can_be_chosen(bench: Bench) -> None:
    for part in bench.parts:
        assert arguments(bench, ["--only", part, "--rounds", "2"]).only == [part]


def test_a_part_that_fails_is_a_fault_and_the_others_go_on(tmp_path: Path) -> None:
    def fails(error: Exception) -> list[str]:
        raise error

    found, broken = run_parts(
        list[str](),
        {
            "one": lambda r, place: [*r, place.name],
            "two": lambda r, place: fails(LoadError("it is late")),
            "three": lambda r, place: fails(Skip("it is not here")),
            "four": lambda r, place: [*r, place.name],
        },
        (),
        tmp_path,
    )
    assert found == ["one", "four"]
    assert broken == [
        "two could not be measured: it is late",
        "three could not be measured: it is not here",
    ]
    assert not list(tmp_path.iterdir()), "what a part wrote is left"


def test_only_parts_that_were_asked_for_run(tmp_path: Path) -> None:
    steps = {name: lambda r, place: [*r, place.name] for name in ("one", "two", "three")}
    assert run_parts(list[str](), steps, ["three", "one"], tmp_path)[0] == ["one", "three"]


@pytest.mark.parametrize(
    ("to", "queue"),
    [
        (post_beside.DOOR.to, post_beside.QUEUE),
        (command_parts.DOOR.to, command_parts.UNSERVED),
    ],
)
def test_the_load_at_the_door_goes_where_nobody_serves_it(to: str, queue: str) -> None:
    box, _ = parse_mailbox(to)
    [name] = [each.subaddress for each in readings(box.local, fold(box.local)) if each.subaddress]
    assert queue_of(Endpoint(1, "", "", name, "")) == queue
    assert queue not in SERVED


def test_a_table_becomes_markdown() -> None:
    assert markdown(Table("T", ("a", "b"), (("1|2", ""),), ("note",))) == (
        "### T\n\n| a | b |\n| --- | --- |\n| 1\\|2 |  |\n\nnote\n"
    )
