"""What the library websockets keeps of a connection, taken out of it and built into another.

Its parser takes a frame's header out of what was read before the rest is there, and keeps that in a generator alone. So
that is where it is looked up, when a connection moves and never before: nothing is kept of what passes.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Reversible
from typing import Any, Final

from stillup.wire.deflate_window import window
from stillup.wire.session_format import Deflate, OpenWebSocket

logger = logging.getLogger("uvicorn.error")

_EXTENDED: Final = {126: "!H", 127: "!Q"}
"""The lengths in a frame's second byte that say that the length comes after it, and in which form (RFC 6455, 5.2)."""
_DEFLATE: Final = {"memLevel": 5}
"""As uvicorn has it."""
_SWITCHING: Final = 101
PER_MESSAGE: Final = 16
"""Bytes that a message takes beside its own on the way, at most."""


def is_in_message(conn: Any) -> bool:
    """Whether a message in fragments has begun, and its last fragment has not come."""
    # Before websockets 14 it was called so.
    size = conn.current_size if hasattr(conn, "current_size") else conn.cur_size
    return size is not None


def half_frame(conn: Any) -> bytes:
    """What was read of a frame that is not whole, from its first byte on; empty at a frame's end."""
    unread = bytes(conn.reader.buffer)
    generator = conn.parser
    while generator is not None:
        values = generator.gi_frame.f_locals if generator.gi_frame is not None else {}
        if "read_exact" in values:  # Frame.parse
            return _header(values) + unread
        generator = getattr(generator, "gi_yieldfrom", None)
    return unread


def _header(values: Mapping[str, Any]) -> bytes:
    """What was taken of a frame's header, by the local variables of what parses it."""
    if "head1" not in values:
        return b""
    header = bytes((values["head1"], values["head2"]))
    code, length = values["head2"] & 0x7F, values["length"]
    # An extended length may be the code that announces one; then what was taken last is not the first two bytes.
    if code in _EXTENDED and (length != code or bytes(values["data"]) != header):
        header += struct.pack(_EXTENDED[code], length)
    return header + bytes(values.get("mask_bytes", b""))


def fitting(messages: Reversible[Any], limit: int) -> int:
    """How many messages from the client, the last first, are at most ``limit`` bytes; -1 where that is less than none.

    No more of them are looked at.
    """
    if limit < 0:
        return -1
    count = 0
    for message in reversed(messages):
        text = message.get("text")
        limit -= PER_MESSAGE + (len(message.get("bytes") or b"") if text is None else len(text.encode()))
        if limit < 0:
            break
        count += 1
    return count


def waiting(queued: Iterable[Any]) -> list[tuple[bool, bytes]]:
    """The messages from the client among what an app has not received, as they travel."""
    return [
        (False, bytes(message["bytes"])) if (text := message.get("text")) is None else (True, text.encode())
        for message in queued
        if message["type"] == "websocket.receive"
    ]


def messages(session: OpenWebSocket) -> Iterator[Any]:
    """Those that an app has still to receive."""
    for is_text, data in session.waiting:
        said = {"text": data.decode()} if is_text else {"bytes": data}
        yield {"type": "websocket.receive", **said}


def deflate_of(conn: Any) -> Deflate | None:
    """The compression of a connection that is between two messages; that of what is sent begins anew, as it may."""
    for used in conn.extensions:
        bits, forgets = used.remote_max_window_bits, used.remote_no_context_takeover
        seen = b"" if forgets else window(used.decoder, bits)
        return Deflate(forgets, used.local_no_context_takeover, bits, used.local_max_window_bits, seen)
    return None


def open_conn(max_size: int | None, said: Deflate | None) -> Any:
    """What stands for a connection of the server's side that is open, and between two frames."""
    from websockets.extensions.permessage_deflate import PerMessageDeflate  # noqa: PLC0415 - not every worker has it
    from websockets.protocol import Protocol, Side, State  # noqa: PLC0415

    conn = Protocol(Side.SERVER, state=State.OPEN, max_size=max_size, logger=logger)
    if said is not None:
        deflate = PerMessageDeflate(
            said.remote_no_context_takeover,
            said.local_no_context_takeover,
            said.remote_max_window_bits,
            said.local_max_window_bits,
            dict(_DEFLATE),
        )
        if said.window:
            deflate.decoder = zlib.decompressobj(wbits=-said.remote_max_window_bits, zdict=said.window)
        conn.extensions = [deflate]
    return conn


def request(conn: Any, session: OpenWebSocket) -> Any:
    """The request that a session began with, made again; None if ``conn``, a new one, would not accept it.

    Raises:
        UnicodeError: it has bytes that this version of websockets does not know.
    """
    from websockets.datastructures import Headers  # noqa: PLC0415
    from websockets.http11 import Request  # noqa: PLC0415
    from websockets.version import version  # noqa: PLC0415

    # As it gives them to uvicorn, which makes bytes of them again.
    as_latin = int(version.partition(".")[0]) >= 17  # noqa: PLR2004
    form, errors = ("latin-1", "strict") if as_latin else ("ascii", "surrogateescape")
    made = Request(
        session.target, Headers([(name.decode("ascii"), value.decode(form, errors)) for name, value in session.headers])
    )
    return made if conn.accept(made).status_code == _SWITCHING else None
