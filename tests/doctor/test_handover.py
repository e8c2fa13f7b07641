"""Whether mail servers hand the addresses of lists to us: what they say, and what we say."""

import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from postroom.base.places import Tcp, Unix
from postroom.doctor import handover
from postroom.doctor.findings import FAILURE, OK, WARNING
from postroom.doctor.handover import (
    Handed,
    ask,
    handed_over,
    hop_of,
    leads_to,
    routed,
    words_of,
)
from tests.interop.exim import Exim
from tests.peers import need

OURS = Tcp("127.0.0.1", 8024)
ANTS = "ants@lists.example.com"


@pytest.mark.parametrize(
    ("hop", "place", "ours"),
    [
        ("lmtp:inet:127.0.0.1:8024", OURS, True),
        ("lmtp:[127.0.0.1]:8024", OURS, True),
        ("lmtp:localhost:8024", OURS, True),
        ("lmtp:inet:[::1]:8024", OURS, True),
        ("postroom:inet:127.0.0.1:8024", OURS, True),  # master.cf may call it anything
        ("lmtp:inet:127.0.0.1:8025", OURS, False),
        ("lmtp:inet:192.0.2.1:8024", OURS, False),
        ("lmtp:inet:192.0.2.1:8024", Tcp("192.0.2.1", 8024), True),
        ("lmtp:inet:192.0.2.1:8024", Tcp("0.0.0.0", 8024), True),
        ("lmtp:inet:127.0.0.1:8024", Tcp("0.0.0.0", 8024), True),
        ("lmtp:inet:127.0.0.1:8024", Tcp("192.0.2.1", 8024), False),
        ("lmtp:unix:/run/postroom/lmtp.sock", Unix("/run/postroom/lmtp.sock"), True),
        ("lmtp:unix:postroom/lmtp.sock", Unix("/var/spool/postfix/postroom/lmtp.sock"), True),
        ("lmtp:unix:/run/dovecot/lmtp", Unix("/run/postroom/lmtp.sock"), False),
        ("lmtp:unix:", Unix("/run/postroom/lmtp.sock"), False),
        ("lmtp:unix:/run/postroom/lmtp.sock", OURS, False),
        ("smtp:", OURS, False),
        ("local:lists.example.com", OURS, False),
        ("", OURS, False),
    ],
)
def test_a_next_hop_is_compared_with_where_we_listen(
    hop: str, place: Tcp | Unix, ours: bool
) -> None:
    assert leads_to(hop, place) is ours


@pytest.mark.parametrize(
    ("facts", "level", "told"),
    [
        (Handed("Postfix", ANTS, hop="lmtp:inet:127.0.0.1:8024"), OK, "hands ants@"),
        (Handed("Postfix", ANTS, accepts=False), FAILURE, "takes no mail for lists.example.com"),
        (Handed("Postfix", ANTS, knows=False), FAILURE, "does not know ants@lists.example.com"),
        (Handed("Postfix", ANTS, hop="smtp:[192.0.2.1]"), FAILURE, "sends it to smtp:[192.0.2.1]"),
        (Handed("Exim", ANTS), FAILURE, "delivers it elsewhere"),
        (Handed("Exim", ANTS, trouble="not for you"), WARNING, "(not for you)"),
    ],
)
def test_what_a_mail_server_does_is_judged(facts: Handed, level: str, told: str) -> None:
    [found] = handed_over([facts], ["unix:/run/lmtp", "127.0.0.1:8024"])
    assert found.level == level
    assert told in found.text
    assert level == OK or f"postroom mta {facts.program.lower()}" in found.to_do


def test_without_a_mail_server_it_says_how_to_check() -> None:
    [found] = handed_over([], ["127.0.0.1:8024"])
    assert found.level == WARNING
    assert "`postroom mta`" in found.to_do


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", []),
        ("a, b  c,d", ["a", "b", "c", "d"]),
        ("hash:/etc/a, inline:{ x=y, z = w } b", ["hash:/etc/a", "inline:{ x=y, z = w }", "b"]),
        ("unionmap:{a:{b,c}, d:e},f", ["unionmap:{a:{b,c}, d:e}", "f"]),
    ],
)
def test_a_list_of_postfix_is_cut_where_no_brace_is_open(value: str, words: list[str]) -> None:
    assert words_of(value) == words


def test_exims_answer_is_read() -> None:
    said = f"{ANTS}\n  router = lists_r, transport = lists_t\n  host localhost [127.0.0.1]\n"
    assert routed(said) == ("lists_t", "127.0.0.1")
    assert routed(f"{ANTS}\n  router = r, transport = t\n") == ("t", "")
    assert routed(f"{ANTS} is undeliverable: Unrouteable address\n") == ("", "")


@pytest.mark.parametrize(
    ("options", "hop"),
    [
        ("driver = smtp\nport = 8024\nprotocol = lmtp\n", "lmtp:inet:127.0.0.1:8024"),
        ("driver = smtp\nport = \nprotocol = lmtp\n", "lmtp:inet:127.0.0.1:24"),
        ("driver = lmtp\nsocket = /run/postroom/lmtp.sock\n", "lmtp:unix:/run/postroom/lmtp.sock"),
        ("driver = smtp\nport = 25\nprotocol = smtp\n", "lists_t"),
    ],
)
def test_the_next_hop_of_exims_transport_is_read(options: str, hop: str) -> None:
    assert hop_of("lists_t", "127.0.0.1", options) == hop


def asked(monkeypatch: pytest.MonkeyPatch, path: Path, *addresses: str) -> list[Handed]:
    """What the programs in a directory say."""
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setattr(handover, "_SBIN", "")
    return ask(addresses)


def script(path: Path, *lines: str) -> None:
    """A program."""
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


def test_where_there_is_no_mail_server_nobody_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert asked(monkeypatch, tmp_path, ANTS) == []


@pytest.mark.parametrize("program", ["postconf", "exim"])
def test_a_mail_server_that_fails_could_not_be_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    script(tmp_path / program, "echo 'cannot read its settings' >&2", "exit 1")
    [found] = asked(monkeypatch, tmp_path, ANTS)
    assert found.trouble == "cannot read its settings"


def test_a_mail_server_that_takes_too_long_could_not_be_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(handover, "PATIENCE", 0.05)
    script(tmp_path / "exim", "exec /bin/sleep 60")
    [found] = asked(monkeypatch, tmp_path, ANTS)
    assert "timed out" in found.trouble


# With the real ones


@pytest.fixture
def postfix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator["PostfixSettings"]:
    """Postfix's own commands, on settings of the test's own."""
    need("postfix")
    yield PostfixSettings(monkeypatch, tmp_path)


class PostfixSettings:
    """Settings of a Postfix that is not running."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self._path = path
        (path / "master.cf").touch()
        monkeypatch.setenv("MAIL_CONFIG", str(path))

    def asked(self, *lines: str) -> Handed:
        usual = ["compatibility_level = 3.6", "myhostname = mta.example.net", "alias_maps ="]
        file = self._path / "main.cf"
        file.write_text("\n".join([*usual, *lines, ""]))
        os.utime(file, (0, 0))  # Postfix waits for a file that was just written to settle
        [found] = ask([ANTS])
        return found


HANDS_OVER = "transport_maps = inline:{ lists.example.com=lmtp:inet:127.0.0.1:8024 }"
HANDED = Handed("Postfix", ANTS, hop="lmtp:inet:127.0.0.1:8024")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["relay_domains = lists.example.com", HANDS_OVER], HANDED),
        (["relay_domains = inline:{lists.example.com=x}, example.net", HANDS_OVER], HANDED),
        (["relay_domains = example.com", HANDS_OVER], HANDED),
        (
            ["mydestination = $lists", "lists = lists.example.com", HANDS_OVER],
            HANDED._replace(knows=False),  # there is no such user
        ),
        (
            [
                "relay_domains = lists.example.com",
                "transport_maps = inline:{ .example.com=smtp:[192.0.2.1] }",
            ],
            HANDED._replace(hop="smtp:[192.0.2.1]"),
        ),
        (
            [
                "relay_domains = lists.example.com",
                f"transport_maps = inline:{{ {ANTS}=lmtp:unix:ants, lists.example.com=smtp: }}",
            ],
            HANDED._replace(hop="lmtp:unix:ants"),
        ),
        (
            [
                "mydestination = lists.example.com",
                "local_recipient_maps =",
                "fallback_transport = lmtp:inet:127.0.0.1:8024",
            ],
            HANDED,
        ),
        (
            [
                "virtual_mailbox_domains = lists.example.com",
                f"virtual_mailbox_maps = inline:{{ {ANTS}=x }}",
                "virtual_transport = lmtp:inet:127.0.0.1:8024",
            ],
            HANDED,
        ),
        (
            [
                "relay_domains = lists.example.com",
                "relay_recipient_maps = inline:{ @lists.example.com=x }",
                HANDS_OVER,
            ],
            HANDED,
        ),
        (
            [
                "relay_domains = lists.example.com",
                "relay_recipient_maps = inline:{ bees@lists.example.com=x }",
                HANDS_OVER,
            ],
            HANDED._replace(knows=False),
        ),
        (["relay_domains = example.org", HANDS_OVER], Handed("Postfix", ANTS, accepts=False)),
        (["relay_domains = lists.example.com"], HANDED._replace(hop="relay")),
    ],
)
def test_postfix_is_asked_with_its_own_commands(
    postfix: PostfixSettings, lines: Sequence[str], expected: Handed
) -> None:
    assert postfix.asked(*lines) == expected


def test_a_table_of_postfix_that_cannot_be_read_is_a_trouble(postfix: PostfixSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    found = postfix.asked(f"relay_domains = socketmap:inet:127.0.0.1:{port}:domains")
    assert found.trouble


def test_exim_is_asked_with_its_own_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places: dict[str, Tcp | Unix] = {
        "lists.example.com": OURS,
        "unix.example.com": Unix("/run/postroom/lmtp.sock"),
    }
    with Exim(places) as exim:
        nsenter, *rest = exim._enter
        enter = " ".join([str(shutil.which(nsenter)), *rest])
        script(tmp_path / "exim", f'exec {enter} /usr/sbin/exim4 "$@"')
        assert asked(monkeypatch, tmp_path, ANTS, "ants@unix.example.com") == [
            Handed("Exim", ANTS, hop="lmtp:inet:127.0.0.1:8024"),
            Handed("Exim", "ants@unix.example.com", hop="lmtp:unix:/run/postroom/lmtp.sock"),
        ]
