"""When a certificate ends."""

import pytest

from postroom.doctor.certificate import not_after
from tests.doctor.certificates import CERTIFICATE, ENDS, KEY, LONG_CERTIFICATE, LONG_ENDS


@pytest.mark.parametrize(
    ("pem", "ends"), [(CERTIFICATE, ENDS), (LONG_CERTIFICATE, LONG_ENDS)], ids=["utc", "general"]
)
def test_the_end_is_read_however_it_is_written(pem: str, ends: float) -> None:
    assert not_after(pem) == ends


def test_the_first_certificate_of_a_chain_is_the_one_that_counts() -> None:
    assert not_after(f"a comment\n{CERTIFICATE}{LONG_CERTIFICATE}{KEY}") == ENDS


@pytest.mark.parametrize(
    "pem",
    [
        "",
        KEY,
        "-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nno base64!\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        CERTIFICATE[:100] + "\n-----END CERTIFICATE-----\n",
    ],
)
def test_what_is_no_certificate_is_refused(pem: str) -> None:
    with pytest.raises(ValueError):
        not_after(pem)
