"""``python -m tests.host.orphan_reaper``: a process that inherits orphans, as PID 1 does."""

from __future__ import annotations

import ctypes
import os
import select
import sys
import threading

from stillup.host.process_start import spawn
from stillup.host.processes import reap_unheld

PR_SET_CHILD_SUBREAPER = 36
CHILDREN = 150


def children(ends: set[str | None], done: threading.Event) -> None:
    """Start children, one after the other, that each leave an orphan behind; note how each ended."""
    try:
        for _ in range(CHILDREN):
            process = spawn(["/bin/sh", "-c", "(/bin/true &); exit 3"], {}, 1, 2)
            poll = select.poll()
            poll.register(process.pidfd, select.POLLIN)
            poll.poll(20_000)
            ends.add(process.reap())
            process.close()
    finally:
        done.set()


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    ends: set[str | None] = set()
    done = threading.Event()
    threading.Thread(target=children, args=(ends, done)).start()
    reaped = 0
    while not done.is_set():
        reaped += len(reap_unheld())
    while reaped < CHILDREN:  # some of those that were left last may still run
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        reaped += len(reap_unheld())
    assert not reap_unheld()
    sys.stdout.write(f"{reaped} orphans, ours {ends}\n")


if __name__ == "__main__":
    main()
