"""Binding: all addresses or none, and nobody is let in yet."""

import socket

import pytest

from postroom.service.sockets import BindError, address_of, bind, listen


def test_a_bound_socket_does_not_listen_yet() -> None:
    [bound] = bind(["127.0.0.1:0"])
    with bound, socket.socket() as client:
        host, _, port = address_of(bound).rpartition(":")
        assert host == "127.0.0.1"
        assert int(port) != 0
        assert client.connect_ex((host, int(port))) != 0


def test_if_one_address_cannot_be_had_none_is_kept() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = f"127.0.0.1:{probe.getsockname()[1]}"
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(BindError, match=f"cannot listen on {taken} .*Address already in use"):
            bind([free, taken])
    with bind([free])[0] as bound:
        assert address_of(bound) == free


def test_of_two_that_bound_the_same_address_the_second_to_listen_is_refused() -> None:
    [first] = bind(["127.0.0.1:0"])
    [second] = bind([address_of(first)])
    with first, second:
        listen([first])
        with pytest.raises(BindError, match=f"{address_of(first)} .*Address already in use"):
            listen([second])


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nowhere.invalid:8024", "nowhere.invalid:8024"),
        ("a..b:8024", "a..b:8024"),
        (f"{'x' * 300}:8024", "lmtp.listen"),
        ("192.0.2.1:0", "Cannot assign requested address"),
    ],
)
def test_an_address_that_is_not_ours_is_refused_in_a_sentence(address: str, reason: str) -> None:
    with pytest.raises(BindError) as refused:
        bind([address])
    assert reason in str(refused.value)
    assert "`lmtp.listen` names another address" in str(refused.value)


def test_an_ipv6_address_is_shown_in_brackets() -> None:
    try:
        [bound] = bind(["[::1]:0"])
    except BindError as error:
        pytest.skip(str(error))
    with bound:
        assert address_of(bound).startswith("[::1]:")
