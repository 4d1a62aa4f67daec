"""Real moves: a client goes on with the same socket at another site, and nothing tells it so."""

from __future__ import annotations

import asyncio
import json
import os
import time
from functools import partial
from typing import Any

import pytest

from stillup.asgi import movable_connection
from stillup.asgi.proxy_trust import is_proxy
from stillup.core.drain import ConnectionClass
from stillup.core.worker_settings import WorkerSettings
from stillup.host import adoption_queue, descriptors
from stillup.wire.adoption_packet import ConnectionInfo, decode, encode
from tests.asgi.crossing_pair import Crossing, crossing, standing
from tests.asgi.event_loops import until
from tests.asgi.served_app import App, Client, Served

pytestmark = pytest.mark.usefixtures("loop_factory")

OTHER = {"httptools": "h11", "h11": "httptools"}
HEAD = b"POST /upload HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\nContent-Length: 4\r\n\r\n"
CHAIN = "X-Forwarded-For: 198.51.100.7, 203.0.113.9"


class New(App):
    """The new release: it says so."""

    async def _index(self, _: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"new"})


async def read(served: Served, count: int) -> None:
    """Wait until the only connection has so many bytes of a head."""
    await until(lambda: len(standing(served).head or b"") == count)


async def ask(client: Client) -> bytes:
    await client.ask("/")
    answer = await client.answer()
    assert not answer.says_close
    return answer.body


def silent(client: Client) -> bool:
    """Whether the client has seen nothing: no byte, no end, no reset."""
    try:
        client.sock.recv(1)
    except BlockingIOError:
        return True
    return False


async def test_idle(http: str) -> None:
    """An idle client's next request is answered by the new site, on the connection that it has; so is one after it."""
    async with crossing(http=http, new_app=New()) as both:
        client = await both.old.connect()
        assert await ask(client) == b"ok"
        await both.move()
        assert silent(client)
        assert [await ask(client) for _ in range(3)] == [b"new"] * 3
        assert (both.sender.given, both.source.lost, both.stayed) == (1, 0, [])
        assert both.new.kinds == [ConnectionClass.IDLE]


async def test_unread(http: str) -> None:
    """A client that has said nothing yet is answered by the new site; it is given no time limit by its move."""
    async with crossing(http=http, new_app=New()) as both:
        client = await both.old.connect()
        await both.move()
        assert both.new.kinds == [ConnectionClass.UNREAD]
        assert both.new.connection.timeout_keep_alive_task is None
        assert silent(client)
        assert await ask(client) == b"new"


@pytest.mark.parametrize("same", [True, False])
async def test_half_a_head_at_every_byte(http: str, *, same: bool) -> None:
    """A head that the one parser read half is completed at the other side, whichever parser is there."""
    async with crossing(http=http, new_options={"http": http if same else OTHER[http]}) as both:
        both.adopter.start()
        for size in range(1, len(HEAD)):
            client = await both.old.connect()
            await client.send(HEAD[:size])
            await read(both.old, size)
            await both.given()
            await both.taken()
            assert silent(client)
            await client.send(HEAD[size:] + b"body")
            assert (await client.answer()).body == b"body", size
            client.close()
            await until(lambda: not both.new.site.connections)


async def test_asks_while_nobody_has_it(http: str) -> None:
    """What a client sends while its connection is in the queue waits there, and is answered."""
    async with crossing(http=http, new_app=New()) as both:
        clients = [await both.old.connect() for _ in range(3)]
        await ask(clients[1])
        await clients[2].send(b"GET / HT")
        await until(lambda: sorted(map(str, both.old.kinds)) == ["half-read", "idle", "unread"])
        await both.given()
        await clients[0].ask("/")
        await clients[1].ask("/")
        await clients[2].send(b"TP/1.1\r\nHost: a\r\n\r\n")
        assert both.queue.waiting() == 3
        assert all(map(silent, clients))
        await both.taken(3)
        assert [(await client.answer()).body for client in clients] == [b"new"] * 3


async def test_leaves_while_nobody_has_it(http: str) -> None:
    """A client that has left while its connection was in the queue is let go by the new site, and nobody else."""
    async with crossing(http=http) as both:
        gone, reset, stays = [await both.old.connect() for _ in range(3)]
        await both.given()
        gone.close()
        reset.reset()
        both.adopter.start()
        await until(lambda: both.queue.waiting() == 0)
        await until(lambda: len(both.new.site.connections) == 1)
        assert await ask(stays) == b"ok"


async def test_what_it_was_doing_when_it_was_offered(http: str) -> None:
    """A connection whose request came between the offer and its turn stays, is answered, and moves after that."""
    async with crossing(http=http, new_app=New()) as both:
        client = await both.old.connect()
        await client.ask("/held")
        await both.old.waits()
        connection = both.old.connection
        both.offer()
        await until(lambda: both.stayed == [connection])
        assert both.queue.waiting() == 0
        both.old.app.go.set()
        assert (await client.answer()).body == b"at last"
        await both.move()
        assert await ask(client) == b"new"


async def test_background_task(http: str) -> None:
    """A connection moves from under a task that its last request left behind; the task goes on where it is."""
    async with crossing(http=http, new_app=New()) as both:
        client = await both.old.connect()
        await client.ask("/background")
        await client.answer()
        await both.old.waits()
        await both.move()
        assert await ask(client) == b"new"
        assert (len(both.old.site.state.tasks), both.old.app.ended) == (1, [])
        both.old.app.go.set()
        await until(lambda: not both.old.site.state.tasks)
        assert both.old.app.ended == ["done"]


async def test_client_address(http: str) -> None:
    """The new site's app sees the client's own address, its scheme, and its own lifespan's state."""
    async with crossing(http=http) as both:
        client = await both.old.connect()
        await both.move()
        await client.ask("/scope")
        seen = json.loads((await client.answer()).body)
        assert seen == {"client": list(client.sock.getsockname()), "scheme": "http", "state": ["side"]}


@pytest.mark.parametrize(("unix", "known"), [(True, True), (True, False), (False, True)])
async def test_proxy_headers(http: str, *, unix: bool, known: bool) -> None:
    """A proxy on a Unix socket is trusted after the move as before, a stranger is not; one on TCP by its address alone.

    The new worker asks the kernel again who it is.
    """
    settings = WorkerSettings(proxy_uids=(os.geteuid() + (0 if known else 1),))
    async with crossing(http=http, unix=unix, forwarded_allow_ips="203.0.113.9") as both:
        both.old.site.is_proxy = both.new.site.is_proxy = partial(is_proxy, settings)
        client = await both.old.connect()
        seen = []
        for _ in range(2):
            await client.ask("/scope", CHAIN)
            seen.append((json.loads((await client.answer()).body)["client"] or [None])[0])
            if len(seen) == 1:
                await both.move()
        assert seen == (["198.51.100.7" if known else None] * 2 if unix else ["127.0.0.1"] * 2)


async def test_requests_are_counted_on(http: str) -> None:
    """The number of a connection's requests, its listener and since when it is idle go with it."""
    async with crossing(http=http) as both:
        client = await both.old.connect()
        before = time.monotonic()
        for _ in range(3):
            await ask(client)
        after = time.monotonic()
        await both.given()
        received = adoption_queue.receive(both.queue.reader, 1 << 17, 64)
        (info,) = decode(received.packet)
        assert (info.listener, info.requests, info.read) == ("web", 3, b"")
        assert info.idle_since is not None
        # uvloop's clock is the loop's, which is as old as its turn.
        assert before - 0.05 <= info.idle_since <= after + 0.05
        assert info.given >= after
        send_again(both, received, info)
        await both.taken()
        assert both.new.connection.requests == 3
        await ask(client)
        assert both.new.connection.requests == 4


async def test_keep_alive_goes_on(http: str) -> None:
    """The time that an idle connection has left is what it had left, and does not begin anew with its move."""
    async with crossing(http=http, timeout_keep_alive=1000) as both:
        client = await both.old.connect()
        await ask(client)
        due = both.old.connection.timeout_keep_alive_task.when()
        await both.given()
        later = asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, later.set)
        await later.wait()
        await both.taken()
        assert abs(both.new.connection.timeout_keep_alive_task.when() - due) < 0.1
        await ask(client)
        assert both.new.connection.timeout_keep_alive_task.when() > due + 0.2


async def test_least_keep_alive(http: str) -> None:
    """A connection whose time is over by its arrival is kept for a moment yet, and then closed as any idle one."""
    async with crossing(http=http, timeout_keep_alive=60) as both:
        client = await both.old.connect()
        await ask(client)
        await both.given()
        received = adoption_queue.receive(both.queue.reader, 1 << 17, 64)
        late = ConnectionInfo("web", time.monotonic(), 1, time.monotonic() - 500)
        send_again(both, received, late)
        loop, least = asyncio.get_running_loop(), movable_connection.LEAST_KEEP_ALIVE
        began = loop.time()
        await both.taken()
        # uvloop's clock has milliseconds.
        assert began - 0.005 <= both.new.connection.timeout_keep_alive_task.when() - least <= loop.time() + 0.005
        assert await client.rest() == b""
        assert loop.time() - began >= least - 0.05


def send_again(both: Crossing, received: adoption_queue.Received, *infos: ConnectionInfo) -> None:
    """Put what was received into the queue again, with other descriptions."""
    adoption_queue.send(both.queue.writer, encode(list(infos)), received.fds)
    descriptors.close(received.fds)


async def test_too_long_a_head_is_still_too_long() -> None:
    """Moving in the middle of a head buys no exemption from ``h11_max_incomplete_event_size``."""
    async with crossing(http="h11", h11_max_incomplete_event_size=1000) as both:
        client = await both.old.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 800)
        await until(lambda: both.old.kinds == [ConnectionClass.HALF_READ])
        await both.move()
        assert silent(client)
        await client.send(b"x" * 800)
        assert (await client.read_to(b"\r\n")).split()[1] == b"400"


async def test_limit_concurrency(http: str) -> None:
    """Nobody gets 503 for having moved: the first request at a full site is answered, and later ones as for others."""
    async with crossing(http=http, new_app=New(), new_options={"limit_concurrency": 1}) as both:
        client, half = await both.old.connect(), await both.old.connect()
        await ask(client)
        await half.send(b"GET / HT")
        await until(lambda: ConnectionClass.HALF_READ in both.old.kinds)
        await both.move()
        assert await ask(client) == b"new"
        await half.send(b"TP/1.1\r\nHost: a\r\n\r\n")
        assert (await half.answer()).body == b"new"
        for each in (client, half):
            await each.ask("/")
            assert (await each.read_to(b"\r\n")).split()[1] == b"503"


@pytest.mark.parametrize(("limit", "expected"), [(None, [True] * 4), (3, [True, True, False, False]), (1, [False] * 4)])
async def test_has_room(http: str, limit: int | None, expected: list[bool]) -> None:
    """There is room for one more while uvicorn would answer all of them, that one included."""
    async with crossing(http=http, limit_concurrency=limit) as both:
        seen = [both.old.site.has_room_for(1)]
        for _ in range(3):
            await both.old.connect()
            seen.append(both.old.site.has_room_for(1))
        assert seen == expected


@pytest.mark.parametrize("packet", [1, 16])
async def test_many(http: str, packet: int) -> None:
    """Forty clients of every kind that may move are all answered by the new site, in however many packets they go."""
    async with crossing(http=http, packet=packet, new_app=New()) as both:
        clients = [await both.old.connect() for _ in range(40)]
        for client in clients[::3]:
            await ask(client)
        for client in clients[1::3]:
            await client.send(b"GET / HT")
        await until(lambda: both.old.kinds.count(ConnectionClass.HALF_READ) == len(clients[1::3]))
        both.adopter.start()
        await both.given()
        await until(lambda: len(both.new.site.connections) == 40)
        for number, client in enumerate(clients):
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[8 if number % 3 == 1 else 0 :])
        assert [(await client.answer()).body for client in clients] == [b"new"] * 40
        assert (both.sender.given, both.source.lost) == (40, 0)


async def test_there_and_on(http: str) -> None:
    """A connection that has moved may move again, with what it is then."""
    async with crossing(http=http) as first, crossing(http=http, new_app=New()) as second:
        client = await first.old.connect()
        await ask(client)
        await first.move()
        await ask(client)
        await client.send(b"GET / HT")
        await first.new.becomes(ConnectionClass.HALF_READ)
        first.stayed.clear()
        second.sender.offer(first.new.connection)
        await until(lambda: not first.new.site.connections)
        await second.taken()
        assert second.new.connection.requests == 2
        await client.send(b"TP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer()).body == b"new"


async def test_arrivals_are_told(http: str) -> None:
    """A site that drains hears of each connection that still arrives; of a new client's it does not."""
    async with crossing(http=http) as both:
        seen: list[Any] = []
        both.new.site.on_arrival = seen.append
        await both.old.connect()
        await both.new.connect()
        assert seen == []
        await both.given()
        await both.taken(2)
        assert len(seen) == 1
        assert seen[0] in both.new.site.connections
