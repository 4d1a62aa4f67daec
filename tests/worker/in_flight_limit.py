"""``python -m tests.worker.in_flight_limit LOOP HTTP``: a sender whose user has too many descriptors in flight.

In a process of its own, since the user and the limit are a process's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import sys
from typing import Any

from stillup.host import adoption_queue
from stillup.host.adoption_queue import AdoptionQueue
from stillup.worker.connection_sender import ConnectionSender
from tests.asgi.event_loops import LOOPS, run, until
from tests.asgi.served_app import serving
from tests.worker.drainable_worker import a_queue

LIMIT = 64
NOBODY = 20_000 + os.getpid() % 40_000
"""A user of our own: those in flight are counted by user, and a process before us may have left some for a moment."""


def fill(queue: AdoptionQueue) -> int:
    """Put as many descriptors in flight as this user may, in few bytes: the queue itself is far from full."""
    sent = 0
    try:
        while True:
            adoption_queue.send(queue.writer, b"x", [0] * 8)
            sent += 1
    except OSError as error:
        assert error.errno == errno.ETOOMANYREFS, error  # noqa: PT017 - no pytest in this process
    return sent


async def next_try(sender: ConnectionSender) -> None:
    """Wait until the sender has tried once more."""
    turn = sender._next_send
    await until(lambda: sender._next_send is not None and sender._next_send is not turn)


async def story(http: str) -> None:
    """Offer, see that they stay and are served, make room, see that they go."""
    with a_queue() as queue:
        async with serving(http=http, ws="none") as served:
            clients = [await served.connect() for _ in range(3)]
            for client in clients:
                await client.ask("/")
                await client.answer()
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, hard))
            if os.geteuid() == 0:
                os.setresuid(NOBODY, NOBODY, 0)
            filling = fill(queue)
            loop = asyncio.get_running_loop()

            def again(connection: Any) -> None:
                """A try came in the middle of a request; a drain offers it again after that, too."""
                loop.call_soon(sender.offer, connection)

            sender = ConnectionSender(queue.writer.dup(), 16, again)
            for connection in list(served.site.connections):
                sender.offer(connection)
            for _ in range(3):
                await next_try(sender)
                for client in clients:
                    await client.ask("/")
                    assert (await client.answer()).body == b"ok"
            assert (sender.given, sender.works) == (0, True)
            for _ in range(filling):
                received = adoption_queue.receive(queue.reader, 1, 8)
                for fd in received.fds:
                    os.close(fd)
            await until(lambda: not served.site.connections)
            assert sender.given == 3
            sender.stop()


if __name__ == "__main__":
    run(story(sys.argv[2]), LOOPS[sys.argv[1]])
    sys.stdout.write("told\n")
