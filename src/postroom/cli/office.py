"""What commands need to write letters and to act on requests.

For: commands that decide, and thereby tell people something. Guarantees: they do it as the
server does, with the same settings. Fails as the settings say.
"""

from sqlalchemy import Connection

from postroom.base.observe import Log
from postroom.base.settings import Settings
from postroom.commands.desk import Office
from postroom.commands.values import Listing
from postroom.lists.preferences import preferences
from postroom.lists.registry import MailingList
from postroom.notices.render import Templates
from postroom.notices.sheet import House
from postroom.spool.ids import IdMaker


def house_of(settings: Settings) -> House:
    """What all letters of the site have in common."""
    templates = Templates(settings.notices.templates, Log(settings.log))
    return House(templates, settings.site.hostname, settings.site.owner, IdMaker())


def office_of(settings: Settings) -> Office:
    """The office of the site."""
    return Office(house_of(settings), settings.commands)


def listing_of(connection: Connection, of: MailingList) -> Listing:
    """A list with what it has decided. Raises `ListError`."""
    return Listing(of, preferences(connection, of.key))
