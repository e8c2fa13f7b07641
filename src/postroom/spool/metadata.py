"""What travels with an entry, and the queue that serves each endpoint.

For: the one place that says what a consumer is told. Guarantees: the names and values are
those fixed by the reference: `listname`, `original_size`, `version`, `_parsemsg`; `to_list`
for a post, `subaddress` for a sub-address, `to_owner` and `envsender` for the owners. A
detail after "+" comes as `detail` where there is one. JSON, never pickle.
"""

from typing import Any, Final

import msgspec

from postroom.lists.endpoint import Endpoint

VERSION: Final = 1  # of this layout
Metadata = dict[str, Any]
_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder().decode

IN: Final = "in"
COMMAND: Final = "command"
BOUNCES: Final = "bounces"
OUT: Final = "out"
HELD: Final = "held"
SHUNT: Final = "shunt"
QUEUES: Final = (IN, COMMAND, BOUNCES, OUT, "archive", "digest", "news", HELD, SHUNT)
SERVED: Final = (IN, COMMAND, BOUNCES, OUT)  # those that have a runner

_QUEUE_OF: Final = {
    "": IN,
    "owner": IN,
    "request": COMMAND,
    "confirm": COMMAND,
    "join": COMMAND,
    "leave": COMMAND,
    "bounces": BOUNCES,
}


def queue_of(endpoint: Endpoint) -> str:
    """The queue that serves this endpoint."""
    return _QUEUE_OF[endpoint.subaddress]


def describe(endpoint: Endpoint, size: int, site_owner: str) -> Metadata:
    """Metadata of a new entry; `size` is that of the message as received, in octets."""
    facts: Metadata = {"_parsemsg": False, "original_size": size, "version": VERSION}
    if endpoint.list_key is None:
        return facts | {"to_owner": True, "envsender": site_owner}
    facts["listname"] = endpoint.listname
    if not endpoint.subaddress:
        facts["to_list"] = True
        return facts
    facts["subaddress"] = endpoint.subaddress
    if endpoint.subaddress == "owner":
        facts |= {"to_owner": True, "envsender": site_owner}
    if endpoint.detail:
        facts["detail"] = endpoint.detail
    return facts


def encode(facts: Metadata) -> str:
    """As stored."""
    return _encode(facts).decode()


def decode(text: str) -> Metadata:
    """As read. Raises ValueError on anything but a JSON object."""
    try:
        facts = _decode(text)
    except RecursionError:
        raise ValueError("metadata is nested too deeply") from None
    if not isinstance(facts, dict):
        raise ValueError("metadata is no JSON object")
    return facts
