"""[smtp] and [delivery]: defaults, the environment, and what is refused."""

from pathlib import Path

import pytest

from postroom.base.loading import load
from postroom.base.places import Tcp, parse_server
from postroom.base.settings import (
    Delivery,
    Destination,
    Settings,
    SettingsError,
    Smtp,
)


def read(place: Path, toml: str, environment: dict[str, str] | None = None) -> Settings:
    path = place / "postroom.toml"
    path.write_text(toml)
    return load(str(path), environment or {})


def test_nothing_is_needed(tmp_path: Path) -> None:
    found = read(tmp_path, "")
    assert found.smtp == Smtp(("127.0.0.1",), 25, "auto", "", "", 8, 500, "")
    assert found.delivery == Delivery(5.0, 300.0, 14_400.0, 0.05, 7.0, {})


def test_the_environment_gives_several_servers(tmp_path: Path) -> None:
    environment = {"POSTROOM_SMTP__HOST": "a.example.com, [::1]:587", "POSTROOM_SMTP__PORT": "26"}
    smtp = read(tmp_path, "[smtp]\nhost = ['b']\n", environment).smtp
    assert [parse_server(text, smtp.port) for text in smtp.host] == [
        Tcp("a.example.com", 26),
        Tcp("::1", 587),
    ]


def test_limits_of_destinations_are_read_from_the_file_alone(tmp_path: Path) -> None:
    toml = '[delivery.destinations."example.net"]\nconnections = 1\nper_minute = 600\n'
    assert read(tmp_path, toml).delivery.destinations == {"example.net": Destination(1, 600)}
    with pytest.raises(SettingsError, match=r"^environment: delivery\.destinations: "):
        read(tmp_path, toml, {"POSTROOM_DELIVERY__DESTINATIONS": "example.net"})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.0.0.2:587"])
def test_a_password_for_this_machine_needs_no_tls(tmp_path: Path, host: str) -> None:
    toml = f"[smtp]\nhost = ['{host}']\nuser = 'u'\npassword = 'p'\n"
    assert read(tmp_path, toml).smtp.password == "p"


def test_a_password_for_another_machine_needs_verified_tls(tmp_path: Path) -> None:
    toml = "[smtp]\nhost = ['localhost', 'mail.example.com']\nuser = 'u'\npassword = 'p'\n"
    with pytest.raises(SettingsError, match=r'smtp\.starttls: must be "always"'):
        read(tmp_path, toml)
    assert read(tmp_path, f"{toml}starttls = 'always'\n").smtp.user == "u"


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[smtp]\nhost = []\n", "smtp.host: needs at least one HOST or HOST:PORT"),
        ("[smtp]\nhost = ['']\n", "smtp.host: '': must be HOST or HOST:PORT"),
        ("[smtp]\nhost = ['a:0']\n", "smtp.host: 'a:0': must be HOST or HOST:PORT"),
        ("[smtp]\nhost = ['a:65536']\n", "smtp.host: 'a:65536': must be HOST"),
        ("[smtp]\nhost = ['::1']\n", "smtp.host: '::1': must be HOST"),
        ("[smtp]\nhost = ['a b']\n", "smtp.host: 'a b': must be HOST"),
        ("[smtp]\nhost = ['smtp://a']\n", "smtp.host: 'smtp://a': must be HOST"),
        ("[smtp]\nhost = 'a'\n", "smtp.host: Expected `array`"),
        ("[smtp]\nport = 0\n", "smtp.port: Expected `int` >= 1"),
        ("[smtp]\nport = 65536\n", "smtp.port: Expected `int` <= 65535"),
        ("[smtp]\nstarttls = 'maybe'\n", "smtp.starttls: Invalid enum value 'maybe'"),
        ("[smtp]\nuser = 'u'\n", "smtp.password: smtp.user and smtp.password go together"),
        ("[smtp]\npassword = 'p'\n", "smtp.user: smtp.user and smtp.password go together"),
        ('[smtp]\nuser = "u"\npassword = "p\\u0000"\n', "smtp.password: neither"),
        ("[smtp]\nconnections = 0\n", "smtp.connections: Expected `int` >= 1"),
        ("[smtp]\nrecipients = 0\n", "smtp.recipients: Expected `int` >= 1"),
        ("[smtp]\nhello = 'a b'\n", "smtp.hello: must be a host name"),
        ('[smtp]\nhello = "a\\nb"\n', "smtp.hello: must be a host name"),
        ("[smtp]\nhello = 'ä'\n", "smtp.hello: must be a host name"),
        ("[delivery]\nexpire_after = 0\n", "delivery.expire_after: Expected `float` > 0"),
        ("[delivery]\nretry_first = 0\n", "delivery.retry_first: Expected `float` > 0"),
        ("[delivery]\nretry_most = 299\n", "delivery.retry_most: must not be less than"),
        ("[delivery]\nverp_share = 1.1\n", "delivery.verp_share: Expected `float` <= 1"),
        ("[delivery]\nkept = -1\n", "delivery.kept: Expected `float` > 0"),
        ("[delivery]\ndestinations = 1\n", "delivery.destinations: Expected `object`"),
        ("[delivery.destinations.'a@b']\n", "delivery.destinations: 'a@b': holds domains"),
        ("[delivery.destinations.a]\nfast = 1\n", "delivery.destinations[...]: "),
        ("[delivery.destinations.a]\nper_minute = -1\n", "Expected `int` >= 0"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(
    tmp_path: Path, toml: str, said: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        read(tmp_path, toml)
    assert str(refused.value).startswith(f"{tmp_path}/postroom.toml: ")
    assert said in str(refused.value) and "\n" not in str(refused.value)
