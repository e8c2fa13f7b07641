"""Where a message came from, by the Received fields of the mail servers that people run."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.reading import source
from postroom.reading.post import read
from postroom.reading.source import source_of


def came(*received: str) -> str:
    raw = "".join(f"Received: {each}\r\n" for each in received).encode() + b"\r\nHello.\r\n"
    return source_of(read(raw, "anne@example.org"))


PUBLIC = "from mail.example.org (mail.example.org [192.0.2.1]) by mx.example.com with ESMTP"


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        # Postfix
        (PUBLIC, "192.0.2.1"),
        (
            "from mail.example.org (mail.example.org [192.0.2.1])\r\n"
            "\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)\r\n"
            '\t(Client CN "[203.0.113.9]", Issuer "x" (not verified))\r\n'
            "\tby mx.example.com (Postfix) with ESMTPS id 4Xyz\r\n"
            "\tfor <ants@example.com>; Mon, 5 Jan 2026 15:04:00 +0000 (UTC)",
            "192.0.2.1",
        ),
        (
            "from mail.example.org (unknown [IPv6:2001:db8:1:2:3:4:5:6]) by mx.example.com",
            "2001:db8:1:2::/64",
        ),
        ("from [203.0.113.9] (unknown [192.0.2.1]) by mx.example.com (Postfix)", "192.0.2.1"),
        # Exim
        ("from mail.example.org ([192.0.2.1]) by mx.example.com with esmtps", "192.0.2.1"),
        ("from mail.example.org ([192.0.2.1] helo=[203.0.113.9]) by mx.example.com", "192.0.2.1"),
        ("from [192.0.2.1] (helo=[203.0.113.9]) by mx.example.com with esmtp", "192.0.2.1"),
        ("from [192.0.2.1] (port=4321 helo=x.example.org) by mx.example.com", "192.0.2.1"),
        ("from [192.0.2.1] (ident=[203.0.113.9]) by mx.example.com", "192.0.2.1"),
        ("from [2001:db8::1] (helo=x) by mx.example.com with esmtp", "2001:db8::/64"),
        # sendmail
        (
            "from x.example.org (mail.example.org [192.0.2.1] (may be forged)) by mx.example.com",
            "192.0.2.1",
        ),
        (
            "from x.example.org ([192.0.2.1]) by mx.example.com (8.17.1/8.17.1) with ESMTP",
            "192.0.2.1",
        ),
        ("from x.example.org ([IPv6:2001:db8::1]) by mx.example.com", "2001:db8::/64"),
        # OpenSMTPD
        (
            "from mail.example.org (mail.example.org [192.0.2.1])\r\n"
            "\tby mx.example.com (OpenSMTPD) with ESMTPS id 1a2b (TLSv1.3:AEAD)",
            "192.0.2.1",
        ),
        ("from x ([203.0.113.9] [192.0.2.1]) by mx.example.com", "192.0.2.1"),
        ("FROM x ([ipv6:2001:DB8::1]) BY mx.example.com", "2001:db8::/64"),
        ("from x ([::ffff:192.0.2.1]) by mx.example.com", "192.0.2.1"),
    ],
)
def test_the_client_that_the_server_saw_is_the_source(received: str, expected: str) -> None:
    assert came(received) == expected


@pytest.mark.parametrize(
    "received",
    [
        "by mx.example.com (Postfix, from userid 1000) id 4Xyz",
        "(qmail 123 invoked by uid 1000); 5 Jan 2026 15:04:00 -0000",
        "from x by mx.example.com ([192.0.2.1])",
        "from 192.0.2.1 by mx.example.com",
        "from x ([192.0.2.256]) by mx.example.com",
        "from x ([]) by mx.example.com",
        "from x ([1::2::3]) by mx.example.com",
        "from",
        "",
        "from x ([127.0.0.1]) by mx.example.com",
        "from x ([::1]) by mx.example.com",
        "from x ([::ffff:127.0.0.1]) by mx.example.com",
        "from x ([0.0.0.0]) by mx.example.com",
        "from x ([10.0.0.1]) by mx.example.com",
        "from x ([172.16.0.1]) by mx.example.com",
        "from x ([192.168.0.1]) by mx.example.com",
        "from x ([100.64.0.1]) by mx.example.com",
        "from x ([169.254.0.1]) by mx.example.com",
        "from x ([IPv6:fe80::1]) by mx.example.com",
        "from x ([IPv6:fd00::1]) by mx.example.com",
    ],
)
def test_what_is_ours_or_no_address_is_passed_over(received: str) -> None:
    assert came(received) == ""
    assert came(received, PUBLIC) == "192.0.2.1"


def test_the_topmost_public_address_wins() -> None:
    assert came("from x ([198.51.100.7]) by mx.example.com", PUBLIC) == "198.51.100.7"


def test_without_any_received_there_is_no_source() -> None:
    assert came() == ""


def test_so_many_hops_are_looked_at() -> None:
    inside = ["from x ([10.0.0.1]) by y"] * source.HOPS
    assert came(*inside[1:], PUBLIC) == "192.0.2.1"
    assert came(*inside, PUBLIC) == ""


PIECES = [
    "from ", "by ", " by ", "(", ")", "[", "]", "IPv6:", "helo=", "ident=", "192.0.2.1", "::1",
    "::", "2001:db8::1", "10.0.0.1", "ffff", ".", "x", " ", "\r\n\t", "\r\nReceived: ", "\x00", "ä",
    "%e",
]  # fmt: skip


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=30).map("".join)))
def test_whatever_stands_there_the_source_is_a_network_or_nothing(text: str) -> None:
    raw = ("Received: from " + text).encode("utf-8", "replace")
    found = source_of(read(raw, ""))
    assert not found or ip_network(found).prefixlen in (32, 64)
