"""The benches of posts and commands as programs: options, parts, tables as markdown.

For: figures that can be trusted. Nothing is measured here.
"""

import os
import sys
from pathlib import Path

import pytest

from bench import bounce, command, command_parts, post, post_beside, process
from bench.load import LoadError
from bench.post_ours import ASIDE, RUNNERS, UNSERVED
from bench.process import Skip
from bench.program import Bench, arguments, run_parts
from bench.report import markdown
from bench.tables import Table
from postroom.lists.endpoint import SUBADDRESSES, Endpoint, readings
from postroom.mail.address import fold, parse_mailbox
from postroom.runners.bounced import Bounced
from postroom.spool.metadata import queue_of

BENCHES = pytest.mark.parametrize(
    "bench", [post.BENCH, command.BENCH, bounce.BENCH], ids=["post", "command", "bounce"]
)


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


def queue_behind(to: str) -> str:
    """The queue that mail to this address goes to."""
    box, _ = parse_mailbox(to)
    [name] = [each.subaddress for each in readings(box.local, fold(box.local)) if each.subaddress]
    return queue_of(Endpoint(1, "", "", name, ""))


def queue_of_the_bounce_runner(path: Path, module: str) -> str:
    """What it serves in a process that runs this module, with `path` on PYTHONPATH."""
    told = "from postroom.runners.bounced import Bounced; print(Bounced.queue)"
    places = os.pathsep.join([str(path), *filter(None, sys.path)])
    return process.run([sys.executable, "-c", told, module], path, env={"PYTHONPATH": places})[:-1]


@pytest.mark.parametrize("to", [post_beside.DOOR.to, command_parts.DOOR.to])
def test_the_load_at_the_door_goes_where_nobody_serves_it(to: str) -> None:
    assert queue_behind(to) == UNSERVED == Bounced.queue
    served = queue_of_the_bounce_runner(ASIDE, RUNNERS)
    assert served not in map(queue_of, every_endpoint())
    assert queue_of_the_bounce_runner(ASIDE, "postroom.service.intake") == UNSERVED


def every_endpoint() -> list[Endpoint]:
    return [Endpoint(1, "", "", each, "") for each in ("", *SUBADDRESSES.values())]


def test_a_table_becomes_markdown() -> None:
    assert markdown(Table("T", ("a", "b"), (("1|2", ""),), ("note",))) == (
        "### T\n\n| a | b |\n| --- | --- |\n| 1\\|2 |  |\n\nnote\n"
    )
