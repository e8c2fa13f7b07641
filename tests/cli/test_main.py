"""The command as a whole: help, lazy loading, and that no traceback reaches anybody."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pysqlite3.dbapi2 as sqlite
import pytest

from postroom import __version__
from postroom.cli import main
from postroom.cli.common import Options
from postroom.cli.main import COMMANDS, cli
from postroom.store import engine
from tests.cli.conftest import Postroom, Run


def commands(group: click.Group, *names: str) -> Iterator[tuple[str, ...]]:
    """The words that call each command below `group`."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*names, name)
        if isinstance(command, click.Group):
            yield from commands(command, *names, name)


ALL = [(), *commands(cli)]


@pytest.mark.parametrize("words", ALL, ids=lambda words: " ".join(words) or "postroom")
def test_help_has_an_example_that_can_be_typed(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    lines = run(*words, "--help").stdout.splitlines()
    examples = [line.strip() for line in lines[lines.index("  Example:") + 1 :]]
    typed = [shlex.split(line) for line in examples if line.startswith("postroom ")]
    assert typed
    monkeypatch.setattr(click.Command, "invoke", lambda self, context: None)  # parse only
    for _, *arguments in typed:
        end = next((i for i, word in enumerate(arguments) if word in "<>"), len(arguments))
        run(*arguments[:end])


def test_the_groups_help_says_of_each_command_what_its_own_help_says() -> None:
    for name, lazy in COMMANDS.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert command.name == name
        assert command.get_short_help_str(100) == lazy.help


def test_the_console_script_is_the_command(postroom: Postroom) -> None:
    result = postroom("--version")
    assert (result.stdout, result.returncode) == (f"postroom {__version__}\n".encode(), 0)


def test_an_unknown_command_is_wrong_usage(run: Run) -> None:
    assert "No such command 'lst'" in run("lst", status=2).stderr


def test_serve_imports_neither_database_nor_tables() -> None:
    code = (
        "import sys, postroom.cli.main as main\n"
        "assert main.cli.get_command(None, 'serve')\n"
        "print(*sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    heavy = {"sqlalchemy", "rich", "alembic", "pysqlite3", "postroom.store", "postroom.spool"}
    assert heavy & set(found.decode().split()) == set()


def test_help_and_completion_of_commands_import_none_of_them() -> None:
    code = (
        "import sys, click, postroom.cli.main as main\n"
        "context = click.Context(main.cli)\n"
        "assert 'queue' in main.cli.get_help(context)\n"
        "assert [each.value for each in main.cli.shell_complete(context, 'qu')] == ['queue']\n"
        "print(*sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    loaded = [name for name in found.decode().split() if name.startswith("postroom.cli.")]
    assert sorted(loaded) == ["postroom.cli.common", "postroom.cli.main"]


@pytest.mark.parametrize(
    ("words", "offered"),
    [("postroom q", "plain,queue"), ("postroom queue ls sh", "plain,shunt")],
)
def test_the_shell_completes_commands_and_queues(words: str, offered: str) -> None:
    completing = {
        "_POSTROOM_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    found = subprocess.run(
        [sys.executable, "-m", "postroom"],
        env=os.environ | completing,
        capture_output=True,
        check=True,
    )
    assert found.stdout.decode().split() == [offered]


@pytest.mark.parametrize(
    "arguments",
    [("list", "ls"), ("queue", "stats"), ("domain", "add", "example.com"), ("migrate",)],
)
def test_a_database_path_that_cannot_be_written_is_one_sentence(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    (place / "file").touch()
    monkeypatch.setenv("POSTROOM_STORE__URL", f"sqlite:///{place}/file/postroom.db")
    result = run(*arguments, status=1)
    assert result.stderr.startswith(f"postroom: {place}/file/postroom.db cannot be used")
    assert result.stderr.endswith("set store.url\n")
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", [("list", "ls"), ("config", "show"), ("serve",)])
def test_settings_that_cannot_be_used_are_one_sentence(
    run: Run, place: Path, arguments: tuple[str, ...]
) -> None:
    (place / "postroom.toml").write_text("[lmtp]\nport = 24\n")
    result = run(*arguments, status=1)
    assert result.stderr.startswith("postroom: postroom.toml: lmtp.port: unknown key; [lmtp] has")
    assert result.stdout == ""


def test_a_settings_file_that_is_not_there_is_one_sentence(run: Run) -> None:
    result = run("--config", "nowhere.toml", "list", "ls", status=1)
    assert result.stderr.startswith("postroom: nowhere.toml: there is no such file")


def test_the_named_settings_file_is_used(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POSTROOM_STORE__URL")
    (place / "other.toml").write_text(f'[store]\nurl = "sqlite:///{place}/other.db"\n')
    run("--config", "other.toml", "list", "create", "ants@example.com")
    assert (place / "other.db").is_file()
    assert not (place / "postroom.db").exists()


def test_a_database_that_is_in_use_is_one_sentence(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("list", "create", "ants@example.com")
    monkeypatch.setattr(engine, "BUSY_TIMEOUT", 0.01)
    other = sqlite.connect(f"{place}/postroom.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    result = run("list", "create", "bees@example.com", status=1)
    other.close()
    assert result.stderr.startswith("postroom: ")
    assert "database is locked" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "bees" not in run("list", "ls").stdout


def test_a_damaged_database_is_one_sentence(run: Run, place: Path) -> None:
    (place / "postroom.db").write_bytes(b"no database at all " * 500)
    result = run("list", "ls", status=1)
    assert result.stderr.startswith(f"postroom: sqlite:///{place}/postroom.db is damaged")


def test_a_reader_that_goes_away_gets_no_traceback(run: Run, place: Path) -> None:
    run("list", "create", "-", stdin="\n".join(f"list{n}@example.com" for n in range(3000)))
    with subprocess.Popen(
        [sys.executable, "-m", "postroom", "list", "ls", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"[\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_ctrl_c_ends_a_command_without_a_traceback_and_changes_nothing(run: Run) -> None:
    run("list", "create", "ants@example.com")
    code = (  # whoever started the tests may have it ignored
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from postroom.cli.main import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "list", "create", "bees@example.com", "-"],
        bufsize=0,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        # More than a pipe holds, so it is reading when this returns.
        process.stdin.write(b"\n" * 1_000_000)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert said is not None
    assert (said.strip(), process.returncode) == (b"Aborted!", 1)
    assert "bees" not in run("list", "ls").stdout


def test_output_that_the_terminal_cannot_show_is_escaped(postroom: Postroom, place: Path) -> None:
    postroom("list", "create", "ants@example.com", "--name", "Жуки")
    result = subprocess.run(
        [sys.executable, "-m", "postroom", "list", "ls"],
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=True,
    )
    assert rb"\u0416\u0443" in result.stdout


def failing(error: Exception) -> object:
    """Something that raises `error`, whatever it is called with."""

    def fail(*arguments: object, **options: object) -> None:
        raise error

    return fail


def test_a_full_disk_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "cli", failing(OSError(28, "No space left on device")))
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "postroom: No space left on device\n"


def test_a_defect_is_one_sentence_that_asks_for_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "cli", failing(KeyError("x")))
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("postroom: a defect of postroom: KeyError: 'x' (test_main.py line ")
    assert "please report it" in said
    assert len(said.splitlines()) == 1


def test_commands_that_are_proposed_can_be_typed_as_they_stand(
    run: Run, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    (place / "my site.toml").touch()
    monkeypatch.setattr(sys, "argv", ["bin/postroom"])
    said = run("--config", "my site.toml", "list", "ls").stdout
    assert said == (
        "No lists yet: bin/postroom --config 'my site.toml' list create mylist@example.com\n"
    )
    assert Options().command("queue ls") == "bin/postroom queue ls"
