"""``python -m tests.asgi.exhaustion LOOP``: accepts with no descriptor left; a process of its own, for its limit."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import sys
from contextlib import ExitStack

from supervisor.asgi import acceptor
from tests.asgi.running import LOOPS, run, until

PAUSE = 0.2


class Errors(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


async def main(errors: Errors) -> None:
    """Take three clients, for none of whom there is a descriptor at first and for one at a time then."""
    loop = asyncio.get_running_loop()
    taken: list[float] = []
    with ExitStack() as stack:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        clients = [stack.enter_context(socket.create_connection(listener.getsockname(), timeout=10)) for _ in range(3)]
        serving = acceptor.Acceptor(listener, lambda _: taken.append(loop.time()))
        spare = os.dup(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        serving.start()
        await until(lambda: errors.messages)
        failed = loop.time()
        assert not taken
        os.close(spare)
        for client in clients:
            client.setblocking(False)
            assert await loop.sock_recv(client, 1) == b""  # accepted, and turned away
        await serving.stop()
    assert taken[0] - failed > PAUSE / 2, "no pause"
    sys.stdout.write(f"{len(taken)} taken\n{errors.messages[0]}\n")


if __name__ == "__main__":
    acceptor.PAUSE = PAUSE  # type: ignore[misc]
    heard = Errors()
    logging.getLogger("uvicorn.error").addHandler(heard)
    run(main(heard), LOOPS[sys.argv[1]])
