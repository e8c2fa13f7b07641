"""Building: every object that serves a queue, made once, by hand, from the settings.

For: the runners process. Guarantees: nothing runs and nothing is written yet; settings that
cannot be used are refused here, and never replace ones that can. Raises `SettingsError`.
"""

import importlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from postroom.base.observe import Log
from postroom.base.settings import Settings, SettingsError
from postroom.commands.desk import Office
from postroom.delivery.courier import Courier, Terms
from postroom.delivery.destinations import Destinations, Limit
from postroom.delivery.policy import DAY, limits_of
from postroom.delivery.pool import pool_of
from postroom.notices.render import Templates
from postroom.notices.sheet import House
from postroom.posting.dns import Resolver
from postroom.runners import incoming
from postroom.runners.base import Runner, Worker
from postroom.runners.bounced import Bounced
from postroom.runners.command import Commanded
from postroom.runners.incoming import Incoming, Seal
from postroom.runners.outgoing import Outgoing
from postroom.runners.upkeep import Upkeep
from postroom.spool import queue
from postroom.spool.ids import IdMaker
from postroom.spool.metadata import SERVED
from postroom.store.engine import Store


class Task(Protocol):
    """What runs on the loop. `turned_at` is as of time.monotonic()."""

    turned_at: float

    async def run(self) -> None:
        """Work until stopped, then end what is in hand."""
        ...

    def wake(self) -> None:
        """There may be something to do."""
        ...

    def stop(self) -> None:
        """Begin nothing new."""
        ...


class Parts(NamedTuple):
    """What serves the queues."""

    workers: Sequence[Worker] = ()
    tasks: Sequence[Task] = ()

    @property
    def all(self) -> list[Worker | Task]:
        """Each of them."""
        return [*self.workers, *self.tasks]


Build = Callable[[Store, Settings, Log, Callable[[], None]], Parts]


def build(store: Store, settings: Settings, log: Log, woken: Callable[[], None]) -> Parts:
    """Put together all that serves a queue. `woken`, for any thread, is to be called after a
    commit that may have handed something on."""
    site = settings.site
    delivery = settings.delivery
    house = House(Templates(settings.notices.templates, log), site.hostname, site.owner, IdMaker())
    dns = settings.dns
    resolver = Resolver(dns.timeout, offline=dns.offline, nameservers=dns.servers)
    arriving = Incoming(incoming.Site(house, resolver, seal_of(settings, log)))
    server = settings.arc.authserv_id or site.hostname
    commanded = Commanded(Office(house, settings.commands), server)
    leaving = Outgoing(store, house, site.web_url)
    places = {
        domain: Limit(each.connections, each.per_minute)
        for domain, each in delivery.destinations.items()
    }
    terms = Terms(
        settings.smtp.recipients,
        delivery.verp_share,
        limits_of(settings),
        Destinations(places),
    )
    courier = Courier(
        store, pool_of(settings, log), terms, log, leaving.personal, leaving.undeliverable
    )
    audit_kept = settings.commands.audit_kept * DAY
    upkeep = Upkeep(store, house, delivery.kept * DAY, audit_kept, log, woken)
    runners: Sequence[Runner] = (arriving, commanded, Bounced(house))
    workers = [Worker(store, runner, log, woken) for runner in runners]
    return Parts(workers, [courier, upkeep])


def take_over(store: Store) -> int:
    """Free what an earlier process held when it was killed; returns how many entries. On
    SQLite there is one runners process at a time; elsewhere leases run out."""
    if not store.is_sqlite:
        return 0
    with store.begin() as connection:
        return sum(queue.release(connection, name) for name in SERVED)


def seal_of(settings: Settings, log: Log) -> Seal | None:
    """What seals posts, if a key is configured. Raises `SettingsError`."""
    arc = settings.arc
    if not arc.key:
        return None
    # Imported only here: it loads cryptography, some megabytes that most sites do not need.
    sealing = importlib.import_module("postroom.posting.arc")
    server = arc.authserv_id or settings.site.hostname
    try:
        sealer = sealing.Sealer.of_file(arc.key, arc.domain, arc.selector, server)
    except sealing.SealError as error:
        raise SettingsError(str(error)) from error

    def seal(raw: bytes) -> bytes:
        sealed = sealer.seal(raw, time.time())
        log.write("debug", [("arc", {"said": sealed.note})])
        return bytes(sealed.raw)

    return seal
