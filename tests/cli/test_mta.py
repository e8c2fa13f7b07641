"""`postroom mta`: what it prints. That mail servers take it is in `test_mta_programs`."""

import re

import pytest

from tests.cli.conftest import Run

PROGRAMS = ["postfix", "exim", "opensmtpd", "sendmail"]
LISTEN = "POSTROOM_LMTP__LISTEN"
MAPS = "POSTROOM_MAPS__LISTEN"


@pytest.fixture
def lists(run: Run) -> None:
    """Two domains, one of them beyond ASCII, and another name for the first."""
    run("list", "create", "ants@example.com", "bees@bücher.example")
    run("domain", "add", "example.net", "--alias-of", "example.com")


def settings(text: str) -> dict[str, str]:
    """What main.cf would hold."""
    logical = re.sub(r"\n[ \t]+", " ", text)
    return dict(re.findall(r"^(\w+) =(?: (.*))?$", logical, re.M))


def test_postfix_for_domains_of_lists_asks_for_domains_and_addresses(run: Run, lists: None) -> None:
    result = run("mta", "postfix")
    assert settings(result.stdout) == {
        "relay_domains": "socketmap:inet:127.0.0.1:8025:domains",
        "transport_maps": "socketmap:inet:127.0.0.1:8025:domains",
        "relay_recipient_maps": "socketmap:inet:127.0.0.1:8025:recipients",
        "smtpd_authorized_verp_clients": "$mynetworks",
    }
    assert result.stderr == ""
    other = result.stdout.partition("in place of the first two:\n")[2].partition("\n\n")[0]
    written_down = settings(re.sub("^# ", "", other, flags=re.M))
    names = "bücher.example, xn--bcher-kva.example, example.com, example.net"
    assert written_down["relay_domains"] == names
    routes = ", ".join(f"{{ {name} = lmtp:inet:127.0.0.1:8024 }}" for name in names.split(", "))
    assert written_down["transport_maps"] == f"inline:{{ {routes} }}"


def test_postfix_for_a_shared_domain_asks_for_addresses_only(run: Run) -> None:
    assert settings(run("mta", "postfix", "--shared").stdout) == {
        "transport_maps": "socketmap:inet:127.0.0.1:8025:transport",
        "local_recipient_maps": "proxy:unix:passwd.byname, $alias_maps, "
        "socketmap:inet:127.0.0.1:8025:recipients",
        "smtpd_authorized_verp_clients": "$mynetworks",
    }


def test_postfix_needs_no_domain_to_be_there_yet(run: Run) -> None:
    text = run("mta", "postfix").stdout
    assert "relay_domains = socketmap:" in text
    assert "inline:" not in text


def test_postfix_with_unix_sockets_is_told_of_the_chroot(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MAPS, "unix:/run/postroom/maps.sock")
    monkeypatch.setenv(LISTEN, "unix:/run/postroom/lmtp.sock,127.0.0.1:8024")
    text = run("mta", "postfix").stdout
    ours = "proxy:socketmap:unix:/run/postroom/maps.sock"
    assert settings(text)["relay_recipient_maps"] == f"{ours}:recipients"
    assert "#   postconf -F lmtp/unix/chroot=n\n" in text
    monkeypatch.setenv(LISTEN, "unix:/var/spool/postfix/postroom/lmtp.sock")
    text = run("mta", "postfix", "--shared").stdout
    assert "chroot" not in text
    assert "# fallback_transport = lmtp:unix:postroom/lmtp.sock\n" in text


def test_no_more_recipients_at_once_than_we_take(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("list", "create", "ants@example.com")
    monkeypatch.setenv("POSTROOM_LMTP__MAX_RECIPIENTS", "7")
    assert "\nlmtp_destination_recipient_limit = 7\n" in run("mta", "postfix").stdout
    assert "\n  max_rcpt = 7\n" in run("mta", "exim").stdout
    monkeypatch.setenv(LISTEN, "unix:/run/postroom/lmtp.sock")
    assert "\n  batch_max = 7\n" in run("mta", "exim").stdout


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("shared", [(), ("--shared",)], ids=["", "shared"])
def test_everything_is_filled_in_and_stands_alone_on_stdout(
    run: Run, lists: None, program: str, shared: tuple[str, ...]
) -> None:
    result = run("mta", program, *shared)
    assert not re.search(r"@[A-Z_]+@", result.stdout)
    assert result.stdout.endswith("\n") and not result.stdout.endswith("\n\n")
    assert result.stderr == ""
    assert max(map(len, result.stdout.splitlines())) < 110
    assert f"postroom mta {program}" in result.stdout


@pytest.mark.parametrize("program", PROGRAMS)
def test_nothing_that_is_printed_lets_anybody_relay(run: Run, lists: None, program: str) -> None:
    for options in [], ["--shared"]:
        text = run("mta", program, *options).stdout
        assert not re.search(r"^mynetworks|permit|promiscuous|relay_entire|^ *accept", text, re.M)


@pytest.mark.parametrize(
    ("listen", "postfix", "exim", "opensmtpd", "sendmail"),
    [
        ("[::1]:24", "inet:[::1]:24", "* ::1 byname", 'lmtp "[::1]:24" rcpt-to', "$@ [::1] "),
        (
            "0.0.0.0:24",
            "inet:127.0.0.1:24",
            "127.0.0.1 byname",
            'lmtp "127.0.0.1:24"',
            "[127.0.0.1]",
        ),
        ("[::]:24", "inet:[::1]:24", "* ::1 byname", 'lmtp "[::1]:24" rcpt-to', "$@ [::1] "),
        ("mail:24", "inet:mail:24", "* mail byname", 'lmtp "mail:24" rcpt-to', "$@ [mail] "),
        ("unix:/a/b", "unix:/a/b", "  socket = /a/b\n", 'lmtp "/a/b" rcpt-to', "A=FILE /a/b\n"),
    ],
)
def test_mail_goes_where_the_first_listener_is(
    run: Run,
    lists: None,
    monkeypatch: pytest.MonkeyPatch,
    listen: str,
    postfix: str,
    exim: str,
    opensmtpd: str,
    sendmail: str,
) -> None:
    monkeypatch.setenv(LISTEN, f"{listen},192.0.2.1:25000")
    assert f"= lmtp:{postfix} " in run("mta", "postfix").stdout
    assert exim in run("mta", "exim").stdout
    assert opensmtpd in run("mta", "opensmtpd").stdout
    assert sendmail in run("mta", "sendmail").stdout


@pytest.mark.parametrize(
    ("listen", "postfix", "exim", "sendmail"),
    [
        ("[::1]:24", ":inet:[::1]:24:", "{inet:[::1]:24}", " inet6:24@::1\n"),
        ("0.0.0.0:24", ":inet:127.0.0.1:24:", "{inet:127.0.0.1:24}", " inet:24@127.0.0.1\n"),
        ("unix:/a/b", ":unix:/a/b:", "{/a/b}", " unix:/a/b\n"),
    ],
)
def test_look_ups_go_where_maps_are_served(
    run: Run,
    lists: None,
    monkeypatch: pytest.MonkeyPatch,
    listen: str,
    postfix: str,
    exim: str,
    sendmail: str,
) -> None:
    monkeypatch.setenv(MAPS, listen)
    assert f"socketmap{postfix}" in run("mta", "postfix").stdout
    assert f"readsocket{exim}" in run("mta", "exim").stdout
    assert sendmail in run("mta", "sendmail").stdout


@pytest.mark.parametrize("program", ["postfix", "exim", "sendmail"])
def test_without_look_ups_it_says_so_and_names_the_domains(
    run: Run, lists: None, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setenv(MAPS, "")
    result = run("mta", program)
    assert result.stderr == (
        "postroom: look-ups are off (maps.listen is empty): this configuration does without\n"
    )
    for name in "example.com", "example.net", "xn--bcher-kva.example":
        assert name in result.stdout
    assert not re.search(r"socketmap:|readsocket|^K", result.stdout, re.M)


def test_without_look_ups_addresses_are_verified_if_we_refuse_at_rcpt(
    run: Run, lists: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MAPS, "")
    late = {program: run("mta", program).stdout for program in ("postfix", "exim")}
    assert all("refuse_unknown" in text for text in late.values())
    monkeypatch.setenv("POSTROOM_LMTP__REFUSE_UNKNOWN", "at-rcpt")
    found = settings(run("mta", "postfix").stdout)
    assert "{ example.com = reject_unverified_recipient }" in found["smtpd_recipient_restrictions"]
    assert found["unverified_recipient_reject_code"] == "550"
    assert "!verify = recipient/callout=30s,no_cache" in run("mta", "exim").stdout
    shared = settings(run("mta", "postfix", "--shared").stdout)
    assert shared["fallback_transport"] == "lmtp:inet:127.0.0.1:8024"
    assert shared["local_recipient_maps"] == ""


def test_without_look_ups_sendmail_cannot_share(
    run: Run, lists: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MAPS, "")
    result = run("mta", "sendmail", "--shared", status=1)
    assert result.stdout == ""
    assert "without look-ups sendmail cannot share a domain: set maps.listen" in result.stderr


def test_the_table_of_domains(run: Run, lists: None) -> None:
    found = run("mta", "opensmtpd", "--table", "domains").stdout.split()
    assert found == ["bücher.example", "xn--bcher-kva.example", "example.com", "example.net"]


def test_the_table_of_recipients_holds_every_valid_address(run: Run, lists: None) -> None:
    found = run("mta", "opensmtpd", "--table", "recipients").stdout.splitlines()
    suffixes = ["", "-bounces", "-confirm", "-join", "-leave", "-owner", "-request"]
    suffixes += ["-subscribe", "-unsubscribe"]
    bees = [f"bees{each}" for each in suffixes] + ["postmaster"]
    ants = [f"ants{each}" for each in suffixes] + ["postmaster"]
    expected = {f"{name}@{host}" for host in ("example.com", "example.net") for name in ants}
    hosts = "bücher.example", "xn--bcher-kva.example"
    expected |= {f"{name}@{host}" for host in hosts for name in bees}
    assert set(found) == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize("program", ["exim", "sendmail"])
def test_without_a_domain_it_says_what_to_do_first(run: Run, program: str) -> None:
    result = run("mta", program, status=1)
    assert result.stdout == ""
    assert result.stderr == (
        "postroom: there is no domain yet whose mail could be handed over: "
        "postroom list create mylist@example.com makes the first\n"
    )


@pytest.mark.parametrize(
    ("variable", "address", "sentence"),
    [
        (LISTEN, "127.0.0.1:0", "lmtp.listen: the system chooses the port: set one"),
        (MAPS, "127.0.0.1:0", "maps.listen: the system chooses the port: set one"),
        (LISTEN, "unix:/a b", "lmtp.listen: unix:/a b cannot be written into the configuration"),
        (MAPS, "unix:/a}b", "maps.listen: unix:/a}b cannot be written into the configuration"),
        (LISTEN, "a$b:24", "lmtp.listen: a$b:24 cannot be written into the configuration"),
    ],
)
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_cannot_be_written_down_is_refused(
    run: Run,
    lists: None,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    address: str,
    sentence: str,
    program: str,
) -> None:
    monkeypatch.setenv(variable, address)
    result = run("mta", program, status=1)
    assert result.stdout == ""
    assert sentence in result.stderr


# Mail that goes out

HOST, PER_COPY = "POSTROOM_SMTP__HOST", "POSTROOM_SMTP__RECIPIENTS"
LARGEST, MEMORY = "POSTROOM_LMTP__MAX_MESSAGE_SIZE", "POSTROOM_LMTP__MEMORY_BUDGET"


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_is_told_where_posts_come_and_who_has_to_be_let_relay(
    run: Run, lists: None, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    def told() -> str:
        comment = re.sub(r"\n(# |dnl )", " ", run("mta", program).stdout)
        return comment.partition("Posts go out by SMTP, too: ")[2]

    assert told().startswith("postroom hands them to 127.0.0.1:25 (smtp.host in ")
    assert "127.0.0.1" in told() or "this machine" in told()
    monkeypatch.setenv(HOST, "a.example.com,b.example.com:587")
    assert "them to a.example.com:25 or b.example.com:587 (smtp.host in " in told()
    assert "address of this machine" in told() or "Connect:ADDRESS RELAY" in told()


def test_limits_that_are_too_low_by_default_are_raised(
    run: Run, lists: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MEMORY, "1000000000")
    for name, value in (PER_COPY, "1000"), (LARGEST, "9000000"):
        monkeypatch.setenv(name, value)
    usual = [run("mta", program).stdout for program in PROGRAMS]
    assert not any(re.search(r"message.size|limit max-rcpt|t_limit", text) for text in usual)
    for name, value in (PER_COPY, "1001"), (LARGEST, "60000000"):
        monkeypatch.setenv(name, value)
    postfix, exim, opensmtpd, _ = [run("mta", program).stdout for program in PROGRAMS]
    assert "\nsmtpd_recipient_limit = 1001\n" in postfix
    assert "\n# message_size_limit = 61048576\n" in postfix  # a decision for the whole server
    assert "\nmessage_size_limit = 61048576\n" in exim
    assert "\nsmtp limit max-rcpt 1001\n" in opensmtpd
    assert "\nsmtp max-message-size 61048576\n" in opensmtpd
