"""All fuzz targets, by name."""

from typing import Final

from fuzz import bounces, endpoint, framing, grammar, message, reading, session, socketmap
from fuzz.target import Target

TARGETS: Final[dict[str, Target]] = {
    "grammar": grammar.TARGET,
    "framing": framing.TARGET,
    "session": session.TARGET,
    "message": message.TARGET,
    "reading": reading.TARGET,
    "bounces": bounces.TARGET,
    "endpoint": endpoint.TARGET,
    "socketmap": socketmap.TARGET,
}
