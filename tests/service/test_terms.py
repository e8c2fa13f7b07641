"""The terms of the door: settings reach connections; TLS files that cannot be used are refused."""

import resource
import ssl
from ipaddress import ip_network
from pathlib import Path

import pytest

from postroom.base.settings import WORKING_COPIES, Lmtp, Settings, SettingsError, Site
from postroom.service import terms
from postroom.service.terms import most_connections, server_config, tls_context
from tests.doctor.certificates import CERTIFICATE, KEY, LOCKED_KEY, OTHER_KEY


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with cert.pem and its key.pem, and files that do not fit."""
    files = {
        "cert.pem": CERTIFICATE,
        "key.pem": KEY,
        "both.pem": CERTIFICATE + KEY,
        "other.pem": OTHER_KEY,
        "locked.pem": LOCKED_KEY,
        "text.pem": "no PEM at all\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_every_setting_of_connections_reaches_them() -> None:
    lmtp = Lmtp(
        ident="hello",
        refuse_unknown="at-rcpt",
        max_message_size=1000,
        max_recipients=7,
        max_connections=8,
        max_connections_per_client=5,
        idle_timeout=6.0,
        message_timeout=9.0,
        memory_budget=100_000,
        allow=("192.0.2.0/24",),
    )
    config = server_config(Settings(site=Site(hostname="h.example"), lmtp=lmtp))
    assert (config.hostname, config.ident) == ("h.example", "hello")
    assert config.limits[:3] == (1000, 7, True)
    assert config.memory_budget == 100_000 - WORKING_COPIES * 1000
    assert (config.max_connections, config.max_per_client) == (8, 5)
    assert (config.idle_timeout, config.message_timeout) == (6.0, 9.0)
    assert config.allow == (ip_network("192.0.2.0/24"),)
    assert config.tls is None


@pytest.mark.parametrize(("files", "most"), [(64, 32), (1024, 512), (4096, 2796)])
def test_there_are_no_more_connections_than_the_system_has_open_files_for(
    files: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert most_connections() == most
    lmtp = Lmtp(max_connections=100_000)
    assert server_config(Settings(lmtp=lmtp)).max_connections == most


@pytest.mark.parametrize(("certificate", "key"), [("cert.pem", "key.pem"), ("both.pem", "")])
def test_a_certificate_and_its_key_are_taken(place: Path, certificate: str, key: str) -> None:
    lmtp = Lmtp(tls_certificate=str(place / certificate), tls_key=key and str(place / key))
    context = tls_context(lmtp)
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2  # RFC 8996


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("nowhere.pem", "key.pem", r"lmtp\.tls_certificate: .*nowhere\.pem: No such file"),
        ("cert.pem", "nowhere.pem", r"lmtp\.tls_key: .*nowhere\.pem: No such file"),
        (".", "key.pem", r"lmtp\.tls_certificate: .*: Is a directory"),
        ("cert.pem", "other.pem", "do not belong together"),
        ("cert.pem", "", r"cert\.pem are no PEM files"),
        ("text.pem", "key.pem", "are no PEM files"),
        ("cert.pem", "text.pem", "are no PEM files"),
        ("cert.pem", "locked.pem", "needs a passphrase, which nobody is there to type"),
    ],
)
def test_files_that_cannot_be_used_are_refused_in_a_sentence(
    place: Path, certificate: str, key: str, said: str
) -> None:
    lmtp = Lmtp(tls_certificate=str(place / certificate), tls_key=key and str(place / key))
    with pytest.raises(SettingsError, match=said) as refused:
        tls_context(lmtp)
    assert "\n" not in str(refused.value)


def test_nobody_is_asked_for_a_passphrase() -> None:
    with pytest.raises(terms._EncryptedError):
        terms._ask_nobody()
