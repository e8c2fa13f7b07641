"""Exim as the client: messages that follow each other in one connection.

It sends the last chunk of a message together with its recipients, before it knows whether any
of them is accepted, and when all are refused the next message without RSET.
"""

from collections import Counter

from postroom.base.places import Tcp
from tests.integration.mail import LIST, new_message
from tests.integration.sites import Sites
from tests.interop.exim import Exim
from tests.interop.mail import STORED, hand_in, ledger, message_id, until


def test_messages_for_nobody_do_not_disturb_those_that_follow_in_the_connection() -> None:
    with Sites() as made:
        site = made.start(LIST, LMTP__REFUSE_UNKNOWN="at-rcpt")
        with Exim({"example.com": Tcp("127.0.0.1", site.port)}) as exim:
            site.stop()  # they wait, and Exim remembers that they wait for the same host
            valid = [new_message() for _ in range(3)]
            for raw in valid:
                hand_in(exim, ["nobody@example.com"], new_message())
                hand_in(exim, [LIST], raw)
            tried = " defer (111): Connection refused"
            until(exim, lambda: exim.log.read_text().count(tried) >= 6, "all were tried")
            site.start()
            until(exim, lambda: not exim.waiting(), "nothing left to deliver")
            log = exim.log.read_text()
        ids = Counter(map(message_id, valid))
        assert ledger(site, ids) == ids
        assert log.count(f" => {LIST} ") == len(valid)
        assert log.count(" ** nobody@example.com ") == len(valid)
        # In its log * is a connection that was open already, K is BDAT.
        assert f' => {LIST} R=r0 T=t0 H=127.0.0.1 [127.0.0.1]* K C="{STORED}"' in log
        assert "H=127.0.0.1 [127.0.0.1]*: SMTP error from remote mail server after RCPT" in log
