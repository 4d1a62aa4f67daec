"""``python -m tests.asgi.without_descriptors serve|stop LOOP``: an acceptor without any, in a process of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from stillup.asgi import acceptor
from stillup.host.sources import Arrival, Backlog
from tests.asgi.event_loops import LOOPS, run, until
from tests.host.tcp_ports import wait_for_backlog

PAUSE = 0.2


class Errors(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.times: list[float] = []
        """When each was, by the loop's clock."""

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self.times.append(asyncio.get_running_loop().time())


@contextmanager
def exhausted(clients: int) -> Iterator[tuple[socket.socket, list[socket.socket], int]]:
    """A listener, clients in its backlog, and the last descriptor there is: only who closes it can accept."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setblocking(False)
        where = listener.getsockname()
        socks = [stack.enter_context(socket.create_connection(where, timeout=10)) for _ in range(clients)]
        wait_for_backlog(listener, clients)
        spare = os.dup(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        yield listener, socks, spare


async def serve(errors: Errors) -> None:
    """Take three clients, for none of whom there is a descriptor at first and for one at a time then."""
    loop = asyncio.get_running_loop()
    taken: list[float] = []

    def turn_away(arrival: Arrival) -> None:
        taken.append(loop.time())
        arrival.socket.close()

    with exhausted(3) as (listener, clients, spare):
        serving = acceptor.Acceptor(Backlog("web", listener), turn_away)
        serving.start()
        await until(lambda: errors.messages)
        assert not taken
        os.close(spare)
        for client in clients:
            client.setblocking(False)
            assert await loop.sock_recv(client, 1) == b""  # accepted, and turned away
        await serving.stop()
    assert taken[0] - errors.times[0] > PAUSE / 2, "no pause"
    sys.stdout.write(f"{len(taken)} taken\n")


async def stop(errors: Errors) -> None:
    """Stop with a client in the backlog for whom there is no descriptor, and see that nothing goes on after it."""
    loop = asyncio.get_running_loop()
    with exhausted(1) as (listener, _, _):
        serving = acceptor.Acceptor(Backlog("web", listener), lambda _: None)
        await serving.stop(empty=True)
        assert listener.fileno() == -1
        later = asyncio.Event()
        loop.call_later(2 * PAUSE, later.set)
        await later.wait()
    assert len(errors.messages) == 1
    sys.stdout.write("stopped\n")


if __name__ == "__main__":
    acceptor.PAUSE = PAUSE  # type: ignore[misc]
    heard = Errors()
    logging.getLogger("uvicorn.error").addHandler(heard)
    run({"serve": serve, "stop": stop}[sys.argv[1]](heard), LOOPS[sys.argv[2]])
    sys.stdout.write(f"{heard.messages[0]}\n")
