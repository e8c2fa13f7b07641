"""[dns] and [arc]: defaults, the environment, and what is refused."""

from pathlib import Path

import pytest

from postroom.base.loading import load
from postroom.base.settings import Arc, Dns, SettingsError


def read(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> tuple[Dns, Arc]:
    path = tmp_path / "postroom.toml"
    path.write_text(text)
    settings = load(str(path), environment or {})
    return settings.dns, settings.arc


def test_nothing_is_needed(tmp_path: Path) -> None:
    assert read(tmp_path, "") == (Dns(5.0, False, ()), Arc("", "", "", ""))


def test_the_environment_gives_several_servers(tmp_path: Path) -> None:
    environment = {
        "POSTROOM_DNS__SERVERS": "192.0.2.53, [::1]:5353",
        "POSTROOM_DNS__OFFLINE": "true",
        "POSTROOM_DNS__TIMEOUT": "2.5",
    }
    dns, _ = read(tmp_path, "", environment)
    assert dns == Dns(2.5, True, ("192.0.2.53", "[::1]:5353"))


def test_a_key_with_its_names_is_accepted(tmp_path: Path) -> None:
    text = '[arc]\nkey = "/x.pem"\nselector = "a1"\ndomain = "example.com"\nauthserv_id = "mx"'
    assert read(tmp_path, text)[1] == Arc("/x.pem", "a1", "example.com", "mx")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[dns]\nservers = ["dns.example.com"]', "dns.servers: 'dns.example.com': must be an"),
        ('[dns]\nservers = ["192.0.2.1:0"]', "dns.servers: '192.0.2.1:0': must be an"),
        ("[dns]\ntimeout = 0", "dns.timeout"),
        ('[arc]\nkey = "x"\nselector = "a"', "arc.domain: arc.key needs arc.domain beside it"),
        ('[arc]\nkey = "x"\ndomain = "a.b"', "arc.selector: arc.key needs arc.selector beside it"),
        ('[arc]\ndomain = "a b; s=x"', "arc.domain: must be a name of DNS"),
        ('[arc]\nauthserv_id = "mx;x"', "arc.authserv_id: must be a name as it stands"),
        ('[arc]\nauthserv_id = "mx\\r\\nX: y"', "arc.authserv_id: must be a name as it stands"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    assert fault in str(caught.value)
