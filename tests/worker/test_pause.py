"""A worker that pauses: what comes again when it accepts again, and how long it takes when it leaves instead."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from stillup.core import drain as rules
from stillup.core.drain import ConnectionClass, Rule
from stillup.wire.handoff_messages import Drain
from stillup.worker import connection_drain, retirement
from tests.asgi.event_loops import until
from tests.asgi.served_app import Client
from tests.worker.drainable_worker import LONG, a_queue, ask, idle, working
from tests.worker.full_queue import packets
from tests.worker.pausable_worker import PAUSE, Pausable, pausable

pytestmark = pytest.mark.usefixtures("loop_factory")

SOON = 1.0
"""Seconds of a stop; a good deal less than ``LONG``."""


async def test_it_serves_again(http: str) -> None:
    """What came meanwhile, and what was under way, is served as ever; the next pause is like the first."""
    with a_queue() as queue:
        async with pausable(queue, http=http) as paused:
            worker, its = paused.worker, paused.retirement
            busy = await worker.served.connect()
            await busy.ask("/held")
            await worker.served.waits()
            for number in (1, 2):
                moves = await idle(worker)
                its.pause(PAUSE)
                await until(lambda number=number: its.given == number)  # type: ignore[misc]
                assert len(packets(queue)) == 1
                waits = Client(socket.create_connection(worker.served.address))
                await waits.ask("/")
                assert worker.stillup["draining"]
                its.come_back()
                assert (await waits.answer()).body == b"ok"
                assert not worker.stillup["draining"]
                waits.close()
                moves.close()
                await until(lambda: len(worker.served.site.connections) == 1)
            worker.served.app.go.set()
            assert (await busy.answer()).body == b"at last"
            assert await ask(busy) == b"ok", "it goes on, and nothing says that it closes"
            assert (its.closed, its.cut, its.has_begun, its.at_rest) == (0, {}, False, False)
            assert worker.served.site.on_change is None, "no drain looks on"


async def test_it_leaves_as_any_other() -> None:
    """The app's shutdown has what is left of the time to leave, which begins with the word to leave."""
    with a_queue() as queue:
        async with pausable(queue) as paused:
            await paused.pause()
            paused.retirement.begin_as_told(Drain(10 * LONG, final=False))
            await paused.leaves()
            assert paused.retirement.time_left > 5 * LONG


async def test_a_stop_waits_for_no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has left the queue to others since it was paused does not wait for its end."""
    monkeypatch.setattr(retirement, "QUEUE_PATIENCE", LONG)
    with a_queue() as queue:
        async with pausable(queue) as paused:
            await paused.pause()
            paused.retirement.begin_as_told(Drain(10 * LONG, final=True))
            await paused.leaves()


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(lambda paused: paused.retirement.pause(PAUSE), id="paused"),
        pytest.param(lambda paused: paused.retirement.begin_as_told(Drain(LONG, final=False)), id="draining"),
    ],
)
async def test_a_restart_has_its_own_time(begin: Callable[[Pausable], None]) -> None:
    """An answer that had longer before is cut in it, so that the app's shutdown comes before the supervisor's kill."""
    with a_queue() as queue:
        async with pausable(queue) as paused:
            client = await paused.worker.served.connect()
            await client.ask("/halves")
            await paused.worker.served.waits()
            begin(paused)
            paused.retirement.begin_as_told(Drain(SOON, final=False, park=True))
            await paused.leaves()
            assert paused.retirement.cut == {ConnectionClass.STREAM: 1}


async def test_called_off_while_it_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is ended by a drain that is over, be it past its time."""
    monkeypatch.setattr(connection_drain, "SLICE", 1)
    monkeypatch.setitem(rules.RULES, ConnectionClass.IDLE, Rule(handover=0.0, final=0.0))
    async with working() as worker:
        clients = [await idle(worker) for _ in range(2)]
        begun, task = worker.drain()
        await until(lambda: begun.closed)
        begun.call_off()
        worker.served.site.retract_close()
        await task
        assert begun.closed == 1
        assert len(worker.served.site.connections) >= 1
        for client in clients:
            client.close()
