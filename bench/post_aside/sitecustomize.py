"""Has the runners process leave the queue `bounces` alone.

For: figures of the door, whose load must make no other work: `bench.post_ours` puts this
directory on PYTHONPATH, so that Python reads this file when it starts. Guarantees: the runner of
`bounces` serves a queue that nothing comes to, as any runner whose queue is empty; processes
other than the runners are left alone.
"""

import sys

EMPTY = "archive"

if "postroom.service.runners" in sys.orig_argv:
    from postroom.runners.bounced import Bounced

    Bounced.queue = EMPTY
