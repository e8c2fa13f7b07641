"""Where a message came from.

For: limits on what one network can make us send. Guarantees: linear, bounded work; nothing is
raised. What our own mail servers wrote stands on top; below it, anybody can have written
anything. So the topmost address that is not of a network of our own decides, and in a field only
what our server saw: not the name that the client gave itself (HELO), which may look like an
address.
"""

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from postroom.mail.fields import Field
from postroom.reading.post import Post

HOPS = 100  # Received fields that are looked at
LONGEST = 2_000  # octets of each

# Postfix, sendmail, OpenSMTPD: from HELO (NAME [ADDRESS]); Exim: from NAME ([ADDRESS] helo=HELO)
# or from [ADDRESS] (helo=HELO), the port and an ident too.
_FROM = re.compile(r"from (?P<first>\S++)(?: \((?P<within>[^()]*+))?", re.IGNORECASE)
_SAID = re.compile(r"\b(?:helo|ident)=\S*", re.IGNORECASE)
_ADDRESS = re.compile(r"\[(?:IPv6:)?([0-9A-Fa-f.:]{2,45})\]", re.IGNORECASE)
# RFC 1918, RFC 6598, RFC 4193.
_OURS = [
    ip_network(each)
    for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
]


def source_of(post: Post) -> str:
    """The network that the message came from: an IPv4 address, or the /64 of an IPv6 address,
    by the topmost Received (RFC 5321 4.4) that names a public one; "" if none does."""
    fields = [each for each in post.fields if each.name == "received"]
    for each in fields[:HOPS]:
        address = _address(each)
        if address is not None and _is_public(address):
            if isinstance(address, IPv4Address):
                return str(address)
            return str(IPv6Network((address, 64), strict=False))
    return ""


def _address(field: Field) -> IPv4Address | IPv6Address | None:
    """The address of the client in a Received field."""
    _, _, value = field.raw[:LONGEST].decode("latin-1").partition(":")
    match = _FROM.match(" ".join(value.split()))
    if match is None:
        return None
    for text in (match["within"] or "", match["first"]):
        # The last one: before it stands what the client's name server says.
        for found in reversed(_ADDRESS.findall(_SAID.sub("", text))):
            try:
                address = ip_address(found)
            except ValueError:
                continue
            mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
            return mapped or address
    return None


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if address.is_loopback or address.is_link_local or address.is_unspecified:
        return False
    return not any(address in network for network in _OURS)
