"""The list ant@example.com and a worker for what comes to it."""

from typing import Any

from sqlalchemy import update

from postroom.base.observe import Log
from postroom.base.settings import LogSettings
from postroom.lists.keys import site_secret, verp_key
from postroom.lists.preferences import set_preferences
from postroom.lists.registry import find_list
from postroom.lists.roster import Role, add_members, person
from postroom.notices.render import Templates
from postroom.notices.sheet import House
from postroom.posting.dns import Resolver
from postroom.runners.incoming import Incoming, Site
from postroom.spool.ids import IdMaker
from postroom.spool.orders import Order, order_of
from postroom.spool.steps import Step, steps_of
from postroom.store import schema
from tests.contract.desk import ANNE, Desk, Row, envelope, rows
from tests.runners.scripted import Watched

BOSS = "boss@example.net"
NAME = "<leaf@example.org>"
BODY = b"One leaf.\r\n\r\n.\r\nTwo \xff leaves.\r\n"
HEAD = b"From: Anne <anne@example.org>\r\nTo: ant@example.com\r\nSubject: Leaves\r\n"
RAW = HEAD + b"Message-ID: " + NAME.encode() + b"\r\n\r\n" + BODY


def site(owner: str = BOSS, resolver: Resolver | None = None, seal: Any = None) -> Site:
    log = Log(LogSettings())
    house = House(Templates("", log), "lists.example.com", owner, IdMaker())
    return Site(house, resolver or Resolver(offline=True), seal)


class Ants:
    """The list ant@example.com, and a worker for what comes to it."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.store = desk, desk.store
        self.worker = self.worker_of(site())

    def worker_of(self, of: Site) -> Watched:
        return Watched(self.store, Incoming(of))

    def join(self, *emails: str, role: Role = "member", **columns: object) -> None:
        with self.store.begin() as connection:
            key = find_list(connection, "ant@example.com").key
            add_members(connection, key, [person(each) for each in emails], role)
            if columns:
                connection.execute(update(schema.member).values(**columns))

    def set(self, **settings: str) -> None:
        with self.store.begin() as connection:
            key = find_list(connection, "ant@example.com").key
            names = {name.replace("__", "."): value for name, value in settings.items()}
            set_preferences(connection, key, names)

    def come(self, raw: bytes = RAW, sender: str = ANNE, to: str = "ant") -> int:
        """A message comes in over LMTP; returns its entry."""
        self.desk.deliver(envelope(f"{to}@example.com", sender=sender, raw=raw))
        return self.desk.stored[-1].entries[0]

    def work(self, worker: Watched | None = None) -> None:
        """Everything that is due."""
        while (worker or self.worker).turn():
            pass

    def post(self, raw: bytes = RAW, sender: str = ANNE, to: str = "ant") -> int:
        """A message comes in, and is worked on."""
        number = self.come(raw, sender, to)
        self.work()
        return number

    def verp_key(self) -> str:
        """What the tags of the list's senders are made with."""
        with self.store.begin() as connection:
            return verp_key(site_secret(connection), "ant.example.com")

    def queues(self) -> dict[str, list[Row]]:
        """What is where."""
        found: dict[str, list[Row]] = {}
        for row in rows(self.store):
            found.setdefault(row.queue, []).append(row)
        return found

    def orders(self) -> list[tuple[Order, Row]]:
        """What is to go out, posts first."""
        out = self.queues().get("out", [])
        return sorted(
            ((order_of(row.metadata), row) for row in out), key=lambda each: each[0].kind != "post"
        )

    def steps(self, name: str = NAME) -> list[Step]:
        with self.store.read() as connection:
            return list(steps_of(connection, name))

    def steps_named(self, name: str = NAME) -> list[str]:
        return [each.what for each in self.steps(name)]
