"""Target: what the local part and the domain of an address can mean.

For: holding `lists.endpoint` to a reference that tries every "+" and every suffix. Few
readings, the longest list name first, none invented, none left out; a domain has one form.
"""

from collections.abc import Iterator

from fuzz.target import Octets, Target
from postroom.lists.endpoint import (
    MAX_NAME,
    SUBADDRESSES,
    Endpoint,
    Reading,
    host_of,
    name_of,
    readings,
    shadowed,
)
from postroom.mail.address import fold

MOST = MAX_NAME + 16  # readings of one local part


def check(data: bytes) -> None:
    """The octets are an address; what is no UTF-8 is left out."""
    local, _, domain = Octets(data).rest().decode("utf-8", "ignore").partition("@")
    folded = fold(local)
    found = list(readings(local, folded))
    assert found == _reference(local, folded)
    assert len(found) <= MOST
    names = [reading.list_name for reading in found]
    assert sorted(names, key=len, reverse=True) == names
    assert shadowed(folded) == [each._replace(detail=fold(each.detail)) for each in found[1:]]
    keys = {
        name_of(Endpoint(1, each.list_name, "", each.subaddress, each.detail)) for each in found
    }
    assert len(keys) == len(set(found)) == len(found)

    host = host_of(domain)
    assert host_of(host) == host == host_of(fold(domain))
    assert host.count(".") >= domain.count(".")


def _reference(local: str, folded: str) -> list[Reading]:
    found = []
    for at in range(len(local) + 1):
        if at < len(local) and local[at] != "+":
            continue
        for suffix, canonical in SUBADDRESSES.items():
            head = folded[:at]
            name = head.removesuffix("-" + suffix)
            if name != head and 0 < len(name) <= MAX_NAME:
                found.append(Reading(name, canonical, local[at + 1 :]))
    found.sort(key=lambda reading: len(reading.list_name), reverse=True)
    return [Reading(folded, "", ""), *found]


def _seeds() -> Iterator[bytes]:
    for suffix in ("", *SUBADDRESSES):
        yield f"mylist-{suffix}@example.com".encode()
        yield f"my-{suffix}-list-{suffix}+Detail-{suffix}+x@xn--bcher-kva.Example".encode()
    yield "Bücher+a-join@xn--a.xn--.XN--BCHER-KVA.bücher".encode()


TARGET = Target(
    check,
    _seeds,
    tokens=(*(f"-{name}".encode() for name in SUBADDRESSES), b"+", b"@xn--", b"-Join", b"\xc3\xbc"),
    longest=400,
)
