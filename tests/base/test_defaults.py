"""What a site has that set nothing is safe."""

import ipaddress
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from postroom.base.places import Tcp, parse_listen
from postroom.base.settings import Settings
from postroom.lists.settings import ListSettings


def values(of: msgspec.Struct, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting with its default."""
    for field in msgspec.structs.fields(of):
        value = getattr(of, field.name)
        if isinstance(value, msgspec.Struct):
            yield from values(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


def test_d22_no_password_or_key_has_a_default() -> None:
    secrets = {
        name: value
        for name, value in values(Settings())
        if any(word in name for word in ("password", "user", "key", "token", "secret"))
    }
    assert set(secrets) == {"smtp.user", "smtp.password", "lmtp.tls_key", "arc.key"}
    assert not any(secrets.values())


@pytest.mark.parametrize("section", ["lmtp", "maps", "metrics"])
def test_d22_nothing_listens_beyond_this_machine(section: str) -> None:
    listen = getattr(Settings(), section).listen
    for each in [listen] if isinstance(listen, str) else listen:
        place = parse_listen(each)
        assert isinstance(place, Tcp)
        assert ipaddress.ip_address(place.host).is_loopback


def test_d22_dmarc_mitigation_and_verp_are_on() -> None:
    defaults = ListSettings()
    assert (defaults.dmarc.mitigation, defaults.sending.verp) == ("munge", True)
    assert Settings().delivery.verp_share > 0
    assert not Settings().dns.offline


def test_d22_strangers_do_not_post_unseen() -> None:
    assert ListSettings().posting.nonmembers == "hold"
