"""A session between two workers: what was written is read, and nothing else is taken."""

from __future__ import annotations

import random
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillup.errors import PeerError
from stillup.wire import session_format
from stillup.wire.deflate_window import window
from stillup.wire.session_format import (
    MOST_WINDOW,
    SESSION_LIMIT,
    STATE_LIMIT,
    Deflate,
    OpenAnswer,
    OpenWebSocket,
    decode,
    encode,
)

ASCII = st.text(st.characters(max_codepoint=127), max_size=20)
SESSIONS = st.builds(
    OpenWebSocket,
    state=st.binary(max_size=50),
    target=ASCII,
    headers=st.lists(st.tuples(ASCII.map(str.encode), st.binary(max_size=20)), max_size=3),
    subprotocol=st.none() | st.text(max_size=10),
    deflate=st.none()
    | st.builds(Deflate, st.booleans(), st.booleans(), st.integers(8, 15), st.integers(9, 15), st.binary(max_size=50)),
    waiting=st.lists(
        st.tuples(st.just(value=True), st.text(max_size=10).map(str.encode))
        | st.tuples(st.just(value=False), st.binary(max_size=10)),
        max_size=3,
    ),
    partial=st.binary(max_size=20),
)


def packed(**values: object) -> bytes:
    """A session of which something is as it is not."""
    whole = {"type": "websocket", "state": b"", "target": "/", "headers": [], **values}
    return msgspec.msgpack.encode(whole)


@given(SESSIONS)
def test_round_trip(session: OpenWebSocket) -> None:
    """What was written is read, to the byte."""
    assert decode(encode(session)) == session


@given(st.binary(max_size=200))
def test_noise(noise: bytes) -> None:
    """What is no session is refused, whatever it is."""
    try:
        decode(noise)
    except PeerError:
        return


def test_fields_of_other_versions() -> None:
    """A field that is not known is passed over, one that is missing has its default."""
    assert decode(packed(later=1)) == OpenWebSocket(b"", "/", [])


@pytest.mark.parametrize(
    "values",
    [
        {"state": b"x" * (STATE_LIMIT + 1)},
        {"state": "text"},
        {"target": "/\xe9"},
        {"headers": [(b"\xe9", b"")]},
        {"headers": [(b"a", b"")] * 4097},
        {"waiting": [(True, b"\xff")]},
        {"waiting": [(False, b"")] * 70_000},
        {"deflate": [False, False, 15, 15]},
        {"deflate": {"remote_no_context_takeover": False, "local_no_context_takeover": False}},
        *(
            {
                "deflate": {
                    "remote_no_context_takeover": False,
                    "local_no_context_takeover": False,
                    "remote_max_window_bits": remote,
                    "local_max_window_bits": local,
                    "window": window,
                }
            }
            for remote, local, window in [(7, 15, b""), (16, 15, b""), (15, 8, b""), (15, 15, b"x" * (MOST_WINDOW + 1))]
        ),
    ],
)
def test_what_cannot_be(values: dict[str, object]) -> None:
    """Every number and size is looked at by who reads it."""
    with pytest.raises(PeerError):
        decode(packed(**values))


def test_too_large() -> None:
    """Neither written nor read."""
    session = OpenWebSocket(b"", "/", [], partial=b"x" * SESSION_LIMIT)
    with pytest.raises(PeerError, match=f"over the limit of {SESSION_LIMIT}"):
        encode(session)
    with pytest.raises(PeerError, match=f"over the limit of {SESSION_LIMIT}"):
        decode(msgspec.msgpack.encode(session))


def test_what_waits_fits_beside_the_largest_state() -> None:
    """What is asked for when an app hands over, is not refused when it is sent."""
    waits = session_format.WAITING_LIMIT
    whole = OpenWebSocket(
        b"s" * STATE_LIMIT,
        "/" * 8192,
        [(b"a", b"x" * 65536)],
        deflate=Deflate(False, False, 15, 15, b"w" * MOST_WINDOW),
        waiting=[(False, b"")] * (waits // 32),
        partial=b"p" * (waits // 2),
    )
    assert decode(encode(whole)) == whole


@given(
    messages=st.lists(st.tuples(st.sampled_from(["random", "words", "again"]), st.integers(0, 5000)), max_size=12),
    bits=st.integers(9, 15),
    seed=st.integers(0, 2**16),
)
def test_the_window_is_what_was_put_out_last(messages: list[tuple[str, int]], bits: int, seed: int) -> None:
    """A decompressor that is made with it goes on as the one that it was taken of, whatever looks back how far."""
    draw = random.Random(seed)
    packer, unpacker, history = zlib.compressobj(wbits=-bits), zlib.decompressobj(wbits=-bits), b""
    for kind, size in messages:
        text = {
            "random": draw.randbytes(size),
            "words": b"lorem ipsum %d " % draw.randrange(9) * (size // 14),
            "again": history[-size:] if size else b"",
        }[kind]
        unpacker.decompress(packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH))
        history += text
    seen = window(unpacker, bits)
    assert seen == history[-(1 << bits) :]
    later = zlib.decompressobj(wbits=-bits, zdict=seen) if seen else zlib.decompressobj(wbits=-bits)
    for text in (history[-40_000:], b"something new", history[-300:]):
        sent = packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)
        assert later.decompress(sent) == unpacker.decompress(sent) == text
        # It is taken of one that was itself made with a window, too.
        assert window(later, bits) == window(unpacker, bits)


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": [(b"x", b"1\r\n\r\nGET /evil HTTP/1.1")]},
        {"headers": [(b"x: y\r\nz", b"1")]},
        {"headers": [(b"Content-Length", b"5")]},
        {"headers": [(b"upgrade", b"websocket")]},
        {"target": "/a HTTP/1.1\r\n\r\n"},
        {"method": "GET /evil"},
        {"length": 3, "left": 4},
        {"left": 1},
    ],
)
def test_a_request_that_is_two(changes: dict[str, Any]) -> None:
    """Whoever writes to the queue can put no other request beside it, and no more than there is."""
    sound: dict[str, Any] = {"state": b"", "method": "GET", "target": "/", "headers": [], "status": 200}
    answer = OpenAnswer(**sound)
    assert decode(encode(answer)) == answer
    with pytest.raises(PeerError):
        decode(encode(OpenAnswer(**{**sound, **changes})))
