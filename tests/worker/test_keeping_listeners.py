"""A worker is told which listeners are left: of the others it takes what waits, and is the last to close them."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stillup.host.adoption_queue import cookie
from stillup.host.sources import BATCH
from stillup.worker.connection_intake import ConnectionIntake
from stillup.worker.worker_events import WorkerEvents
from tests.asgi.event_loops import until
from tests.asgi.served_app import Client, serving
from tests.worker.drainable_worker import a_queue

pytestmark = pytest.mark.usefixtures("loop_factory")


@asynccontextmanager
async def intake(*listeners: socket.socket) -> AsyncIterator[ConnectionIntake]:
    """What a worker has that was handed these."""
    for listener in listeners:
        listener.setblocking(False)
    with a_queue() as queue:
        named = [("web", listener) for listener in listeners]
        supervisor: Any = SimpleNamespace(listeners=named, queue=queue, older=[], figures=[0] * 64)
        async with serving() as served:
            taking = ConnectionIntake(cast("Any", supervisor), served.site, WorkerEvents())
            try:
                yield taking
            finally:
                await taking.stop_accepting(empty=False)
                await taking.stop_adopting()
                await taking.idle.stop()


async def test_what_waits_is_taken_before_it_is_closed() -> None:
    """Two listeners of one name, as after a move: they are told apart by the kernel's number, and one is left."""
    with socket.create_server(("127.0.0.1", 0)) as kept, socket.create_server(("127.0.0.1", 0)) as ends:
        where = ends.getsockname()
        async with intake(kept, ends) as taking:
            number = cookie(kept)
            taking.keep_only([number])
            assert ends.fileno() >= 0, "who does not accept yet is told later"
            with ExitStack() as stack:
                # More than a turn of the loop takes: those are served however the listener is closed.
                addresses = [where] * (2 * BATCH) + [kept.getsockname()]
                waiting = [stack.enter_context(socket.create_connection(address)) for address in addresses]
                taking.accept()
                taking.keep_only([number, 12345])
                taking.keep_only([number])
                await until(lambda: ends.fileno() < 0)
                for sock in waiting:
                    client = Client(sock)
                    await client.ask("/")
                    assert (await client.answer()).body == b"ok"
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(where)
            assert kept.fileno() >= 0
            await until(lambda: not taking._closing)
