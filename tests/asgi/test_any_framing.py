"""Any frames, cut anywhere by a hand-off: what the old worker's app has not received the new one's does, in order."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import h11
from hypothesis import given
from hypothesis import strategies as st

from tests.asgi.event_loops import LOOPS, run, until
from tests.asgi.served_app import Client, Served
from tests.asgi.session_app import Peer, frame
from tests.asgi.test_answer_sessions import CHUNKED, Telling, hand_over, streaming
from tests.asgi.test_sessions import DEFLATES, follow, sessions

TEXT, CONTINUATION, PING, PONG = 1, 0, 9, 10
TEXTS = st.text(max_size=150) | st.builds(
    lambda text, size: (text * size)[:size], st.text(min_size=1), st.integers(1, 70_000)
)
TURNS = 60
"""Of the event loop, after which it has nothing more to do: more than there are messages and frames in an example."""
PART = st.floats(0, 1)
"""Where something is cut, as a part of it."""
MESSAGES = st.lists(
    st.tuples(TEXTS, st.lists(PART, max_size=3), st.lists(st.binary(max_size=125), max_size=2)), min_size=1, max_size=6
)
"""Each is a text, where it is cut into fragments, and the pings between these."""


def frames(peer: Peer, text: str, cuts: list[float], pings: list[bytes]) -> bytes:
    """One message of a client, in fragments, with pings behind the first ones of them."""
    data = text.encode()
    compressed = peer.compressed(data) if peer.deflates else data
    places = [0, *sorted(round(cut * len(compressed)) for cut in cuts), len(compressed)]
    parts = [compressed[start:end] for start, end in pairwise(places)]
    written = b""
    for number, part in enumerate(parts):
        first, last = number == 0, number == len(parts) - 1
        written += frame(TEXT if first else CONTINUATION, part, fin=last, rsv1=first and peer.deflates)
        written += b"".join(frame(PING, ping) for ping in pings[number : number + 1])
    return written


async def turns() -> None:
    """Let the event loop do all that it can."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


@given(MESSAGES, PART, st.sampled_from(DEFLATES), st.sampled_from(sorted(LOOPS)))
def test_every_message_once(
    messages: list[tuple[str, list[float], list[bytes]]], cut: float, deflate: str, loop: str
) -> None:
    """The texts in their order, the pings in theirs, each answered once: first by the old worker, then by the new."""

    async def play() -> None:
        async with sessions() as pair:
            peer = await Peer.dial(pair.old, deflate=deflate)
            data = b"".join(frames(peer, *message) for message in messages)
            place = round(cut * len(data))
            await peer.send(data[:place])
            connection = pair.old.connection
            await turns()  # it is read, and what is whole of it is answered
            follow(pair, connection)
            connection.ask()
            await turns()  # it has moved, unless it is in the middle of a message in fragments
            await peer.send(data[place:])
            await until(lambda: not pair.old.site.connections)
            await pair.taken()
            texts: list[str] = []
            pongs: list[bytes] = []
            expected = sum(len(pings[: len(cuts) + 1]) for _, cuts, pings in messages)
            while len(texts) < len(messages) or len(pongs) < expected:
                opcode, said = await peer.frame()
                assert opcode in (TEXT, PONG), (opcode, said)
                if opcode == TEXT:
                    texts.append(said.decode())
                else:
                    pongs.append(said)
            names = [text.split(" ")[0] for text in texts]
            assert names == sorted(names, reverse=True), "who has it keeps it"
            counted = [
                f"{name} {number} {text}"
                for number, (name, (text, *_)) in enumerate(zip(names, messages, strict=True), 1)
            ]
            assert texts == counted
            assert pongs == [ping for _, cuts, pings in messages for ping in pings[: len(cuts) + 1]]
            assert await peer.say("last") == f"new {len(messages) + 1} last"

    run(play(), LOOPS[loop])


@given(
    parts=st.lists(st.binary(max_size=3000), min_size=1, max_size=8),
    cut=PART,
    body=st.binary(max_size=2000),
    sized=st.booleans(),
    http=st.sampled_from(["h11", "httptools"]),
    loop=st.sampled_from(sorted(LOOPS)),
)
def test_every_part_of_an_answer_once(
    parts: list[bytes], cut: float, body: bytes, *, sized: bool, http: str, loop: str
) -> None:
    """Chunked or of known length, handed over behind any of its parts: its client gets each byte; then asks again."""
    place, whole = round(cut * (len(parts) - 1)), b"".join(parts)
    headers = [*CHUNKED, (b"content-length", b"%d" % len(whole))] if sized else CHUNKED

    async def play() -> None:
        async with streaming(Telling(headers), old=Telling(headers), http=http) as pair:
            old, new = told_by(pair.old), told_by(pair.new)
            client = await pair.old.connect()
            parsed = h11.Connection(h11.CLIENT)
            await client.ask("/s", f"Content-Length: {len(body)}", method="POST")
            await client.send(body)
            old.say(*parts[:place])
            await until(lambda: old.asked and old.orders.empty())
            await hand_over(pair)
            await pair.taken()
            new.say(*parts[place:], None)
            assert await answer(client, parsed) == whole
            new.say(*parts, None)
            await client.ask("/")
            assert await answer(client, parsed) == whole
            assert [sent for _, sent in new.asked] == [body, b""]

    run(play(), LOOPS[loop])


def told_by(served: Served) -> Telling:
    assert isinstance(served.app, Telling)
    return served.app


async def answer(client: Client, parsed: h11.Connection) -> bytes:
    """The body of the next answer, by another parser than ours."""
    parsed.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    parsed.send(h11.EndOfMessage())
    body = b""
    while not isinstance(event := parsed.next_event(), h11.EndOfMessage):
        assert not isinstance(event, h11.ConnectionClosed)
        if isinstance(event, h11.Data):
            body += event.data
        elif event is h11.NEED_DATA:
            parsed.receive_data(await asyncio.get_running_loop().sock_recv(client.sock, 65536))
    parsed.start_next_cycle()
    return body
