"""How long a certificate is valid.

For: saying in time that one ends. Reads the one field of X.509 (RFC 5280 4.1.2.5) that the
standard library shows to clients alone. Raises ValueError on what is no certificate.
"""

import ssl
from datetime import UTC, datetime

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_UTC_TIME, _VERSION = 0x17, 0xA0


def not_after(pem: str) -> float:
    """When the first certificate of a PEM file ends, in seconds since the epoch."""
    begin, end = pem.find(_BEGIN), pem.find(_END)
    if begin < 0 or end < begin:
        raise ValueError("there is no certificate in it")
    try:
        return _not_after(ssl.PEM_cert_to_DER_cert(pem[begin : end + len(_END)]))
    except IndexError:
        raise ValueError("the certificate is cut short") from None


def _not_after(der: bytes) -> float:
    at = _inside(der, _inside(der, 0))  # Certificate, tbsCertificate
    if der[at] == _VERSION:
        at = _after(der, at)
    for _ in ("serialNumber", "signature", "issuer"):
        at = _after(der, at)
    at = _after(der, _inside(der, at))  # validity, notBefore
    text = der[_inside(der, at) : _after(der, at)].decode("ascii")
    form = "%y%m%d%H%M%SZ" if der[at] == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()


def _inside(der: bytes, at: int) -> int:
    """Where the content of an element begins (X.690 8.1.3)."""
    length = der[at + 1]
    return at + 2 + (length & 0x7F if length & 0x80 else 0)


def _after(der: bytes, at: int) -> int:
    """Where an element ends."""
    begin = _inside(der, at)
    length = int.from_bytes(der[at + 2 : begin], "big") if begin > at + 2 else der[at + 1]
    return begin + length
