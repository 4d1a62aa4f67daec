"""A worker that says hello, and ends before the fleet has heard of it."""

from __future__ import annotations

import asyncio
import socket

from stillup.core.events import Event
from stillup.core.model import Fleet
from stillup.wire import handoff_messages
from stillup.wire.handoff_messages import Hello
from tests.asgi.event_loops import until
from tests.daemon.workers.test_admission import FRESH, Supervisor


async def test_nothing_is_kept_of_it() -> None:
    """Its end is seen while its hello waits for the record: it is forgotten once, and so it must not be known later."""
    supervisor = Supervisor(open=True, claims=False, admits=True, refuses=False)
    admission, channels = supervisor.admission, supervisor.channels
    answer: asyncio.Future[Fleet] = asyncio.get_running_loop().create_future()
    asked: list[Event] = []

    def ask(event: Event) -> asyncio.Future[Fleet]:
        asked.append(event)
        return answer

    admission._ask = ask
    before = set(admission._known)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as worker:
        worker.connect(supervisor.path)
        worker.send(handoff_messages.encode(Hello(handoff_messages.PROTOCOL, FRESH)))
        await until(lambda: asked)
        admission.forget(1)
        answer.set_result(Fleet())
        await until(lambda: not admission._tasks)
    assert set(admission._known) == before
    assert (channels._channels, channels._protocols, channels._has_output) == ({}, {}, {})
    await supervisor.close()
