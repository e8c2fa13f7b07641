"""What our mail server found out about the sender, as it wrote it down."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.reading.authentication import verdict
from postroom.reading.post import read

ANNE = "anne@example.org"
SERVER = "mx.example.com"


def judged(*results: str, author: str = ANNE, server: str = SERVER) -> str:
    """The verdict on a message that has these Authentication-Results."""
    fields = "".join(f"Authentication-Results: {each}\r\n" for each in results)
    return verdict(read(f"{fields}From: {author}\r\n\r\nHello.\r\n".encode(), ANNE), server)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("none", "none"),
        ("dmarc=pass header.from=example.org", "pass"),
        ("dmarc=pass", "pass"),
        ("dmarc=pass header.from=example.net", "none"),
        ("dmarc=fail header.from=example.org", "fail"),
        ("dmarc=fail (p=reject dis=none) header.from=example.org", "fail"),
        ("dmarc=fail; dkim=pass header.d=example.org; spf=pass smtp.mailfrom=example.org", "fail"),
        ("dmarc=none header.from=example.org", "none"),
        ("dmarc=temperror; spf=fail smtp.mailfrom=example.org", "fail"),
        ("dmarc=pass header.from=example.org; spf=fail smtp.mailfrom=x.example", "pass"),
        ("dkim=pass header.d=example.org", "pass"),
        ("dkim=pass header.i=@example.org", "pass"),
        ("dkim=pass header.d=mail.example.org", "pass"),
        ("dkim=pass header.d=EXAMPLE.ORG.", "pass"),
        ("dkim=pass header.d=notexample.org", "none"),
        ("dkim=pass header.d=org", "none"),
        ("dkim=pass header.d=.org", "none"),
        ("dkim=pass header.d=example.net", "none"),
        ("dkim=pass", "none"),
        ("dkim=fail header.d=example.org", "none"),
        ("spf=pass smtp.mailfrom=anne@example.org", "pass"),
        ("spf=pass smtp.mailfrom=<anne@example.org>", "pass"),
        ("spf=pass smtp.mailfrom=anne@example.net", "none"),
        ("spf=pass smtp.helo=example.org", "none"),
        ("spf=fail smtp.mailfrom=anne@example.org", "fail"),
        ("spf=softfail smtp.mailfrom=anne@example.org", "fail"),
        ("spf=hardfail smtp.mailfrom=anne@example.org", "fail"),
        ("spf=neutral smtp.mailfrom=anne@example.org", "none"),
        ("spf=fail smtp.mailfrom=example.org; dkim=pass header.d=example.org", "pass"),
        ("spf=fail smtp.mailfrom=example.org; dkim=pass header.d=example.net", "fail"),
        ("dkim=fail header.d=example.org; dkim=pass header.d=example.org", "pass"),
        ("x-spam=pass header.d=example.org", "none"),
    ],
)
def test_the_verdict_follows_from_the_results(said: str, expected: str) -> None:
    assert judged(f"{SERVER}; {said}") == expected


@pytest.mark.parametrize(
    "field",
    [
        "mx.example.com;dmarc=fail",
        "MX.Example.COM; DMARC=Fail",
        "mx.example.com 1; dmarc=fail",
        "mx.example.com /* no comment */; dmarc=fail",
        '"mx.example.com"; dmarc=fail',
        r'"mx.ex\ample.com"; dmarc=fail',
        "(a (nested) comment) mx.example.com (one) 1 (two);\r\n\t(three) dmarc (4) = (5) fail",
        "mx.example.com; dmarc/1=fail header.from=example.org",
        "mx.example.com; dmarc / 1 = fail",
        "mx.example.com; spf=pass smtp.mailfrom=example.org; dmarc=fail",
        "mx.example.com; ;; dmarc=fail;",
        "mx.example.com; dmarc=fail (a \\) comment)",
        r'mx.example.com; dmarc=fail reason="a \" quote"',
        'mx.example.com; dmarc=fail reason="never ends',
        "mx.example.com; dmarc=fail\r\n header.from=example.org",
    ],
)
def test_results_are_found_however_they_are_written(field: str) -> None:
    expected = "none" if "never" in field else "fail"
    assert judged(field) == expected


@pytest.mark.parametrize(
    "field",
    [
        "mx.example.net; dmarc=fail",
        "example.com; dmarc=fail",
        "mx.example.com.example.net; dmarc=fail",
        "dmarc=fail; mx.example.com; dmarc=fail",
        "mx.example.com",
        "mx.example.com dmarc=fail",
        "",
        "; dmarc=fail",
        "(mx.example.com; dmarc=fail",
        "mx.example.com; spf=none (dmarc=fail; dmarc=fail) smtp.mailfrom=example.org",
        'mx.example.com; spf=none reason="x; dmarc=fail"',
        'mx.example.com; dkim=none reason="dmarc=fail"',
        "mx.example.com; dkim=none header.b=dmarc=fail",
        "mx.example.com; dkim=none dmarc=fail",
        "mx.example.com; arc=fail",
    ],
)
def test_what_is_no_result_of_our_server_says_nothing(field: str) -> None:
    assert judged(field) == "none"


def test_a_property_that_a_sender_chose_cannot_vouch_for_him() -> None:
    quoted = r'spf=pass smtp.mailfrom="x; dkim=pass header.d=example.org"@example.net'
    assert judged(f"{SERVER}; {quoted}") == "none"
    quoted = 'spf=pass smtp.mailfrom="x smtp.mailfrom=anne@example.org y"@example.net'
    assert judged(f"{SERVER}; {quoted}") == "none"
    assert judged(f"{SERVER}; spf=pass (dkim=pass header.d=example.org)") == "none"


def test_the_results_of_several_fields_count_together() -> None:
    spf = f"{SERVER}; spf=fail smtp.mailfrom=example.org"
    dkim = f"{SERVER}; dkim=pass header.d=example.org"
    assert judged(spf, dkim) == judged(dkim, spf) == "pass"
    assert judged(f"{SERVER}; dmarc=pass", f"{SERVER}; dmarc=fail") == "fail"
    assert judged("mx.example.net; dmarc=fail", f"{SERVER}; dmarc=pass") == "pass"


def test_without_a_server_to_trust_nothing_is_said() -> None:
    assert judged("; dmarc=fail", server="") == "none"
    assert judged("dmarc=fail", server="") == "none"
    assert judged() == "none"


def test_who_is_not_the_only_author_is_not_vouched_for() -> None:
    both = "anne@example.org, bart@example.net"
    assert judged(f"{SERVER}; dmarc=pass", author=both) == "none"
    assert judged(f"{SERVER}; dkim=pass header.d=example.org", author=both) == "none"
    assert judged(f"{SERVER}; dmarc=fail", author=both) == "fail"
    assert judged(f"{SERVER}; dmarc=pass", author="nobody") == "none"


def test_a_domain_below_is_of_the_same_house() -> None:
    said = f"{SERVER}; dkim=pass header.d=example.org"
    assert judged(said, author="anne@mail.example.org") == "pass"
    assert judged(f"{SERVER}; dkim=pass header.d=b.example.org", author="a@c.example.org") == "none"
    assert judged(f"{SERVER}; dkim=pass header.d=org", author="anne@org") == "none"


def test_a_domain_that_is_too_long_is_none() -> None:
    for label in ("a" * 250, "xn--" + "a" * 60_000):
        assert judged(f"{SERVER}; dkim=pass header.d={label}.example.org") == "none"


def test_a_domain_is_the_same_in_both_of_its_forms() -> None:
    said = f"{SERVER}; dmarc=pass header.from=xn--exmple-cua.org"
    assert judged(said, author="anne@exämple.org") == "pass"


PIECES = [
    SERVER, ";", " ", "(", ")", '"', "\\", "=", ".", "/", "1", "dmarc", "dkim", "spf", "pass",
    "fail", "softfail", "none", "header.d", "header.from", "smtp.mailfrom", "example.org", "xn--",
    "@", "<", "reason", "\r\n ", "\r\nAuthentication-Results: ", "\x00", "ä",
]  # fmt: skip
pieces = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


@given(st.one_of(st.text(), pieces))
def test_whatever_stands_there_there_is_a_verdict(text: str) -> None:
    head = f"Authentication-Results: {SERVER}; {text}\r\nFrom: {ANNE}\r\n\r\n"
    assert verdict(read(head.encode("utf-8", "replace"), ANNE), SERVER) in ("pass", "fail", "none")


@given(pieces)
def test_whatever_another_server_says_says_nothing(text: str) -> None:
    text = text.replace("\r\nAuthentication-Results:", "")
    assert judged(f"mx.example.net; {text}") == "none"


@pytest.mark.parametrize("unit", ["(", '"', "\\", ";", "a=", "a ", "=", "a.", "(a)", "dkim=pass "])
def test_d25_a_field_as_long_as_a_header_may_be_is_read(unit: str) -> None:
    # Anything but linear work would not end.
    assert judged(f"{SERVER};" + unit * (60_000 // len(unit))) == "none"
