"""A WebSocket that is taken out of one parser and built into another: as if there had been only one."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.server import ServerProtocol

from stillup.asgi.websocket_state import deflate_of, fitting, half_frame, is_in_message, open_conn, request
from stillup.wire import session_format
from stillup.wire.session_format import Deflate, OpenWebSocket
from tests.asgi.session_app import frame

MOST = 2**20
SIZES = st.sampled_from([0, 1, 2, 124, 125, 126, 127, 300, 0x81FE, 0x82FE, 65_535, 65_536, 70_000]) | st.integers(
    0, 600
)
"""Among them those whose extended length has the same two bytes as the header before it."""
PARTS = st.lists(st.tuples(st.sampled_from([1, 2]), st.lists(SIZES, min_size=1, max_size=3), st.booleans()), max_size=5)
"""Messages: what kind, the sizes of their fragments, and whether a ping comes between."""
FORMS = st.none() | st.builds(Deflate, st.booleans(), st.booleans(), st.integers(9, 15), st.integers(9, 15))


def wire(parts: list[tuple[int, list[int], bool]], form: Deflate | None) -> bytes:
    """What a client sends."""
    sent = b""
    packer = zlib.compressobj(wbits=-form.remote_max_window_bits) if form is not None else None
    for number, (opcode, sizes, ping) in enumerate(parts):
        if form is not None and form.remote_no_context_takeover:
            packer = zlib.compressobj(wbits=-form.remote_max_window_bits)
        for place, size in enumerate(sizes):
            data, last = (b"%d lorem ipsum " % number * (size // 10 + 1))[:size], place == len(sizes) - 1
            if packer is not None:
                data = packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH)
                data = data[:-4] if last else data
            sent += frame(0 if place else opcode, data, fin=last, rsv1=packer is not None and not place)
            sent += frame(9, b"ping") if ping else b""
    return sent


def heard(conn: Any, data: bytes) -> list[tuple[int, bytes, bool]]:
    """What it makes of that."""
    conn.receive_data(data)
    assert conn.parser_exc is None, conn.parser_exc
    return [(int(event.opcode), bytes(event.data), event.fin) for event in conn.events_received()]


def carried(conn: Any) -> tuple[Any, bytes]:
    """Another parser that goes on where this one stands, and what it is to read first; by way of the queue."""
    session = OpenWebSocket(b"", "/", [], deflate=deflate_of(conn), partial=half_frame(conn))
    session = session_format.decode(session_format.encode(session))  # type: ignore[assignment]
    return open_conn(MOST, session.deflate), session.partial


@given(parts=PARTS, form=FORMS, cuts=st.lists(st.floats(0, 1), max_size=4))
@example(parts=[(1, [0x81FE], False)], form=None, cuts=[4 / (0x81FE + 8)])
@example(parts=[(1, [600], False), (1, [600], False)], form=Deflate(False, False, 15, 15), cuts=[0.5])
def test_any_cut(parts: list[tuple[int, list[int], bool]], form: Deflate | None, cuts: list[float]) -> None:
    """Wherever it is cut, but in the middle of a message in fragments, all that is read is the same."""
    sent = wire(parts, form)
    whole = heard(open_conn(MOST, form), sent)
    conn, found, at = open_conn(MOST, form), [], 0
    for cut in sorted(int(cut * len(sent)) for cut in cuts):
        found += heard(conn, sent[at:cut]) if cut > at else []
        at = cut
        if not is_in_message(conn):
            conn, partial = carried(conn)
            found += heard(conn, partial) if partial else []
    found += heard(conn, sent[at:]) if sent[at:] else []
    assert found == whole


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 0x81FE, 65_535, 65_536])
@pytest.mark.parametrize("bytewise", [False, True])
def test_every_cut_of_a_header(size: int, *, bytewise: bool) -> None:
    """What was read of a frame is given back to the byte, however it came, and whatever was before it."""
    one = frame(1, b"a" * size)
    for before in (b"", frame(9, b"hi"), frame(2, b"x" * 126)):
        for cut in range(min(len(one), 20)):
            conn, read = open_conn(MOST, None), before + one[:cut]
            for piece in [read[place : place + 1] for place in range(len(read))] if bytewise else [read] * bool(read):
                conn.receive_data(piece)
            assert half_frame(conn) == one[:cut], cut


def test_a_request_is_made_again() -> None:
    """As it was, to the byte; what is none of a WebSocket to this version of websockets is not."""
    said = [(b"host", b"a"), (b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-version", b"13")]
    key = (b"sec-websocket-key", b"x3JJHMbDL1EzLkh9GBhXDw==")
    made = request(ServerProtocol(), OpenWebSocket(b"", "/chat?a=b", [*said, key, (b"cookie", b"a=b")]))
    assert made.path == "/chat?a=b"
    assert [name for name, _ in made.headers.raw_items()][-1] == "cookie"
    assert request(ServerProtocol(), OpenWebSocket(b"", "/chat", said)) is None
    compressing = ServerProtocol(extensions=[ServerPerMessageDeflateFactory()])
    assert request(compressing, OpenWebSocket(b"", "/", [*said, key, (b"sec-websocket-extensions", b"@")])) is None


def test_bytes_that_are_no_ascii() -> None:
    """A header's value may have any bytes; they come to the app as they came to the one before."""
    session = OpenWebSocket(b"", "/", [(b"cookie", b"a=\xe9"), (b"upgrade", b"websocket")])
    assert request(ServerProtocol(), session) is None  # no key: but it was read


def test_how_many_fit() -> None:
    """From the last one on; half a frame that is too large leaves no room for none."""
    waiting = [{"bytes": b"x" * 2**20}, {"text": "\xe9" * 4}, {"bytes": b"12"}, {"type": "websocket.disconnect"}]
    sizes = [24, 18, 16]
    assert [fitting(waiting, limit) for limit in (-1, 0, sum(sizes) - 1, sum(sizes))] == [-1, 0, 2, 3]
