"""What executable documentation says: create a list, commit, run a command, show what is there.

For: pages that are run as tests. Guarantees: what is printed is decoded, and is the same however a
mail client or program encoded it.
"""

import subprocess
import sys
from collections.abc import Mapping
from email.header import decode_header, make_header
from email.message import Message

from postroom.lists import registry
from postroom.lists.registry import MailingList
from postroom.testing import site
from postroom.testing.helpers import Delivery


def create_list(address: str, display_name: str = "") -> MailingList:
    """Create a list in the open transaction; others see it after `transaction.commit()`."""
    return registry.create_list(site.current().pending(), address, display_name)


class _Transaction:
    """The open transaction of the current site."""

    def commit(self) -> None:
        """Make what was done since the last commit or abort durable."""
        site.current().end_transaction(commit=True)

    def abort(self) -> None:
        """Undo what was done since the last commit or abort."""
        site.current().end_transaction(commit=False)


transaction = _Transaction()


def dump_msgdata(msgdata: Mapping[str, object]) -> None:
    """Print metadata, a name and a value a line, in the order of names."""
    width = max(map(len, msgdata), default=0)
    for name in sorted(msgdata):
        print(f"{name:{width}}: {msgdata[name]}")


def postroom(*arguments: str) -> None:
    """Run a command on the current site and print what it says. Others see what was done in the
    open transaction only after `transaction.commit()`."""
    done = subprocess.run(
        [sys.executable, "-m", "postroom", *arguments],
        env=site.current().environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(done.stdout, end="")


def dump_headers(msg: Message, *names: str) -> None:
    """Print header fields, one a line, in the order of `names`; all in their own if none is
    given."""
    for name, value in [(name, msg[name]) for name in names] or msg.items():
        print(f"{name}: {' '.join(str(value).split())}")


def show(delivery: Delivery) -> None:
    """Print a delivered mail as a reader sees it: From, To, Reply-To and Subject, as far as they
    are there, a blank line, and the text without the blank lines at its end."""
    for name in ("From", "To", "Reply-To", "Subject"):
        if name in delivery.msg:
            value = make_header(decode_header(delivery.msg[name]))
            print(f"{name}: {' '.join(str(value).split())}")
    print()
    print(_text(delivery.msg).rstrip())


def _text(msg: Message) -> str:
    """The first part that is plain text; "" if there is none."""
    for part in msg.walk():
        if part.get_content_type() == "text/plain":
            octets = part.get_payload(decode=True)
            assert isinstance(octets, bytes)
            return octets.decode(part.get_content_charset("utf-8"), "replace")
    return ""
