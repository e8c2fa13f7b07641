"""SIGHUP: new settings for new sessions; bad ones change nothing (fault 36)."""

import json
import os
import signal

from postroom.testing.site import Site
from tests.integration.mail import (
    ACCEPTED,
    LIST,
    NO_MAILBOX,
    SENDER,
    begin_data,
    deliver,
    end_data,
    new_message,
    queued,
)
from tests.integration.processes import Follower
from tests.integration.sites import Sites


def reload(site: Site, settings: str, event: str = "settings reloaded") -> dict[str, object]:
    """Write the settings, SIGHUP; returns the line of the log that says what came of it."""
    with Follower(site.log) as log:
        site.config.write_text(settings)
        os.kill(site.supervisor, signal.SIGHUP)
        found: dict[str, object] = json.loads(log.wait_for(f'"event":"{event}'))
    return found


def test_new_sessions_have_the_new_limits_and_old_ones_keep_theirs(sites: Sites) -> None:
    site = sites.start(LIST)
    with site.client() as old:
        old.lhlo()
        reload(site, "[lmtp]\nmax_message_size = 1000\nmax_recipients = 1\n")
        with site.client() as new:
            new.lhlo()
            assert new.esmtp_features["size"] == "1000"
            assert new.mail(SENDER, ["SIZE=1001"]).code == 552
            assert new.mail(SENDER).code == 250
            assert [new.rcpt(LIST).code for _ in range(2)] == [250, 452]
        begin_data(old, [LIST, LIST])
        assert old.esmtp_features["size"] == "26214400"
        assert end_data(old, new_message(size=1001), 2) == [ACCEPTED] * 2


def test_the_mode_of_refusal_can_change(sites: Sites) -> None:
    site = sites.start(LIST)
    reload(site, '[lmtp]\nrefuse_unknown = "at-rcpt"\n')
    with site.client() as client:
        client.lhlo()
        client.mail(SENDER)
        assert client.rcpt("nobody@example.com") == NO_MAILBOX
    reload(site, "")
    with site.client() as client:
        client.lhlo()
        client.mail(SENDER)
        assert client.rcpt("nobody@example.com").code == 250


def test_host_name_ident_and_owner_can_change(sites: Sites) -> None:
    site = sites.start(LIST)
    reload(
        site,
        '[site]\nhostname = "lists.example.com"\nowner = "boss@example.com"\n'
        '[lmtp]\nident = "at your service"\n',
    )
    with site.client() as client:
        assert client.greeting == (220, "lists.example.com at your service")
        assert deliver(client, ["mylist-owner@example.com"], new_message()) == [ACCEPTED]
    assert [each.metadata["envsender"] for each in queued(site.store)] == ["boss@example.com"]


def test_a_bad_file_keeps_the_old_settings_and_the_log_says_why(sites: Sites) -> None:
    site = sites.start(LIST)
    reload(site, "[lmtp]\nmax_message_size = 5000\n")
    line = reload(site, "[lmtp]\nmax_message_size = 0\n", "settings not reloaded")
    assert line["level"] == "error"
    assert str(site.config) in str(line["reason"])
    assert "lmtp.max_message_size" in str(line["reason"])
    with site.client() as client:
        client.lhlo()
        assert client.esmtp_features["size"] == "5000"
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]
    reload(site, "[lmtp]\nmax_message_size = 6000\n")
    assert site.log.read_text().count("settings not reloaded") == 1


def test_what_needs_a_restart_is_said(sites: Sites) -> None:
    site = sites.start()
    assert "needs_a_restart" not in reload(site, "[lmtp]\nmax_recipients = 5\n")
    line = reload(site, '[log]\nlevel = "warning"\n')
    assert line["needs_a_restart"] == ["log"]
