"""What a failure means: all of the policy, without I/O.

For: deciding what becomes of a recipient after a transaction. Guarantees: an answer that is
about us never costs a member anything; nobody waits for ever, and who is given up is given up
with the last answer as the reason; what a server did not decide is tried again. Never fails.

| the server said                          | at            | then                              |
|------------------------------------------|---------------|-----------------------------------|
| 2xx                                      | after the dot | sent                              |
| 421, or the connection was lost          | before the dot| at once, not counted              |
| too many recipients                      | RCPT          | at once, not counted              |
| nothing: the connection was lost         | after the dot | later, counted: it may have been  |
|                                          |               | delivered, and again each time    |
| 4xx                                      | anywhere      | later                             |
| 5xx that is about us (see below)         | anywhere      | later; to be said loudly          |
| any other 5xx                            | RCPT          | bounce, about the recipient       |
| any other 5xx                            | elsewhere     | bounce, about the message         |
| anything but 2xx or 5xx, for too long    | anywhere      | bounce, with the last answer      |

About us are: 530, 534, 535, 538 and x.7.8 (we must log in); 500, 502 to 504, 521, 555 and x.5.x
(we are not understood, or not wanted); x.7.x at MAIL, RCPT or DATA (we may not relay; after the
dot it is the content that is not wanted); at MAIL whatever is not about size or content, as
nothing else but we have been heard of.
"""

import re
from typing import Literal, NamedTuple

from postroom.base.settings import Settings
from postroom.delivery.transaction import Fate, Stage, Verdict
from postroom.lmtp.codec import Answer

DAY = 86_400.0
MOST_DOUBLINGS = 40
About = Literal["us", "recipient", "message"]

_ABOUT_US = frozenset({500, 502, 503, 504, 521, 530, 534, 535, 538, 555})
_CONTENT = ("2", "3", "4", "6")  # subjects of enhanced codes (RFC 3463 3)
# Exim gives no enhanced code, and refuses to relay with the code of unknown mailboxes.
_RELAY = re.compile(r"\brelay", re.IGNORECASE)


class Limits(NamedTuple):
    """Seconds: the first wait, the longest one, and how long a recipient is tried."""

    retry_first: float = 300.0
    retry_most: float = 14_400.0
    expire_after: float = 5 * DAY


class Sent(NamedTuple):
    """The server has taken it."""


class Later(NamedTuple):
    """Try again in `delay` seconds; 0: as soon as there is a server. `counted` if it was an
    attempt. If it is about us, an operator must know."""

    delay: float
    counted: bool
    about: About


class Bounce(NamedTuple):
    """Give up. `reason` is for people; what is not about the recipient must not be held
    against them."""

    reason: str
    about: About


Ruling = Sent | Later | Bounce


def limits_of(settings: Settings) -> Limits:
    """What the settings say of it."""
    delivery = settings.delivery
    return Limits(delivery.retry_first, delivery.retry_most, delivery.expire_after * DAY)


def judge(verdict: Verdict, attempts: int, age: float, limits: Limits, chance: float) -> Ruling:
    """What becomes of a recipient.

    `attempts` counts those before this one, `age` is how long ago the message came, in seconds;
    `chance` is a random number in [0, 1). Those who were refused together should be given the
    same one: then they are tried together again.
    """
    fate, stage, answer = verdict
    if fate is Fate.ACCEPTED:
        return Sent()
    about = subject(verdict)
    if fate is Fate.REFUSED and about != "us":
        return Bounce(str(answer), about)
    if age >= limits.expire_after:
        return Bounce(f"Given up after {age / DAY:.1f} days: {answer}", about)
    if fate is Fate.PENDING and not (stage is Stage.END and _is_lost(answer)):
        return Later(0.0, False, about)
    return Later(backoff(attempts, limits, chance), True, about)


def subject(verdict: Verdict) -> About:
    """Whom or what a failure is about."""
    fate, stage, answer = verdict
    if fate is Fate.REFUSED and _about_us(stage, answer):
        return "us"
    return "recipient" if stage is Stage.RCPT and fate is not Fate.PENDING else "message"


def backoff(attempts: int, limits: Limits, chance: float) -> float:
    """Seconds to wait after so many earlier attempts: twice as long each time, and anything
    from half of that to all, so that what failed together does not come back together."""
    most = min(limits.retry_most, limits.retry_first * 2.0 ** min(attempts, MOST_DOUBLINGS))
    return most * (0.5 + chance / 2)


def _about_us(stage: Stage, answer: Answer) -> bool:
    code, enhanced, text = answer
    _, area, detail = enhanced.split(".") if enhanced else ("5", "", "")
    if code in _ABOUT_US or area == "5" or (area, detail) == ("7", "8"):
        return True
    if stage is Stage.MAIL:
        return enhanced == "5.6.7" or (code != 552 and area not in _CONTENT)
    if area:
        return area == "7" and stage is not Stage.END
    return stage is Stage.RCPT and _RELAY.search(text) is not None


def _is_lost(answer: Answer) -> bool:
    return answer.code == 421 and answer.enhanced in ("4.4.2", "4.5.0")
