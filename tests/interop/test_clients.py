"""Other clients: swaks, Postfix's smtp-source, Python's smtplib.

UTF-8 addresses with swaks are left out: it cannot ask for SMTPUTF8. To smtplib, which reads
one of N replies, nobody should give more than one recipient that may be refused.
"""

import smtplib
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.testing.site import Site
from tests.integration.mail import LIST, create_lists, depth, new_message, queued
from tests.integration.sites import Sites
from tests.interop.mail import HUGE, ledger, marked, message_id, send_while_it_ends
from tests.peers import need

UNKNOWN = "nobody@example.com"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A running server with the settings that a new site has."""
    with Sites() as made:
        yield made.start(LIST)


@pytest.fixture(scope="module")
def at_rcpt() -> Iterator[Site]:
    """A running server that refuses at RCPT."""
    with Sites() as made:
        yield made.start(LIST, LMTP__REFUSE_UNKNOWN="at-rcpt")


def swaks(site: Site, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """swaks with these arguments, speaking LMTP."""
    server = ["--protocol", "LMTP", "--server", "127.0.0.1", "--port", str(site.port)]
    return subprocess.run(
        [need("swaks"), *server, "--from", "anne@example.org", "--timeout", "30", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def server_lines(session: str) -> list[str]:
    """The codes of what the server said in a transcript of swaks, without continuation lines."""
    lines = [line[4:] for line in session.splitlines() if line.startswith(("<-  ", "<** "))]
    return [line[:3] for line in lines if line[3:4] == " "]


@pytest.mark.parametrize("more", [(), ("--pipeline",)], ids=["one by one", "pipelined"])
def test_swaks_delivers(site: Site, more: tuple[str, ...]) -> None:
    before = depth(site.store)
    done = swaks(site, "--to", LIST, "--body", f"Hello {more}", *more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert server_lines(done.stdout) == ["220", "250", "250", "250", "354", "250", "221"]
    [entry] = queued(site.store)[before:]
    assert f"Hello {more}".encode() in entry.raw


@pytest.mark.parametrize("more", [(), ("--pipeline",)], ids=["one by one", "pipelined"])
def test_swaks_is_refused_at_rcpt_and_says_quit(at_rcpt: Site, more: tuple[str, ...]) -> None:
    done = swaks(at_rcpt, "--to", UNKNOWN, *more)
    assert done.returncode == 24  # no recipient was accepted
    assert "550 5.1.1 Requested action not taken: mailbox unavailable" in done.stdout
    codes = server_lines(done.stdout)
    assert codes[:4] == ["220", "250", "250", "550"]
    assert codes[-1] == "221"


def test_swaks_gets_a_reply_for_each_recipient(site: Site, at_rcpt: Site) -> None:
    everybody = ",".join([UNKNOWN, LIST, "mylist-join@example.com"])
    done = swaks(site, "--to", everybody, "--pipeline")
    assert server_lines(done.stdout)[2:] == [*["250"] * 4, "354", "550", "250", "250", "221"]
    done = swaks(at_rcpt, "--to", everybody, "--pipeline")
    assert server_lines(done.stdout)[2:] == ["250", "550", *["250"] * 2, "354", *["250"] * 2, "221"]


def test_swaks_delivers_a_bounce_with_the_null_sender(site: Site) -> None:
    done = swaks(
        site, "--from", "<>", "--to", "mylist-bounces+ab23cd45+gone=example.com@example.com"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    entry = queued(site.store)[-1]
    assert (entry.queue, entry.sender) == ("bounces", "")
    assert entry.where == (LIST, "bounces", "ab23cd45+gone=example.com")


def test_what_swaks_sends_to_a_server_that_ends_is_there_once(site: Site, tmp_path: Path) -> None:
    def send(raw: bytes) -> bool:
        file = tmp_path / message_id(raw).strip(b"<>").decode()
        file.write_bytes(raw)
        return swaks(site, "--to", LIST, "--data", f"@{file}", "--silent").returncode == 0

    messages = [new_message() for _ in range(12)]
    attempts = send_while_it_ends(site, send, messages)
    assert ledger(site, attempts) == Counter(map(message_id, messages))


@pytest.mark.parametrize("sessions", [1, 20])
def test_as_many_messages_are_there_as_smtp_source_has_sent(site: Site, sessions: int) -> None:
    before = {each.id for each in queued(site.store)}
    command = [need("smtp-source"), "-L", "-d", "-s", str(sessions), "-m", "400", "-l", "4000"]
    command += ["-f", "source@example.org", "-t", LIST, f"inet:127.0.0.1:{site.port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    new = [each for each in queued(site.store) if each.id not in before]
    assert len(new) == 400
    ids = Counter(each.raw.lower().partition(b"message-id: ")[2].split()[0] for each in new)
    assert set(ids.values()) == {1}


def test_smtp_source_gets_a_reply_for_each_of_its_recipients(site: Site) -> None:
    names = [f"{mark}spread@example.com" for mark in ("", 2, 3, 4, 5, 6, 7)]  # as it makes them
    create_lists(site.store, *names)
    command = [need("smtp-source"), "-L", "-d", "-s", "5", "-m", "50", "-r", str(len(names))]
    command += ["-f", "source@example.org", "-t", "spread@example.com"]
    done = subprocess.run(
        [*command, f"inet:127.0.0.1:{site.port}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = Counter(each.where[0] for each in queued(site.store))
    assert [found[name] for name in names] == [50] * len(names)


def test_smtplib_delivers_to_one_recipient(site: Site) -> None:
    raw = new_message()
    with smtplib.LMTP("127.0.0.1", site.port) as client:
        assert client.sendmail("anne@example.org", [LIST], raw) == {}
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("anne@example.org", [UNKNOWN], raw)
        assert refused.value.smtp_code == 550
        assert client.sendmail("anne@example.org", ["mylist-join@example.com"], raw) == {}
    assert sorted(each.queue for each in queued(site.store) if each.raw == raw) == ["command", "in"]


def test_smtplib_delivers_a_bounce_with_the_null_sender(site: Site) -> None:
    raw = new_message()
    with smtplib.LMTP("127.0.0.1", site.port) as client:
        assert (
            client.sendmail("", ["mylist-bounces+ab23cd45+gone=example.com@example.com"], raw) == {}
        )
    [entry] = marked(site, message_id(raw))
    assert (entry.queue, entry.sender) == ("bounces", "")


def test_smtplib_delivers_to_addresses_beyond_ascii(site: Site) -> None:
    raw = new_message()
    recipient, sender = "mylist-confirm+grüße@example.com", "änne@example.org"
    with smtplib.LMTP("127.0.0.1", site.port) as client:
        assert client.sendmail(sender, [recipient], raw, ["SMTPUTF8", "BODY=8BITMIME"]) == {}
    [entry] = marked(site, message_id(raw))
    assert (entry.where, entry.sender) == ((LIST, "confirm", "grüße"), sender)


def test_what_smtplib_sends_to_a_server_that_ends_is_there_once(site: Site) -> None:
    def send(raw: bytes) -> bool:
        try:
            with smtplib.LMTP("127.0.0.1", site.port) as client:
                client.sendmail("anne@example.org", [LIST], raw)
        except (OSError, smtplib.SMTPException):
            return False
        return True

    messages = [new_message() for _ in range(100)]
    attempts = send_while_it_ends(site, send, messages)
    assert ledger(site, attempts) == Counter(map(message_id, messages))


def test_smtplib_is_refused_at_rcpt(at_rcpt: Site) -> None:
    with smtplib.LMTP("127.0.0.1", at_rcpt.port) as client:
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            client.sendmail("anne@example.org", [UNKNOWN], new_message())
        assert refused.value.recipients[UNKNOWN][0] == 550
        assert client.sendmail("anne@example.org", [LIST, UNKNOWN], new_message()).keys() == {
            UNKNOWN
        }


# The large ones come last: other tests read all that is queued.


def test_swaks_delivers_a_message_of_almost_the_largest_size(site: Site, tmp_path: Path) -> None:
    raw = new_message(size=HUGE)
    (tmp_path / "message").write_bytes(raw)
    done = swaks(site, "--to", LIST, "--data", f"@{tmp_path}/message", "--silent")
    assert done.returncode == 0, done.stdout + done.stderr
    [entry] = marked(site, message_id(raw))
    assert entry.raw.rstrip() == raw.rstrip()


def test_smtplib_delivers_a_message_of_almost_the_largest_size(site: Site) -> None:
    raw = new_message(size=HUGE)
    with smtplib.LMTP("127.0.0.1", site.port) as client:
        assert client.sendmail("anne@example.org", [LIST], raw) == {}
    [entry] = marked(site, message_id(raw))
    assert entry.raw == raw
