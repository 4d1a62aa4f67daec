"""Connections that were adopted while idle, without a transport and a protocol until their client speaks."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import structs

from stillup.asgi import idle_connections
from stillup.asgi.movable_connection import LEAST_KEEP_ALIVE
from stillup.core import drain as rules
from stillup.core.drain import ConnectionClass
from stillup.core.values import replace
from stillup.host.adoption_queue import AdoptionQueue
from stillup.worker.connection_count import count
from tests.asgi.event_loops import until
from tests.asgi.served_app import Client
from tests.worker.drainable_worker import LONG, Worker, a_queue, idle, still, working
from tests.worker.full_queue import empty, fill

pytestmark = pytest.mark.usefixtures("loop_factory")


async def adopted_idle(new: Worker, queue: AdoptionQueue, connections: int) -> None:
    """Have a worker adopt so many idle connections."""
    new.adopt(queue, keep_idle=True)
    await until(lambda: len(new.idle) == connections)
    assert not new.served.site.connections


@asynccontextmanager
async def with_idle(connections: int, **options: Any) -> AsyncIterator[tuple[AdoptionQueue, Worker, list[Client]]]:
    """A worker that has adopted so many idle connections, and their clients."""
    options = {"timeout_keep_alive": LONG} | options
    with a_queue() as queue:
        async with working(**options) as old, working(**options) as new:
            clients = [await idle(old) for _ in range(connections)]
            _, _, task = old.hand_over(queue)
            await task
            await adopted_idle(new, queue, connections)
            yield queue, new, clients


async def asked(client: Client) -> bytes:
    await client.ask("/")
    return (await client.answer()).body


async def ended(client: Client) -> bytes:
    """What came until the server's side ended; it lingers until the client's does, too."""
    rest = await client.rest()
    client.close()
    return rest


async def test_they_wake_when_their_clients_speak(http: str) -> None:
    """One after the other gets its protocol with its first request; all that time each counts as idle."""
    async with with_idle(3, http=http) as (_, new, clients):
        assert await count(new.served.site, new.idle) == {"idle": 3}
        for place, client in enumerate(clients):
            assert (len(new.idle), len(new.served.site.connections)) == (3 - place, place)
            assert await asked(client) == b"ok"
            assert await count(new.served.site, new.idle) == {"idle": 3}
        connections: set[Any] = set(new.served.site.connections)
        assert [connection.requests for connection in connections] == [2, 2, 2]
        assert [await asked(client) for client in clients] == [b"ok"] * 3


async def test_only_the_idle_are_kept_so(http: str) -> None:
    """Whoever was never answered, or has begun a request, is served from its adoption on."""
    with a_queue() as queue:
        async with working(http=http) as old, working(http=http) as new:
            unread, half, busy = await old.served.connect(), await old.served.connect(), await idle(old)
            await half.send(b"GET / HTTP/1.1\r\n")
            await until(lambda: "half-read" in old.served.kinds)
            await idle(old)
            old.hand_over(queue)
            await until(lambda: queue.waiting() == 4)
            await busy.ask("/")
            new.adopt(queue, keep_idle=True)
            assert (await busy.answer()).body == b"ok"
            await until(lambda: len(new.served.site.connections) == 3)
            assert len(new.idle) == 1
            await half.send(b"Host: a\r\n\r\n")
            assert [(await half.answer()).body, await asked(unread)] == [b"ok", b"ok"]


async def test_clients_that_leave(http: str) -> None:
    """Whoever hangs up or resets leaves nothing behind."""
    async with with_idle(3, http=http) as (_, new, clients):
        clients[0].close()
        await until(lambda: len(new.idle) == 2)
        clients[1].reset()
        await until(lambda: len(new.idle) == 1)
        await until(lambda: not new.served.site.connections)
        assert await asked(clients[2]) == b"ok"


async def test_keep_alive_goes_on(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The idle time that the old worker began is over when it would have been there, not before, and not much later."""
    keep_alive = 2
    monkeypatch.setattr(idle_connections, "SLICE", 4)  # what is as old as that is woken together
    async with with_idle(4 + 2, http=http, timeout_keep_alive=keep_alive) as (_, new, clients):
        began = time.monotonic()
        assert await asked(clients[0]) == b"ok"
        assert {await client.rest() for client in clients[1:]} == {b""}
        assert not new.idle
        assert await clients[0].rest() == b""
        assert keep_alive - LEAST_KEEP_ALIVE < time.monotonic() - began < 20


async def test_hardly_any_time_left(http: str) -> None:
    """Whoever comes with less than the least time has that, and then is closed."""
    with a_queue() as queue:
        async with working(http=http) as old, working(http=http, timeout_keep_alive=0) as new:
            client = await idle(old)
            _, _, task = old.hand_over(queue)
            await task
            began = time.monotonic()
            new.adopt(queue, keep_idle=True)
            assert await client.rest() == b""
            assert LEAST_KEEP_ALIVE / 2 < time.monotonic() - began < 10
            assert not new.idle


async def test_given_onward_as_they_are(http: str) -> None:
    """The next reload moves them without having woken them; with what was known of them."""
    async with with_idle(40, http=http) as (queue, new, clients), working(http=http) as newest:
        before = new.idle.first(40)
        since = sorted(arrival.info.idle_since or 0 for arrival in before if arrival.info is not None)
        await new.adopters[0].stop()
        _, sender, task = new.hand_over(queue)
        await task
        assert (sender.given, len(new.idle), queue.waiting()) == (40, 0, 40)
        assert {arrival.socket.fileno() for arrival in before} == {-1}
        await adopted_idle(newest, queue, 40)
        infos = [arrival.info for arrival in newest.idle.first(40) if arrival.info is not None]
        assert sorted(info.idle_since or 0 for info in infos) == since
        assert {(info.requests, info.read, info.listener) for info in infos} == {(1, b"", "web")}
        assert min(info.given for info in infos) > max(arrival.info.given for arrival in before if arrival.info)
        assert [await asked(client) for client in clients] == [b"ok"] * 40


async def test_a_queue_that_nobody_empties(http: str) -> None:
    """Those that find no room stay as they are: one that speaks is served here, and moves as soon as there is room."""
    async with with_idle(3, http=http) as (queue, new, clients):
        await new.adopters[0].stop()
        filling = fill(queue)
        drain, sender, task = new.hand_over(queue)
        assert await still(task)
        assert drain.oldest().keys() == {"idle"}
        assert await asked(clients[0]) == b"ok"
        assert (len(new.idle), sender.given) == (2, 0)
        empty(queue, filling)
        await task
        assert (sender.given, drain.closed, queue.waiting()) == (3, 0, 3)


@pytest.mark.parametrize("turns", range(6))
async def test_one_that_wakes_is_not_overlooked(http: str, turns: int, caplog: pytest.LogCaptureFixture) -> None:
    """For a turn of the loop it is neither kept as idle nor has a protocol: a drain that looks then is not over."""
    async with with_idle(1, http=http) as (queue, new, (client,)):
        await new.adopters[0].stop()
        filling = fill(queue)
        drain, sender, task = new.hand_over(queue)
        assert await still(task)
        new.changed.set()  # as somebody else's end does
        for _ in range(turns):
            await asyncio.sleep(0)
        client.sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        new.idle._acceptor._ready()
        assert (await client.answer()).body == b"ok"
        empty(queue, filling)
        await task
        assert (sender.given, drain.closed) == (1, 0)
        assert "drain ended" not in caplog.text


async def test_a_final_drain_ends_them(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nobody to come after they end as all idle connections do, spread over the same time."""
    rule = rules.RULES[ConnectionClass.IDLE]
    monkeypatch.setitem(rules.RULES, ConnectionClass.IDLE, replace(rule, spread_final=8 * rule.spread_final))
    async with with_idle(5, http=http) as (_, new, clients):
        drain, task = new.drain(final=True, timeout=8.0)
        ends = []

        async def end(client: Client) -> None:
            assert await ended(client) == b""
            ends.append(asyncio.get_running_loop().time())

        await asyncio.gather(*map(end, clients))
        await task
        assert drain.closed == 5
        assert ends[-1] - ends[0] > 0.1, "all at once"


async def test_a_handover_that_becomes_final(http: str) -> None:
    """Whoever could not be given any more ends in order."""
    async with with_idle(3, http=http) as (queue, new, clients):
        await new.adopters[0].stop()
        fill(queue)
        drain, _, task = new.hand_over(queue)
        assert await still(task)
        drain.shorten(4.0, final=True)
        assert [await ended(client) for client in clients] == [b""] * 3
        await task
        assert (drain.closed, len(new.idle)) == (3, 0)


async def test_the_drain_has_a_deadline(http: str, caplog: pytest.LogCaptureFixture) -> None:
    """Those that nobody took until then are ended, counted and told of."""
    async with with_idle(3, http=http) as (queue, new, clients):
        await new.adopters[0].stop()
        fill(queue)
        with caplog.at_level(logging.WARNING, "uvicorn.error"):
            drain, _, task = new.hand_over(queue, timeout=0.3)
            assert [await ended(client) for client in clients] == [b""] * 3
            await task
        assert (drain.closed, len(new.idle)) == (3, 0)
        assert "drain ended 3 idle" in caplog.text


@pytest.mark.parametrize("late", [False, True])
async def test_parked(http: str, late: bool) -> None:
    """They are put into a queue that nobody reads now, be it said at the drain's beginning or later."""
    async with with_idle(3, http=http) as (queue, new, _):
        await new.adopters[0].stop()
        full: list[bool] = []
        filling = fill(queue) if late else 0
        _, sender, task = new.hand_over(queue)
        assert not late or await still(task)
        empty(queue, filling)
        sender.park(lambda: full.append(True))
        await task
        assert (sender.given, queue.waiting(), full) == (3, 3, [])


async def test_parked_in_a_full_queue(http: str) -> None:
    """What does not fit is served to its end here, and ends in order."""
    async with with_idle(3, http=http) as (queue, new, clients):
        await new.adopters[0].stop()
        fill(queue)
        drain, sender, task = new.hand_over(queue)
        sender.park(lambda: drain.shorten(2.0, final=True))
        assert [await ended(client) for client in clients] == [b""] * 3
        await task
        assert (sender.given, drain.closed, len(new.idle)) == (0, 3, 0)


async def test_without_memory_for_a_watch(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be kept as idle is served like any other."""

    def full(*_: object) -> None:
        raise OSError("no room")

    with a_queue() as queue:
        async with working(http=http) as old, working(http=http) as new:
            client = await idle(old)
            _, _, task = old.hand_over(queue)
            await task
            monkeypatch.setattr(new.idle._poll, "add", full)
            new.adopt(queue, keep_idle=True)
            await until(lambda: len(new.served.site.connections) == 1)
            assert await asked(client) == b"ok"


async def test_what_was_read_of_a_head_is_not_kept_idle(http: str) -> None:
    """Another version's word that a connection was answered and has begun a head means that it is not idle."""
    async with with_idle(1, http=http) as (_, new, _):
        (arrival,) = new.idle.first(1)
        assert arrival.info is not None
        with socket.socket() as sock:
            another = replace(arrival, socket=sock)
            assert not new.idle.keep(replace(another, info=structs.replace(arrival.info, read=b"GET")))
            assert not new.idle.keep(replace(another, info=None))
