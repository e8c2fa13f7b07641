"""A file system that found an error in itself and is read-only now: 4xx, nothing is lost
(fault 6)."""

from pathlib import Path

from postroom.testing.site import Site
from tests.crash.mounts import Ext4
from tests.integration.mail import (
    ACCEPTED,
    LIST,
    LOCAL_ERROR,
    deliver,
    new_message,
    queued,
)
from tests.integration.processes import Follower
from tests.integration.sites import Sites

MIB = 1_048_576


def found(site: Site) -> list[bytes]:
    return [each.raw for each in queued(site.store)]


def test_fault_6_on_a_disk_that_turned_read_only_mail_is_4xx_until_it_is_repaired(
    tmp_path: Path,
) -> None:
    disk = Ext4(tmp_path, 24 * MIB)
    first, lost = new_message(), new_message()
    with disk() as place, Sites() as sites:
        url = f"sqlite:///{place}/postroom.db"
        site = sites.start(LIST, url=url, STORE__MIN_FREE_SPACE="0")
        site.store.close()
        with Follower(site.log) as log:
            with site.client() as client:
                assert deliver(client, [LIST], first) == [ACCEPTED]
                disk.turn_read_only()
                answers = deliver(client, [LIST, "nobody@example.com"], lost)
                assert answers == [LOCAL_ERROR] * 2
            log.wait_for('"event":"lmtp process ended"')
            log.wait_for("ready ")
        for _ in range(2):
            with site.client() as client:
                assert deliver(client, [LIST, LIST], lost) == [LOCAL_ERROR] * 2
        assert site.stop() == 0
    with disk() as place, Sites() as sites:
        site = sites.make(url=url, STORE__MIN_FREE_SPACE="0")
        assert found(site) == [first]
        site.start()
        with site.client() as client:
            assert deliver(client, [LIST, LIST], lost) == [ACCEPTED] * 2
            assert deliver(client, [LIST], first) == [ACCEPTED]
        assert found(site) == [first, lost]
