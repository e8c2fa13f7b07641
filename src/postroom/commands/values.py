"""What the office is given, and what it gives back.

For: the office and those who ask it. Guarantees: frozen values; pure.
"""

from collections.abc import Mapping
from typing import NamedTuple, cast

from postroom.lists.registry import ListError, MailingList
from postroom.lists.settings import ListSettings
from postroom.lists.subscription import Action, Policy
from postroom.notices.language import Sentence, say
from postroom.spool.handing import Handed

DAY, HOUR = 86_400.0, 3600.0  # seconds


class Refused(ListError):
    """It cannot be done; `said` is why, to be said in any language."""

    def __init__(self, said: Sentence) -> None:
        super().__init__(say(said).rstrip("."))  # as other errors read
        self.said = said


class Caller(NamedTuple):
    """Who asks: the author of a mail. `shown` says whether, as far as mail can tell, the address
    is theirs, `forged` that the mail server found it is not; `source` is the network that it came
    from, "" if that is not known; `message_id` that of the mail."""

    email: str
    name: str
    shown: bool
    forged: bool
    source: str
    message_id: str


class Listing(NamedTuple):
    """A list with what it has decided."""

    of: MailingList
    settings: ListSettings

    @property
    def policies(self) -> Mapping[Action, Policy]:
        """What it asks of requests of each kind."""
        ours = self.settings.subscriptions
        wanted = {"join": ours.join, "leave": ours.leave, "change": ours.changes}
        wanted["resume"] = "confirm"
        return {cast(Action, action): Policy(policy) for action, policy in wanted.items()}

    @property
    def waits(self) -> float:
        """Seconds that a request waits."""
        return self.settings.subscriptions.expire_after * DAY


class Result(NamedTuple):
    """What came of a command: what is said to who asked, further lines, and what is to be handed
    on. `told`: nothing needs to be said, since a letter to the same person does, or did;
    `limited`: nothing was done, since too much was asked for lately."""

    said: Sentence
    lines: tuple[Sentence | str, ...] = ()
    handed: tuple[Handed, ...] = ()
    told: bool = False
    limited: bool = False
