"""What ends a loop: the marker that we put on all we send on, and how far mail may have come.

For: whoever sends mail on. A message that holds our marker with the address (or list-id) it is
to be sent on for has been there before.
"""

from typing import Final

LOOP: Final = "X-Postroom-Loop"
MOST_RECEIVED: Final = 50  # fields; RFC 5321 6.3 asks for a limit that is large
